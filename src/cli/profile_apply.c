/* SPDX-License-Identifier: MIT */
/*
 * cli/profile_apply.c — a profile's packages, files, repositories and set-up tasks, each a task of
 * the machine's agent. A step that fails is told and does not stop the others. What needs root is
 * done with sudo unless the agent is root; an agent that may not says so, and that is the failure
 * that is shown.
 */
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "cli/hub.h"

#define STEP_MS (15 * 60 * 1000)

struct applying {
    struct cli *cli;
    const char *agent;
    bool root; /* the agent is */
    bool sudo; /* it may become it */
    size_t done, failed;
    struct progress progress;
};

/* Tell what became of a step. 0 also when it failed; <0: the hub is gone. */
static int note(struct applying *a, int r, const char *what, const struct err *why, struct err *e)
{
    if (r < 0 && a->cli->no_daemon) {
        *e = *why;
        return r;
    }
    a->cli->refused = false;
    a->done++;
    if (r == 0)
        return 0;
    a->failed++;
    progress_warn(&a->progress, "failed: %s: %s", what, why->msg);
    return 0;
}

static CO int do_step(struct applying *a, json_t *body, const char *what, struct err *e)
{
    struct err why = { 0 };
    json_t *result;
    int r;

    progress_step(&a->progress, "%s: %s", a->agent, what);
    if (!json_object_get(body, "timeout"))
        json_object_set_new(body, "timeout", json_integer(STEP_MS));
    r = task_result(a->cli, a->agent, body, &result, &why);
    return note(a, r, what, &why, e);
}

static json_t *command(struct applying *a, const char *text, bool root)
{
    json_t *body = json_pack("{s:s, s:s}", "type", "exec", "command", text);

    if (root && !a->root) {
        json_object_set_new(body, "sudo", json_true());
        json_object_set_new(body, "allowSudo", json_true());
    }
    return body;
}

static CO int ask_root(struct applying *a, struct err *e)
{
    json_t *result;
    int r = task_result(a->cli, a->agent, command(a, "id -u", false), &result, e);

    struct err refused;

    if (r < 0)
        return err_wrap(e, "agent '%s'", a->agent);
    a->root = str_eq_z(str_trim(json_member_str(result, "stdout")), "0");
    a->sudo =
        !a->root && task_result(a->cli, a->agent, command(a, "true", true), &result, &refused) == 0;
    a->cli->refused = false;
    return 0;
}

static CO int packages(struct applying *a, const json_t *list, struct err *e)
{
    const char *install = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q -- %s";
    struct arena *arena = &a->cli->arena;
    struct err why = { 0 };
    int r = 0;

    if (json_array_size(list) && !a->root && !a->sudo)
        return note(a, err_set(&why, ERR_FORBIDDEN, "the agent is not root and may not use sudo"),
                    "packages", &why, e);
    if (json_array_size(list))
        r = do_step(a, command(a, "apt-get update -q", true), "apt-get update", e);
    for (size_t i = 0; r == 0 && i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));

        if (name)
            r = do_step(a, command(a, arena_printf(arena, install, shell_word(a->cli, name)), true),
                        arena_printf(arena, "package %s", name), e);
    }
    return r;
}

/* By the agent itself, or where it may not, through sudo. */
static CO int put_file(struct applying *a, const json_t *file, struct err *e)
{
    const char *path = json_string_value(json_object_get(file, "path"));
    struct str content = json_member_str(file, "content");
    const char *mode = json_string_value(json_object_get(file, "mode"));
    const char *what = arena_printf(&a->cli->arena, "file %s", path ? path : "?");
    struct err why = { 0 };
    json_t *result, *body;
    const char *text;
    int r;

    if (!path || !content.p)
        return note(a, err_set(&why, ERR_INVALID, "it has no path or no content"), what, &why, e);
    progress_step(&a->progress, "%s: %s", a->agent, what);
    body = json_pack("{s:s, s:s, s:s#}", "type", "file:write", "filePath", path, "content",
                     content.p, (int)content.n);
    if (mode)
        json_object_set_new(body, "mode", json_integer((json_int_t)strtoul(mode, NULL, 8)));
    r = task_result(a->cli, a->agent, body, &result, &why);
    if (r < 0 && a->sudo && (strstr(why.msg, "EACCES") || strstr(why.msg, "EPERM"))) {
        text = arena_printf(&a->cli->arena,
                            "printf %%s %s | base64 -d | install -D -m %s /dev/stdin %s",
                            base64_encode(content, &a->cli->arena).p, mode ? mode : "0644",
                            shell_word(a->cli, path));
        r = task_result(a->cli, a->agent, command(a, text, true), &result, &why);
    }
    return note(a, r, what, &why, e);
}

static CO int repository(struct applying *a, const json_t *row, struct err *e)
{
    const char *url = json_string_value(json_object_get(row, "url"));
    const char *to = json_string_value(json_object_get(row, "destination"));
    const char *what = arena_printf(&a->cli->arena, "repository %s", url ? url : "?");
    struct err why = { 0 };
    json_t *body;

    if (!url || !to)
        return note(a, err_set(&why, ERR_INVALID, "it has no url or no destination"), what, &why,
                    e);
    body = json_pack("{s:s, s:s, s:s}", "type", "git:clone", "repo", url, "destination", to);
    put_text(body, "branch", json_string_value(json_object_get(row, "branch")));
    return do_step(a, body, what, e);
}

static CO int set_up(struct applying *a, const json_t *row, struct err *e)
{
    const char *what = json_string_value(json_object_get(row, "description"));
    json_t *body;

    if (!json_is_object(row))
        return 0;
    body = json_deep_copy(row);
    json_object_del(body, "description");
    if (a->root)
        json_object_del(body, "sudo");
    else if (json_is_true(json_object_get(body, "sudo")))
        json_object_set_new(body, "allowSudo", json_true());
    if (!json_object_get(body, "type"))
        json_object_set_new(body, "type", json_string("exec"));
    return do_step(a, body, what ? what : value_text(a->cli, json_object_get(row, "command")), e);
}

CO int profile_apply(struct cli *cli, const char *agent, const json_t *profile, size_t *ret_failed,
                     struct err *e)
{
    struct applying a = { .cli = cli, .agent = agent };
    const json_t *files = json_object_get(profile, "files");
    const json_t *repositories = json_object_get(profile, "repositories");
    const json_t *tasks = json_object_get(profile, "setup_tasks");
    int r;

    progress_start(&a.progress, cli, "%s: applying the profile", agent);
    r = ask_root(&a, e);
    if (r == 0)
        r = packages(&a, json_object_get(profile, "packages"), e);
    for (size_t i = 0; r == 0 && i < json_array_size(files); i++)
        r = put_file(&a, json_array_get(files, i), e);
    for (size_t i = 0; r == 0 && i < json_array_size(repositories); i++)
        r = repository(&a, json_array_get(repositories, i), e);
    for (size_t i = 0; r == 0 && i < json_array_size(tasks); i++)
        r = set_up(&a, json_array_get(tasks, i), e);
    if (r == 0 && !a.failed)
        progress_done(&a.progress, "Profile applied: %zu steps", a.done);
    progress_end(&a.progress);
    *ret_failed = a.failed;
    return r;
}
