/* SPDX-License-Identifier: MIT */
/*
 * durable/schedule_fire.c — one time of a schedule becomes a workflow. Its id is made of the name
 * and the time, so however many engines fire it, and however often, it is one workflow.
 */
#include "base/log.h"
#include "durable/schedule_int.h"

/* clang-format off */
/* ?1 name, ?2 id, ?3 cron expression, ?4 workflow. */
static const struct sql sql_current = {
    "schedule current",
    "SELECT 1 FROM dbos.workflow_schedules WHERE schedule_name = ?1 AND schedule_id = ?2"
    " AND schedule = ?3 AND workflow_name = ?4 AND status = 'ACTIVE'",
};
/* ?1 schedule, ?2 the id that is to be. */
static const struct sql sql_there = {
    "schedule there", "SELECT 1 FROM dbos.workflow_status WHERE workflow_uuid = ?1",
};
static const struct sql sql_active = {
    "schedule active",
    "SELECT workflow_uuid FROM dbos.workflow_status WHERE schedule_name = ?1"
    " AND status IN " SQL_ACTIVE " AND workflow_uuid <> ?2 LIMIT 1000",
};
/* ?1 application, or NULL. */
static const struct sql sql_version = {
    "schedule version",
    "SELECT version_name FROM dbos.application_versions WHERE application_name IS NULL"
    " OR application_name = CAST(?1 AS TEXT) ORDER BY version_timestamp DESC LIMIT 1",
};
/* ?1 name, ?2 time as text. */
static const struct sql sql_fired = {
    "schedule fired",
    "UPDATE dbos.workflow_schedules SET last_fired_at = ?2 WHERE schedule_name = ?1"
    " AND (last_fired_at IS NULL OR last_fired_at < ?2)",
};
/* clang-format on */

/* At what is there before a time fires. */
struct look {
    const struct durable_schedule *current; /* NULL: it need not be as in the table */
    struct sql_arg schedule, id, app;
    struct arena arena;
    struct ids active, version;
    bool stale, there;
};

static int there_row(struct store_row *row, void *arg, struct err *e)
{
    *(bool *)arg = true;
    return 0;
}

static int look_current(struct store_tx *tx, struct look *l, struct err *e)
{
    const struct durable_schedule *s = l->current;
    const struct sql_arg args[] = { SQL_STR(s->name), SQL_STR(s->id), SQL_STR(s->cron),
                                    SQL_STR(s->workflow) };
    bool current = false;
    int r = store_run(tx, &sql_current, args, LEN(args), there_row, &current, e);

    l->stale = !current;
    return r;
}

static int look_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *l = arg;
    const struct sql_arg args[] = { l->schedule, l->id };
    int r;

    l->stale = l->there = false;
    l->active.n = l->version.n = 0;
    r = l->current ? look_current(tx, l, e) : 0;
    if (r == 0)
        r = store_run(tx, &sql_there, &l->id, 1, there_row, &l->there, e);
    if (r == 0 && l->schedule.kind != SQL_K_NULL)
        r = store_run(tx, &sql_active, args, LEN(args), ids_row, &l->active, e);
    if (r == 0)
        r = store_run(tx, &sql_version, &l->app, 1, ids_row, &l->version, e);
    return r;
}

/* [time, context] */
static int args_write(const char *time, struct str context, struct buf *out, struct err *e)
{
    int r = buf_printf(out, e, "[\"%s\",", time);

    if (r == 0)
        r = buf_add_str(out, context.n ? context : STR("null"), e);
    return r < 0 ? r : buf_add_z(out, "]", e);
}

static CO int enqueue(struct durable *d, const struct durable_schedule *s, struct str id,
                      struct str version, const char *time, bool *ret_new, struct err *e)
{
    AUTO(free) char *name = str_dup(s->workflow);
    AUTO(free) char *class_name = s->class_name.p ? str_dup(s->class_name) : NULL;
    AUTO(free) char *schedule = str_dup(s->name);
    AUTO(buf_done) struct buf args;
    struct durable_started started = { 0 };
    int r;

    buf_init(&args, d->conf.payload_max + KIB);
    r = args_write(time, s->context, &args, e);
    if (r == 0) {
        const struct durable_start start = {
            .name = name,
            .class_name = class_name,
            .args = buf_str(&args),
            .id = id,
            .queue = s->queue.n ? s->queue : STR(DURABLE_INTERNAL_QUEUE),
            .app_version = version,
            .schedule = schedule,
        };

        r = durable_start(d, &start, &started, e);
    }
    if (r == 0)
        *ret_new = !started.existed;
    return r;
}

