/* SPDX-License-Identifier: MIT */
/* libchela/tracker.c — the bridge's tracker behind a lock, and the global one. */
#include "bridge/tracker.h"

#include <pthread.h>
#include <string.h>

#include "base/time.h"
#include "libchela/health.h"
#include "libchela/lib.h"

struct chela_tracker {
    pthread_mutex_t mutex;
    struct tracker t;
};

struct chela_tracker *chela_tracker_new(unsigned recover_after)
{
    struct chela_tracker *all = xcalloc(1, sizeof(*all));

    pthread_mutex_init(&all->mutex, NULL);
    all->t.recover_after = recover_after;
    return all;
}

void chela_tracker_free(struct chela_tracker *all)
{
    if (!all)
        return;
    tracker_done(&all->t);
    pthread_mutex_destroy(&all->mutex);
    free(all);
}

struct chela_tracker *chela_global_tracker(void)
{
    static struct chela_tracker global = { .mutex = PTHREAD_MUTEX_INITIALIZER };

    return &global;
}

static struct tracker *lock(struct chela_tracker *all)
{
    pthread_mutex_lock(&all->mutex);
    return &all->t;
}

static void unlock(struct chela_tracker *all)
{
    pthread_mutex_unlock(&all->mutex);
}

void chela_tracker_register(struct chela_tracker *all, const char *id)
{
    (void)tracker_get(lock(all), str_of(id)); /* mentioning it is all */
    unlock(all);
}

void chela_tracker_success(struct chela_tracker *all, const char *id, double duration_ms)
{
    struct tracker *t = lock(all);

    tracker_success(t, tracker_get(t, str_of(id)), duration_ms);
    unlock(all);
}

void chela_tracker_failure(struct chela_tracker *all, const char *id,
                           const struct chela_error *error, double duration_ms, unsigned retries)
{
    struct chela_error known = { .type = CHELA_ERROR_TYPES };
    struct tracker *t;

    if (error)
        known = *error;
    (void)lib_work_failed(&known, NULL); /* for the type it fills in */
    t = lock(all);
    tracker_failure(t, tracker_get(t, str_of(id)), lib_type(known.type), str_of(known.text),
                    duration_ms, retries);
    unlock(all);
}

void chela_tracker_reset(struct chela_tracker *all, const char *id)
{
    struct tracker *t = lock(all);

    tracker_reset(t, tracker_get(t, str_of(id)));
    unlock(all);
}

bool chela_tracker_status(struct chela_tracker *all, const char *id, struct chela_health *ret)
{
    const struct tracked *one = tracker_find(lock(all), str_of(id));

    if (one)
        lib_health(&one->health, ret);
    unlock(all);
    return one != NULL;
}

bool chela_tracker_is_healthy(struct chela_tracker *all, const char *id)
{
    struct chela_health h;

    return !chela_tracker_status(all, id, &h) || h.status == CHELA_HEALTHY;
}

bool chela_tracker_is_unreachable(struct chela_tracker *all, const char *id)
{
    struct chela_health h;

    return chela_tracker_status(all, id, &h) && h.status == CHELA_UNREACHABLE;
}

size_t chela_tracker_filter(struct chela_tracker *all, const char **ids, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (chela_tracker_is_healthy(all, ids[i]))
            ids[kept++] = ids[i];
    return kept;
}

void chela_tracker_metric(struct chela_tracker *all, enum chela_error_type type,
                          struct chela_error_metric *ret)
{
    const struct error_metric *m = &lock(all)->metrics[type < CHELA_ERROR_TYPES ? type : 0];

    *ret = (struct chela_error_metric){ 0 };
    if (type < CHELA_ERROR_TYPES)
        *ret = (struct chela_error_metric){
            .count = m->count,
            .first_us = m->first_us,
            .last_us = m->last_us,
            .total_duration_ms = m->duration_ms,
            .avg_retry_count = m->count ? m->retries / (double)m->count : 0,
        };
    unlock(all);
}

void chela_tracker_summary(struct chela_tracker *all, struct chela_health_summary *ret)
{
    lib_summary(lock(all), ret);
    unlock(all);
}

char *chela_tracker_status_json(struct chela_tracker *all, const char *id)
{
    const struct tracked *one = tracker_find(lock(all), str_of(id));
    struct out o;

    out_init(&o, 1 * MIB);
    if (one)
        health_write(&one->health, one->node.key, &o);
    unlock(all);
    if (one)
        return lib_take_json(&o);
    out_done(&o);
    return NULL;
}

char *chela_tracker_json(struct chela_tracker *all)
{
    struct out o;

    out_init(&o, SIZE_MAX / 2);
    tracker_write_all(lock(all), wall_us(), &o);
    unlock(all);
    return lib_take_json(&o);
}

void chela_track_success(const char *id)
{
    chela_tracker_success(chela_global_tracker(), id, 0);
}

void chela_track_error(const char *id, const struct chela_error *error)
{
    chela_tracker_failure(chela_global_tracker(), id, error, 0, 0);
}

/* --- shared with bridge.c --- */

const char *chela_health_status_name(enum chela_health_status status)
{
    return status <= CHELA_UNREACHABLE ? health_status_name((enum health_status)status) : NULL;
}

void lib_health(const struct health *h, struct chela_health *ret)
{
    *ret = (struct chela_health){
        .status = (enum chela_health_status)h->status,
        .last_check_us = h->last_check_us,
        .last_success_us = h->last_success_us,
        .consecutive_failures = h->consecutive,
        .total_failures = h->failures,
        .total_requests = h->requests,
        .success_rate = health_rate(h),
        .is_unhealthy = health_is_unhealthy(h),
        .avg_response_time_ms = health_average_ms(h),
    };
    _Static_assert(sizeof(ret->last_error) == sizeof(h->last_error), "texts of one length");
    memcpy(ret->last_error, h->last_error, sizeof(ret->last_error));
}

void lib_summary(const struct tracker *t, struct chela_health_summary *ret)
{
    struct tracker_summary s;

    tracker_sum(t, &s);
    *ret = (struct chela_health_summary){
        .total_agents = s.total,
        .healthy_agents = s.status[HEALTH_HEALTHY],
        .degraded_agents = s.status[HEALTH_DEGRADED],
        .unhealthy_agents = s.status[HEALTH_UNHEALTHY],
        .unreachable_agents = s.status[HEALTH_UNREACHABLE],
        .total_requests = s.requests,
        .total_failures = s.failures,
        .error_rate = s.requests ? 100.0 * (double)s.failures / (double)s.requests : 0,
        .status = s.status[HEALTH_HEALTHY] ? "operational" : "degraded",
    };
    for (int type = 0; type < ERROR_TYPES; type++)
        ret->errors[type] = t->metrics[type].count;
}
