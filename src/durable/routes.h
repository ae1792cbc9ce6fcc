/* SPDX-License-Identifier: MIT */
/*
 * durable/routes.h — what the engine offers to the program that wires it: its settings, its routes
 * under /api/v1, the admin routes of DBOS for a listener of their own, and whether it can work.
 */
#pragma once

#include "durable/durable.h"
#include "net/http.h"

extern const struct opt durable_opts[]; /* offsets into struct durable_settings */
extern const size_t durable_opts_len;

/* The settings as durable_new() takes them; its strings are borrowed from s and instance. */
struct durable_conf durable_conf_of(const struct durable_settings *s, const char *instance);

enum { DURABLE_TABLES = 3 };
void durable_tables(struct durable *d, struct http_table out[DURABLE_TABLES]);

/* The routes that DBOS's own admin server has. Every one of them needs the scope admin. */
void durable_admin_table(struct durable *d, struct http_table *out);

/* NULL when the engine can run workflows, else one line that says why not (a constant). */
const char *durable_trouble(const struct durable *d);