/* Is it to start, by the overlap policy and what is there? */
static CO int allowed(struct durable *d, const struct durable_schedule *s, struct look *l,
                      bool *ret, struct err *e)
{
    int64_t n;

    *ret = !l->there;
    if (l->there || s->overlap == OVERLAP_ALLOW || l->active.n == 0)
        return 0;
    if (s->overlap == OVERLAP_REPLACE)
        return durable_cancel(d, l->active.v, l->active.n, true, &n, e);
    log_info("schedule skipped a time: the run before has not ended", "schedule",
             LOG_SLICE(s->name), "running", LOG_SLICE(l->active.v[0]));
    *ret = false;
    return 0;
}

CO int schedule_fire(struct durable *d, const struct durable_schedule *s, int64_t at_ms,
                     enum fire_kind kind, bool *ret_new, char *ret_id, struct err *e)
{
    char time[TIME_TEXT], id[DURABLE_ID];
    struct look l = { 0 };
    bool start = true;
    int r;

    time_format_z(at_ms * 1000, time);
    if (s->name.n > SCHEDULE_NAME_MAX)
        return err_set(e, ERR_LIMIT, "the name of a schedule has at most %d bytes",
                       SCHEDULE_NAME_MAX);
    fmt_z(id, sizeof(id), "sched-" STR_FMT "-%s%s", STR_ARG(s->name),
          kind == FIRE_TRIGGER ? "trigger-" : "", time);
    *ret_new = false;
    l.active.arena = l.version.arena = &l.arena;
    l.current = kind == FIRE_CLOCK ? s : NULL;
    l.id = SQL_Z(id);
    l.schedule = kind == FIRE_CLOCK && s->overlap != OVERLAP_ALLOW ? SQL_STR(s->name) : SQL_NULL;
    l.app = SQL_Z(d->conf.app_name);
    r = store_read(d->store, look_body, &l, e);
    if (r == 0 && l.stale) {
        arena_done(&l.arena);
        return SCHEDULE_STALE;
    }
    if (r == 0)
        r = allowed(d, s, &l, &start, e);
    if (r == 0 && start)
        r = enqueue(d, s, str_of(id), l.version.n ? l.version.v[0] : (struct str){ 0 }, time,
                    ret_new, e);
    arena_done(&l.arena);
    if (r == 0 && ret_id)
        memcpy(ret_id, id, sizeof(id));
    return r;
}

static int fired_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_run(tx, &sql_fired, arg, 2, NULL, NULL, e);
}

CO int schedule_fired(struct durable *d, struct str name, int64_t at_ms, struct err *e)
{
    char time[TIME_TEXT];
    struct sql_arg args[2];

    time_format_z(at_ms * 1000, time);
    args[0] = SQL_STR(name);
    args[1] = SQL_Z(time);
    return store_do(d->store, fired_body, args, e);
}

/* --- which times --- */

static void keep_newest(int64_t *times, size_t *n, size_t most, int64_t at)
{
    if (*n == most) { /* a ring would be faster, and harder to read: this is rare */
        memmove(times, times + 1, (most - 1) * sizeof(*times));
        (*n)--;
    }
    times[(*n)++] = at;
}

/* A beginning not before `from`, such that enough times lie between it and the end: without
 * counting through all of a year's seconds. */
static int64_t begin_of(const struct cron *c, struct zone *z, int64_t from, int64_t end,
                        size_t enough)
{
    for (int64_t window = MISFIRE_GRACE_MS; end - window > from; window *= 2) {
        int64_t at = cron_next(c, z, end - window);
        size_t n = 0;

        for (; at != 0 && at < end && n < enough; n++)
            at = cron_next(c, z, at);
        if (n == enough)
            return end - window;
    }
    return from;
}

void schedule_due(const struct durable_schedule *s, const struct cron *c, struct zone *z,
                  int64_t from_ms, int64_t now, struct arena *a, int64_t **ret, size_t *ret_n)
{
    size_t most = s->misfire == MISFIRE_ALL ? (s->misfire_max ? s->misfire_max : MISFIRE_MAX) : 1;
    int64_t late = now - MISFIRE_GRACE_MS, *times, *fresh;
    size_t n = 0, n_fresh = 0, fresh_most = MISFIRE_GRACE_MS / 1000 + 1;

    *ret = times = arena_raw(a, (most + fresh_most) * sizeof(*times));
    fresh = arena_raw(a, fresh_most * sizeof(*fresh));
    from_ms = begin_of(c, z, from_ms, late, most);
    for (int64_t at = cron_next(c, z, from_ms); at != 0 && at <= now; at = cron_next(c, z, at)) {
        if (at >= late)
            keep_newest(fresh, &n_fresh, fresh_most, at);
        else
            keep_newest(times, &n, most, at);
    }
    if (s->misfire == MISFIRE_SKIP || (s->misfire == MISFIRE_ONCE && n_fresh > 0))
        n = 0;
    memcpy(times + n, fresh, n_fresh * sizeof(*times));
    *ret_n = n + n_fresh;
}
