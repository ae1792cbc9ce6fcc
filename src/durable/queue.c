/* SPDX-License-Identifier: MIT */
/*
 * durable/queue.c — definitions of queues, and one dispatcher for each.
 *
 * Definitions are rows of dbos.queues, which any program may change; those of this program are
 * written there when it starts. Rows are read again by every sweep. A deleted row stops its
 * dispatcher, except for queues this program registered, and for the internal queue.
 *
 * A dispatcher looks when it is poked (work was put in), when a run of the queue ended and the
 * last look had left something behind, and otherwise as often as the definition says. Every hint
 * is a flag: whatever it was about is read from the database.
 */
#include "durable/queue_int.h"

#include "base/log.h"

#define POLL_MS     1000
#define POLL_MIN_MS 10
#define POLL_MAX_MS 120000
#define RETRY_MS    1000 /* after a claim that failed */

/* --- definitions --- */

static struct queue_def def_of(const struct durable_queue *row)
{
    return (struct queue_def){
        .concurrency = row->concurrency,
        .worker = row->worker_concurrency,
        .rate = row->rate_max,
        .rate_period_ms = (int64_t)row->rate_period_ms,
        .part_concurrency = row->partition_concurrency,
        .part_worker = row->partition_worker_concurrency,
        .part_rate = row->partition_rate_max,
        .part_rate_period_ms = (int64_t)row->partition_rate_period_ms,
        .polling_ms = row->polling_ms ? row->polling_ms : POLL_MS,
        .hold_slot = row->hold_slot,
    };
}

struct queue *queue_find(const struct durable *d, struct str name)
{
    for (struct queue *q = d->queues ? d->queues->first : NULL; q; q = q->next) {
        if (str_eq_z(name, q->name))
            return q;
    }
    return NULL;
}

/* Its definition while there is no dispatcher yet (before the engine runs). */
static bool def_find(const struct durable *d, struct str name, struct queue_def *ret)
{
    const struct queue *q = queue_find(d, name);

    if (q) {
        *ret = q->def;
        return true;
    }
    for (size_t i = 0; i < d->n_queue_rows; i++) {
        if (str_eq_z(name, d->queue_rows[i]->name)) {
            *ret = def_of(d->queue_rows[i]);
            return true;
        }
    }
    return false;
}

bool queue_holds_slot(struct durable *d, struct str name)
{
    struct queue_def def;

    return def_find(d, name, &def) && def.hold_slot != 0;
}

bool queue_is_partitioned(struct durable *d, struct str name)
{
    struct queue_def def;

    return def_find(d, name, &def) && def_partitioned(&def);
}

/* --- hints --- */

static void poke(struct queue *q)
{
    q->poked = true;
    if (q->fiber)
        fiber_wake(q->fiber);
}

void queue_poke(struct durable *d, struct str name)
{
    struct queue *q;

    if (!d->queues)
        return;
    if (name.n == 0) {
        for (q = d->queues->first; q; q = q->next)
            poke(q);
    } else {
        q = queue_find(d, name);
        if (q)
            poke(q);
    }
}

void queue_joined(struct durable *d, const char *queue, const char *partition)
{
    struct queue *q = queue ? queue_find(d, str_of(queue)) : NULL;

    (void)partition; /* limits per key are counted in the database */
    if (q)
        q->running++;
}

/* Those that found no room in the process look again. */
static void poke_crowded(struct durable *d)
{
    for (struct queue *q = d->queues->first; q; q = q->next) {
        if (q->crowded)
            poke(q);
    }
}

void queue_left(struct durable *d, const char *queue, const char *partition)
{
    struct queue *q = queue ? queue_find(d, str_of(queue)) : NULL;

    (void)partition;
    if (!d->queues)
        return;
    if (q && q->running > 0)
        q->running--;
    if (q && (q->full || q->gone))
        poke(q);
    if (q && def_shared(&q->def)) /* the slot may be what another process waits for */
        notify_others(d, NOTIFY_QUEUE, str_of(q->name));
    poke_crowded(d);
}

void touched_add(struct touched *t, struct str name)
{
    for (size_t i = 0; i < t->n; i++) {
        if (str_eq(t->names[i], name))
            return;
    }
    if (t->n < NAMES_MAX)
        t->names[t->n++] = arena_str(&t->arena, name);
    else
        t->many = true;
}

void touched_reset(struct touched *t)
{
    arena_done(&t->arena);
    *t = (struct touched){ 0 };
}

void touched_poke(struct durable *d, struct touched *t)
{
    if (t->many) {
        queue_poke(d, (struct str){ 0 });
        notify_others(d, NOTIFY_QUEUE, STR(""));
    }
    for (size_t i = 0; i < t->n && !t->many; i++) {
        queue_poke(d, t->names[i]);
        notify_others(d, NOTIFY_QUEUE, t->names[i]);
    }
    touched_reset(t);
}

