/* SPDX-License-Identifier: MIT */
/* bridge/tracker.c — see tracker.h. */
#include "bridge/tracker.h"

#include <string.h>

#include "base/time.h"

void tracker_done(struct tracker *t)
{
    while (t->first)
        tracker_remove(t, t->first);
    strmap_done(&t->map);
}

struct tracked *tracker_find(const struct tracker *t, struct str id)
{
    struct strmap_node *node = strmap_find(&t->map, id);

    return node ? container_of(node, struct tracked, node) : NULL;
}

struct tracked *tracker_get(struct tracker *t, struct str id)
{
    struct tracked *one = tracker_find(t, id);

    if (one)
        return one;
    one = xcalloc(1, sizeof(*one) + id.n + 1);
    if (id.n)
        memcpy(one->id, id.p, id.n);
    strmap_add(&t->map, &one->node, (struct str){ one->id, id.n });
    one->prev = t->last;
    if (t->last)
        t->last->next = one;
    else
        t->first = one;
    t->last = one;
    return one;
}

void tracker_remove(struct tracker *t, struct tracked *one)
{
    strmap_remove(&t->map, &one->node);
    if (one->prev)
        one->prev->next = one->next;
    else
        t->first = one->next;
    if (one->next)
        one->next->prev = one->prev;
    else
        t->last = one->prev;
    free(one);
}

bool tracker_success(struct tracker *t, struct tracked *one, double duration_ms)
{
    enum health_status before = one->health.status;

    health_success(&one->health, wall_us(), duration_ms, t->recover_after ? t->recover_after : 5);
    one->dirty = true;
    return one->health.status != before;
}

void error_metric_add(struct error_metric *m, int64_t now_us, double duration_ms, unsigned retries)
{
    m->count++;
    m->last_us = now_us;
    if (!m->first_us)
        m->first_us = now_us;
    m->duration_ms += duration_ms;
    m->retries += retries;
}

bool tracker_failure(struct tracker *t, struct tracked *one, enum error_type type, struct str text,
                     double duration_ms, unsigned retries)
{
    enum health_status before = one->health.status;
    int64_t now = wall_us();

    health_failure(&one->health, now, type, text);
    error_metric_add(&t->metrics[type], now, duration_ms, retries);
    one->dirty = t->metrics_dirty = true;
    return one->health.status != before;
}

void tracker_reset(struct tracker *t, struct tracked *one)
{
    (void)t; /* the metrics are of the errors, not of the agent */
    one->health = (struct health){ 0 };
    one->trial_ms = 0;
    one->dirty = true;
}

void tracker_sum(const struct tracker *t, struct tracker_summary *ret)
{
    *ret = (struct tracker_summary){ 0 };
    for (const struct tracked *one = t->first; one; one = one->next) {
        ret->total++;
        ret->status[one->health.status]++;
        ret->requests += one->health.requests;
        ret->failures += one->health.failures;
    }
}

void tracker_write_summary(const struct tracker *t, struct out *o)
{
    struct tracker_summary s;
    size_t n = 0;

    tracker_sum(t, &s);
    out_z(o, "{\"total_agents\":");
    out_int(o, s.total);
    out_z(o, ",\"healthy_agents\":");
    out_int(o, s.status[HEALTH_HEALTHY]);
    out_z(o, ",\"degraded_agents\":");
    out_int(o, s.status[HEALTH_DEGRADED]);
    out_z(o, ",\"unhealthy_agents\":");
    out_int(o, s.status[HEALTH_UNHEALTHY]);
    out_z(o, ",\"unreachable_agents\":");
    out_int(o, s.status[HEALTH_UNREACHABLE]);
    out_z(o, ",\"total_requests\":");
    out_int(o, s.requests);
    out_z(o, ",\"total_failures\":");
    out_int(o, s.failures);
    out_z(o, ",\"error_metrics\":{");
    for (int type = 0; type < ERROR_TYPES; type++) {
        if (!t->metrics[type].count)
            continue;
        out_comma(o, n++);
        out_str(o, str_of(error_type_name((enum error_type)type)));
        out_z(o, ":");
        out_int(o, t->metrics[type].count);
    }
    out_z(o, "}}");
}

void tracker_write_records(const struct tracker *t, struct out *o)
{
    size_t n = 0;

    out_z(o, "{");
    for (const struct tracked *one = t->first; one; one = one->next) {
        out_comma(o, n++);
        out_str(o, one->node.key);
        out_z(o, ":");
        health_write(&one->health, one->node.key, o);
    }
    out_z(o, "}");
}

void error_metric_write(const struct error_metric *m, enum error_type type, struct out *o)
{
    out_z(o, "{\"error_type\":");
    out_str(o, str_of(error_type_name(type)));
    out_z(o, ",\"count\":");
    out_int(o, m->count);
    out_z(o, ",\"last_occurred_at\":");
    out_time(o, m->last_us);
    out_z(o, ",\"first_occurred_at\":");
    out_time(o, m->first_us);
    out_z(o, ",\"total_duration_ms\":");
    out_real(o, m->duration_ms);
    out_z(o, ",\"avg_retry_count\":");
    out_real(o, m->count ? m->retries / (double)m->count : 0);
    out_z(o, "}");
}

void tracker_write_metrics(const struct tracker *t, struct out *o)
{
    out_z(o, "{");
    for (int type = 0; type < ERROR_TYPES; type++) {
        out_comma(o, (size_t)type);
        out_str(o, str_of(error_type_name((enum error_type)type)));
        out_z(o, ":");
        error_metric_write(&t->metrics[type], (enum error_type)type, o);
    }
    out_z(o, "}");
}

void tracker_write_all(const struct tracker *t, int64_t now_us, struct out *o)
{
    out_z(o, "{\"health_summary\":");
    tracker_write_summary(t, o);
    out_z(o, ",\"agent_statuses\":");
    tracker_write_records(t, o);
    out_z(o, ",\"error_metrics\":");
    tracker_write_metrics(t, o);
    out_z(o, ",\"timestamp\":");
    out_time(o, now_us);
    out_z(o, "}");
}
