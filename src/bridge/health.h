/* SPDX-License-Identifier: MIT */
/*
 * bridge/health.h — what the outcomes of calls say about an agent. Pure: one rule, evaluated
 * after every outcome, in this order:
 *
 *   1. unreachable   5 failures in a row, or 3 that were all of class network
 *   2. a failure     unhealthy if 3 in a row or a lifetime success rate under 50 %, else degraded
 *   3. a success     healthy if the lifetime rate is over 90 % or the last K outcomes were all
 *                    successes (K: bridge.recover_after), else degraded
 *
 * All attempts on an agent in one call are one outcome. Counters are lifetime values.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bridge/classify.h"
#include "bridge/out.h"

enum health_status {
    HEALTH_HEALTHY,
    HEALTH_DEGRADED,
    HEALTH_UNHEALTHY,
    HEALTH_UNREACHABLE,
    HEALTH_STATUSES,
};

enum { HEALTH_HISTORY = 10, HEALTH_ERROR_TEXT = 160 };

struct health {
    enum health_status status;
    int64_t last_check_us, last_success_us; /* wall clock; 0: never */
    int64_t consecutive, failures, requests;
    int64_t network_run; /* how many of the consecutive failures, newest first, were network */
    int64_t success_run; /* successes in a row, newest first */
    double success_ms;   /* their time in all, for the average */
    struct {
        int64_t at_us;
        enum error_type type;
    } history[HEALTH_HISTORY]; /* newest first; at_us 0: unused */
    char last_error[HEALTH_ERROR_TEXT];
};

const char *health_status_name(enum health_status s);
enum health_status health_status_of(struct str name); /* HEALTH_HEALTHY for unknown names */

void health_success(struct health *h, int64_t now_us, double duration_ms, long long recover_after);
void health_failure(struct health *h, int64_t now_us, enum error_type type, struct str text);

/* Per cent over the whole life, 100 without requests. */
double health_rate(const struct health *h);

/* Three failures in a row, or a rate under 50. */
bool health_is_unhealthy(const struct health *h);

/* Mean time of a success; 0 without one. */
double health_average_ms(const struct health *h);

/* The original's record of nine keys, with its id. */
void health_write(const struct health *h, struct str id, struct out *o);
