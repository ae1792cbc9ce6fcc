/* SPDX-License-Identifier: MIT */
/*
 * durable/schedule_table.c — schedules as rows: those of DBOS in workflow_schedules, which its
 * clients read and write too, and beside them what only we know in durable_schedules. A schedule
 * made by others has no such row: it makes up for all that was missed when its automatic_backfill
 * is set, else for nothing, and its runs may overlap.
 */
#include "durable/schedule_int.h"

const char *const durable_misfire_names[3] = { "skip", "once", "all" };
const char *const durable_overlap_names[3] = { "allow", "skip", "replace" };

/* clang-format off */
/* ?1 name, or NULL. */
static const struct sql sql_read = {
    "schedules read",
    "SELECT s.schedule_id, s.schedule_name, s.workflow_name, s.workflow_class_name, s.schedule,"
    " s.cron_timezone, s.queue_name, s.context, s.status, s.last_fired_at,"
    " CASE WHEN s.automatic_backfill THEN 1 ELSE 0 END, s.application_name, x.misfire, x.overlap,"
    " x.misfire_max, x.since_ms FROM dbos.workflow_schedules s"
    " LEFT JOIN durable_schedules x ON x.schedule_name = s.schedule_name"
    " WHERE CAST(?1 AS TEXT) IS NULL OR s.schedule_name = ?1 ORDER BY s.schedule_name LIMIT 10000",
};

/* ?1 id, ?2 name, ?3 workflow, ?4 class, ?5 cron, ?6 status, ?7 context, ?8 makes up for all,
 * ?9 zone, ?10 queue, ?11 application. */
static const struct sql sql_put = {
    "schedule put",
    "INSERT INTO dbos.workflow_schedules (schedule_id, schedule_name, workflow_name,"
    " workflow_class_name, schedule, status, context, automatic_backfill, cron_timezone,"
    " queue_name, application_name) VALUES (?1, ?2, ?3, CAST(?4 AS TEXT), ?5, ?6, ?7, ?8 = 1,"
    " CAST(?9 AS TEXT), CAST(?10 AS TEXT), CAST(?11 AS TEXT))"
    " ON CONFLICT (schedule_name) DO UPDATE SET workflow_name = excluded.workflow_name,"
    " workflow_class_name = excluded.workflow_class_name, schedule = excluded.schedule,"
    " status = excluded.status, context = excluded.context,"
    " automatic_backfill = excluded.automatic_backfill, cron_timezone = excluded.cron_timezone,"
    " queue_name = excluded.queue_name, application_name = excluded.application_name"
    " WHERE workflow_schedules.application_name IS NULL"
    " OR workflow_schedules.application_name = CAST(?11 AS TEXT)",
};
/* ?1 name, ?2 misfire, ?3 overlap, ?4 misfire_max, ?5 since. */
static const struct sql sql_put_more = {
    "schedule put more",
    "INSERT INTO durable_schedules (schedule_name, misfire, overlap, misfire_max, since_ms)"
    " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (schedule_name) DO UPDATE SET"
    " misfire = excluded.misfire, overlap = excluded.overlap,"
    " misfire_max = excluded.misfire_max, since_ms = excluded.since_ms",
};
/* ?1 name, ?2 status. */
static const struct sql sql_status = {
    "schedule status",
    "UPDATE dbos.workflow_schedules SET status = ?2 WHERE schedule_name = ?1",
};
/* ?1 name, ?2 now. */
static const struct sql sql_since = {
    "schedule since",
    "INSERT INTO durable_schedules (schedule_name, misfire, overlap, misfire_max, since_ms)"
    " SELECT schedule_name, CASE WHEN automatic_backfill THEN 'all' ELSE 'skip' END, 'allow', 0,"
    " CAST(?2 AS BIGINT) FROM dbos.workflow_schedules WHERE schedule_name = ?1"
    " ON CONFLICT (schedule_name) DO UPDATE SET since_ms = excluded.since_ms",
};
static const struct sql sql_remove_more = {
    "schedule remove more", "DELETE FROM durable_schedules WHERE schedule_name = ?1",
};
static const struct sql sql_remove = {
    "schedule remove", "DELETE FROM dbos.workflow_schedules WHERE schedule_name = ?1",
};
/* clang-format on */

/* --- reading --- */

