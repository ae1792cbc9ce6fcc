/* SPDX-License-Identifier: MIT */
/*
 * swarm/monitor_int.h — what the files of the monitor share.
 *
 *   monitor.c         its life, the chore, recovery
 *   monitor_look.c    what the tables say: one bounded look at what is active and what has ended
 *   monitor_stat.c    numbers of a kind of workflow over a time; what has failed
 *   monitor_api.c     routes of workflows
 *   monitor_status.c  routes of the whole: status, the OpenClaw gateway
 *   monitor_agent.c   one agent's workflows
 */
#pragma once

#include "base/arena.h"
#include "durable/manage.h"
#include "swarm/monitor.h"

#define MONITOR_SAMPLE 20000  /* rows that one look reads of each kind at most */
#define MONITOR_STATS  100000 /* rows that the numbers of a kind are computed from at most */
#define MONITOR_BAD    200    /* stuck and orphaned workflows that are named */
#define MONITOR_HOUR   (3600 * 1000LL)
#define MONITOR_ENOUGH 10 /* workflows that must have ended before a share of failures counts */

/* What is wrong, by bit. */
enum monitor_problem {
    MONITOR_STUCK = 1 << 0,
    MONITOR_ORPHANED = 1 << 1,
    MONITOR_DEAD = 1 << 2,
    MONITOR_FAILING = 1 << 3,
    MONITOR_BACKLOG = 1 << 4,
    MONITOR_BLOCKED = 1 << 5,
};

struct monitor_bad { /* a workflow that does not get on; texts in the arena */
    struct str id, name, executor, version; /* version: of the blocked */
    bool orphan;
    int64_t created_ms, progress_ms; /* of the last step, or change of the row */
};

struct monitor_look {
    int64_t at_ms;
    struct monitor_bad *bad; /* stuck and orphaned, oldest first, at most MONITOR_BAD */
    size_t n_bad;
    struct monitor_bad *blocked; /* they wait for a version that nobody runs, as many */
    size_t n_blocked;
    int64_t stuck, orphaned;     /* of them; true numbers below MONITOR_SAMPLE */
    int64_t dead;                /* dead letters that are there; counted up to MONITOR_SAMPLE */
    int64_t ended, failed;       /* in the last hour, of the newest MONITOR_SAMPLE */
    int64_t backlog, backlog_ms; /* enqueued, of the first MONITOR_SAMPLE; age of the oldest */
    int64_t blocked_version; /* of those: nobody runs their version; among the first MONITOR_BAD */
    unsigned problems;       /* of enum monitor_problem */
    const char *texts[8];    /* one for each problem, in the arena */
    size_t n_texts;
    bool sampled; /* a bound was met: the numbers are of a part */
};
CO int monitor_look(struct monitor *m, struct arena *a, struct monitor_look *ret, struct err *e)
    MUST_CHECK;

/* What the chore does: look, say what has changed, give back what the engine has left. */
CO int monitor_check(struct monitor *m, struct err *e) MUST_CHECK;

/* The statements of a look, for tests of their plans. */
enum { MONITOR_LOOKS = 4 };
extern const struct sql *const monitor_look_sql[MONITOR_LOOKS];

/* One workflow. */
struct monitor_pace {
    int64_t at_ms; /* when it last got on, or a sleep ends; 0: no such row */
    bool orphan;   /* its process is dead */
    bool holds;    /* it may wait for long without being parked */
};
CO int monitor_pace(struct monitor *m, struct str id, struct monitor_pace *ret, struct err *e)
    MUST_CHECK;

/* --- kinds --- */

struct monitor_type {
    const char *type;       /* as the original's monitor names it */
    const char *class_name; /* NULL: messages, which are rows of their own */
    const char *name;       /* of the workflow */
};
enum { MONITOR_TYPES = 6 };
extern const struct monitor_type monitor_types[MONITOR_TYPES];
extern const char *const monitor_type_names[MONITOR_TYPES + 1]; /* NULL-terminated */
const struct monitor_type *monitor_type_find(const char *type); /* NULL: no such type, or all */
const char *monitor_type_of(struct str workflow_name);          /* NULL: none of them */

struct monitor_stats {
    int64_t total, successful, failed, pending, rows, since_ms; /* rows: that were looked at */
    double rate, mean_s, p95_s, p99_s;
    bool sampled;
};
/* type NULL: all workflows. */
CO int monitor_stats(struct monitor *m, const struct monitor_type *type, int64_t since_ms,
                     struct monitor_stats *ret, struct err *e) MUST_CHECK;

struct monitor_failed { /* texts in the arena */
    struct str id, name;
    const char *status, *error;
    int64_t created_ms, updated_ms, attempts;
};
/* Failed and dead ones that ended at since_ms or later, newest first. */
CO int monitor_failed(struct monitor *m, const struct monitor_type *type, int64_t since_ms,
                      unsigned limit, struct arena *a, struct monitor_failed **ret, size_t *ret_n,
                      struct err *e) MUST_CHECK;

struct monitor {
    struct swarm *s;
    struct fiber_group *chores;
    unsigned told;                 /* problems as last said */
    int64_t told_stuck, told_dead; /* their numbers */
    char **lost;                   /* dead executors that still had work at the last look */
    size_t n_lost;
    bool failing;
};

extern const struct http_route monitor_workflow_routes[], monitor_swarm_routes[];
extern const size_t monitor_workflow_routes_len, monitor_swarm_routes_len;

static inline struct str str_keep(struct arena *a, struct str s)
{
    return s.p ? arena_str(a, s) : (struct str){ 0 };
}
