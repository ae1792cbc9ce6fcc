/* SPDX-License-Identifier: MIT */
/*
 * durable/manage.h — looking at workflows and steering them, for routes and commands.
 *
 * Rows that are given away live in the caller's arena. All wait for the store: ERR_UNAVAILABLE.
 */
#pragma once

#include "base/arena.h"
#include "durable/durable.h"

struct durable_info {
    struct str id, name, class_name, config_name, queue, user, role, roles, executor, app_version,
        app_name;
    struct str input, output, error, serialization; /* as stored; only when asked for */
    struct str dedup_id, partition, forked_from, parent, schedule, attributes, app_id;
    enum durable_status status;
    bool was_forked_from, parked;
    bool blocked_version; /* active, and no live process runs its version */
    bool known;           /* we implement its name */
    int64_t attempts, priority, created_ms, updated_ms, started_ms, completed_ms, timeout_ms,
        deadline_ms, delay_until_ms; /* 0: NULL */
};

#define DURABLE_IDS_MAX 1000 /* in one request */

struct durable_filter { /* zero: everything. Lists are any-of */
    const struct str *ids, *names, *queues, *users, *versions, *executors, *parents, *forked_from,
        *schedules;
    size_t n_ids, n_names, n_queues, n_users, n_versions, n_executors, n_parents, n_forked_from,
        n_schedules;
    unsigned statuses;                /* bits 1 << enum durable_status; 0: all */
    struct str id_prefix, attributes; /* JSON object: contained */
    int64_t created_from_ms, created_to_ms, completed_from_ms, completed_to_ms; /* inclusive */
    bool queues_only; /* in a queue and active */
    bool descending, load_input, load_output;
    unsigned limit; /* 0: 100; at most 1000 */
    int64_t offset;
};
CO int durable_list(struct durable *d, const struct durable_filter *f, struct arena *a,
                    struct durable_info **ret, size_t *ret_n, struct err *e) MUST_CHECK;
CO int durable_get(struct durable *d, struct str id, struct arena *a, struct durable_info *ret,
                   struct err *e) MUST_CHECK; /* with input and output; ERR_NOT_FOUND */

/* What an ended workflow has left, as JSON: the output, or the error as {"name","message","code"?,
 * "data"?}. NULL: none, or a text that we cannot read. Belongs to the arena. */
json_t *durable_info_output(const struct durable_info *info, struct arena *a);
json_t *durable_info_error(const struct durable_info *info, struct arena *a);

struct durable_step_info {
    int64_t id;
    struct str name, output, error, child, serialization;
    int64_t started_ms, completed_ms;
};
/* From the step `from` on; limit 0: 100, at most 10000, or UINT_MAX: all. None when there is no
 * such workflow. ERR_LIMIT: more than 64 MiB of results. */
CO int durable_steps(struct durable *d, struct str id, int64_t from, unsigned limit,
                     struct arena *a, struct durable_step_info **ret, size_t *ret_n, struct err *e)
    MUST_CHECK;

/* Cancel the active among ids (and their descendants); the number cancelled. Those that run here
 * are ended at once, those elsewhere within a sweep. Unknown ids are ignored. */
CO int durable_cancel(struct durable *d, const struct str *ids, size_t n, bool children,
                      int64_t *ret_n, struct err *e) MUST_CHECK;

/* Back into a queue ({0}: the internal one), attempts from 0. Not after SUCCESS or ERROR
 * (ERR_CONFLICT); already active: nothing happens. ERR_NOT_FOUND. */
CO int durable_resume(struct durable *d, struct str id, struct str queue, struct err *e) MUST_CHECK;

/* A new workflow that has the records of id before `step`. ERR_NOT_FOUND; ERR_CONFLICT: new_id is
 * taken. */
struct durable_fork {
    struct str id, new_id, app_version, queue;
    int64_t step; /* 0: from scratch */
    int64_t timeout_ms;
};
CO int durable_fork(struct durable *d, const struct durable_fork *f, char ret_id[DURABLE_ID],
                    struct err *e) MUST_CHECK;

/* The same workflow again from step on (-1: from the first step whose record is an error, or the
 * end of its records): terminal ones only (ERR_CONFLICT). What was sent to it and not consumed, or
 * consumed at or after the step, is gone. */
CO int durable_rewind(struct durable *d, struct str id, int64_t step, struct err *e) MUST_CHECK;

/* Retry what failed, was cancelled or is dead: resume or rewind, as its status asks. */
CO int durable_retry(struct durable *d, struct str id, struct err *e) MUST_CHECK;

