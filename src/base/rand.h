/* SPDX-License-Identifier: MIT */
/*
 * base/rand.h — randomness from the kernel; tests may replace it with a seeded sequence.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

void rand_bytes(void *out, size_t n); /* getrandom(2); aborts if the kernel has none */
uint64_t rand_u64(void);
double rand_unit(void); /* uniform in [0, 1) */

/* Tests: a repeatable sequence from seed; 0 restores the kernel's. */
void rand_set_seed(uint64_t seed);