static void grow(struct schedule_rows *rows)
{
    size_t cap = rows->cap ? rows->cap * 2 : 16;
    struct durable_schedule *v = arena_alloc(rows->arena, cap * sizeof(*v));
    int64_t *since = arena_alloc(rows->arena, cap * sizeof(*since));
    struct str *owner = arena_alloc(rows->arena, cap * sizeof(*owner));

    if (rows->n) {
        memcpy(v, rows->v, rows->n * sizeof(*v));
        memcpy(since, rows->since_ms, rows->n * sizeof(*since));
        memcpy(owner, rows->owner, rows->n * sizeof(*owner));
    }
    rows->v = v;
    rows->since_ms = since;
    rows->owner = owner;
    rows->cap = cap;
}

static struct str keep(struct arena *a, struct store_row *row, int col)
{
    return row_is_null(row, col) ? (struct str){ 0 } : arena_str(a, row_str(row, col));
}

static unsigned place(const char *const names[3], struct str name)
{
    for (unsigned i = 0; i < 3; i++)
        if (str_eq_z(name, names[i]))
            return i;
    return 0;
}

/* The context was written by a serializer that the row does not name. */
static struct str context_json(struct arena *a, struct str text)
{
    bool marked = memmem(text.p, text.n, "\"__dbos_serializer\"", 19) != NULL;
    struct str json = text;
    struct err unread;
    struct buf b;

    buf_init(&b, SIZE_MAX / 2);
    if (wire_read_value(marked ? WIRE_SUPERJSON : WIRE_PORTABLE, text, &b, &unread) == 0)
        json = buf_str(&b);
    json = arena_str(a, json); /* of a language we cannot read: as it is */
    buf_done(&b);
    return json;
}

static int read_row(struct store_row *row, void *arg, struct err *e)
{
    struct schedule_rows *rows = arg;
    struct arena *a = rows->arena;
    struct durable_schedule *s;
    struct err unread;
    int64_t us = 0;

    if (rows->n == rows->cap)
        grow(rows);
    s = &rows->v[rows->n];
    *s = (struct durable_schedule){
        .id = keep(a, row, 0),
        .name = keep(a, row, 1),
        .workflow = keep(a, row, 2),
        .class_name = keep(a, row, 3),
        .cron = keep(a, row, 4),
        .zone = keep(a, row, 5),
        .queue = keep(a, row, 6),
        .context = context_json(a, row_str(row, 7)),
        .paused = !str_eq_z(row_str(row, 8), "ACTIVE"),
        .misfire = row_int(row, 10) ? MISFIRE_ALL : MISFIRE_SKIP,
    };
    if (!row_is_null(row, 9) && time_parse(row_str(row, 9), &us, &unread) == 0)
        s->last_ms = us / 1000;
    rows->owner[rows->n] = keep(a, row, 11);
    rows->since_ms[rows->n] = 0;
    if (!row_is_null(row, 12)) {
        s->misfire = (enum durable_misfire)place(durable_misfire_names, row_str(row, 12));
        s->overlap = (enum durable_overlap)place(durable_overlap_names, row_str(row, 13));
        s->misfire_max = (unsigned)row_int(row, 14);
        rows->since_ms[rows->n] = row_int(row, 15);
    }
    rows->n++;
    return 0;
}

struct read {
    struct sql_arg name;
    struct schedule_rows *rows;
};

static int read_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct read *read = arg;

    read->rows->n = 0;
    return store_run(tx, &sql_read, &read->name, 1, read_row, read->rows, e);
}

CO int schedules_read(struct durable *d, struct str name, struct schedule_rows *rows, struct err *e)
{
    struct read read = { text_arg(name), rows };

    return store_read(d->store, read_body, &read, e);
}

bool schedule_is_ours(const struct durable *d, struct str owner)
{
    return !owner.p || (d->conf.app_name && str_eq_z(owner, d->conf.app_name));
}

static int64_t next_of(const struct durable_schedule *s, int64_t now)
{
    AUTO(cron_free) struct cron *c = NULL;
    AUTO(zone_free) struct zone *z = NULL;
    struct err e;

    if (s->paused || cron_parse(s->cron, &c, &e) < 0 || zone_open(s->zone, &z, &e) < 0)
        return 0;
    return cron_next(c, z, now);
}

