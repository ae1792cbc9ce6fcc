/* SPDX-License-Identifier: MIT */
/*
 * durable/unpark.c — how those who are parked (park.c) come back.
 *
 * unpark_tx() is part of the transaction that writes what they wait for. For what others write
 * there are two more ways, and both look at what is there instead of believing what they were
 * told: a NOTIFY names a workflow and all who are parked for it are looked at (wake_heard), and
 * the sweep goes through durable_parked in pages. A page is small when NOTIFYs are heard and large
 * when not; up to so many parked ones are looked at in every sweep.
 */
#include "base/log.h"
#include "durable/wait_int.h"

enum {
    PAGE_HEARING = 1000, /* parked ones that one sweep looks at */
    PAGE_DEAF = 10000,
    GATHER_MS = 5, /* NOTIFYs that come together are looked at together */
    TIDY_MS = 60 * 1000,
};
#define TIDY_ROWS "1000"

/* clang-format off */
#define READY \
    "SELECT p.workflow_uuid, p.target, CASE" \
    " WHEN p.kind = 'recv' AND EXISTS (SELECT 1 FROM dbos.notifications n" \
    "  WHERE n.destination_uuid = p.target AND n.topic = p.topic AND n.consumed = FALSE) THEN 1" \
    " WHEN p.kind = 'event' AND EXISTS (SELECT 1 FROM dbos.workflow_events v" \
    "  WHERE v.workflow_uuid = p.target AND v.key = p.topic) THEN 1" \
    " WHEN p.kind = 'result' AND NOT EXISTS (SELECT 1 FROM dbos.workflow_status s" \
    "  WHERE s.workflow_uuid = p.target AND s.status IN ('ENQUEUED', 'DELAYED', 'PENDING')) THEN 1" \
    " ELSE 0 END FROM "

/* ?1 target and ?2 id of the last one, ?3 how many */
static const struct sql sql_page = {
    "durable parked page",
    READY "(SELECT workflow_uuid, kind, target, topic FROM durable_parked"
    " WHERE target >= ?1 AND (target > ?1 OR workflow_uuid > ?2)"
    " ORDER BY target, workflow_uuid LIMIT ?3) p ORDER BY p.target, p.workflow_uuid", NULL,
};
/* ?1 JSON array of targets */
static const struct sql sql_heard = {
    "durable parked heard",
    READY "durable_parked p WHERE p.target IN (SELECT value FROM json_each(?1))",
    READY "durable_parked p"
    " WHERE p.target = ANY (ARRAY(SELECT json_array_elements_text(?1::json)))",
};

#define WAKE \
    "UPDATE dbos.workflow_status SET status = 'ENQUEUED', delay_until_epoch_ms = NULL," \
    " updated_at = ?1 WHERE status = 'DELAYED' AND workflow_uuid "
#define PARKED "SELECT p.workflow_uuid FROM durable_parked p WHERE "
/* An array is looked up by the primary key, whatever the planner believes of the tables. */
#define AS_ROWS(which)  WAKE "IN (" PARKED which ")"
#define AS_ARRAY(which) WAKE "= ANY (ARRAY(" PARKED which "))"
#define OF_TOPIC "p.target = ?2 AND p.kind = ?3 AND p.topic = ?4"
#define OF_ALL   "p.target = ?2 AND p.kind = ?3"
static const struct sql sql_unpark = { /* ?2 JSON array of ids */
    "durable unpark",
    AS_ROWS("p.workflow_uuid IN (SELECT value FROM json_each(?2))"),
    AS_ARRAY("p.workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text(?2::json)))"),
};
static const struct sql sql_unpark_topic = {
    "durable unpark topic", AS_ROWS(OF_TOPIC), AS_ARRAY(OF_TOPIC),
};
static const struct sql sql_unpark_all = {
    "durable unpark all", AS_ROWS(OF_ALL), AS_ARRAY(OF_ALL),
};

