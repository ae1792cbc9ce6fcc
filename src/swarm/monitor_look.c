/* SPDX-License-Identifier: MIT */
/*
 * swarm/monitor_look.c — one look at the engine's tables. Every part goes along an index and reads
 * a bounded number of rows, so that it costs the same beside a thousand workflows and a million;
 * a term that only repeats another is there because it names a partial index.
 */
#include "swarm/monitor_int.h"

#define SAMPLE "20000"

/* clang-format off */
#define NOW_PG "(extract(epoch from clock_timestamp())*1000)::bigint"
/*
 * Processes of ours that are dead: as the engine sees it. On SQLite there is one living process,
 * and the rows of earlier ones are removed when it starts.
 */
#define ORPHAN(alive) \
    "(w.executor_id LIKE 'chela-%' AND w.executor_id <> ?1 AND NOT EXISTS" \
    " (SELECT 1 FROM durable_executors x WHERE x.executor_id = w.executor_id AND " alive "))"
/*
 * When the last step was recorded, or will be over: the record of a sleep is made when it begins,
 * and holds its end, as a number or as {"json":number}.
 */
#define PROGRESS(until) \
    " COALESCE((SELECT CASE WHEN o.function_name = 'DBOS.sleep' AND " until " IS NOT NULL" \
    " THEN " until " ELSE COALESCE(o.completed_at_epoch_ms, o.started_at_epoch_ms, 0) END" \
    " FROM dbos.operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid" \
    " ORDER BY o.function_id DESC LIMIT 1), 0)"
#define UNTIL_LITE "CAST(ltrim(o.output, '{\"json\": ') AS INTEGER)"
#define UNTIL_PG   "CAST(substring(o.output from '[0-9]{13}') AS BIGINT)"
/* In a queue that holds the slot of a workflow that waits, waiting looks like being stuck. */
#define HOLDS \
    "(w.queue_name IS NOT NULL AND EXISTS (SELECT 1 FROM durable_queues h" \
    " WHERE h.name = w.queue_name AND h.hold_slot = 1))"
#define ALIVE_LITE "x.lease_until_ms IS NOT NULL"
#define ALIVE_PG   "x.lease_until_ms > " NOW_PG

/* ?1 our executor, ?2 what has not got on since is stuck. */
#define BAD(alive, until) \
    "SELECT b.workflow_uuid, b.name, b.executor_id, b.orphan, b.created_at, b.at FROM" \
    " (SELECT w.workflow_uuid, w.name, w.executor_id, w.created_at," \
    "  CASE WHEN " ORPHAN(alive) " THEN 1 ELSE 0 END AS orphan," \
    "  CASE WHEN w.updated_at >= ?2 OR w.updated_at > " PROGRESS(until) \
    "   THEN w.updated_at ELSE " PROGRESS(until) " END AS at," \
    "  CASE WHEN " HOLDS " THEN 1 ELSE 0 END AS holds" \
    "  FROM dbos.workflow_status w WHERE w.status = 'PENDING' ORDER BY w.created_at" \
    "  LIMIT " SAMPLE ") b WHERE b.orphan = 1 OR (b.at < ?2 AND b.holds = 0)"
static const struct sql sql_bad = {
    "monitor bad", BAD(ALIVE_LITE, UNTIL_LITE), BAD(ALIVE_PG, UNTIL_PG),
};

/* ?1 an hour ago. */
static const struct sql sql_ended = {
    "monitor ended",
    "SELECT COUNT(*), COALESCE(SUM(CASE WHEN e.status IN ('ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')"
    " THEN 1 ELSE 0 END), 0) FROM (SELECT status FROM dbos.workflow_status"
    " WHERE completed_at >= ?1 ORDER BY completed_at DESC LIMIT " SAMPLE ") e",
    NULL,
};
static const struct sql sql_dead = {
    "monitor dead",
    "SELECT COUNT(*) FROM (SELECT 1 FROM dbos.workflow_status"
    " WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')"
    " AND status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' LIMIT " SAMPLE ") d",
    NULL,
};
/* ?1 now. What was woken or given back waits since then, so its row's last change counts. */
#define WAITING(now) \
    "SELECT COUNT(*), COALESCE(MIN(q.updated_at), 0)," \
    " COALESCE(SUM(CASE WHEN q.application_version IS NOT NULL AND NOT EXISTS" \
    "  (SELECT 1 FROM durable_executors x WHERE x.app_version = q.application_version" \
    "   AND x.draining = 0 AND x.lease_until_ms > " now ") THEN 1 ELSE 0 END), 0)" \
    " FROM (SELECT updated_at, application_version FROM dbos.workflow_status" \
    "  WHERE status IN ('ENQUEUED', 'PENDING') AND status = 'ENQUEUED' LIMIT " SAMPLE ") q"
static const struct sql sql_waiting = {
    "monitor waiting", WAITING("?1"), WAITING(NOW_PG " + CAST(?1 AS BIGINT) * 0"),
};

