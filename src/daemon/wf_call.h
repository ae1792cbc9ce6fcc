/* SPDX-License-Identifier: MIT */
/*
 * daemon/wf_call.h — the workflow "bridge.call": asks an agent through the bridge, and keeps its
 * answer. So a question may be enqueued, delayed, scheduled, and survives a crash of the daemon.
 */
#pragma once

#include "bridge/bridge.h"
#include "durable/durable.h"

/* Fill in its row; the row and the bridge must stay as long as the engine. */
void wf_call_type(struct bridge *b, struct durable_type *ret);
