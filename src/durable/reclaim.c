/* SPDX-License-Identifier: MIT */
/*
 * durable/reclaim.c — work that nobody does any more goes back to its queue.
 *
 * The work of dead processes is found by what the tables say: PENDING under an executor of ours
 * (their ids begin with "chela-") that has no living row. It goes back in batches, each a
 * statement of its own, so 100,000 of them hold up neither claims nor memory. Executors of other
 * engines are left to those.
 *
 * A row that goes back loses its owner's token, so whatever still runs somewhere writes nothing.
 */
#include "durable/queue_int.h"

#include "base/log.h"

#define PARTS      3    /* looks in one lease */
#define RETRY_MS   1000 /* after a look that failed */
#define KEEP_PARTS 10   /* leases after which the row of a dead executor is forgotten */

/* clang-format off */
#define BACK \
    " SET status = 'ENQUEUED', owner_xid = NULL," \
    " queue_name = COALESCE(queue_name, '" DURABLE_INTERNAL_QUEUE "')"
#define DEAD(alive) \
    "SELECT w.workflow_uuid FROM dbos.workflow_status w WHERE w.status = 'PENDING'" \
    " AND w.executor_id LIKE 'chela-%' AND w.created_at >= ?1 AND w.executor_id <> ?2" \
    " AND NOT EXISTS (SELECT 1 FROM durable_executors x WHERE x.executor_id = w.executor_id" \
    "  AND " alive ") ORDER BY w.created_at LIMIT ?3"
static const struct sql sql_reclaim = { /* ?1 created from ?2 executor ?3 how many ?4 now */
    "reclaim",
    "UPDATE dbos.workflow_status" BACK ", started_at_epoch_ms = NULL, updated_at = ?4"
    " WHERE workflow_uuid IN (" DEAD("?4 IS NOT NULL") ") RETURNING queue_name, created_at",
    "WITH dead AS MATERIALIZED (" DEAD("x.lease_until_ms > " PG_NOW_MS) " FOR UPDATE SKIP LOCKED)"
    " UPDATE dbos.workflow_status w" BACK ", started_at_epoch_ms = NULL,"
    " updated_at = " PG_NOW_MS " + ?4 * 0 FROM dead"
    " WHERE w.workflow_uuid = dead.workflow_uuid"
    " RETURNING w.queue_name, w.created_at",
};
static const struct sql sql_forget = { /* PostgreSQL: ?1 for how long dead */
    "forget dead executors",
    "DELETE FROM durable_executors WHERE lease_until_ms < " PG_NOW_MS " - ?1",
    NULL,
};
static const struct sql sql_release_one = { /* ?1 id ?2 token ?3 now */
    "release",
    "UPDATE dbos.workflow_status" BACK ", recovery_attempts = recovery_attempts - 1,"
    " updated_at = ?3 WHERE workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?2"
    " RETURNING queue_name",
    NULL,
};
static const struct sql sql_release = { /* ?1 JSON [[id, token], ...] ?2 now ?3 attempts */
    "release many",
    "UPDATE dbos.workflow_status" BACK ", recovery_attempts = recovery_attempts - ?3,"
    " updated_at = ?2 WHERE workflow_uuid IN (SELECT json_extract(value, '$[0]')"
    " FROM json_each(?1)) AND status = 'PENDING' AND owner_xid IN"
    " (SELECT json_extract(value, '$[1]') FROM json_each(?1)) RETURNING queue_name",
    "UPDATE dbos.workflow_status w" BACK ", recovery_attempts = recovery_attempts - ?3,"
    " updated_at = ?2 FROM json_array_elements(?1::json) AS j(v)"
    " WHERE w.workflow_uuid = j.v ->> 0 AND w.status = 'PENDING' AND w.owner_xid = j.v ->> 1"
    " RETURNING w.queue_name",
};
static const struct sql sql_dead_letter = { /* ?1 id ?2 token ?3 now */
    "dead letter",
    "UPDATE dbos.workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED', owner_xid = NULL,"
    " deduplication_id = NULL, started_at_epoch_ms = NULL, queue_name = NULL, completed_at = ?3,"
    " updated_at = ?3 WHERE workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?2",
    NULL,
};
/* clang-format on */

/* --- giving back --- */

struct back { /* one statement whose rows name the queues they went to */
    const struct sql *sql;
    const struct sql_arg *args;
    size_t n_args;
    int64_t n, newest;
    struct touched touched;
};

static int take_back(struct store_row *row, void *arg, struct err *e)
{
    struct back *back = arg;

    (void)e;
    back->n++;
    touched_add(&back->touched, row_str(row, 0));
    return 0;
}

static int take_reclaimed(struct store_row *row, void *arg, struct err *e)
{
    struct back *back = arg;
    int64_t created = row_int(row, 1);

    if (created > back->newest)
        back->newest = created;
    return take_back(row, arg, e);
}

