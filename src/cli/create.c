/* SPDX-License-Identifier: MIT */
/*
 * cli/create.c — a machine is made: what the command line and a profile say of it, the wait until
 * its agent is there, the profile's steps; and what becomes of one that could not be made.
 */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cli/hub.h"

#define READY_MS 60000

/* "a, b" as an array of texts. */
static json_t *list_of(const char *text)
{
    json_t *list = json_array();
    struct str rest = str_of(text), part;

    while (str_split(&rest, ',', &part)) {
        part = str_trim(part);
        if (part.n)
            json_array_append_new(list, json_stringn(part.p, part.n));
    }
    return list;
}

static int put_env(json_t *env, const char *text, struct err *e)
{
    struct str rest = str_of(text), part;

    while (str_split(&rest, ',', &part)) {
        const char *equals = memchr(part.p, '=', part.n);
        size_t n = equals ? (size_t)(equals - part.p) : 0;

        if (!n)
            return err_set(e, ERR_INVALID, "--env wants NAME=VALUE, not '" STR_FMT "'",
                           STR_ARG(part));
        json_object_setn_new(env, part.p, n, json_stringn(equals + 1, part.n - n - 1));
    }
    return 0;
}

/* What the profile says and the command line does not. */
static const char *or_profile(struct cli *cli, const char *given, const json_t *profile,
                              const char *key, const char *fallback)
{
    const json_t *resources = json_object_get(profile, "resources");
    const json_t *value = json_object_get(resources, key);

    if (!value && strcmp(key, "cpu") == 0)
        value = json_object_get(resources, "cpus");
    if (given)
        return given;
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_integer(value))
        return arena_printf(&cli->arena, "%lld", (long long)json_integer_value(value));
    return fallback;
}

static int create_body(struct cli *cli, const struct create_opts *o, const json_t *profile,
                       json_t *body, struct err *e)
{
    json_t *env = json_deep_copy(json_object_get(profile, "environment"));
    const char *cpus = or_profile(cli, o->cpus, profile, "cpu", cli->vm ? "2" : NULL);
    long long n;
    int r = 0;

    if (!json_is_object(env)) {
        json_decref(env);
        env = json_object();
    }
    if (o->env)
        r = put_env(env, o->env, e);
    if (json_object_size(env))
        json_object_set(body, "env", env);
    json_decref(env);
    if (r == 0 && cpus && int_parse(str_of(cpus), 1, 4096, &n, e) < 0)
        r = err_set(e, ERR_INVALID, "--cpu must be a number of cores, not '%s'", cpus);
    if (r < 0)
        return r;
    if (cpus)
        json_object_set_new(body, "cpus", json_integer(n));
    put_text(body, "name", o->name);
    put_text(body, "driver", o->driver);
    put_text(body, "type",
             o->type ? o->type
                     : or_profile(cli, NULL, profile, "type", cli->vm ? "generic" : NULL));
    put_text(body, "memory", or_profile(cli, o->memory, profile, "memory", cli->vm ? "4G" : NULL));
    put_text(body, "disk", or_profile(cli, o->disk, profile, "disk", cli->vm ? "20G" : NULL));
    put_text(body, "image", o->image);
    put_text(body, "hubUrl", o->hub_url);
    if (o->capabilities && *o->capabilities)
        json_object_set_new(body, "capabilities", list_of(o->capabilities));
    if (o->allow)
        json_object_set_new(body, "allow", list_of(o->allow));
    return 0;
}

struct creating {
    const struct create_opts *o;
    const json_t *profile;
    struct str body;
    struct progress *p;
    json_t *machine;
    bool begun, made;
};

/* Until it runs and its agent has said hello. */
static CO int create_it(struct cli *cli, struct creating *c, struct err *e)
{
    const char *name = c->o->name;
    json_t *answer;
    int r = api_call(cli, HTTP_M_POST, "/machines", c->body, &answer, e);

    c->begun = r == 0;
    if (r == 0)
        r = machine_settle(cli, name, c->p, &c->machine, e);
    if (r < 0)
        return r;
    if (!c->machine)
        return err_set(e, ERR_NOT_FOUND, "the machine is gone");
    if (!str_eq_z(json_member_str(c->machine, "state"), "running"))
        return err_set(e, ERR_INTERNAL, "%s",
                       machine_reason(c->machine) ? machine_reason(c->machine)
                                                  : member_text(cli, c->machine, "state"));
    return agent_await(cli, name, READY_MS, e);
}

/* What could not be made does not stay. */
static CO void roll_back(struct cli *cli, const char *name, struct progress *p)
{
    json_t *machine;
    struct err e;

    progress_step(p, "%s: removing what was made", name);
    if (machine_do(cli, name, NULL, NULL, p, &machine, &e) < 0)
        progress_warn(p, "%s stays, for it could not be removed: %s", name, e.msg);
}

static CO int give_profile(struct cli *cli, const struct create_opts *o, const json_t *profile,
                           struct err *e)
{
    size_t failed = 0;
    int r = profile ? profile_apply(cli, o->name, profile, &failed, e) : 0;

    if (r == 0 && failed)
        r = err_set(e, ERR_INTERNAL, "%zu steps of profile '%s' failed; the machine stays", failed,
                    o->profile);
    return r;
}

static CO int create_whole(struct cli *cli, void *arg, struct err *e)
{
    struct creating *c = arg;
    int r = create_it(cli, c, e);

    if (r < 0)
        return r;
    c->made = true;
    if (c->profile)
        progress_end(c->p);
    return give_profile(cli, c->o, c->profile, e);
}

/* An interrupt leaves what there is; anything else removes what is no machine yet. */
static CO int not_created(struct cli *cli, struct creating *c, struct err *e)
{
    const char *name = c->o->name;
    int r = -e->code;

    if (cli->interrupted) {
        progress_end(c->p);
        r = machine_interrupted(cli, name, e);
        if (c->profile)
            fprintf(stderr, "profile '%s' has not been applied to the end\n", c->o->profile);
        return r;
    }
    if (c->begun && !c->made)
        roll_back(cli, name, c->p);
    if (!c->made)
        progress_fail(c->p, "Failed to create agent");
    return r;
}

static int create_text(struct cli *cli, const struct create_opts *o, const json_t *profile,
                       struct str *ret, struct err *e)
{
    json_t *body = json_object();
    int r = create_body(cli, o, profile, body, e);

    if (r == 0)
        return api_body(cli, body, ret, e);
    json_decref(body);
    return r;
}

CO int machine_create(struct cli *cli, const struct create_opts *o, struct err *e)
{
    AUTO(progress_end) struct progress p = { .cli = cli };
    struct creating c = { .o = o, .p = &p };
    json_t *profile = NULL;
    int r = 0;

    if (o->profile)
        r = profile_load(cli, o->profile, &profile, e);
    if (r == 0)
        r = create_text(cli, o, profile, &c.body, e);
    if (r < 0)
        return r;
    c.profile = profile;
    progress_start(&p, cli, "Creating agent %s...", o->name);
    r = watched(cli, create_whole, &c, e);
    if (r < 0)
        return not_created(cli, &c, e);
    if (cli->json)
        return print_json(c.machine, e);
    progress_done(&p, "Agent %s created successfully", o->name);
    if (!cli->vm)
        printf("created %s (%s)\n", o->name, cell(cli, c.machine, "driver"));
    return 0;
}
