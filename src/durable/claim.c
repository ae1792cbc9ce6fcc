/* SPDX-License-Identifier: MIT */
/*
 * durable/claim.c — taking rows out of a queue and beginning them.
 *
 * "May this row run here, now" is one predicate (RUNNABLE), used by every claim. A queue whose
 * limits end at this process is claimed from by one statement, which locks what it takes and skips
 * what others have locked. Limits that processes share are counted in the database: the claims of
 * one queue then come one after another, behind a lock of the transaction, and each counts in a
 * statement of its own after it has the lock, so it sees all that claimed before.
 *
 * A workflow that comes back from being parked has kept the time of its start: it takes a slot but
 * is no new start, so a rate does not hold it up and does not count it twice.
 *
 * All rows of a claim are owned by one random token. When the answer of a claim is lost, its rows
 * are owned by this process and do not run: the sweep finds and releases them.
 */
#include "durable/queue_int.h"

#include "base/log.h"

#define KEYS_MAX 8192 /* partitions that one claim looks at; the next goes on behind them */

enum mode { MODE_ALL, MODE_RESUMED, MODE_NEW };

struct claim_row {
    struct claimed c;
    int64_t priority;
};

struct key { /* a partition that has something to run */
    struct str name;
    int64_t pending, pending_here, started;
    int64_t room;
};

struct claim {
    /* what is asked; not changed by the body */
    const struct durable *d; /* of it: what does not change while the engine runs */
    struct str queue, cursor;
    struct queue_def def;
    struct str names, timeouts; /* JSON */
    bool newest;
    unsigned room;
    int64_t now;
    char token[TOKEN_TEXT];
    /* what came of it; the body begins by forgetting it */
    struct arena arena;
    struct claim_row *rows;
    unsigned n;
    struct key *keys;
    size_t n_keys;
    bool limited;    /* by what processes share: rows may be left */
    int64_t next_ms; /* until the rate allows more */
};

/* --- statements --- */

/* ?1 queue ?2 version ?3 newest ?4 application ?5 names ?6 executor ?7 limit ?8 token
 * ?9 under a rate ?10 mode ?11 now (SQLite) ?12 timeouts ?13 partition keys ?14 their room.
 * The status is named twice because SQLite proves the use of a partial index by its very words.
 * PostgreSQL locks the heads as it finds them, so the update needs no second look at the status. */
/* clang-format off */
#define ADDRESS(t, chr) "COALESCE(" t "class_name, '') || " chr "(31) || " t "name"
#define RUNNABLE \
    " w.queue_name = ?1 AND w.status = 'ENQUEUED' AND w.status IN ('ENQUEUED', 'PENDING')" \
    " AND (w.application_version = ?2 OR (w.application_version IS NULL AND ?3 = 1))" \
    " AND (CAST(?4 AS TEXT) IS NULL OR w.application_name IS NULL OR w.application_name = ?4)" \
    " AND (?10 = 0 OR (?10 = 1) = (w.rate_limited AND w.started_at_epoch_ms IS NOT NULL))"
#define KNOWN_SQLITE " AND " ADDRESS("w.", "char") " IN (SELECT value FROM json_each(?5))"
#define KNOWN_PG     " AND " ADDRESS("w.", "chr") " = ANY(?5)"
/* A process that was declared dead, or is about to stop, claims nothing. */
#define ALIVE_SQLITE \
    " AND EXISTS (SELECT 1 FROM durable_executors x WHERE x.executor_id = ?6 AND x.draining = 0)"
#define ALIVE_PG \
    " AND EXISTS (SELECT 1 FROM durable_executors x WHERE x.executor_id = ?6 AND x.draining = 0" \
    " AND x.lease_until_ms > " PG_NOW_ONCE ")"

/* A timeout of any size, whoever wrote it, gives a deadline: the remainder changes none below 2^62,
 * and the sum of a larger one would fail the claims of its queue for ever. */