static int back_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct back *back = arg;

    touched_reset(&back->touched);
    back->n = 0;
    return store_run(tx, back->sql, back->args, back->n_args,
                     back->sql == &sql_reclaim ? take_reclaimed : take_back, back, e);
}

static CO int give_back(struct durable *d, struct back *back, struct err *e)
{
    int r = store_do(d->store, back_body, back, e);

    if (r == 0)
        touched_poke(d, &back->touched);
    touched_reset(&back->touched);
    return r;
}

CO int release_run(struct workflow *w, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(w->id), SQL_Z(w->token), SQL_INT(wall_ms()) };
    struct back back = { .sql = &sql_release_one, .args = args, .n_args = LEN(args) };
    int r = give_back(w->d, &back, e);

    return r < 0 ? r : back.n > 0 ? JOURNAL_OK : JOURNAL_LOST;
}

/* Others are told; this process looks when it has room, or is its turn to look. */
CO int release_rows(struct durable *d, struct str ids, int64_t attempts, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(ids), SQL_INT(wall_ms()), SQL_INT(attempts) };
    struct back back = { .sql = &sql_release, .args = args, .n_args = LEN(args) };
    int r = store_do(d->store, back_body, &back, e);

    for (size_t i = 0; i < back.touched.n && r == 0; i++)
        notify_others(d, NOTIFY_QUEUE, back.touched.names[i]);
    touched_reset(&back.touched);
    return r;
}

/* --- dead letters --- */

struct dead {
    struct str id, token;
    int64_t now, changed;
    int woken;
};

static int dead_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct dead *dead = arg;
    const struct sql_arg args[] = { SQL_STR(dead->id), SQL_STR(dead->token), SQL_INT(dead->now) };
    int r;

    dead->woken = 0;
    dead->changed = 0;
    r = store_run(tx, &sql_dead_letter, args, LEN(args), NULL, NULL, e);
    if (r < 0)
        return r;
    dead->changed = store_changed(tx);
    if (dead->changed == 0)
        return 0;
    return unpark_tx(tx, WAIT_RESULT, dead->id, (struct str){ 0 }, &dead->woken, e);
}

CO int dead_letter(struct durable *d, struct str id, struct str token, struct err *e)
{
    struct dead dead = { .id = id, .token = token, .now = wall_ms() };
    int r = store_do(d->store, dead_body, &dead, e);

    if (r < 0)
        return err_wrap(e, "dead letter");
    if (dead.changed == 0)
        return 0;
    metric_add(&durable_m_dead, 0, 1);
    log_error("workflow is given up: it was started too often, or can never run", "workflow",
              LOG_SLICE(id));
    wake_waiters(d, WAIT_RESULT, id, (struct str){ 0 });
    notify_others(d, NOTIFY_RESULTS, id);
    if (dead.woken > 0)
        queue_poke(d, (struct str){ 0 });
    return 0;
}

/* --- the work of dead processes --- */

static CO int reclaim(struct durable *d, int64_t *ret_n, struct err *e)
{
    struct sql_arg args[] = { SQL_INT(0), SQL_Z(d->executor), SQL_INT(SWEEP_BATCH), SQL_INT(0) };
    struct back back = { .sql = &sql_reclaim, .args = args, .n_args = LEN(args) };
    int r;

    do {
        args[0].i = back.newest; /* what is older was done by the batches before */
        args[3].i = wall_ms();
        r = give_back(d, &back, e);
        if (r == 0)
            *ret_n += back.n;
        if (r == 0)
            r = fiber_yield(e);
    } while (r == 0 && back.n == SWEEP_BATCH && !d->stopping);
    return r;
}

static CO int forget(struct durable *d, struct err *e)
{
    const struct sql_arg arg = SQL_INT((int64_t)d->conf.lease_ms * KEEP_PARTS);

    if (!d->pg) /* the one process of a file buries the others when it starts */
        return 0;
    return store_once(d->store, &sql_forget, &arg, 1, NULL, NULL, e);
}

CO int reclaim_chore(void *arg, struct err *e)
{
    struct durable *d = arg;
    uint64_t part = d->conf.lease_ms / PARTS;
    bool failing = false;

    do {
        int64_t n = 0;
        int r = lease_held(d) && !d->stopping ? reclaim(d, &n, e) : 0;

        if (n > 0) {
            metric_add(&durable_m_recovered, 0, n);
            log_info("work of dead processes is queued again", "number", LOG_INT(n));
        }
        if (r == 0)
            r = forget(d, e);
        if (r != -ERR_CANCELED)
            chore_note("reclaim", &failing, r, e);
    } while (chore_pause(failing && part > RETRY_MS ? RETRY_MS : part));
    return 0;
}
