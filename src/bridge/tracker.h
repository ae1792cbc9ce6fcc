/* SPDX-License-Identifier: MIT */
/*
 * bridge/tracker.h — health of many agents, and what kinds of errors there were. In memory, not
 * locked; who wants it durable looks for what is marked dirty.
 */
#pragma once

#include "base/strmap.h"
#include "bridge/health.h"

struct error_metric {
    int64_t count, first_us, last_us; /* wall clock; 0: never */
    double duration_ms;               /* spent in calls that ended so */
    double retries;                   /* made by them in all */
};

struct tracked {
    struct strmap_node node;
    struct tracked *next, *prev; /* in order of registration */
    struct health health;
    uint64_t trial_ms; /* unreachable: no trial at its own place before this (monotonic) */
    bool dirty;        /* differs from what is stored */
    char id[];
};

/* All zero but recover_after is an empty tracker. */
struct tracker {
    struct strmap map;
    struct tracked *first, *last;
    struct error_metric metrics[ERROR_TYPES];
    long long recover_after; /* K of the rule; 0 = 5 */
    bool metrics_dirty;
};

void tracker_done(struct tracker *t);

/* The record of an id, made on first mention. Stays where it is until tracker_remove(). */
struct tracked *tracker_get(struct tracker *t, struct str id);
struct tracked *tracker_find(const struct tracker *t, struct str id); /* or NULL */
void tracker_remove(struct tracker *t, struct tracked *one);          /* frees it */

/* One outcome. True when the status changed. */
bool tracker_success(struct tracker *t, struct tracked *one, double duration_ms);
bool tracker_failure(struct tracker *t, struct tracked *one, enum error_type type, struct str text,
                     double duration_ms, unsigned retries);

/* Back to the state of a new agent. */
void tracker_reset(struct tracker *t, struct tracked *one);

struct tracker_summary {
    int64_t total, status[HEALTH_STATUSES], requests, failures;
};
void tracker_sum(const struct tracker *t, struct tracker_summary *ret);

/* JSON: the original's summary, its map of records, its map of metrics, and all of them. */
void tracker_write_summary(const struct tracker *t, struct out *o);
void tracker_write_records(const struct tracker *t, struct out *o);
void tracker_write_metrics(const struct tracker *t, struct out *o);
void tracker_write_all(const struct tracker *t, int64_t now_us, struct out *o);
void error_metric_write(const struct error_metric *m, enum error_type type, struct out *o);
void error_metric_add(struct error_metric *m, int64_t now_us, double duration_ms, unsigned retries);
