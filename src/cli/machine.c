/* SPDX-License-Identifier: MIT */
/*
 * cli/machine.c — machines through the hub: an operation is asked for, then watched until it has
 * ended.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "base/time.h"
#include "cli/hub.h"

#define LOOK_MS  "2000" /* a look at an operation waits so long; then its progress is shown */
#define POLL_MS  200
#define READY_MS 60000

const char *agent_path(struct cli *cli, const char *id, const char *suffix)
{
    return api_path(cli, "/agents/", id, suffix);
}

const char *machine_path(struct cli *cli, const char *name, const char *suffix)
{
    return api_path(cli, "/machines/", name, suffix);
}

const char *task_path(struct cli *cli, const char *id, const char *suffix)
{
    return api_path(cli, "/tasks/", id, suffix);
}

struct arena scratch_begin(struct cli *cli)
{
    struct arena kept = cli->arena;

    cli->arena = (struct arena){ 0 };
    return kept;
}

void scratch_end(struct cli *cli, struct arena kept)
{
    arena_done(&cli->arena);
    cli->answer = (struct str){ 0 };
    cli->arena = kept;
}

CO int hub_get(struct cli *cli, const char *path, json_t **ret, struct err *e)
{
    int r = api_call(cli, HTTP_M_GET, path, (struct str){ 0 }, ret, e);

    if (r < 0 && cli->refused && cli->status == 404) {
        cli->refused = false;
        *ret = NULL;
        return 0;
    }
    return r;
}

/* --- looking --- */

CO int machine_ask(struct cli *cli, const char *name, json_t **ret, struct err *e)
{
    json_t *answer;
    int r = hub_get(cli, machine_path(cli, name, ""), &answer, e);

    if (r == 0)
        *ret = answer ? json_object_get(answer, "machine") : NULL;
    return r;
}

bool machine_busy(const json_t *machine)
{
    static const char *const states[] = { "creating",     "starting",  "stopping",
                                          "snapshotting", "restoring", "destroying" };
    const char *operation = json_string_value(json_object_get(machine, "operation"));
    const char *state = json_string_value(json_object_get(machine, "state"));

    if (operation && *operation)
        return true;
    for (size_t i = 0; state && i < LEN(states); i++)
        if (strcmp(state, states[i]) == 0)
            return true;
    return false;
}

static const char *reason_of(const json_t *machine)
{
    const char *reason = json_string_value(json_object_get(machine, "reason"));

    return reason && *reason ? reason : NULL;
}

CO int machine_settle(struct cli *cli, const char *name, struct progress *p, json_t **ret,
                      struct err *e)
{
    const char *path = machine_path(cli, name, "?wait=" LOOK_MS), *step;
    json_t *answer, *machine;
    int r;

    for (;;) {
        r = hub_get(cli, path, &answer, e);
        if (r < 0)
            return r;
        machine = answer ? json_object_get(answer, "machine") : NULL;
        if (!machine || !machine_busy(machine)) {
            *ret = machine;
            return 0;
        }
        step = json_string_value(json_object_get(machine, "progress"));
        progress_step(p, "%s: %s", name, step && *step ? step : member_text(cli, machine, "state"));
        r = fiber_sleep(POLL_MS, e);
        if (r < 0)
            return r;
    }
}

CO int machine_do(struct cli *cli, const char *name, const char *verb, json_t *body,
                  struct progress *p, json_t **ret, struct err *e)
{
    enum http_method method = verb ? HTTP_M_POST : HTTP_M_DELETE;
    struct str text = { 0 };
    json_t *answer;
    int r = 0;

    if (body || verb)
        r = api_body(cli, body ? body : json_object(), &text, e);
    if (r == 0)
        r = api_call(cli, method, machine_path(cli, name, verb ? verb : ""), text, &answer, e);
    if (r == 0)
        r = machine_settle(cli, name, p, ret, e);
    if (r < 0)
        return r;
    if (*ret && (reason_of(*ret) || !verb))
        return err_set(e, ERR_INTERNAL, "%s",
                       reason_of(*ret) ? reason_of(*ret) : "it is still there");
    if (!*ret && verb)
        return err_set(e, ERR_NOT_FOUND, "machine '%s' is gone", name);
    return 0;
}