CO int durable_schedules(struct durable *d, struct arena *a, struct durable_schedule **ret,
                         size_t *ret_n, struct err *e)
{
    struct schedule_rows rows = { .arena = a };
    int64_t now = clock_ms(d);
    int r = schedules_read(d, (struct str){ 0 }, &rows, e);

    if (r < 0)
        return r;
    for (size_t i = 0; i < rows.n; i++)
        rows.v[i].next_ms = next_of(&rows.v[i], now);
    *ret = rows.v;
    *ret_n = rows.n;
    return 0;
}

static int not_found(struct str name, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "there is no schedule '" STR_FMT "'",
                   name.n > 100 ? 100 : (int)name.n, name.p);
}

CO int durable_schedule_get(struct durable *d, struct str name, struct arena *a,
                            struct durable_schedule *ret, struct err *e)
{
    struct schedule_rows rows = { .arena = a };
    int64_t now = clock_ms(d);
    int r = schedules_read(d, name.p ? name : STR(""), &rows, e);

    if (r < 0)
        return r;
    if (rows.n == 0)
        return not_found(name, e);
    *ret = rows.v[0];
    ret->next_ms = next_of(ret, now);
    return 0;
}

/* --- changing --- */

static void changed(struct durable *d)
{
    if (!d->schedules)
        return;
    d->schedules->changed = true;
    fiber_wake(d->schedules->fiber);
}

struct put {
    const struct durable_schedule *s;
    const char *owner;
    char id[TOKEN_TEXT];
    struct str context; /* serialized */
    int64_t now;
};

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct put *put = arg;
    const struct durable_schedule *s = put->s;
    const struct sql_arg args[] = {
        SQL_Z(put->id),
        SQL_STR(s->name),
        SQL_STR(s->workflow),
        text_arg(s->class_name),
        SQL_STR(s->cron),
        SQL_STR(s->paused ? STR("PAUSED") : STR("ACTIVE")),
        SQL_STR(put->context),
        SQL_INT(s->misfire == MISFIRE_ALL),
        s->zone.n ? SQL_STR(s->zone) : SQL_NULL,
        s->queue.n ? SQL_STR(s->queue) : SQL_NULL,
        SQL_Z(put->owner),
    };
    const struct sql_arg more[] = {
        SQL_STR(s->name),
        SQL_Z(durable_misfire_names[s->misfire]),
        SQL_Z(durable_overlap_names[s->overlap]),
        SQL_INT(s->misfire_max),
        SQL_INT(put->now),
    };
    int r = store_run(tx, &sql_put, args, LEN(args), NULL, NULL, e);

    if (r == 0 && store_changed(tx) == 0)
        return err_set(e, ERR_CONFLICT, "the schedule belongs to another application");
    return r < 0 ? r : store_run(tx, &sql_put_more, more, LEN(more), NULL, NULL, e);
}

static int text_check(struct str s, const char *what, size_t max, struct err *e)
{
    if (s.n == 0 || s.n > max)
        return err_set(e, ERR_INVALID, "%s has 1 to %zu bytes", what, max);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
            return err_set(e, ERR_INVALID, "%s has no control characters", what);
    return 0;
}

static int put_check(const struct durable_schedule *s, struct err *e)
{
    AUTO(cron_free) struct cron *c = NULL;
    AUTO(zone_free) struct zone *z = NULL;
    int r = text_check(s->name, "the name of a schedule", SCHEDULE_NAME_MAX, e);

    if (r == 0)
        r = text_check(s->workflow, "the name of a workflow", NAME_MAX_ - 1, e);
    if (r == 0 && s->class_name.n)
        r = text_check(s->class_name, "the name of a class", NAME_MAX_ - 1, e);
    if (r == 0 && s->queue.n)
        r = text_check(s->queue, "the name of a queue", NAME_MAX_ - 1, e);
    if (r == 0)
        r = cron_parse(s->cron, &c, e);
    if (r == 0)
        r = zone_open(s->zone, &z, e);
    if (r == 0 && ((unsigned)s->misfire > MISFIRE_ALL || (unsigned)s->overlap > OVERLAP_REPLACE))
        r = err_set(e, ERR_INVALID, "an unknown policy");
    if (r == 0 && s->misfire_max > MISFIRE_MOST)
        r = err_set(e, ERR_INVALID, "at most %d missed times are made up for", MISFIRE_MOST);
    return r;
}

