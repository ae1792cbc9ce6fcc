/* SPDX-License-Identifier: MIT */
/*
 * durable/schedule.c — the chore that watches the clock for schedules.
 *
 * It reads the table every few seconds, and at once after a change by this process; what others
 * have changed meanwhile shows when a time is to fire, for the table has the last word. Of each
 * schedule that is ours, active, and of a workflow we implement (others leave theirs to whoever
 * has it), it remembers up to what time it has dealt with it: a cursor. A new one begins where the
 * table says that it was last fired; times since then that nobody fired are missed, and the misfire
 * policy decides. A clock that is set forward passes times the same way. One that is set back
 * moves the cursor back with it: times that come again have workflows already, whose ids are the
 * same. Any number of engines do this at once.
 *
 * Nothing ends the chore but the end of the engine. A schedule that cannot be fired is tried again
 * each second and holds up no other.
 */
#include "base/log.h"
#include "durable/schedule_int.h"

#define READ_MS  5000
#define READ_1IN 100  /* of the time at most is spent reading, however long the table is */
#define TURN_MS  1000 /* the clock is looked at so often: it may be set */
#define AGAIN_MS 1000 /* after a failure */

struct watched { /* a schedule; strings are of the arena */
    struct watched *next;
    struct arena arena;
    struct durable_schedule s;
    int64_t since_ms;
    struct cron *cron; /* NULL: it cannot be followed, and that was said */
    struct zone *zone;
    int64_t cursor; /* times up to this are dealt with */
    int64_t due;    /* the first after it; 0: none */
    int64_t try_at; /* not before, after a failure */
    bool seen;      /* in the reading of the table under way */
    bool failing;   /* and that was said */
};

struct watch {
    struct durable *d;
    struct watched *first;
    struct schedules shared;
    uint64_t read_at; /* mono: when to read the table again */
    int64_t now;      /* by the clock, at this turn */
    bool failing;     /* the table could not be read, and that was said */
};

static void watched_free(struct watched *w)
{
    cron_free(w->cron);
    zone_free(w->zone);
    arena_done(&w->arena);
    free(w);
}

static void set_cursor(struct watched *w, int64_t cursor)
{
    w->cursor = cursor;
    w->due = w->cron ? cron_next(w->cron, w->zone, cursor) : 0;
}

/* --- the table --- */

static bool same(const struct watched *w, const struct durable_schedule *s, int64_t since_ms)
{
    return str_eq(w->s.id, s->id) && str_eq(w->s.workflow, s->workflow) &&
           str_eq(w->s.class_name, s->class_name) && str_eq(w->s.cron, s->cron) &&
           str_eq(w->s.zone, s->zone) && str_eq(w->s.queue, s->queue) &&
           str_eq(w->s.context, s->context) && w->s.misfire == s->misfire &&
           w->s.overlap == s->overlap && w->s.misfire_max == s->misfire_max &&
           w->since_ms == since_ms;
}

static struct watched **find(struct watch *watch, struct str name)
{
    struct watched **at = &watch->first;

    while (*at && !str_eq((*at)->s.name, name))
        at = &(*at)->next;
    return at;
}

static int understand(struct watched *w, struct err *e)
{
    int r = w->s.context.n ? wire_check(w->s.context, e) : 0;

    if (r < 0)
        return err_wrap(e, "context");
    r = zone_open(w->s.zone, &w->zone, e);
    return r < 0 ? r : cron_parse(w->s.cron, &w->cron, e);
}

/* after: times up to this were dealt with as another definition of it; 0: there was none. */
static struct watched *watched_new(const struct watch *watch, const struct durable_schedule *s,
                                   int64_t since_ms, int64_t after)
{
    struct watched *w = xcalloc(1, sizeof(*w));
    struct str *const texts[] = { &w->s.id,   &w->s.name, &w->s.workflow, &w->s.class_name,
                                  &w->s.cron, &w->s.zone, &w->s.queue,    &w->s.context };
    int64_t base = s->last_ms > since_ms ? s->last_ms : since_ms;
    struct err e;

    w->s = *s;
    for (size_t i = 0; i < LEN(texts); i++)
        if (texts[i]->p)
            *texts[i] = arena_str(&w->arena, *texts[i]);
    w->since_ms = since_ms;
    if (understand(w, &e) < 0)
        log_warn("schedule cannot be followed", "schedule", LOG_SLICE(s->name), "error",
                 LOG_ERR(&e));
    base = after > base ? after : base;
    set_cursor(w, base > 0 && base < watch->now ? base : watch->now);
    return w;
}

static void watch_row(struct watch *watch, const struct durable_schedule *s, int64_t since_ms)
{
    struct watched **at = find(watch, s->name), *old = *at;

    if (!old || !same(old, s, since_ms)) {
        *at = watched_new(watch, s, since_ms, old ? old->cursor : 0);
        if (old) {
            (*at)->next = old->next;
            watched_free(old);
        }
    }
    (*at)->seen = true;
}

static void drop_unseen(struct watch *watch)
{
    struct watched **at = &watch->first;

    while (*at) {
        struct watched *w = *at;

        if (w->seen) {
            w->seen = false;
            at = &w->next;
        } else {
            *at = w->next;
            watched_free(w);
        }
    }
}

