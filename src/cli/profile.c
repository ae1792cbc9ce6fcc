/* SPDX-License-Identifier: MIT */
/*
 * cli/profile.c — profiles: what a machine is to have. The user's own are files in
 * ~/.config/chela/profiles and win over those that come with the program.
 *
 * {name, description, resources:{cpu,memory,disk}, environment:{}, files:[{path,content,mode}],
 *  packages:[], repositories:[{url,destination,branch}],
 * setup_tasks:[{type,command,description,…}]}
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "cli/hub.h"
#include "cli/input.h"

#define PROFILE_MAX      (4 * MIB)
#define PROFILE_NAME_MAX 64

static const char *profiles_dir(struct cli *cli)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    if (config && *config == '/')
        return arena_printf(&cli->arena, "%s/chela/profiles", config);
    return arena_printf(&cli->arena, "%s/.config/chela/profiles", home ? home : "");
}

static int name_check(const char *name, struct err *e)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    if (!n || name[n] || n > PROFILE_NAME_MAX || name[0] == '.')
        return err_set(e, ERR_INVALID, "'%s' is no name of a profile", name);
    return 0;
}

static const char *own_path(struct cli *cli, const char *name)
{
    return arena_printf(&cli->arena, "%s/%s.json", profiles_dir(cli), name);
}

static const char *builtin_text(const char *name)
{
    for (const struct profile_builtin *b = profile_builtins; b->name; b++)
        if (strcmp(b->name, name) == 0)
            return b->text;
    return NULL;
}

static int parse(struct cli *cli, struct str text, const char *what, json_t **ret, struct err *e)
{
    int r = json_parse(text, 64, &cli->arena, ret, NULL, e);

    if (r == 0 && !json_is_object(*ret))
        r = err_set(e, ERR_INVALID, "not an object");
    return r < 0 ? err_wrap(e, "profile '%s'", what) : 0;
}

int profile_load(struct cli *cli, const char *name, json_t **ret, struct err *e)
{
    bool file = strchr(name, '/') || str_ends(str_of(name), STR(".json"));
    const char *path = file ? name : own_path(cli, name), *text = file ? NULL : builtin_text(name);
    struct str bytes;
    int r = file ? 0 : name_check(name, e);

    if (r < 0)
        return r;
    if (file || access(path, F_OK) == 0) {
        r = input_read(cli, path, PROFILE_MAX, &bytes, e);
        return r < 0 ? err_wrap(e, "profile") : parse(cli, bytes, name, ret, e);
    }
    if (!text)
        return err_set(e, ERR_NOT_FOUND, "no profile '%s'", name);
    return parse(cli, str_of(text), name, ret, e);
}

/* --- list, show, create, delete --- */

static void add_row(struct cli *cli, struct table *table, const char *name, const json_t *profile,
                    const char *where)
{
    const json_t *size = json_object_get(profile, "resources");

    table_cell(table, "%s", name);
    table_cell(table, "%s", value_text(cli, json_object_get(size, "cpu")));
    table_cell(table, "%s", cell(cli, size, "memory"));
    table_cell(table, "%s", cell(cli, size, "disk"));
    table_cell(table, "%s", where);
    table_cell(table, "%s", cell(cli, profile, "description"));
}

static int is_profile(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && str_ends(str_of(entry->d_name), STR(".json"));
}

static void add(struct cli *cli, struct table *table, json_t *list, const char *name,
                const char *where)
{
    struct err unread;
    json_t *profile;

    if (profile_load(cli, name, &profile, &unread) < 0) {
        fprintf(stderr, "warning: %s\n", unread.msg);
        return;
    }
    add_row(cli, table, name, profile, where);
    json_array_append_new(
        list, json_pack("{s:s, s:s, s:O}", "name", name, "source", where, "profile", profile));
}