/* ?1 now. Which they are. */
#define BLOCKED(now) \
    "SELECT q.workflow_uuid, q.name, q.application_version, q.created_at FROM" \
    " (SELECT workflow_uuid, name, application_version, created_at FROM dbos.workflow_status" \
    "  WHERE status IN ('ENQUEUED', 'PENDING') AND status = 'ENQUEUED' LIMIT " SAMPLE ") q" \
    " WHERE q.application_version IS NOT NULL AND NOT EXISTS" \
    "  (SELECT 1 FROM durable_executors x WHERE x.app_version = q.application_version" \
    "   AND x.draining = 0 AND x.lease_until_ms > " now ") LIMIT 200"
static const struct sql sql_blocked = {
    "monitor blocked", BLOCKED("?1"), BLOCKED(NOW_PG " + CAST(?1 AS BIGINT) * 0"),
};

/* ?1 our executor, ?2 id. */
#define ONE(alive, until) \
    "SELECT CASE WHEN w.updated_at > " PROGRESS(until) " THEN w.updated_at ELSE " \
    PROGRESS(until) " END, CASE WHEN w.status = 'PENDING' AND " ORPHAN(alive) " THEN 1 ELSE 0 END," \
    " CASE WHEN " HOLDS " THEN 1 ELSE 0 END FROM dbos.workflow_status w WHERE w.workflow_uuid = ?2"
static const struct sql sql_one = {
    "monitor one", ONE(ALIVE_LITE, UNTIL_LITE), ONE(ALIVE_PG, UNTIL_PG),
};
/* clang-format on */

const struct sql *const monitor_look_sql[MONITOR_LOOKS] = { &sql_bad, &sql_ended, &sql_dead,
                                                            &sql_waiting };

struct look {
    struct arena *arena;
    struct monitor_look *ret;
    struct str executor;
    int64_t stuck_ms;
};

static int take_bad(struct store_row *row, void *arg, struct err *e)
{
    struct look *l = arg;
    struct monitor_look *ret = l->ret;
    bool orphan = row_int(row, 3) != 0;

    (void)e;
    ret->orphaned += orphan;
    ret->stuck += !orphan;
    if (ret->n_bad == MONITOR_BAD)
        return 0;
    ret->bad[ret->n_bad++] = (struct monitor_bad){
        .id = str_keep(l->arena, row_str(row, 0)),
        .name = str_keep(l->arena, row_str(row, 1)),
        .executor = str_keep(l->arena, row_str(row, 2)),
        .orphan = orphan,
        .created_ms = row_int(row, 4),
        .progress_ms = row_int(row, 5),
    };
    return 0;
}

static int take_blocked(struct store_row *row, void *arg, struct err *e)
{
    struct look *l = arg;

    (void)e;
    if (l->ret->n_blocked == MONITOR_BAD)
        return 0;
    l->ret->blocked[l->ret->n_blocked++] = (struct monitor_bad){
        .id = str_keep(l->arena, row_str(row, 0)),
        .name = str_keep(l->arena, row_str(row, 1)),
        .version = str_keep(l->arena, row_str(row, 2)),
        .created_ms = row_int(row, 3),
    };
    return 0;
}

static int take_ended(struct store_row *row, void *arg, struct err *e)
{
    struct look *l = arg;

    (void)e;
    l->ret->ended = row_int(row, 0);
    l->ret->failed = row_int(row, 1);
    return 0;
}

static int take_dead(struct store_row *row, void *arg, struct err *e)
{
    struct look *l = arg;

    (void)e;
    l->ret->dead = row_int(row, 0);
    return 0;
}

static int take_waiting(struct store_row *row, void *arg, struct err *e)
{
    struct look *l = arg;
    int64_t since = row_int(row, 1);

    (void)e;
    l->ret->backlog = row_int(row, 0);
    l->ret->backlog_ms = since && since < l->ret->at_ms ? l->ret->at_ms - since : 0;
    l->ret->blocked_version = row_int(row, 2);
    return 0;
}

static int look_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *l = arg;
    struct monitor_look *ret = l->ret;
    const int64_t now = ret->at_ms;
    const struct sql_arg bad[] = { SQL_STR(l->executor), SQL_INT(now - l->stuck_ms) };
    const struct sql_arg hour = SQL_INT(now - MONITOR_HOUR), at = SQL_INT(now);
    int r;

    *ret = (struct monitor_look){ .at_ms = now, .bad = ret->bad, .blocked = ret->blocked };
    r = store_run(tx, &sql_bad, bad, LEN(bad), take_bad, l, e);
    if (r == 0)
        r = store_run(tx, &sql_ended, &hour, 1, take_ended, l, e);
    if (r == 0)
        r = store_run(tx, &sql_dead, NULL, 0, take_dead, l, e);
    if (r == 0)
        r = store_run(tx, &sql_waiting, &at, 1, take_waiting, l, e);
    if (r == 0 && ret->blocked_version)
        r = store_run(tx, &sql_blocked, &at, 1, take_blocked, l, e);
    return r;
}