/* --- the dispatcher --- */

static unsigned min_u(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* How many rows may be claimed now; says in the queue's flags what stands in the way. */
static unsigned room_of(struct queue *q)
{
    const struct durable *d = q->d;
    unsigned here = run_room(d), own = UNLIMITED;

    q->full = q->crowded = false;
    if (d->stopping || !d->running || q->gone || !lease_held(d))
        return 0;
    here -= min_u(here, d->queues->reserved);
    if (q->def.worker > 0)
        own = q->def.worker - min_u(q->def.worker, q->running);
    q->full = own == 0;
    q->crowded = here == 0;
    return min_u(min_u(own, here), CLAIM_MAX);
}

/* Claim until nothing is left that may be claimed; *ret_wait_ms gets how long to wait then. */
static CO int claim_all(struct queue *q, uint64_t *ret_wait_ms, struct err *e)
{
    struct claim_ret ret = { .more = true };
    int r = 0;

    while (r >= 0 && ret.more && !fiber_canceled()) {
        unsigned room = room_of(q);

        if (room == 0)
            return 0;
        r = claim_round(q, room, &ret, e);
        if (r < 0 || ret.n < room) /* room that was only reserved is there again */
            poke_crowded(q->d);
        if (r < 0)
            return r;
        q->full = q->full || ret.full;
        if (ret.more)
            r = fiber_yield(e);
    }
    if (ret.next_ms > 0 && (uint64_t)ret.next_ms < *ret_wait_ms)
        *ret_wait_ms = (uint64_t)ret.next_ms;
    return 0;
}

static uint64_t jittered(uint64_t ms)
{
    if (ms < POLL_MIN_MS)
        ms = POLL_MIN_MS;
    if (ms > POLL_MAX_MS)
        ms = POLL_MAX_MS;
    return (uint64_t)((double)ms * (0.95 + 0.1 * rand_unit())) + 1;
}

static void queue_free(struct queue *q)
{
    free(q->name);
    free(q->cursor);
    free(q);
}

static void unlink_queue(struct queue *q)
{
    struct queue **link = &q->d->queues->first;

    while (*link != q)
        link = &(*link)->next;
    *link = q->next;
    q->d->queues->n--;
    queue_free(q);
}

/* One whose row was deleted stays until its runs are gone, so that their slots are counted. */
static CO int dispatch(void *arg, struct err *e)
{
    struct queue *q = arg;
    int r;

    q->fiber = fiber_self();
    while (!fiber_canceled() && !(q->gone && q->running == 0)) {
        uint64_t wait = jittered(q->def.polling_ms);

        q->poked = false;
        r = claim_all(q, &wait, e);
        if (r != -ERR_CANCELED)
            chore_note("claim", &q->failing, r, e);
        if (q->poked && r >= 0)
            continue;
        if (r < 0 && wait > RETRY_MS) /* the hint that it answered will not come again */
            wait = RETRY_MS;
        do
            r = fiber_park(deadline_in((long long)wait), e);
        while (r == 0 && !q->poked && !q->gone);
    }
    if (fiber_canceled())
        q->fiber = NULL;
    else
        unlink_queue(q);
    return 0;
}

static int add(struct durable *d, struct str name, const struct queue_def *def,
               const struct durable_queue *row, struct err *e)
{
    struct queue *q;
    int r;

    if (d->queues->n >= QUEUES_MAX) {
        if (!d->queues->many)
            log_warn("more queues are defined than one process serves", "served",
                     LOG_INT(QUEUES_MAX));
        d->queues->many = true;
        return 0;
    }
    q = xcalloc(1, sizeof(*q));
    q->d = d;
    q->name = str_dup(name);
    q->def = *def;
    q->row = row;
    q->seen = true;
    q->poked = true;
    q->next = d->queues->first;
    d->queues->first = q;
    d->queues->n++;
    r = fiber_group_spawn(d->chores, "dispatcher", dispatch, q, e);
    if (r < 0)
        unlink_queue(q);
    return r;
}

/* --- reading and writing definitions --- */

/* clang-format off */
static const struct sql sql_queues = {
    "queue definitions",
    "SELECT q.name, q.concurrency, q.worker_concurrency, q.rate_limit_max, q.rate_limit_period_sec,"
    " q.partition_concurrency, q.partition_worker_concurrency, q.partition_rate_limit_max,"
    " q.partition_rate_limit_period_sec, q.polling_interval_sec, COALESCE(h.hold_slot, 0)"
    " FROM dbos.queues q LEFT JOIN durable_queues h ON h.name = q.name"
    " WHERE CAST(?1 AS TEXT) IS NULL OR q.application_name IS NULL OR q.application_name = ?1"
    " ORDER BY q.name LIMIT ?2",
    NULL,
};
static const struct sql sql_put_queue = {
    "put a queue",
    "INSERT INTO dbos.queues (queue_id, name, concurrency, worker_concurrency, rate_limit_max,"
    " rate_limit_period_sec, priority_enabled, partition_queue, polling_interval_sec,"
    " created_at, updated_at, application_name, partition_concurrency,"
    " partition_worker_concurrency, partition_rate_limit_max, partition_rate_limit_period_sec)"
    " VALUES (?1, ?2, NULLIF(?3, 0), NULLIF(?4, 0), NULLIF(?5, 0), NULLIF(?6, 0.0), TRUE,"
    " ?7 <> 0, ?8, ?9, ?9, ?10, NULLIF(?11, 0), NULLIF(?12, 0), NULLIF(?13, 0),"
    " NULLIF(?14, 0.0))"
    " ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency,"
    " worker_concurrency = excluded.worker_concurrency, rate_limit_max = excluded.rate_limit_max,"
    " rate_limit_period_sec = excluded.rate_limit_period_sec,"
    " partition_queue = excluded.partition_queue,"
    " polling_interval_sec = excluded.polling_interval_sec, updated_at = excluded.updated_at,"
    " application_name = COALESCE(dbos.queues.application_name, excluded.application_name),"
    " partition_concurrency = excluded.partition_concurrency,"
    " partition_worker_concurrency = excluded.partition_worker_concurrency,"
    " partition_rate_limit_max = excluded.partition_rate_limit_max,"
    " partition_rate_limit_period_sec = excluded.partition_rate_limit_period_sec",
    NULL,
};
static const struct sql sql_put_hold = {
    "put what a queue has of ours",
    "INSERT INTO durable_queues (name, hold_slot) VALUES (?1, ?2)"
    " ON CONFLICT (name) DO UPDATE SET hold_slot = excluded.hold_slot",
    NULL,
};
/* clang-format on */

struct read_queues {
    const char *app_name;
    struct arena arena;
    struct queue_def *defs;
    struct str *names;
    size_t n;
};

static uint32_t limit_of(const struct store_row *row, int col)
{
    int64_t v = row_int(row, col); /* NULL reads 0 */

    return v <= 0 ? 0 : v > INT32_MAX ? INT32_MAX : (uint32_t)v;
}

static int64_t ms_of(const struct store_row *row, int col)
{
    double s = row_real(row, col);

    return s > 0 && s < 1e9 ? (int64_t)(s * 1000) : 0;
}

static int read_def(struct store_row *row, void *arg, struct err *e)
{
    struct read_queues *get = arg;
    int64_t polling = row_is_null(row, 9) ? POLL_MS : ms_of(row, 9);

    (void)e;
    get->names[get->n] = arena_str(&get->arena, row_str(row, 0));
    get->defs[get->n++] = (struct queue_def){
        .concurrency = limit_of(row, 1),
        .worker = limit_of(row, 2),
        .rate = limit_of(row, 3),
        .rate_period_ms = ms_of(row, 4),
        .part_concurrency = limit_of(row, 5),
        .part_worker = limit_of(row, 6),
        .part_rate = limit_of(row, 7),
        .part_rate_period_ms = ms_of(row, 8),
        .polling_ms = (uint64_t)polling,
        .hold_slot = row_int(row, 10) != 0,
    };
    return 0;
}

static int read_queues_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct read_queues *get = arg;
    const struct sql_arg args[] = { SQL_Z(get->app_name), SQL_INT(QUEUES_MAX) };

    arena_reset(&get->arena);
    get->n = 0;
    get->names = arena_alloc(&get->arena, QUEUES_MAX * sizeof(*get->names));
    get->defs = arena_alloc(&get->arena, QUEUES_MAX * sizeof(*get->defs));
    return store_run(tx, &sql_queues, args, LEN(args), read_def, get, e);
}

