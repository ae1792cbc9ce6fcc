/* SPDX-License-Identifier: MIT */
/* bridge/backoff_test.c — the sequence, the cap, jitter and saturation. */
#include "bridge/backoff.h"

#include <limits.h>

#include "base/macro.h"
#include "test.h"

static const struct backoff plain = { .initial = 1, .max = 8, .multiplier = 2 };
static const struct backoff jittered = {
    .initial = 1, .max = 8, .multiplier = 2, .jitter = 0.1, .floor = 0.1
};

TEST(without_jitter_the_waits_are_0_1_2_4_8_8)
{
    static const double want[] = { 0, 1, 2, 4, 8, 8 };

    for (size_t n = 0; n < LEN(want); n++)
        CHECK(backoff_delay(&plain, (long)n, 0.9) == want[n]);
}

TEST(huge_and_negative_counts_are_harmless)
{
    CHECK(backoff_delay(&plain, LONG_MAX, 0.5) == 8);
    CHECK(backoff_delay(&plain, 1100, 0.5) == 8);
    CHECK(backoff_delay(&plain, -1, 0.5) == 0);
    CHECK(backoff_delay(&plain, LONG_MIN, 0.5) == 0);
}

TEST(jitter_moves_the_wait_by_up_to_a_tenth_after_the_cap)
{
    CHECK(backoff_delay(&jittered, 1, 0) == 0.9);
    CHECK(backoff_delay(&jittered, 1, 0.5) == 1);
    CHECK(backoff_delay(&jittered, 10, 0) >= 7.2 - 1e-9);
    CHECK(backoff_delay(&jittered, 10, 0.999999) < 8.8);
    CHECK(backoff_delay(&jittered, 10, 0.999999) > 8.79);
}

TEST(with_jitter_a_wait_is_never_under_the_floor)
{
    struct backoff tiny = jittered;

    tiny.initial = 0.01;
    CHECK(backoff_delay(&tiny, 1, 0.5) == 0.1);
    CHECK(backoff_delay(&tiny, 0, 0.5) == 0);
}