/* Rows of workflows that were cancelled, or deleted, by somebody who knows nothing of them. */
static const struct sql sql_tidy = {
    "durable parked tidy",
    "DELETE FROM durable_parked WHERE workflow_uuid IN (SELECT p.workflow_uuid FROM durable_parked p"
    " LEFT JOIN dbos.workflow_status s ON s.workflow_uuid = p.workflow_uuid WHERE s.status IS NULL"
    " OR s.status NOT IN ('ENQUEUED', 'DELAYED', 'PENDING') LIMIT " TIDY_ROWS ")", NULL,
};
/* clang-format on */

int unpark_tx(struct store_tx *tx, enum wait_kind kind, struct str workflow, struct str topic,
              int *ret_n, struct err *e)
{
    const struct sql_arg args[] = { SQL_INT(wall_ms()), SQL_STR(workflow),
                                    SQL_Z(wait_kind_name(kind)), SQL_STR(topic) };
    int r;

    if (topic.p)
        r = store_run(tx, &sql_unpark_topic, args, 4, NULL, NULL, e);
    else
        r = store_run(tx, &sql_unpark_all, args, 3, NULL, NULL, e);
    if (r < 0)
        return r;
    *ret_n = (int)store_changed(tx);
    return 0;
}

/* --- looking at many --- */

struct look {
    const struct sql *sql;
    struct sql_arg args[3];
    size_t n_args;
    /* what it finds */
    struct buf ready;      /* a JSON array of ids, without its end; empty: none */
    struct buf target, id; /* the last row's */
    int64_t n;
};

static void look_done(struct look *look)
{
    buf_done(&look->ready);
    buf_done(&look->target);
    buf_done(&look->id);
}

static inline void look_done_auto(struct look *look)
{
    look_done(look);
}

static void look_init(struct look *look)
{
    *look = (struct look){ 0 };
    buf_init(&look->ready, 16 * MIB);
    buf_init(&look->target, 64 * KIB);
    buf_init(&look->id, 64 * KIB);
}

static int set(struct buf *b, struct str s, struct err *e)
{
    buf_clear(b);
    return buf_add_str(b, s, e);
}

static int add_member(struct buf *array, struct str s, struct err *e)
{
    size_t n = array->n;
    int r = buf_add_z(array, n ? "," : "[", e);

    if (r == 0)
        r = json_write_str(array, s, e);
    return r;
}

static int look_row(struct store_row *row, void *arg, struct err *e)
{
    struct look *look = arg;
    int r = set(&look->id, row_str(row, 0), e);

    if (r == 0)
        r = set(&look->target, row_str(row, 1), e);
    look->n++;
    if (r == 0 && row_int(row, 2))
        r = add_member(&look->ready, row_str(row, 0), e);
    return r;
}

static int look_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *look = arg;

    buf_clear(&look->ready);
    look->n = 0;
    return store_run(tx, look->sql, look->args, look->n_args, look_row, look, e);
}

static int wake_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *look = arg;
    const struct sql_arg args[] = { SQL_INT(wall_ms()), SQL_STR(buf_str(&look->ready)) };
    int r = store_run(tx, &sql_unpark, args, LEN(args), NULL, NULL, e);

    return r < 0 ? r : store_changed(tx) > 0;
}

CO static int look(struct durable *d, struct look *look, struct err *e)
{
    int r = store_read(d->store, look_body, look, e);

    if (r < 0 || !look->ready.n)
        return r;
    r = buf_add_z(&look->ready, "]", e);
    if (r == 0)
        r = store_do(d->store, wake_body, look, e);
    if (r == 1)
        queue_poke(d, (struct str){ 0 });
    return r < 0 ? r : 0;
}

/* --- what is heard --- */

