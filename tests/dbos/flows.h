/* SPDX-License-Identifier: MIT */
/*
 * The workflows and queues that clients of DBOS start in the vectors.
 */
#pragma once

#include "durable/durable.h"

/*
 * Where they leave traces, and where they look for gates. Each run of a step's body appends
 * "begin WORKFLOW STEP PID" and "end ..." to the ledger; a step with a gate waits until
 * the file of that name is in the directory of gates.
 */
extern int flow_ledger;
extern const char *flow_gates;

extern const struct durable_type flow_types[];
extern const size_t flow_types_len;
extern const struct durable_queue flow_queues[];
extern const size_t flow_queues_len;