#define TAKE_IT(now, t, timeout) \
    " SET status = 'PENDING', owner_xid = ?8, executor_id = ?6, application_version = ?2," \
    " application_name = COALESCE(" t "application_name, ?4)," \
    " started_at_epoch_ms = COALESCE(" t "started_at_epoch_ms, " now ")," \
    " rate_limited = (?9 = 1), recovery_attempts = COALESCE(" t "recovery_attempts, 0) + 1," \
    " workflow_deadline_epoch_ms = COALESCE(" t "workflow_deadline_epoch_ms, " now \
    " + COALESCE(" t "workflow_timeout_ms, " timeout ") % 4611686018427387904)," \
    " updated_at = " now
#define TIMEOUT_SQLITE \
    "(SELECT value FROM json_each(?12) WHERE key = " ADDRESS("", "char") ")"
#define TIMEOUT_PG \
    "(SELECT value::bigint FROM json_each_text(?12::json) WHERE key = " ADDRESS("w.", "chr") ")"

#define RETURNED_SQLITE \
    " RETURNING workflow_uuid, name, class_name, queue_name, queue_partition_key," \
    " COALESCE((SELECT i.inputs FROM dbos.workflow_input i" \
    "  WHERE i.workflow_uuid = dbos.workflow_status.workflow_uuid), inputs)," \
    " serialization, recovery_attempts, workflow_timeout_ms, workflow_deadline_epoch_ms," \
    " created_at, priority, EXISTS (SELECT 1 FROM dbos.operation_outputs o" \
    "  WHERE o.workflow_uuid = dbos.workflow_status.workflow_uuid)"
#define RETURNED_PG \
    ", took AS (UPDATE dbos.workflow_status w" TAKE_IT(PG_NOW_MS, "w.", TIMEOUT_PG) \
    " FROM heads h WHERE w.workflow_uuid = h.workflow_uuid" \
    " RETURNING w.*)," \
    " back AS (DELETE FROM durable_parked p USING took t WHERE p.workflow_uuid = t.workflow_uuid)" \
    " SELECT t.workflow_uuid, t.name, t.class_name, t.queue_name, t.queue_partition_key," \
    " COALESCE(i.inputs, t.inputs), t.serialization, t.recovery_attempts, t.workflow_timeout_ms," \
    " t.workflow_deadline_epoch_ms, t.created_at, t.priority, EXISTS (SELECT 1" \
    "  FROM dbos.operation_outputs o WHERE o.workflow_uuid = t.workflow_uuid)" \
    " FROM took t LEFT JOIN dbos.workflow_input i ON i.workflow_uuid = t.workflow_uuid"

static const struct sql sql_claim = {
    "claim",
    "UPDATE dbos.workflow_status" TAKE_IT("?11", "", TIMEOUT_SQLITE)
    " WHERE workflow_uuid IN (SELECT w.workflow_uuid FROM dbos.workflow_status w WHERE"
    RUNNABLE KNOWN_SQLITE ALIVE_SQLITE
    " ORDER BY w.priority, w.created_at LIMIT ?7)" RETURNED_SQLITE,
    "WITH heads AS MATERIALIZED (SELECT w.workflow_uuid FROM dbos.workflow_status w WHERE"
    RUNNABLE KNOWN_PG ALIVE_PG
    " ORDER BY w.priority, w.created_at LIMIT ?7 FOR UPDATE SKIP LOCKED)" RETURNED_PG,
};

/* Of each key its first ones, of all those the first. SQLite: ?13 is JSON [[key, room], ...], ?14
 * the largest room. */
static const struct sql sql_claim_keys = {
    "claim of partitions",
    "UPDATE dbos.workflow_status" TAKE_IT("?11", "", TIMEOUT_SQLITE)
    " WHERE workflow_uuid IN (SELECT f.workflow_uuid"
    " FROM (SELECT json_extract(value, '$[0]') AS k, json_extract(value, '$[1]') AS room"
    "  FROM json_each(?13)) AS k"
    " JOIN dbos.workflow_status f ON f.workflow_uuid IN (SELECT y.workflow_uuid"
    "  FROM (SELECT w.workflow_uuid,"
    "   row_number() OVER (ORDER BY w.priority, w.created_at, w.workflow_uuid) AS n"
    "   FROM dbos.workflow_status w WHERE" RUNNABLE KNOWN_SQLITE ALIVE_SQLITE
    "   AND w.queue_partition_key = k.k"
    "   ORDER BY w.priority, w.created_at, w.workflow_uuid LIMIT ?14) AS y WHERE y.n <= k.room)"
    " ORDER BY f.priority, f.created_at, f.workflow_uuid LIMIT ?7)" RETURNED_SQLITE,
    "WITH heads AS MATERIALIZED (SELECT f.workflow_uuid FROM unnest(?13, ?14) AS k(k, room)"
    " CROSS JOIN LATERAL (SELECT w.workflow_uuid, w.priority, w.created_at"
    "  FROM dbos.workflow_status w WHERE" RUNNABLE KNOWN_PG ALIVE_PG
    "  AND w.queue_partition_key = k.k"
    "  ORDER BY w.priority, w.created_at, w.workflow_uuid LIMIT k.room"
    "  FOR UPDATE SKIP LOCKED) AS f"
    " ORDER BY f.priority, f.created_at, f.workflow_uuid LIMIT ?7)" RETURNED_PG,
};

