/* SPDX-License-Identifier: MIT */
/*
 * base/time.h — the two clocks. now_ms() is monotonic and is for deadlines and durations;
 * wall_us() is for people and storage. Tests replace both.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define DEADLINE_NONE UINT64_MAX /* a deadline that never comes */

uint64_t now_ms(void); /* monotonic, of CLOCK_MONOTONIC */
uint64_t now_us(void);
int64_t wall_us(void); /* microseconds since 1970-01-01 UTC */

/* now_ms() + ms without wrapping; ms 0 or less means DEADLINE_NONE. */
uint64_t deadline_in(long long ms);

/* The earlier of two. */
uint64_t deadline_min(uint64_t a, uint64_t b);

#define TIME_TEXT 40 /* enough for either format below */

/* "2026-11-20T17:05:27.745978", UTC without a zone, the fraction left out when it is 0
 * (Python's datetime.isoformat(), which the original bridge printed). */
void time_format_naive(int64_t us, char out[TIME_TEXT]);

/* "2026-11-20T17:05:27.745Z" (JavaScript's toISOString). */
void time_format_z(int64_t us, char out[TIME_TEXT]);

/* ISO 8601 date-time: "T" or a space, up to 9 digits of fraction; no zone (UTC), Z or ±hh:mm. */
int time_parse(struct str s, int64_t *ret_us, struct err *e) MUST_CHECK;

/* HTTP-date of RFC 9110 §5.6.7, IMF-fixdate only. */
int time_parse_http(struct str s, int64_t *ret_us, struct err *e) MUST_CHECK;

/* Tests: both clocks from here on; NULL restores the real ones. */
struct time_source {
    uint64_t (*now_us)(void *arg);
    int64_t (*wall_us)(void *arg);
    void *arg;
};
void time_set_source(const struct time_source *source);
