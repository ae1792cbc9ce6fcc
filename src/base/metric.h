/* SPDX-License-Identifier: MIT */
/*
 * base/metric.h — counters, gauges and latency histograms, declared as static rows and printed
 * in the Prometheus text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
 *
 * Values are updated with relaxed atomics, so from any thread. Labels are bounded: a row names
 * its label and the values are a fixed list.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

#define METRIC_LABELS  8  /* label values a row may have */
#define METRIC_BUCKETS 16 /* upper bounds in seconds: see metric.c; the last is +Inf */

struct metric {
    const char *name; /* "chela_http_requests_total" */
    enum metric_kind kind;
    const char *help;
    const char *label;                 /* NULL: one value */
    const char *values[METRIC_LABELS]; /* the label's values, in order */
    _Atomic int64_t v[METRIC_LABELS];  /* counter or gauge; histogram: sum in µs */
    _Atomic int64_t buckets[METRIC_LABELS][METRIC_BUCKETS];
    /* A counter or gauge by two labels: its numbers are in v2, for each value of the first a row
     * with one for each of the second. */
    const char *label2; /* NULL: one label */
    const char *values2[METRIC_LABELS];
    _Atomic int64_t (*v2)[METRIC_LABELS];
};

/* Rows of a room; the table is static and stays registered for the program's life. */
void metric_register(struct metric *const *rows, size_t n);

static inline void metric_add(struct metric *m, unsigned label, int64_t n)
{
    atomic_fetch_add_explicit(&m->v[label], n, memory_order_relaxed);
}

static inline void metric_add2(struct metric *m, unsigned label, unsigned label2, int64_t n)
{
    atomic_fetch_add_explicit(&m->v2[label][label2], n, memory_order_relaxed);
}

static inline void metric_set(struct metric *m, unsigned label, int64_t n)
{
    atomic_store_explicit(&m->v[label], n, memory_order_relaxed);
}

/* One observation of a histogram, in microseconds. */
void metric_observe(struct metric *m, unsigned label, int64_t us);

/* All registered rows, in order of registration, and the process's own (memory, CPU, descriptors).
 */
int metric_print(struct buf *b, struct err *e) MUST_CHECK;
