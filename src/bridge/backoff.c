/* SPDX-License-Identifier: MIT */
/* bridge/backoff.c — see backoff.h. */
#include "bridge/backoff.h"

#include <math.h>

double backoff_delay(const struct backoff *b, long n, double unit)
{
    double delay;

    if (n <= 0)
        return 0;
    delay = fmin(b->initial * pow(b->multiplier, (double)(n - 1)), b->max); /* inf is fine */
    if (b->jitter > 0)
        delay = fmax(delay * (1 + b->jitter * (2 * unit - 1)), b->floor);
    return delay;
}