/* What was read becomes what is served. */
static int adopt(struct durable *d, const struct read_queues *got, struct err *e)
{
    int r = 0;

    for (struct queue *q = d->queues->first; q; q = q->next)
        q->seen = false;
    for (size_t i = 0; i < got->n && r >= 0; i++) {
        struct queue *q = queue_find(d, got->names[i]);

        if (!q) {
            r = add(d, got->names[i], &got->defs[i], NULL, e);
            continue;
        }
        q->seen = true;
        if (q->gone || memcmp(&q->def, &got->defs[i], sizeof(q->def)) != 0) {
            q->def = got->defs[i];
            q->gone = false;
            poke(q);
        }
    }
    for (struct queue *q = d->queues->first; q; q = q->next) {
        if (q->seen || q->gone || str_eq_z(STR(DURABLE_INTERNAL_QUEUE), q->name))
            continue;
        if (q->row) {
            q->def = def_of(q->row);
            continue;
        }
        q->gone = true;
        poke(q);
    }
    return r;
}

int queues_reload(struct durable *d, struct err *e)
{
    struct read_queues get = { .app_name = d->conf.app_name };
    int r = store_read(d->store, read_queues_body, &get, e);

    if (r >= 0 && d->queues && !d->stopping)
        r = adopt(d, &get, e);
    arena_done(&get.arena);
    return r;
}