static CO int read_table(struct watch *watch, struct err *e)
{
    struct durable *d = watch->d;
    struct arena a = { 0 };
    struct schedule_rows rows = { .arena = &a };
    int r;

    watch->shared.changed = false;
    r = schedules_read(d, (struct str){ 0 }, &rows, e);
    for (size_t i = 0; r == 0 && i < rows.n; i++) {
        const struct durable_schedule *s = &rows.v[i];

        if (!s->paused && schedule_is_ours(d, rows.owner[i]) &&
            type_find(d, s->workflow, s->class_name))
            watch_row(watch, s, rows.since_ms[i]);
    }
    if (r == 0)
        drop_unseen(watch);
    arena_done(&a);
    return r;
}

static CO int read_again(struct watch *watch, struct err *e)
{
    uint64_t began = now_ms(), rest;
    int r;

    if (!watch->shared.changed && began < watch->read_at)
        return 0;
    r = read_table(watch, e);
    rest = (now_ms() - began) * READ_1IN;
    watch->read_at = now_ms() + (r < 0 ? AGAIN_MS : rest > READ_MS ? rest : READ_MS);
    if (r == -ERR_CANCELED)
        return r;
    if (r < 0) {
        metric_add(&durable_m_chore_failures, 0, 1);
        if (!watch->failing)
            log_warn("schedules cannot be read", "error", LOG_ERR(e));
    }
    watch->failing = r < 0;
    return 0;
}

/* --- firing --- */

/* May the same work later? Otherwise the time is given up, or it would be tried for ever. */
static bool passes(int r)
{
    return r == -ERR_UNAVAILABLE || r == -ERR_TIMEOUT || r == -ERR_INTERNAL;
}

/* 0, or SCHEDULE_STALE: the table is to be read before it goes on. */
static CO int fire_times(struct watch *watch, struct watched *w, const int64_t *times, size_t n,
                         struct err *e)
{
    int r = 0;

    for (size_t i = 0; i < n; i++) {
        bool fresh;

        r = schedule_fire(watch->d, &w->s, times[i], FIRE_CLOCK, &fresh, NULL, e);
        if (r == -ERR_CANCELED || r == SCHEDULE_STALE || passes(r))
            return r;
        if (r < 0)
            log_warn("schedule cannot start its workflow", "schedule", LOG_SLICE(w->s.name),
                     "error", LOG_ERR(e));
        w->cursor = times[i];
    }
    return n ? schedule_fired(watch->d, w->s.name, times[n - 1], e) : 0;
}

static CO int fire(struct watch *watch, struct watched *w, struct err *e)
{
    struct arena a = { 0 };
    int64_t *times;
    size_t n;
    int r;

    schedule_due(&w->s, w->cron, w->zone, w->cursor, watch->now, &a, &times, &n);
    r = fire_times(watch, w, times, n, e);
    arena_done(&a);
    if (r == -ERR_CANCELED)
        return r;
    if (r == SCHEDULE_STALE) {
        watch->shared.changed = true;
        w->try_at = watch->now + AGAIN_MS; /* should the table say otherwise than this one */
        return 0;
    }
    if (r < 0) {
        metric_add(&durable_m_chore_failures, 0, 1);
        if (!w->failing)
            log_warn("schedule waits to start its workflow", "schedule", LOG_SLICE(w->s.name),
                     "error", LOG_ERR(e));
        w->try_at = watch->now + AGAIN_MS;
    } else {
        set_cursor(w, watch->now);
    }
    w->failing = r < 0;
    return 0;
}

static CO int turn(struct watch *watch, struct err *e)
{
    int r;

    watch->now = clock_ms(watch->d);
    r = read_again(watch, e);
    for (struct watched *w = watch->first; r == 0 && w; w = w->next) {
        if (watch->now < w->cursor - TURN_MS) { /* the clock was set back */
            set_cursor(w, watch->now);
            w->try_at = 0;
        }
        if (w->due != 0 && w->due <= watch->now && w->try_at <= watch->now &&
            !watch->d->deactivated)
            r = fire(watch, w, e);
    }
    return r;
}

static uint64_t turn_end(const struct watch *watch)
{
    int64_t wait = TURN_MS;

    for (const struct watched *w = watch->first; w; w = w->next) {
        int64_t at = w->due > w->try_at ? w->due : w->try_at;

        if (w->due != 0 && at - watch->now < wait)
            wait = at - watch->now;
    }
    return now_ms() + (uint64_t)(wait < 1 ? 1 : wait);
}

CO int schedule_chore(void *arg, struct err *e)
{
    struct watch watch = { .d = arg };
    int r = 0;

    watch.shared.fiber = fiber_self();
    watch.d->schedules = &watch.shared;
    while (r != -ERR_CANCELED) {
        r = turn(&watch, e);
        if (r != -ERR_CANCELED && !watch.shared.changed)
            r = fiber_park(turn_end(&watch), e);
    }
    watch.d->schedules = NULL;
    drop_unseen(&watch);
    return r;
}
