/* SPDX-License-Identifier: MIT */
/*
 * Ended tasks go after hub.task_keep, and when hub.task_keep_rows newer ones of their agent have
 * ended: in small batches, so that nobody waits for long behind them. A position is about the
 * microsecond of acceptance, so what has ended before a moment is among the rows below it.
 */
#include <stdlib.h>

#include "base/log.h"
#include "hub/task_int.h"

#define LOOK_MS    2000
#define BATCH      200
#define PAUSE_MS   20
#define SLACK      4 /* a quarter more than is kept may be there */
#define COUNTS_MAX 100000

/* clang-format off */
static const struct sql sql_old = { /* ?1 ended before, ms ?2 position below ?3 after ?4 */
    "tasks too old",
    "DELETE FROM hub_tasks WHERE position IN (SELECT position FROM hub_tasks WHERE position < ?2"
    " AND completed_at < ?1 ORDER BY position LIMIT ?3)", NULL,
};
static const struct sql sql_many = { /* ?1 agent ?2 kept ?3 at most */
    "tasks too many",
    "DELETE FROM hub_tasks WHERE position IN (SELECT position FROM hub_tasks WHERE agent_id = ?1"
    " AND completed_at IS NOT NULL AND position <= (SELECT position FROM hub_tasks"
    "  WHERE agent_id = ?1 AND completed_at IS NOT NULL ORDER BY position DESC LIMIT 1 OFFSET ?2)"
    " ORDER BY position LIMIT ?3)", NULL,
};
static const struct sql sql_counts = {
    "ended tasks of agents",
    "SELECT agent_id, count(*) FROM hub_tasks WHERE completed_at IS NOT NULL GROUP BY agent_id"
    " LIMIT ?1", NULL,
};
/* clang-format on */

struct age {
    struct tasks *t;
    struct str agent;
    int64_t before_ms, keep, gone;
};

static int old_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct age *age = arg;
    const struct sql_arg args[] = {
        SQL_INT(age->before_ms),
        SQL_INT(age->before_ms * 1000),
        SQL_INT(BATCH),
    };
    int r = store_run(tx, &sql_old, args, LEN(args), NULL, NULL, e);

    age->gone = r >= 0 ? store_changed(tx) : 0;
    return r;
}

static int many_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct age *age = arg;
    const struct sql_arg args[] = { SQL_STR(age->agent), SQL_INT(age->keep), SQL_INT(BATCH) };
    int r = store_run(tx, &sql_many, args, LEN(args), NULL, NULL, e);

    age->gone = r >= 0 ? store_changed(tx) : 0;
    return r;
}

static CO int drop_old(struct tasks *t, struct err *e)
{
    struct age age = { .t = t, .gone = BATCH };
    int r = 0;

    while (r >= 0 && age.gone == BATCH) {
        age.before_ms = hub_now() - t->set->task_keep_ms;
        r = store_do(t->store, old_body, &age, e);
        if (r >= 0)
            r = fiber_sleep(PAUSE_MS, e);
    }
    return r;
}

static CO int drop_many(struct tasks *t, struct task_agent *a, struct err *e)
{
    struct age age = { .t = t, .gone = BATCH, .agent = a->node.key };
    int r = 0;

    while (r >= 0 && age.gone == BATCH) {
        age.keep = t->set->task_keep_rows;
        r = store_do(t->store, many_body, &age, e);
        a->n_ended -= age.gone;
        if (r >= 0)
            r = fiber_sleep(PAUSE_MS, e);
    }
    if (r >= 0)
        a->n_ended = a->n_ended > age.keep ? age.keep : a->n_ended;
    return r;
}

/* Agents are never freed while we run, but the map grows while we wait. */
static CO int drop_where_many(struct tasks *t, struct err *e)
{
    struct task_agent **over = xcalloc(t->agents.n + 1, sizeof(struct task_agent *));
    int64_t keep = t->set->task_keep_rows;
    size_t n = 0;
    int r = 0;

    for (size_t i = 0; i < t->agents.n_slots; i++) {
        for (struct strmap_node *node = t->agents.slots[i]; node; node = node->next) {
            struct task_agent *a = container_of(node, struct task_agent, node);

            if (a->n_ended > keep + keep / SLACK)
                over[n++] = a;
        }
    }
    for (size_t i = 0; r >= 0 && i < n; i++)
        r = drop_many(t, over[i], e);
    free(over);
    return r;
}

struct counts {
    struct arena arena;
    size_t n;
    struct {
        struct str agent;
        int64_t n;
    } v[COUNTS_MAX];
};

static int take_count(struct store_row *row, void *arg, struct err *e)
{
    struct counts *c = arg;

    c->v[c->n].agent = arena_str(&c->arena, row_str(row, 0));
    c->v[c->n++].n = row_int(row, 1);
    return c->n == COUNTS_MAX;
}

static int counts_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct counts *c = arg;
    const struct sql_arg args[] = { SQL_INT(COUNTS_MAX) };

    c->n = 0;
    arena_reset(&c->arena);
    return store_run(tx, &sql_counts, args, LEN(args), take_count, c, e);
}

static CO int count(struct tasks *t, struct err *e)
{
    struct counts *c = xcalloc(1, sizeof(*c));
    int r = store_read(t->store, counts_body, c, e);

    for (size_t i = 0; r >= 0 && i < c->n; i++)
        task_agent_get(t, c->v[i].agent)->n_ended += c->v[i].n;
    arena_done(&c->arena);
    free(c);
    return r;
}

CO int task_age_chore(void *arg, struct err *e)
{
    struct tasks *t = arg;
    int r = count(t, e);

    while (r != -ERR_CANCELED) {
        r = drop_where_many(t, e);
        if (r >= 0)
            r = drop_old(t, e);
        if (r < 0 && r != -ERR_CANCELED)
            log_warn("ended tasks could not be cleared away", "error", LOG_ERR(e));
        if (r != -ERR_CANCELED)
            r = fiber_sleep(LOOK_MS, e);
    }
    return 0;
}
