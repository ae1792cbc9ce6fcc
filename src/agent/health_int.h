/* SPDX-License-Identifier: MIT */
/*
 * agent/health_int.h — how the files of /proc are read. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct cpu_times {
    uint64_t busy, idle; /* ticks since boot; what is stolen by the host counts as neither */
};
/* The first line of /proc/stat. */
bool cpu_times_parse(struct str text, struct cpu_times *ret);

/* 0..100 with two decimals, of the time between two looks; 0 when there was none. */
double cpu_percent(const struct cpu_times *then, const struct cpu_times *now);

/* The number behind "Key:" or "key " at the beginning of a line; false: there is none. */
bool proc_number(struct str text, const char *key, uint64_t *ret);

struct usage { /* MiB */
    int64_t total, used, free;
    double percent;
};
/* Of memory, in KiB; limit_kib (a control group's) 0: none. */
void memory_usage(uint64_t total_kib, uint64_t available_kib, uint64_t limit_kib,
                  uint64_t limit_used_kib, struct usage *ret);
/* Of a file system as df -k counts it: use% is rounded up and is of what can be used at all. */
void disk_usage(uint64_t blocks_kib, uint64_t free_kib, uint64_t available_kib, struct usage *ret);