static void problem(struct monitor_look *l, enum monitor_problem bit, const char *text)
{
    l->problems |= bit;
    l->texts[l->n_texts++] = text;
}

/* What of the numbers is a problem, in words. */
static void judge(const struct swarm_settings *set, struct arena *a, struct monitor_look *l)
{
    if (l->stuck)
        problem(l, MONITOR_STUCK,
                arena_printf(a, "%lld stuck: no step for %lld s or more", (long long)l->stuck,
                             set->stuck_ms / 1000));
    if (l->orphaned)
        problem(l, MONITOR_ORPHANED,
                arena_printf(a, "%lld without a living process", (long long)l->orphaned));
    if (l->dead)
        problem(l, MONITOR_DEAD,
                arena_printf(a, "%lld dead: too many recovery attempts; retry or delete them",
                             (long long)l->dead));
    if (l->ended >= MONITOR_ENOUGH && l->failed * 100 > l->ended * set->failure_rate)
        problem(l, MONITOR_FAILING,
                arena_printf(a, "%lld of %lld failed in the last hour", (long long)l->failed,
                             (long long)l->ended));
    if (set->backlog_ms && l->backlog_ms > set->backlog_ms)
        problem(l, MONITOR_BACKLOG,
                arena_printf(a, "%lld enqueued, the oldest for %lld s", (long long)l->backlog,
                             (long long)l->backlog_ms / 1000));
    if (l->blocked_version)
        problem(l, MONITOR_BLOCKED,
                arena_printf(a, "%lld wait for a version that no living process runs",
                             (long long)l->blocked_version));
}

/* What no living process of ours runs may be the work of another engine: what we know by name
 * counts. */
static CO int only_ours(struct monitor *m, struct arena *a, struct monitor_look *l, struct err *e)
{
    struct durable_filter filter = { .limit = MONITOR_BAD };
    struct str ids[MONITOR_BAD];
    struct durable_info *found;
    size_t n, kept = 0;
    int r;

    for (size_t i = 0; i < l->n_blocked; i++)
        ids[i] = l->blocked[i].id;
    filter.ids = ids;
    filter.n_ids = l->n_blocked;
    r = durable_list(m->s->conf.engine, &filter, a, &found, &n, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        if (found[i].blocked_version)
            l->blocked[kept++] = (struct monitor_bad){
                .id = found[i].id,
                .name = found[i].name,
                .version = found[i].app_version,
                .created_ms = found[i].created_ms,
            };
    l->n_blocked = kept;
    l->blocked_version = (int64_t)kept;
    return 0;
}

CO int monitor_look(struct monitor *m, struct arena *a, struct monitor_look *ret, struct err *e)
{
    const struct swarm *s = m->s;
    struct look l = {
        .arena = a,
        .ret = ret,
        .executor = str_of(durable_executor(s->conf.engine)),
        .stuck_ms = s->settings->stuck_ms,
    };
    int r;

    *ret = (struct monitor_look){
        .at_ms = swarm_now(),
        .bad = arena_alloc(a, MONITOR_BAD * sizeof(*ret->bad)),
        .blocked = arena_alloc(a, MONITOR_BAD * sizeof(*ret->blocked)),
    };
    r = store_read(s->conf.store, look_body, &l, e);
    if (r == 0 && ret->n_blocked)
        r = only_ours(m, a, ret, e);
    if (r < 0)
        return err_wrap(e, "look at the workflows");
    ret->sampled = ret->ended == MONITOR_SAMPLE || ret->dead == MONITOR_SAMPLE ||
                   ret->backlog == MONITOR_SAMPLE || ret->stuck + ret->orphaned == MONITOR_SAMPLE;
    judge(s->settings, a, ret);
    return 0;
}

/* --- one --- */

struct one {
    struct sql_arg args[2];
    struct monitor_pace *ret;
};

static int take_one(struct store_row *row, void *arg, struct err *e)
{
    struct one *one = arg;

    (void)e;
    *one->ret = (struct monitor_pace){
        .at_ms = row_int(row, 0),
        .orphan = row_int(row, 1) != 0,
        .holds = row_int(row, 2) != 0,
    };
    return 0;
}

static int one_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct one *one = arg;

    *one->ret = (struct monitor_pace){ 0 };
    return store_run(tx, &sql_one, one->args, LEN(one->args), take_one, one, e);
}

CO int monitor_pace(struct monitor *m, struct str id, struct monitor_pace *ret, struct err *e)
{
    const struct swarm *s = m->s;
    struct one one = {
        .args = { SQL_Z(durable_executor(s->conf.engine)), SQL_STR(id) },
        .ret = ret,
    };

    return store_read(s->conf.store, one_body, &one, e);
}
