/* SPDX-License-Identifier: MIT */
/*
 * openclaw/breaker.c — when requests are refused without being made, and how long to wait before a
 * connection is tried again. Pure.
 *
 * Only what says something of the transport counts: an answer is a success whatever it says; a
 * request that was lost with its connection, or got no answer in its time, is a failure.
 */
#include "openclaw/openclaw_int.h"

bool oc_breaker_lets(struct oc_breaker *b, uint64_t now_ms)
{
    if (b->open && now_ms >= b->until_ms)
        oc_breaker_met(b);
    return !b->open;
}

void oc_breaker_good(struct oc_breaker *b)
{
    b->failures = 0;
    if (b->half && ++b->successes >= OC_MEND)
        b->half = false;
}

bool oc_breaker_bad(struct oc_breaker *b, uint64_t now_ms)
{
    bool opens = !b->open && (b->half || b->failures + 1 >= OC_BREAK_AFTER);

    if (!opens) {
        b->failures++;
        return false;
    }
    *b = (struct oc_breaker){ .open = true, .until_ms = now_ms + OC_BREAK_MS };
    return true;
}

void oc_breaker_met(struct oc_breaker *b)
{
    if (b->open)
        *b = (struct oc_breaker){ .half = true };
}

uint64_t oc_backoff_ms(uint64_t first_ms, uint64_t last_ms, unsigned n, double chance)
{
    uint64_t ms = first_ms;

    while (n-- > 0 && ms < last_ms)
        ms *= 2;
    if (ms > last_ms)
        ms = last_ms;
    return ms + (uint64_t)(chance * 101);
}
