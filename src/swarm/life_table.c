/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_table.c — which operation is allowed in which state, and where it leads. What moves an
 * agent is life_move_tx() and, for the end of a provisioning, life_settle_tx(): both read the row,
 * judge it, and write it only if its version is still the one that was read.
 */
#include <string.h>

#include "swarm/life_int.h"

enum { MOVE_TRIES = 16 }; /* others changed the row between our reading and our writing */

const char *const agent_status_names[AGENT_STATUSES] = { "provisioning", "running", "paused",
                                                         "stopped", "failed" };

/* clang-format off */
#define NO LIFE_NO
#define GO LIFE_GO
#define SAME LIFE_SAME
const struct life_rule life_rules[AGENT_OPS] = {
    /*                provisioning running paused stopped failed     to */
    [OP_PROVISION] = { { SAME,     SAME,   NO,    NO,     GO   }, AGENT_PROVISIONING,
        "Cannot provision agent in '%s' state. Only 'provisioning' or 'failed' agents can be provisioned." },
    [OP_PAUSE]     = { { NO,       GO,     NO,    NO,     NO   }, AGENT_PAUSED,
        "Cannot pause agent in '%s' state. Only 'running' agents can be paused." },
    [OP_RESUME]    = { { NO,       NO,     GO,    NO,     NO   }, AGENT_RUNNING,
        "Cannot resume agent in '%s' state. Only 'paused' agents can be resumed." },
    [OP_HEARTBEAT] = { { NO,       GO,     NO,    NO,     NO   }, -1,
        "Cannot execute heartbeat for agent in '%s' state. Agent must be 'running'." },
    [OP_SETTINGS]  = { { GO,       GO,     GO,    GO,     GO   }, -1, NULL },
    [OP_MESSAGE]   = { { NO,       GO,     NO,    NO,     NO   }, -1,
        "Agent must be provisioned before sending messages" },
    [OP_DELETE]    = { { GO,       GO,     GO,    SAME,   GO   }, AGENT_STOPPED, NULL },
};
#undef NO
#undef GO
#undef SAME

static const struct { const char *name; int64_t ms; } intervals[] = {
    { "30s", 30000 }, { "1m", 60000 }, { "5m", 300000 }, { "15m", 900000 }, { "30m", 1800000 },
    { "1h", 3600000 }, { "2h", 7200000 },
};
const char *const life_intervals[] = { "30s", "1m", "5m", "15m", "30m", "1h", "2h", NULL };
/* clang-format on */

int64_t life_interval_ms(struct str interval)
{
    for (size_t i = 0; i < LEN(intervals); i++)
        if (str_eq_z(interval, intervals[i].name))
            return intervals[i].ms;
    return 0;
}

int agent_status_parse(struct str name, enum agent_status *ret)
{
    for (int i = 0; i < AGENT_STATUSES; i++)
        if (str_eq_z(name, agent_status_names[i])) {
            *ret = (enum agent_status)i;
            return 0;
        }
    return -1;
}

/* The text with the state's name in the place of its %s. */
static int refuse(const char *text, enum agent_status status, struct err *e)
{
    const char *place = strstr(text, "%s");

    if (!place)
        return err_set(e, ERR_CONFLICT, "%s", text);
    return err_set(e, ERR_CONFLICT, "%.*s%s%s", (int)(place - text), text,
                   agent_status_names[status], place + 2);
}

int life_judge(enum agent_op op, enum agent_status status, enum life_verdict *ret, struct err *e)
{
    const struct life_rule *rule = &life_rules[op];

    if (rule->from[status] == LIFE_NO)
        return refuse(rule->conflict, status, e);
    *ret = rule->from[status];
    return 0;
}

/* One try. 0, LIFE_STILL, an error; or 2: somebody was faster. */
static int try_move(struct store_tx *tx, const struct life_step *step, struct arena *a,
                    struct agent_info *ret, struct err *e)
{
    const struct life_rule *rule = &life_rules[step->op];
    enum life_verdict verdict = LIFE_NO;
    struct agent_info row;
    int64_t version;
    int r;

    r = life_find_tx(tx, step->id, a, &row, e);
    if (r < 0)
        return r;
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "Agent " STR_FMT " not found", STR_ARG(step->id));
    r = life_judge(step->op, row.status, &verdict, e);
    if (r < 0)
        return r;
    *ret = row;
    if (verdict == LIFE_SAME)
        return LIFE_STILL;
    version = row.version;
    if (rule->to >= 0)
        row.status = (enum agent_status)rule->to;
    row.updated_ms = step->now_ms;
    if (step->edit)
        step->edit(&row, step->arg);
    r = life_write_tx(tx, &row, version, e);
    if (r == 0)
        *ret = row;
    return r == LIFE_STILL ? 2 : r;
}

int life_move_tx(struct store_tx *tx, const struct life_step *step, struct arena *a,
                 struct agent_info *ret, struct err *e)
{
    for (int i = 0; i < MOVE_TRIES; i++) {
        int r = try_move(tx, step, a, ret, e);

        if (r != 2)
            return r;
    }
    return err_set(e, ERR_CONFLICT, "Agent " STR_FMT " is changed all the time", STR_ARG(step->id));
}

int life_settle_tx(struct store_tx *tx, const struct life_step *step, struct str workflow,
                   enum agent_status to, struct arena *a, struct agent_info *ret, struct err *e)
{
    for (int i = 0; i < MOVE_TRIES; i++) {
        struct agent_info row;
        int r = life_find_tx(tx, step->id, a, &row, e);

        if (r <= 0)
            return r < 0 ? r : LIFE_STILL;
        *ret = row;
        if (row.status != AGENT_PROVISIONING || !str_eq(row.workflow, workflow))
            return LIFE_STILL;
        row.status = to;
        row.updated_ms = step->now_ms;
        if (step->edit)
            step->edit(&row, step->arg);
        r = life_write_tx(tx, &row, ret->version, e);
        if (r == 0)
            *ret = row;
        if (r != LIFE_STILL)
            return r;
    }
    return err_set(e, ERR_CONFLICT, "Agent " STR_FMT " is changed all the time", STR_ARG(step->id));
}