CO static int look_at_heard(struct durable *d, struct err *e)
{
    struct waiters *all = waiters_get(d);
    AUTO(buf_done) struct buf targets = all->heard;
    AUTO(look_done) struct look it;
    int r;

    buf_init(&all->heard, HEARD_MAX);
    look_init(&it);
    targets.max += 1;
    r = buf_add_z(&targets, "]", e);
    it.sql = &sql_heard;
    it.args[0] = SQL_STR(buf_str(&targets));
    it.n_args = 1;
    return r < 0 ? r : look(d, &it, e);
}

/* A fiber that lives while there is something heard. */
CO static int listen_chore(void *arg, struct err *e)
{
    struct durable *d = arg;
    struct waiters *all = waiters_get(d);
    int r = fiber_sleep(GATHER_MS, e);

    while (r == 0 && all->heard.n) {
        r = look_at_heard(d, e);
        if (r == -ERR_UNAVAILABLE) { /* the sweep finds them when the database is back */
            buf_clear(&all->heard);
            r = 0;
        }
        if (r == 0)
            r = fiber_sleep(GATHER_MS, e);
    }
    all->listening = false;
    return r == -ERR_CANCELED ? 0 : r;
}

void wake_heard(struct durable *d, enum wait_kind kind, struct str workflow, struct str topic)
{
    struct waiters *all = waiters_get(d);
    struct err e;
    size_t n = all->heard.n;

    /* One workflow is a mailbox's only reader: who waits here is not parked. */
    if (wake_waiters(d, kind, workflow, topic) && kind == WAIT_RECV)
        return;
    if (!d->running || d->stopping)
        return;
    if (add_member(&all->heard, workflow, &e) < 0) { /* full: what is left out the sweep finds */
        all->heard.n = n;
        return;
    }
    if (all->listening)
        return;
    all->listening = true;
    if (fiber_group_spawn(d->chores, "durable unpark", listen_chore, d, &e) < 0) {
        all->listening = false;
        buf_clear(&all->heard);
        log_warn("cannot look at parked workflows", "error", LOG_ERR(&e));
    }
}

/* --- the sweep --- */

static int tidy_body(struct store_tx *tx, void *arg, struct err *e)
{
    (void)arg;
    return store_exec(tx, &sql_tidy, e);
}

CO static int tidy(struct durable *d, struct err *e)
{
    struct waiters *all = waiters_get(d);
    uint64_t now = now_ms();

    if (all->tidied && now - all->tidied < TIDY_MS)
        return 0;
    all->tidied = now;
    return store_do(d->store, tidy_body, NULL, e);
}

CO static int sweep_page(struct durable *d, struct err *e)
{
    struct waiters *all = waiters_get(d);
    bool hears = d->pg && d->hint_ms > d->conf.sweep_ms;
    int64_t page = hears ? PAGE_HEARING : PAGE_DEAF;
    AUTO(buf_done) struct buf target = { 0 }, id = { 0 };
    AUTO(look_done) struct look it;
    int r;

    look_init(&it);
    buf_init(&target, 64 * KIB);
    buf_init(&id, 64 * KIB);
    r = buf_add_str(&target, buf_str(&all->target), e);
    if (r == 0)
        r = buf_add_str(&id, buf_str(&all->id), e);
    if (r < 0)
        return r;
    it.sql = &sql_page;
    it.args[0] = SQL_STR(target.n ? buf_str(&target) : STR(""));
    it.args[1] = SQL_STR(id.n ? buf_str(&id) : STR(""));
    it.args[2] = SQL_INT(page);
    it.n_args = 3;
    r = look(d, &it, e);
    if (r < 0)
        return r;
    buf_clear(&all->target);
    buf_clear(&all->id);
    if (it.n < page) /* that was the last page */
        return 0;
    r = buf_add_str(&all->target, buf_str(&it.target), e);
    return r < 0 ? r : buf_add_str(&all->id, buf_str(&it.id), e);
}

CO int unpark_sweep(struct durable *d, struct err *e)
{
    int r = clock_begin(d, e);

    if (r == 0)
        r = sweep_page(d, e);
    return r < 0 ? r : tidy(d, e);
}
