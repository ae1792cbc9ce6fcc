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

#define LOOK_MS "2000" /* a look at an operation waits so long; then its progress is shown */
#define POLL_MS 200

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

const char *machine_reason(const json_t *machine)
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

struct doing {
    const char *name, *verb;
    json_t *body;
    struct progress *p;
    json_t **ret;
};

static CO int do_it(struct cli *cli, void *arg, struct err *e)
{
    const struct doing *d = arg;
    enum http_method method = d->verb ? HTTP_M_POST : HTTP_M_DELETE;
    const char *path = machine_path(cli, d->name, d->verb ? d->verb : "");
    struct str text = { 0 };
    json_t *answer;
    int r = 0;

    if (d->body || d->verb)
        r = api_body(cli, d->body ? d->body : json_object(), &text, e);
    if (r == 0)
        r = api_call(cli, method, path, text, &answer, e);
    return r < 0 ? r : machine_settle(cli, d->name, d->p, d->ret, e);
}

CO int machine_do(struct cli *cli, const char *name, const char *verb, json_t *body,
                  struct progress *p, json_t **ret, struct err *e)
{
    struct doing d = { name, verb, body, p, ret };
    int r = watched(cli, do_it, &d, e);

    if (r < 0 && cli->interrupted)
        return machine_interrupted(cli, name, e);
    if (r < 0)
        return r;
    if (*ret && (machine_reason(*ret) || !verb))
        return err_set(e, ERR_INTERNAL, "%s",
                       machine_reason(*ret) ? machine_reason(*ret) : "it is still there");
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
