/* SPDX-License-Identifier: MIT */
/*
 * agent/live.h — a task's output as it comes: `log` messages {taskId, stream, offset, bytes, data}.
 * Nothing is kept for it: what run_program() has captured is what is sent, from the byte that the
 * hub does not have yet, so that a lost connection costs nothing. A hub that has not said its
 * protocol is told nothing.
 */
#pragma once

#include <stdint.h>

#include "agent/agent_int.h"

struct live;
struct live_pump; /* of the agent: sends for all tasks in turn */

int live_pump_new(struct agent *a, struct live_pump **ret, struct err *e) MUST_CHECK;
CO void live_pump_free(struct live_pump *p);
void live_pump_wake(struct live_pump *p); /* there is room, or the hub has said what it has */
void live_pump_connected(struct live_pump *p);
/* The hub's resync has come: what it did not name goes on from where it was. */
void live_pump_resynced(struct live_pump *p);

struct live *live_new(struct live_pump *p, const char *task_id);
void live_free(struct live *l); /* NULL is fine */

/* The hub has so many bytes of each stream. */
void live_seek(struct live *l, long long out, long long err);

/* A program of the task begins: its raw output grows in these until live_detach(). l NULL: does
 * nothing, as in all that follow. */
void live_attach(struct live *l, const struct buf *out, const struct buf *err);
void live_more(struct live *l);
/* It has ended: send the rest, waiting for a slow link up to some seconds; at once when the fiber
 * is cancelled. */
CO void live_detach(struct live *l);
