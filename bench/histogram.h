/* SPDX-License-Identifier: MIT */
/*
 * bench/histogram.h — latencies in buckets of 1/64 octave, so that a percentile's error is below
 * 1.6 %, and the clock they are taken with. For the load generators, which link nothing of ours.
 */
#pragma once

#include <stdint.h>
#include <time.h>

enum {
    HISTOGRAM_BITS = 6,
    HISTOGRAM_SUB = 1 << HISTOGRAM_BITS,
    HISTOGRAM_BUCKETS = 64 * HISTOGRAM_SUB,
};

struct histogram {
    uint64_t n, sum_ns, max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline unsigned histogram_bucket(uint64_t ns)
{
    unsigned shift;

    if (ns < HISTOGRAM_SUB)
        return (unsigned)ns;
    shift = 63u - (unsigned)__builtin_clzll(ns) - HISTOGRAM_BITS;
    return ((shift + 1) << HISTOGRAM_BITS) + (unsigned)((ns >> shift) & (HISTOGRAM_SUB - 1));
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
    h->n++;
    h->sum_ns += ns;
    h->buckets[histogram_bucket(ns)]++;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

/* The middle of a bucket. */
static inline double histogram_bucket_ns(unsigned bucket)
{
    unsigned octave = bucket >> HISTOGRAM_BITS;
    double low = (double)(bucket & (HISTOGRAM_SUB - 1)) + (octave ? HISTOGRAM_SUB : 0);
    double width = octave ? (double)(1ull << (octave - 1)) : 1.0;

    return octave ? (low + 0.5) * width : low;
}

/* part 0.5 is the median; the greatest when nothing was added. */
static inline double histogram_us(const struct histogram *h, double part)
{
    uint64_t want = (uint64_t)((double)h->n * part);
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > want)
            return histogram_bucket_ns(i) / 1000.0;
    }
    return (double)h->max_ns / 1000.0;
}