struct put_queues {
    const struct durable *d;
    int64_t now;
};

static int put_one(struct store_tx *tx, const struct put_queues *put,
                   const struct durable_queue *row, struct err *e)
{
    struct queue_def def = def_of(row);
    char id[37];
    const struct sql_arg args[] = {
        SQL_STR(((struct str){ id, 36 })),
        SQL_Z(row->name),
        SQL_INT(def.concurrency),
        SQL_INT(def.worker),
        SQL_INT(def.rate),
        SQL_REAL((double)def.rate_period_ms / 1000),
        SQL_INT(def_partitioned(&def)),
        SQL_REAL((double)def.polling_ms / 1000),
        SQL_INT(put->now),
        SQL_Z(put->d->conf.app_name),
        SQL_INT(def.part_concurrency),
        SQL_INT(def.part_worker),
        SQL_INT(def.part_rate),
        SQL_REAL((double)def.part_rate_period_ms / 1000),
    };
    const struct sql_arg hold[] = { SQL_Z(row->name), SQL_INT(def.hold_slot) };
    int r;

    uuid_new(id);
    r = store_run(tx, &sql_put_queue, args, LEN(args), NULL, NULL, e);
    if (r == 0)
        r = store_run(tx, &sql_put_hold, hold, LEN(hold), NULL, NULL, e);
    return r;
}

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct put_queues *put = arg;
    int r = 0;

    for (size_t i = 0; i < put->d->n_queue_rows && r == 0; i++)
        r = put_one(tx, put, put->d->queue_rows[i], e);
    return r;
}

CO int queues_register_rows(struct durable *d, struct err *e)
{
    struct put_queues put = { d, wall_ms() };

    return d->n_queue_rows > 0 ? store_do(d->store, put_body, &put, e) : 0;
}

/* --- life --- */

/* What we implement, as the claims of SQLite want it. */
static int write_names(struct durable *d, struct err *e)
{
    struct queues *qs = d->queues;
    const char *comma = "";
    int r = buf_add_z(&qs->names, "[", e);

    for (size_t i = 0; i < d->n_types && r == 0; i++) {
        if (i > 0)
            r = buf_add_z(&qs->names, ",", e);
        if (r == 0)
            r = json_write_str(&qs->names, d->addresses[i], e);
    }
    if (r == 0)
        r = buf_add_z(&qs->names, "]", e);
    if (r == 0)
        r = buf_add_z(&qs->timeouts, "{", e);
    for (size_t i = 0; i < d->n_types && r == 0; i++) {
        if (d->types[i]->timeout_ms == 0)
            continue;
        r = buf_add_z(&qs->timeouts, comma, e);
        if (r == 0)
            r = json_write_str(&qs->timeouts, d->addresses[i], e);
        if (r == 0)
            r = buf_printf(&qs->timeouts, e, ":%llu", (unsigned long long)d->types[i]->timeout_ms);
        comma = ",";
    }
    if (r == 0)
        r = buf_add_z(&qs->timeouts, "}", e);
    return r;
}

int queues_start(struct durable *d, struct err *e)
{
    static const struct durable_queue internal = { .name = DURABLE_INTERNAL_QUEUE };
    struct queue_def def = def_of(&internal);
    int r;

    d->queues = xcalloc(1, sizeof(*d->queues));
    buf_init(&d->queues->names, 16 * MIB);
    buf_init(&d->queues->timeouts, 16 * MIB);
    r = write_names(d, e);
    if (r == 0)
        r = add(d, STR(DURABLE_INTERNAL_QUEUE), &def, NULL, e);
    for (size_t i = 0; i < d->n_queue_rows && r == 0; i++) {
        def = def_of(d->queue_rows[i]);
        if (!queue_find(d, str_of(d->queue_rows[i]->name)))
            r = add(d, str_of(d->queue_rows[i]->name), &def, d->queue_rows[i], e);
    }
    return r;
}

void queues_free(struct durable *d)
{
    struct queues *qs = d->queues;

    notifier_free(d);
    sweeper_free(d);
    lease_free(d);
    if (!qs)
        return;
    while (qs->first) {
        struct queue *q = qs->first;

        qs->first = q->next;
        queue_free(q);
    }
    buf_done(&qs->names);
    buf_done(&qs->timeouts);
    free(qs);
    d->queues = NULL;
}
