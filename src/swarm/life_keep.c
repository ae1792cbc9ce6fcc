/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_keep.c — housekeeping of agents: those whose creator died between the row and the
 * workflow get their workflow; keys that are too old go; agents are counted.
 */
#include "base/log.h"
#include "swarm/life_int.h"

enum { KEEP_MS = 60000, AT_ONCE = 500, ORPHAN_MS = 10000 };

/* clang-format off */
static const struct sql sql_orphans = {
    "life orphans",
    "SELECT " LIFE_COLUMNS " FROM agent_swarm_instances a WHERE status = 'provisioning' AND created_at <= ?2 AND NOT EXISTS"
    " (SELECT 1 FROM dbos.workflow_status w WHERE w.workflow_uuid = a.workflow_uuid) LIMIT ?1",
    NULL,
};
static const struct sql sql_sweep = {
    "agent keys sweep",
    "DELETE FROM agent_idempotency WHERE key IN"
    " (SELECT key FROM agent_idempotency WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)",
    NULL,
};
/* clang-format on */

struct orphans {
    struct arena arena;
    struct agent_info *rows;
    size_t n;
    int64_t before_ms;
};

static int take_orphan(struct store_row *row, void *arg, struct err *e)
{
    struct orphans *o = arg;

    life_take_row(row, &o->arena, &o->rows[o->n++]);
    return 0;
}

static int orphans_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct orphans *o = arg;
    const struct sql_arg args[] = { SQL_INT(AT_ONCE), SQL_INT(o->before_ms) };

    arena_done(&o->arena);
    o->n = 0;
    o->rows = arena_alloc(&o->arena, AT_ONCE * sizeof(*o->rows));
    return store_run(tx, &sql_orphans, args, LEN(args), take_orphan, o, e);
}

/* A second start of one id does nothing, so it does not matter who else is at it. */
static CO int adopt(struct life *l, int64_t before_ms, struct err *e)
{
    struct orphans o = { .before_ms = before_ms };
    struct durable_started started;
    int r;

    r = store_read(l->s->conf.store, orphans_body, &o, e);
    for (size_t i = 0; r >= 0 && i < o.n; i++) {
        json_t *request = life_request_json(&o.rows[i]);

        log_info("an agent whose creation was cut off is provisioned", "agent",
                 LOG_SLICE(o.rows[i].id));
        r = life_run(l, OP_PROVISION, o.rows[i].workflow, request, 0, &started, NULL, e);
        json_decref(request);
    }
    arena_done(&o.arena);
    return r < 0 ? r : 0;
}

struct sweep {
    int64_t before_ms, n;
};

static int sweep_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct sweep *sweep = arg;
    const struct sql_arg args[] = { SQL_INT(sweep->before_ms), SQL_INT(AT_ONCE) };
    int r = store_run(tx, &sql_sweep, args, LEN(args), NULL, NULL, e);

    sweep->n = r < 0 ? 0 : store_changed(tx);
    return r;
}

static CO int sweep_keys(struct life *l, struct err *e)
{
    struct sweep sweep = { .before_ms = swarm_now() - LIFE_KEY_MS };
    int r;

    do {
        r = store_do(l->s->conf.store, sweep_body, &sweep, e);
    } while (r >= 0 && sweep.n == AT_ONCE);
    return r < 0 ? r : 0;
}

static CO int keep(struct life *l, int64_t before_ms, struct err *e)
{
    struct life_counts counts;
    int r;

    r = adopt(l, before_ms, e);
    if (r == 0)
        r = sweep_keys(l, e);
    if (r == 0)
        r = life_overview(l, &counts, e);
    if (r < 0)
        return r;
    l->n_agents = 0;
    for (int i = 0; i < AGENT_STATUSES; i++)
        if (i != AGENT_STOPPED)
            l->n_agents += counts.by_status[i];
    return 0;
}

CO int life_keep_house(void *life, struct err *e)
{
    struct life *l = life;
    int64_t young_ms = 0; /* those made before we began have nobody who is about to start them */
    int r;

    for (;; young_ms = ORPHAN_MS) {
        r = keep(l, swarm_now() - young_ms, e);
        if (r == -ERR_CANCELED)
            return 0;
        if (r < 0)
            log_warn("housekeeping of agents failed", "error", LOG_ERR(e));
        if (fiber_sleep(KEEP_MS, e) < 0)
            return 0;
    }
}