static const struct sql sql_unpark = { /* SQLite: the same as "back" above */
    "claimed are parked no more",
    "DELETE FROM durable_parked WHERE workflow_uuid IN (SELECT value FROM json_each(?1))",
    NULL,
};
static const struct sql sql_lock = {
    "claims one after another",
    "SELECT 1 WHERE ?1 IS NULL",
    "SELECT pg_advisory_xact_lock(hashtextextended('chela queue ' || ?1, 0))",
};
static const struct sql sql_pending = {
    "running of a queue",
    "SELECT count(*) FROM dbos.workflow_status WHERE queue_name = ?1 AND status = 'PENDING'"
    " AND status IN ('ENQUEUED', 'PENDING')",
    NULL,
};
/* A start in the future, after the clock was set back, does not hold up for an hour. */
static const struct sql sql_started = { /* ?2 the period, ?3 now (SQLite) */
    "starts of a queue",
    "SELECT count(*), min(started_at_epoch_ms) + ?2 - ?3 FROM dbos.workflow_status"
    " WHERE queue_name = ?1 AND rate_limited = TRUE"
    " AND started_at_epoch_ms > ?3 - ?2 AND started_at_epoch_ms <= ?3",
    "SELECT count(*), min(started_at_epoch_ms) + ?2 - " PG_NOW_MS " FROM dbos.workflow_status"
    " WHERE queue_name = ?1 AND rate_limited = TRUE"
    " AND started_at_epoch_ms > " PG_NOW_ONCE " - ?2 AND started_at_epoch_ms <= " PG_NOW_ONCE
    " AND ?3 IS NOT NULL",
};

/* ?1 queue ?2 first key ?3 executor ?4 period or 0 ?5 now (SQLite) ?6 how many. One step in the
 * index for each key, however many rows it has. */
#define OF_KEY \
    " FROM dbos.workflow_status w WHERE w.queue_name = ?1" \
    " AND w.status IN ('ENQUEUED', 'PENDING') AND w.status = "
#define KEY_STATE(now) \
    "WITH RECURSIVE keys(k, n) AS (" \
    " SELECT (SELECT w.queue_partition_key" OF_KEY "'ENQUEUED'" \
    "  AND w.queue_partition_key >= ?2 ORDER BY w.queue_partition_key LIMIT 1), 1" \
    " UNION ALL SELECT (SELECT w.queue_partition_key" OF_KEY "'ENQUEUED'" \
    "  AND w.queue_partition_key > keys.k ORDER BY w.queue_partition_key LIMIT 1), keys.n + 1" \
    "  FROM keys WHERE keys.k IS NOT NULL AND keys.n < ?6)" \
    " SELECT k.k, (SELECT count(*)" OF_KEY "'PENDING' AND w.queue_partition_key = k.k)," \
    " (SELECT count(*)" OF_KEY "'PENDING' AND w.queue_partition_key = k.k" \
    "  AND w.executor_id = ?3)," \
    " CASE WHEN ?4 = 0 THEN 0 ELSE (SELECT count(*) FROM dbos.workflow_status w" \
    "  WHERE w.queue_name = ?1 AND w.rate_limited = TRUE AND w.queue_partition_key = k.k" \
    "  AND w.started_at_epoch_ms > " now " - ?4 AND w.started_at_epoch_ms <= " now ") END" \
    " FROM keys k WHERE k.k IS NOT NULL"