/* Delete with everything that belongs to them; only ended ones unless force. The number deleted. */
CO int durable_delete(struct durable *d, const struct str *ids, size_t n, bool children, bool force,
                      int64_t *ret_n, struct err *e) MUST_CHECK;

/* Ended before the cutoff (0: none), or older than the newest `keep` ended (0: none): in batches.
 * The number deleted. */
CO int durable_collect(struct durable *d, int64_t before_ms, int64_t keep, int64_t *ret_n,
                       struct err *e) MUST_CHECK;

/* Cancel what is active and was created before. */
CO int durable_cancel_before(struct durable *d, int64_t created_before_ms, int64_t *ret_n,
                             struct err *e) MUST_CHECK;

/* Re-enqueue what is PENDING under these executors, which the caller knows to be dead; their ids.
 */
CO int durable_recover(struct durable *d, const struct str *executors, size_t n, struct arena *a,
                       struct str **ret_ids, size_t *ret_n, struct err *e) MUST_CHECK;

CO int durable_set_priority(struct durable *d, struct str id, int64_t priority, struct err *e)
    MUST_CHECK;
CO int durable_set_delay(struct durable *d, struct str id, int64_t until_ms, struct err *e)
    MUST_CHECK;

struct durable_count { /* of one status */
    int64_t n, oldest_ms;
};
struct durable_overview {
    struct durable_count by_status[DURABLE_STATUSES];
    int64_t parked, blocked_version, stuck; /* stuck: runnable or owned by the dead for long */
    unsigned running_here, executors;
    bool hears; /* LISTEN works */
};
CO int durable_overview(struct durable *d, struct durable_overview *ret, struct err *e) MUST_CHECK;

struct durable_queue_info {
    struct str name;
    int64_t concurrency, worker_concurrency, rate_max, partition_concurrency,
        partition_worker_concurrency, partition_rate_max; /* 0: none */
    double rate_period_s, partition_rate_period_s, polling_s;
    int64_t enqueued, delayed, pending, oldest_ms; /* of the enqueued */
    bool served_here, hold_slot;
};
CO int durable_queues(struct durable *d, struct arena *a, struct durable_queue_info **ret,
                      size_t *ret_n, struct err *e) MUST_CHECK;
CO int durable_queue_put(struct durable *d, const struct durable_queue *q, struct err *e)
    MUST_CHECK;
CO int durable_queue_remove(struct durable *d, struct str name, struct err *e) MUST_CHECK;

/* --- schedules --- */

enum durable_misfire {
    MISFIRE_SKIP,
    MISFIRE_ONCE,
    MISFIRE_ALL
}; /* times missed while nobody ran */
enum durable_overlap {
    OVERLAP_ALLOW,
    OVERLAP_SKIP,
    OVERLAP_REPLACE
};                                                 /* the one before still runs */
extern const char *const durable_misfire_names[3]; /* "skip" "once" "all" */
extern const char *const durable_overlap_names[3]; /* "allow" "skip" "replace" */

struct durable_schedule {
    struct str id, name, workflow, class_name, cron, zone, queue, context; /* context: JSON */
    bool paused;
    enum durable_misfire misfire;
    enum durable_overlap overlap;
    int64_t last_ms, next_ms; /* fired; 0: never */
    unsigned misfire_max;     /* of MISFIRE_ALL: the newest so many; 0: 1000 */
};
CO int durable_schedules(struct durable *d, struct arena *a, struct durable_schedule **ret,
                         size_t *ret_n, struct err *e) MUST_CHECK;
CO int durable_schedule_get(struct durable *d, struct str name, struct arena *a,
                            struct durable_schedule *ret, struct err *e) MUST_CHECK;
/* Make or replace. ERR_INVALID says what of the cron expression or the zone is wrong. */
CO int durable_schedule_put(struct durable *d, const struct durable_schedule *s, struct err *e)
    MUST_CHECK;
CO int durable_schedule_pause(struct durable *d, struct str name, bool paused, struct err *e)
    MUST_CHECK;
CO int durable_schedule_remove(struct durable *d, struct str name, struct err *e) MUST_CHECK;
CO int durable_schedule_trigger(struct durable *d, struct str name, char ret_id[DURABLE_ID],
                                struct err *e) MUST_CHECK;
/* Enqueue every time in [from, to); how many were new. At most 10000 (ERR_LIMIT). */
CO int durable_schedule_backfill(struct durable *d, struct str name, int64_t from_ms, int64_t to_ms,
                                 int64_t *ret_n, struct err *e) MUST_CHECK;