CO int durable_schedule_put(struct durable *d, const struct durable_schedule *s, struct err *e)
{
    AUTO(buf_done) struct buf context;
    struct put put = { .s = s, .owner = d->conf.app_name };
    int r = put_check(s, e);

    buf_init(&context, d->conf.payload_max + KIB);
    if (r == 0) /* as the clients of DBOS read it */
        r = wire_write_value(WIRE_SUPERJSON, s->context.n ? s->context : STR("null"), &context, e);
    if (r < 0)
        return r;
    uuid_new(put.id);
    put.context = buf_str(&context);
    put.now = clock_ms(d);
    r = store_do(d->store, put_body, &put, e);
    if (r == 0)
        changed(d);
    return r;
}

struct pause {
    struct sql_arg args[2], since[2];
    bool paused;
};

static int pause_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct pause *p = arg;
    int r = store_run(tx, &sql_status, p->args, LEN(p->args), NULL, NULL, e);

    if (r == 0 && store_changed(tx) == 0)
        return not_found(p->args[0].s, e);
    if (r == 0 && !p->paused) /* what passed meanwhile was not missed */
        r = store_run(tx, &sql_since, p->since, LEN(p->since), NULL, NULL, e);
    return r;
}

CO int durable_schedule_pause(struct durable *d, struct str name, bool paused, struct err *e)
{
    struct pause p = { .paused = paused };
    int r;

    p.args[0] = p.since[0] = SQL_STR(name);
    p.args[1] = SQL_STR(paused ? STR("PAUSED") : STR("ACTIVE"));
    p.since[1] = SQL_INT(clock_ms(d));
    r = store_do(d->store, pause_body, &p, e);
    if (r == 0)
        changed(d);
    return r;
}

static int remove_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg *name = arg;
    int r = store_run(tx, &sql_remove_more, name, 1, NULL, NULL, e);

    if (r == 0)
        r = store_run(tx, &sql_remove, name, 1, NULL, NULL, e);
    return r == 0 && store_changed(tx) == 0 ? not_found(name->s, e) : r;
}

CO int durable_schedule_remove(struct durable *d, struct str name, struct err *e)
{
    struct sql_arg arg = SQL_STR(name);
    int r = store_do(d->store, remove_body, &arg, e);

    if (r == 0)
        changed(d);
    return r;
}

CO int durable_schedule_trigger(struct durable *d, struct str name, char ret_id[DURABLE_ID],
                                struct err *e)
{
    struct durable_schedule s;
    struct arena a = { 0 };
    bool fresh;
    int r = durable_schedule_get(d, name, &a, &s, e);

    if (r == 0)
        r = schedule_fire(d, &s, clock_ms(d), FIRE_TRIGGER, &fresh, ret_id, e);
    arena_done(&a);
    return r;
}

/* The times in [from, to), at most MISFIRE_MOST. */
static int times_between(const struct durable_schedule *s, int64_t from, int64_t to,
                         struct arena *a, int64_t **ret, size_t *ret_n, struct err *e)
{
    AUTO(cron_free) struct cron *c = NULL;
    AUTO(zone_free) struct zone *z = NULL;
    int64_t *times = arena_raw(a, MISFIRE_MOST * sizeof(*times)), at;
    size_t n = 0;
    int r = cron_parse(s->cron, &c, e);

    if (r == 0)
        r = zone_open(s->zone, &z, e);
    if (r < 0)
        return r;
    for (at = cron_next(c, z, from - 1); at != 0 && at < to; at = cron_next(c, z, at)) {
        if (n == MISFIRE_MOST)
            return err_set(e, ERR_LIMIT, "more than %d times lie between", MISFIRE_MOST);
        times[n++] = at;
    }
    *ret = times;
    *ret_n = n;
    return 0;
}

CO int durable_schedule_backfill(struct durable *d, struct str name, int64_t from_ms, int64_t to_ms,
                                 int64_t *ret_n, struct err *e)
{
    struct durable_schedule s;
    struct arena a = { 0 };
    int64_t *times = NULL, n_new = 0;
    size_t n = 0;
    int r = durable_schedule_get(d, name, &a, &s, e);

    if (r == 0)
        r = times_between(&s, from_ms, to_ms, &a, &times, &n, e);
    for (size_t i = 0; r == 0 && i < n; i++) {
        bool fresh = false;

        r = schedule_fire(d, &s, times[i], FIRE_BACKFILL, &fresh, NULL, e);
        n_new += fresh;
    }
    arena_done(&a);
    if (r == 0)
        *ret_n = n_new;
    return r;
}