static const struct sql sql_keys = { "partitions of a queue", KEY_STATE("?5"),
                                     KEY_STATE("(?5 * 0 + " PG_NOW_ONCE ")") };
/* clang-format on */

/* --- inside the transaction --- */

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct claim *c = arg;
    struct arena *a = &c->arena;
    struct claim_row *at = &c->rows[c->n];

    if (c->n == CLAIM_MAX)
        return err_set(e, ERR_INTERNAL, "a claim took more rows than it asked for");
    at->c = (struct claimed){
        .id = arena_str(a, row_str(row, 0)),
        .name = arena_str(a, row_str(row, 1)),
        .has_inputs = !row_is_null(row, 5),
        .attempts = row_int(row, 7),
        .timeout_ms = row_int(row, 8),
        .deadline_ms = row_int(row, 9),
        .created_ms = row_int(row, 10),
        .has_journal = row_int(row, 12) != 0,
        .token = str_of(c->token),
    };
    if (!row_is_null(row, 2))
        at->c.class_name = arena_str(a, row_str(row, 2));
    if (!row_is_null(row, 3))
        at->c.queue = arena_str(a, row_str(row, 3));
    if (!row_is_null(row, 4))
        at->c.partition = arena_str(a, row_str(row, 4));
    if (!row_is_null(row, 5))
        at->c.inputs = arena_str(a, row_str(row, 5));
    if (!row_is_null(row, 6))
        at->c.serialization = arena_str(a, row_str(row, 6));
    at->priority = row_int(row, 11);
    c->n++;
    return 0;
}

#define CLAIM_ARGS 12

static void claim_args(const struct claim *c, enum mode mode, int64_t limit, struct sql_arg *ret)
{
    const struct durable *d = c->d;
    const struct sql_arg args[CLAIM_ARGS] = {
        SQL_STR(c->queue),
        SQL_Z(d->conf.app_version),
        SQL_INT(c->newest),
        SQL_Z(d->conf.app_name),
        d->pg ? SQL_TEXTS(d->addresses, d->n_types) : SQL_STR(c->names),
        SQL_Z(d->executor),
        SQL_INT(limit),
        SQL_Z(c->token),
        SQL_INT(c->def.rate > 0 || c->def.part_rate > 0),
        SQL_INT(mode),
        SQL_INT(c->now),
        SQL_STR(c->timeouts),
    };

    memcpy(ret, args, sizeof(args));
}

/* [[key, room], ...] of the keys that have room; the largest room. */
static int keys_json(const struct claim *c, struct buf *out, int64_t *ret_max, struct err *e)
{
    const char *comma = "";
    int r = buf_add_z(out, "[", e);

    *ret_max = 0;
    for (size_t i = 0; i < c->n_keys && r == 0; i++) {
        if (c->keys[i].room <= 0)
            continue;
        r = buf_printf(out, e, "%s[", comma);
        if (r == 0)
            r = json_write_str(out, c->keys[i].name, e);
        if (r == 0)
            r = buf_printf(out, e, ",%lld]", (long long)c->keys[i].room);
        *ret_max = c->keys[i].room > *ret_max ? c->keys[i].room : *ret_max;
        comma = ",";
    }
    return r < 0 ? r : buf_add_z(out, "]", e);
}

static int claim_keys(struct store_tx *tx, struct claim *c, enum mode mode, int64_t limit,
                      struct err *e)
{
    AUTO(buf_done) struct buf json = { 0 };
    struct sql_arg args[CLAIM_ARGS + 2];
    struct str *names = arena_alloc(&c->arena, (c->n_keys + 1) * sizeof(*names));
    int64_t *rooms = arena_alloc(&c->arena, (c->n_keys + 1) * sizeof(*rooms));
    int64_t max = 0;
    size_t n = 0;
    int r = 0;