int profile_list(struct cli *cli, struct err *e)
{
    static const char *const titles[] = {
        "NAME", ">CPU", "MEMORY", "DISK", "FROM", "~DESCRIPTION"
    };
    struct table *table = table_new(titles, LEN(titles));
    AUTO(json_decref) json_t *said = json_object();
    json_t *list = json_array();
    struct dirent **own = NULL;
    int n = scandir(profiles_dir(cli), &own, is_profile, alphasort);

    for (const struct profile_builtin *b = profile_builtins; b->name; b++)
        if (access(own_path(cli, b->name), F_OK) < 0)
            add(cli, table, list, b->name, "chela");
    for (int i = 0; i < n; i++) {
        size_t len = strlen(own[i]->d_name) - strlen(".json");

        add(cli, table, list, arena_strndup(&cli->arena, own[i]->d_name, len), "own");
        free(own[i]);
    }
    free(own);
    json_object_set_new(said, "profiles", list);
    if (!cli->json)
        return table_print(table, e);
    table_free(table);
    return print_json(said, e);
}

int profile_show(struct cli *cli, const char *name, struct err *e)
{
    json_t *profile;
    char *text;
    int r = profile_load(cli, name, &profile, e);

    if (r < 0)
        return r;
    if (cli->json)
        return print_json(profile, e);
    text = json_dumps(profile, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    printf("%s\n", text ? text : "");
    free(text);
    return 0;
}

static int store(struct cli *cli, const char *name, const json_t *profile, bool force,
                 struct err *e)
{
    const char *path = own_path(cli, name);
    int r = make_dirs(profiles_dir(cli), 0777, e);

    if (r < 0)
        return r;
    if (!force && access(path, F_OK) == 0)
        return err_set(e, ERR_CONFLICT, "profile '%s' exists: --force replaces it", name);
    if (json_dump_file(profile, path, JSON_INDENT(2)) < 0)
        return err_sys(e, "write '%s'", path);
    return 0;
}

int profile_create(struct cli *cli, const struct profile_opts *o, struct err *e)
{
    AUTO(json_decref) json_t *profile = NULL;
    struct str bytes;
    json_t *from = NULL, *size;
    long long cpu = 2;
    int r = name_check(o->name, e);

    if (r == 0 && o->from_file)
        r = input_read(cli, o->from_file, PROFILE_MAX, &bytes, e);
    if (r == 0 && o->from_file)
        r = parse(cli, bytes, o->from_file, &from, e);
    if (r == 0 && o->cpu && int_parse(str_of(o->cpu), 1, 4096, &cpu, e) < 0)
        r = err_wrap(e, "--cpu");
    if (r < 0)
        return r;
    profile = from ? json_deep_copy(from)
                   : json_pack("{s:s, s:s, s:{s:I, s:s, s:s}, s:{}, s:[], s:[], s:[], s:[]}",
                               "name", o->name, "description", "", "resources", "cpu",
                               (json_int_t)2, "memory", "4G", "disk", "20G", "environment", "files",
                               "packages", "repositories", "setup_tasks");
    json_object_set_new(profile, "name", json_string(o->name));
    put_text(profile, "description", o->description);
    size = json_object_get(profile, "resources");
    if (!json_is_object(size)) {
        json_object_set_new(profile, "resources", json_object());
        size = json_object_get(profile, "resources");
    }
    if (o->cpu)
        json_object_set_new(size, "cpu", json_integer(cpu));
    put_text(size, "memory", o->memory);
    put_text(size, "disk", o->disk);
    r = store(cli, o->name, profile, o->force, e);
    if (r < 0)
        return r;
    printf("created profile %s (%s)\n", o->name, own_path(cli, o->name));
    return 0;
}

int profile_delete(struct cli *cli, const char *name, bool force, struct err *e)
{
    int r = name_check(name, e);

    if (r < 0)
        return r;
    if (access(own_path(cli, name), F_OK) < 0)
        return err_set(e, builtin_text(name) ? ERR_INVALID : ERR_NOT_FOUND,
                       builtin_text(name)
                           ? "profile '%s' comes with the program: it cannot be deleted"
                           : "no profile '%s'",
                       name);
    if (!force)
        return err_set(e, ERR_INVALID, "use --force to delete profile '%s'", name);
    if (unlink(own_path(cli, name)) < 0)
        return err_sys(e, "delete profile '%s'", name);
    printf("deleted profile %s\n", name);
    return 0;
}
