/* SPDX-License-Identifier: MIT */
/* The workflows of the crash tests; see host.c for what they leave to be looked at. */
#pragma once

#include "durable/durable.h"

extern const struct durable_type flow_types[];
extern const size_t flow_types_len;
extern const struct durable_queue flow_queues[];
extern const size_t flow_queues_len;
extern int flow_ledger; /* descriptor; every run of a body appends a line */

/* Make crash_effects. */
CO int flows_prepare(struct store *s, struct err *e) MUST_CHECK;