    for (size_t i = 0; i < c->n_keys; i++) {
        if (c->keys[i].room > 0) {
            names[n] = c->keys[i].name;
            rooms[n++] = c->keys[i].room;
        }
    }
    if (n == 0)
        return 0;
    buf_init(&json, 64 * MIB);
    if (!c->d->pg)
        r = keys_json(c, &json, &max, e);
    claim_args(c, mode, limit, args);
    args[CLAIM_ARGS] = c->d->pg ? SQL_TEXTS(names, n) : SQL_STR(buf_str(&json));
    args[CLAIM_ARGS + 1] = c->d->pg ? SQL_INTS(rooms, n) : SQL_INT(max);
    return r < 0 ? r : store_run(tx, &sql_claim_keys, args, LEN(args), take_row, c, e);
}

static int take_count(struct store_row *row, void *arg, struct err *e)
{
    (void)e;
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

struct starts {
    int64_t n, next_ms;
};

static int take_starts(struct store_row *row, void *arg, struct err *e)
{
    (void)e;
    *(struct starts *)arg = (struct starts){ row_int(row, 0), row_int(row, 1) };
    return 0;
}

/* How many the limits of the whole queue leave; at most max. */
static int budget_of(struct store_tx *tx, struct claim *c, enum mode mode, int64_t max,
                     int64_t *ret, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(c->queue), SQL_INT(c->def.rate_period_ms),
                                    SQL_INT(c->now) };
    struct starts starts = { 0 };
    int64_t pending = 0, left = max;
    int r = 0;

    if (c->def.concurrency > 0) {
        r = store_run(tx, &sql_pending, args, 1, take_count, &pending, e);
        if (c->def.concurrency - pending < left)
            left = c->def.concurrency - pending;
    }
    if (r == 0 && c->def.rate > 0 && mode == MODE_NEW) {
        r = store_run(tx, &sql_started, args, LEN(args), take_starts, &starts, e);
        if (c->def.rate - starts.n < left)
            left = c->def.rate - starts.n;
        if (starts.n > 0)
            c->next_ms = starts.next_ms > 0 ? starts.next_ms : 1;
    }
    if (left < max)
        c->limited = true;
    *ret = left > 0 ? left : 0;
    return r;
}

static int take_key(struct store_row *row, void *arg, struct err *e)
{
    struct claim *c = arg;

    if (c->n_keys == KEYS_MAX)
        return err_set(e, ERR_INTERNAL, "more partitions than were asked for");
    c->keys[c->n_keys++] = (struct key){
        .name = arena_str(&c->arena, row_str(row, 0)),
        .pending = row_int(row, 1),
        .pending_here = row_int(row, 2),
        .started = row_int(row, 3),
    };
    return 0;
}

static void key_room(struct claim *c, struct key *k, enum mode mode, int64_t budget)
{
    const struct queue_def *def = &c->def;

    k->room = budget;
    if (def->part_concurrency > 0 && def->part_concurrency - k->pending < k->room)
        k->room = def->part_concurrency - k->pending;
    if (def->part_worker > 0 && def->part_worker - k->pending_here < k->room)
        k->room = def->part_worker - k->pending_here;
    if (def->part_rate > 0 && mode == MODE_NEW && def->part_rate - k->started < k->room)
        k->room = def->part_rate - k->started;
    if (k->room < budget)
        c->limited = true;
}

static int keys_of(struct store_tx *tx, struct claim *c, enum mode mode, int64_t budget,
                   struct err *e)
{
    const struct sql_arg args[] = {
        SQL_STR(c->queue),
        SQL_STR(c->cursor),
        SQL_Z(c->d->executor),
        SQL_INT(c->def.part_rate > 0 && mode == MODE_NEW ? c->def.part_rate_period_ms : 0),
        SQL_INT(c->now),
        SQL_INT(KEYS_MAX),
    };
    int r;

    c->n_keys = 0;
    c->keys = arena_alloc(&c->arena, KEYS_MAX * sizeof(*c->keys));
    r = store_run(tx, &sql_keys, args, LEN(args), take_key, c, e);
    for (size_t i = 0; i < c->n_keys; i++)
        key_room(c, &c->keys[i], mode, budget);
    return r;
}

