/* SPDX-License-Identifier: MIT */
/*
 * store/store_copy.h — store_copy() for any schema; the program's own is what store_copy() passes.
 */
#pragma once

#include "store/store.h"

struct store_copy_spec {
    const char *from, *to; /* URLs */
    const struct store_migration *migrations;
    size_t n_migrations;
    void (*progress)(const char *table, long long rows, void *arg); /* may be NULL */
    void *arg;
};

/* See store_copy(). */
int store_copy_run(const struct store_copy_spec *spec, struct err *e) MUST_CHECK;
