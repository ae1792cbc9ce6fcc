/* SPDX-License-Identifier: MIT */
/* bridge/backoff.h — how long to wait before trying again. Pure. */
#pragma once

struct backoff {
    double initial, max; /* in any one unit */
    double multiplier;
    double jitter; /* 0.1: up to a tenth more or less, applied after the cap */
    double floor;  /* least result with jitter; 0: none */
};

/*
 * The wait after n failures: 0 for n <= 0, else min(initial * multiplier^(n-1), max), moved by
 * jitter: unit in [0, 1) picks the point, 0.5 none. Saturates for every n.
 */
double backoff_delay(const struct backoff *b, long n, double unit);