static int claim_mode(struct store_tx *tx, struct claim *c, enum mode mode, struct err *e)
{
    struct sql_arg args[CLAIM_ARGS];
    int64_t budget = 0;
    int r = budget_of(tx, c, mode, c->room - c->n, &budget, e);

    if (r < 0 || budget == 0)
        return r;
    if (!def_partitioned(&c->def)) {
        claim_args(c, mode, budget, args);
        return store_run(tx, &sql_claim, args, LEN(args), take_row, c, e);
    }
    r = keys_of(tx, c, mode, budget, e);
    if (c->def.part_rate > 0 && c->next_ms == 0)
        c->next_ms = c->def.part_rate_period_ms;
    return r < 0 ? r : claim_keys(tx, c, mode, budget, e);
}

/* SQLite: rows that were parked are so no more. */
static int forget_parked(struct store_tx *tx, struct claim *c, struct err *e)
{
    AUTO(buf_done) struct buf json = { 0 };
    struct sql_arg arg;
    int r;

    if (c->d->pg || c->n == 0)
        return 0;
    buf_init(&json, 4 * MIB);
    r = buf_add_z(&json, "[", e);
    for (unsigned i = 0; i < c->n && r == 0; i++) {
        r = i > 0 ? buf_add_z(&json, ",", e) : 0;
        if (r == 0)
            r = json_write_str(&json, c->rows[i].c.id, e);
    }
    if (r == 0)
        r = buf_add_z(&json, "]", e);
    arg = SQL_STR(buf_str(&json));
    return r < 0 ? r : store_run(tx, &sql_unpark, &arg, 1, NULL, NULL, e);
}

static int claim_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct claim *c = arg;
    const struct sql_arg queue = SQL_STR(c->queue);
    bool rated = c->def.rate > 0 || c->def.part_rate > 0;
    int r = 0;

    arena_reset(&c->arena);
    c->rows = arena_alloc(&c->arena, CLAIM_MAX * sizeof(*c->rows));
    c->n = 0;
    c->limited = false;
    c->next_ms = 0;
    c->now = wall_ms(); /* of the claim, not of when it was asked for */
    if (c->d->pg)
        r = store_run(tx, &sql_lock, &queue, 1, NULL, NULL, e);
    if (r == 0)
        r = claim_mode(tx, c, rated ? MODE_RESUMED : MODE_ALL, e);
    if (r == 0 && rated)
        r = claim_mode(tx, c, MODE_NEW, e);
    return r < 0 ? r : forget_parked(tx, c, e);
}

/* --- the claim --- */

static CO int claim(struct claim *c, struct err *e)
{
    struct sql_arg args[CLAIM_ARGS];

    if (!c->d->pg || def_shared(&c->def))
        return store_do(c->d->store, claim_body, c, e);
    /* When the answer is lost and it is sent again, what the first one took is the sweep's. */
    c->rows = arena_alloc(&c->arena, CLAIM_MAX * sizeof(*c->rows));
    claim_args(c, MODE_ALL, c->room, args);
    return store_once(c->d->store, &sql_claim, args, LEN(args), take_row, c, e);
}

static int by_order(const void *a, const void *b)
{
    const struct claim_row *x = a, *y = b;

    if (x->priority != y->priority)
        return x->priority < y->priority ? -1 : 1;
    if (x->c.created_ms != y->c.created_ms)
        return x->c.created_ms < y->c.created_ms ? -1 : 1;
    return 0;
}

/* --- beginning what was claimed --- */

static int add_id(struct buf *out, const struct claimed *c, struct err *e)
{
    int r = buf_add_z(out, out->n == 0 ? "[[" : ",[", e);

    if (r == 0)
        r = json_write_str(out, c->id, e);
    if (r == 0)
        r = buf_add_z(out, ",", e);
    if (r == 0)
        r = json_write_str(out, c->token, e);
    return r < 0 ? r : buf_add_z(out, "]", e);
}

static bool is_dead(const struct durable *d, const struct claimed *c)
{
    const struct durable_type *type = type_find(d, c->name, c->class_name);
    int64_t max = type && type->max_attempts > 0 ? type->max_attempts : DURABLE_ATTEMPTS;

    return c->attempts > max + 1 || c->id.n >= DURABLE_ID;
}

/* Those that cannot begin are written into `back`, one by one; none holds up the others. One that
 * could not although there was room keeps its attempt: so often it will not be tried for ever. */