CO int agent_await(struct cli *cli, const char *name, long long ms, struct err *e)
{
    uint64_t deadline = deadline_in(ms);
    const char *status;
    json_t *answer;
    int r;

    for (;;) {
        r = hub_get(cli, agent_path(cli, name, "/status"), &answer, e);
        if (r < 0)
            return r;
        status = json_string_value(json_object_get(json_object_get(answer, "agent"), "status"));
        if (status && strcmp(status, "online") == 0)
            return 0;
        if (now_ms() >= deadline)
            return err_set(e, ERR_TIMEOUT, "agent '%s' is not online after %lld s", name,
                           ms / 1000);
        r = fiber_sleep(POLL_MS, e);
        if (r < 0)
            return r;
    }
}

/* --- creating --- */

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

/* Until it runs and its agent has said hello. */
static CO int create_it(struct cli *cli, const struct create_opts *o, struct str body,
                        struct progress *p, bool *ret_begun, json_t **ret, struct err *e)
{
    json_t *answer;
    int r = api_call(cli, HTTP_M_POST, "/machines", body, &answer, e);

    *ret_begun = r == 0;
    if (r == 0)
        r = machine_settle(cli, o->name, p, ret, e);
    if (r < 0)
        return r;
    if (!*ret)
        return err_set(e, ERR_NOT_FOUND, "the machine is gone");
    if (!str_eq_z(json_member_str(*ret, "state"), "running"))
        return err_set(e, ERR_INTERNAL, "%s",
                       reason_of(*ret) ? reason_of(*ret) : member_text(cli, *ret, "state"));
    return agent_await(cli, o->name, READY_MS, e);
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

CO int machine_create(struct cli *cli, const struct create_opts *o, struct err *e)
{
    AUTO(progress_end) struct progress p = { .cli = cli };
    json_t *body = json_object(), *profile = NULL, *machine = NULL;
    bool begun = false;
    struct str text;
    int r = 0;

    if (o->profile)
        r = profile_load(cli, o->profile, &profile, e);
    if (r == 0)
        r = create_body(cli, o, profile, body, e);
    if (r < 0) {
        json_decref(body);
        return r;
    }
    r = api_body(cli, body, &text, e);
    if (r < 0)
        return r;
    progress_start(&p, cli, "Creating agent %s...", o->name);
    r = create_it(cli, o, text, &p, &begun, &machine, e);
    if (r < 0) {
        if (begun)
            roll_back(cli, o->name, &p);
        progress_fail(&p, "Failed to create agent");
        return r;
    }
    if (profile)
        progress_end(&p);
    r = give_profile(cli, o, profile, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(machine, e);
    progress_done(&p, "Agent %s created successfully", o->name);
    if (!cli->vm)
        printf("created %s (%s)\n", o->name, cell(cli, machine, "driver"));
    return 0;
}

/* --- destroying --- */

int confirm(const char *question, struct err *e)
{
    char line[64];

    printf("%s (y/N) ", question);
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin)) {
        printf("\n");
        return err_set(e, ERR_CANCELED, "Aborted: no answer");
    }
    line[strcspn(line, "\r\n")] = '\0';
    return strcmp(line, "y") == 0 || strcmp(line, "Y") == 0;
}

/* An agent that is no machine of ours: it is only deregistered. */
static CO int deregister(struct cli *cli, const char *name, struct progress *p, struct err *e)
{
    json_t *answer;
    int r = api_call(cli, HTTP_M_DELETE, agent_path(cli, name, ""), (struct str){ 0 }, &answer, e);

    if (r < 0)
        return r;
    progress_warn(p, "%s is no machine of this hub: its agent has been deregistered, nothing else",
                  name);
    return 0;
}

CO int machine_destroy(struct cli *cli, const char *name, bool force, struct err *e)
{
    AUTO(progress_end) struct progress p = { .cli = cli };
    AUTO(json_decref) json_t *said = NULL;
    json_t *machine;
    int r = 1;

    if (!force)
        r = confirm(arena_printf(&cli->arena, "Are you sure you want to destroy agent %s?", name),
                    e);
    if (r == 0)
        printf("Aborted\n");
    if (r <= 0)
        return r;
    progress_start(&p, cli, "Destroying agent %s...", name);
    r = machine_ask(cli, name, &machine, e);
    if (r == 0 && !machine)
        r = deregister(cli, name, &p, e);
    else if (r == 0)
        r = machine_do(cli, name, NULL, NULL, &p, &machine, e);
    if (r < 0) {
        progress_fail(&p, "Failed to destroy agent %s", name);
        return r;
    }
    if (cli->json) {
        said = json_pack("{s:s}", "destroyed", name);
        return print_json(said, e);
    }
    progress_done(&p, "Agent %s destroyed successfully", name);
    if (!cli->vm)
        printf("destroyed %s\n", name);
    return 0;
}
