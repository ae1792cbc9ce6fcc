/* SPDX-License-Identifier: MIT */
/* swarm/command_say.c — results of commands as texts for a chat. Pure. */
#include <inttypes.h>

#include "base/secret.h"
#include "swarm/command_int.h"

enum { LINES = 30 }; /* of a list */

struct str command_key(const char *event, int64_t issue, struct str step, struct arena *a)
{
    char hex[2 * SECRET_KEY + 1];

    if (step.n > COMMAND_ID) {
        sha256_hex(step, hex);
        step = str_of(hex);
    }
    return str_of(arena_printf(a, "ntf:%s:%" PRId64 ":" STR_FMT, event, issue, STR_ARG(step)));
}

int64_t command_pr_of(struct str url)
{
    size_t n = 0;
    long long pr;

    while (n < url.n && url.p[url.n - 1 - n] >= '0' && url.p[url.n - 1 - n] <= '9')
        n++;
    if (n == url.n || url.p[url.n - 1 - n] != '/' ||
        int_parse((struct str){ url.p + url.n - n, n }, 1, INT64_MAX, &pr, NULL) < 0)
        return 0;
    return pr;
}

int command_help(struct buf *out, struct err *e)
{
    return buf_add_z(out,
                     "Commands:\n"
                     "work on issue #N\n"
                     "status of issue #N\n"
                     "stop work on issue #N\n"
                     "list agents",
                     e);
}

static int line(const json_t *o, const char *key, const char *label, bool *first, struct buf *out,
                struct err *e)
{
    struct str value = json_member_str(o, key);
    int r;

    if (!value.n)
        return 0;
    r = buf_printf(out, e, "%s%s: " STR_FMT, *first ? "\n\n" : "\n", label, STR_ARG(value));
    *first = false;
    return r;
}

static int say_status(const json_t *result, struct buf *out, struct err *e)
{
    const json_t *tracker = json_object_get(result, "workflow");
    bool first = true;
    int r;

    r = buf_printf(out, e, "Issue #%" JSON_INTEGER_FORMAT ": %s",
                   json_integer_value(json_object_get(result, "issue_number")),
                   json_string_value(json_object_get(result, "status")));
    if (r == 0)
        r = line(tracker, "agent_id", "Agent ID", &first, out, e);
    if (r == 0)
        r = line(tracker, "pr_url", "URL", &first, out, e);
    if (r == 0)
        r = line(tracker, "error", "Error", &first, out, e);
    return r;
}

static int say_stop(const json_t *result, struct buf *out, struct err *e)
{
    return buf_add_str(out, json_member_str(result, "message"), e);
}

/* Work that was under way already, or was stopped while it began. */
static int say_work(const json_t *result, struct buf *out, struct err *e)
{
    bool first = true;
    int r;

    if (!json_is_true(json_object_get(result, "existing")))
        return 0;
    r = buf_printf(out, e, "Issue #%" JSON_INTEGER_FORMAT " is already being worked on: " STR_FMT,
                   json_integer_value(json_object_get(result, "issue_number")),
                   STR_ARG(json_member_str(result, "state")));
    return r < 0 ? r : line(result, "agent_id", "Agent ID", &first, out, e);
}

static int say_list(const json_t *result, struct buf *out, struct err *e)
{
    const json_t *agents = json_object_get(result, "agents"), *agent;
    size_t i, n = json_array_size(agents);
    int r;

    if (!n)
        return buf_add_z(out, "No active agents", e);
    r = buf_printf(out, e, "Active agents: %zu\n", n);
    json_array_foreach(agents, i, agent)
    {
        if (r < 0 || i == LINES)
            break;
        r = buf_printf(out, e, "\n#%" JSON_INTEGER_FORMAT " " STR_FMT,
                       json_integer_value(json_object_get(agent, "issue_number")),
                       STR_ARG(json_member_str(agent, "issue_state")));
    }
    if (r == 0 && n > LINES)
        r = buf_printf(out, e, "\n… and %zu more", n - LINES);
    return r;
}

static int say_help(const json_t *result, struct buf *out, struct err *e)
{
    return buf_add_str(out, json_member_str(result, "message"), e);
}

int command_say(enum command_kind kind, const json_t *result, struct buf *out, struct err *e)
{
    static int (*const says[CMD_KINDS])(const json_t *result, struct buf *out, struct err *e) = {
        [CMD_WORK] = say_work, [CMD_STATUS] = say_status, [CMD_STOP] = say_stop,
        [CMD_LIST] = say_list, [CMD_HELP] = say_help,
    };
    struct str error = json_member_str(result, "error");

    if (json_is_true(json_object_get(result, "success")))
        return says[kind](result, out, e);
    if (str_eq(json_member_str(result, "state"), STR("failed")))
        return 0; /* the notification of the error says it */
    return buf_printf(out, e, "\xe2\x9d\x8c " STR_FMT, STR_ARG(error));
}