static int begin_all(struct durable *d, struct claim *c, struct buf *crowded, struct buf *failed,
                     struct err *e)
{
    int r = 0;

    for (unsigned i = 0; i < c->n && r == 0; i++) {
        const struct claimed *one = &c->rows[i].c;
        struct err why;

        if (is_dead(d, one))
            continue;
        if (run_room(d) == 0) {
            r = add_id(crowded, one, e);
        } else if (run_begin(d, one, &why) < 0) {
            log_warn("workflow cannot begin", "workflow", LOG_SLICE(one->id), "error",
                     LOG_ERR(&why));
            r = add_id(failed, one, e);
        }
    }
    return r;
}

static CO int give_back(struct durable *d, struct buf *ids, int64_t attempts, struct err *e)
{
    int r = 0;

    if (ids->n > 0) {
        r = buf_add_z(ids, "]", e);
        if (r == 0)
            r = release_rows(d, buf_str(ids), attempts, e);
    }
    return r;
}

/* What cannot run is given up. When that fails the sweep puts it back and it comes here again. */
static CO int bury(struct durable *d, const struct claim *c, struct err *e)
{
    int r = 0, one;

    for (unsigned i = 0; i < c->n; i++) {
        if (!is_dead(d, &c->rows[i].c))
            continue;
        one = dead_letter(d, c->rows[i].c.id, c->rows[i].c.token, e);
        r = one < 0 ? one : r;
    }
    return r;
}

/* The next look at the partitions begins behind the last one of a full page. */
static void move_cursor(struct queue *q, const struct claim *c)
{
    free(TAKE(q->cursor));
    if (c->n_keys == KEYS_MAX)
        q->cursor = str_dup(c->keys[KEYS_MAX - 1].name);
}

static CO int claim_and_begin(struct queue *q, struct claim *c, struct claim_ret *ret,
                              struct err *e)
{
    struct durable *d = q->d;
    struct flight flight;
    AUTO(buf_done) struct buf crowded = { 0 };
    AUTO(buf_done) struct buf failed = { 0 };
    int r, gave;

    buf_init(&crowded, 16 * MIB);
    buf_init(&failed, 16 * MIB);
    d->queues->reserved += c->room;
    flight_begin(d, &flight);
    r = claim(c, e);
    flight_done(&flight); /* those that begin do so before anybody can look */
    d->queues->reserved -= c->room;
    if (r < 0)
        return r;
    qsort(c->rows, c->n, sizeof(*c->rows), by_order);
    *ret = (struct claim_ret){
        .n = c->n,
        .more = c->n == c->room || c->n_keys == KEYS_MAX,
        .full = c->limited,
        .next_ms = c->limited ? c->next_ms : 0,
    };
    if (def_partitioned(&c->def))
        move_cursor(q, c);
    r = begin_all(d, c, &crowded, &failed, e);
    if (crowded.n > 0) /* the dispatcher finds that there is no room, and remembers */
        ret->more = true;
    if (failed.n > 0) /* again when it is time to look, not at once */
        ret->more = false;
    gave = give_back(d, &crowded, 1, e);
    r = gave < 0 ? gave : r;
    gave = give_back(d, &failed, 0, e);
    r = gave < 0 ? gave : r;
    gave = bury(d, c, e);
    return gave < 0 ? gave : r;
}

CO int claim_round(struct queue *q, unsigned room, struct claim_ret *ret, struct err *e)
{
    struct durable *d = q->d;
    AUTO(free) char *cursor = q->cursor ? xstrdup(q->cursor) : NULL;
    AUTO(free) char *name = xstrdup(q->name);
    struct claim c = {
        .d = d,
        .queue = str_of(name),
        .cursor = cursor ? str_of(cursor) : STR(""),
        .def = q->def,
        .names = buf_str(&d->queues->names),
        .timeouts = buf_str(&d->queues->timeouts),
        .newest = d->newest,
        .room = room,
        .now = wall_ms(),
    };
    int r;

    uuid_new(c.token);
    *ret = (struct claim_ret){ 0 };
    r = claim_and_begin(q, &c, ret, e);
    arena_done(&c.arena);
    return r < 0 ? err_wrap(e, "claim from queue '%s'", name) : r;
}
