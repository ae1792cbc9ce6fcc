/* SPDX-License-Identifier: MIT */
/*
 * swarm/beat.h — heartbeats. When they are due is kept in memory, in a heap of slots; so is who has
 * answered. Slots are counted from next_heartbeat_at by the agent's interval, so a restart keeps
 * the rhythm, and a beat that goes as the one before writes nothing.
 *
 * A beat without a checklist is an event to those who are subscribed to the agent's session, who
 * answer it with agent.heartbeat (beat_alive). An agent that had a subscriber once and leaves
 * beat_missed of its beats in a row unanswered is silent: that, and its return, are written at
 * once, and the times of the last answers every beat_flush, in one transaction for all.
 * A beat with a checklist is a workflow "hb-sched:<agent>:<slot>" as well.
 *
 * Several processes on one PostgreSQL: an agent is asked by the process that its subscriber is
 * connected to; a checklist's workflow is one whoever starts it, because its id names the slot.
 * They learn of each other's changes by updated_at, within BEAT_POLL_MS.
 */
#pragma once

#include "swarm/life.h"

#define BEAT_POLL_MS 2000

struct beat;

int beat_new(struct life *l, struct beat **ret, struct err *e) MUST_CHECK;
CO int beat_start(struct beat *b, struct err *e) MUST_CHECK; /* loads the slots */
CO void beat_stop(struct beat *b);                           /* writes what it knows */
void beat_free(struct beat *b);

/* An agent's row is now this one. */
void beat_changed(struct beat *b, const struct agent_info *row);

/* Put what memory knows better into a row: last and next beat, silence. */
void beat_fill(const struct beat *b, struct agent_info *row);

/* The agent of this session lives. ERR_NOT_FOUND: none that runs. */
int beat_alive(struct beat *b, struct str session, struct err *e) MUST_CHECK;
void beat_attached(struct beat *b, struct str session, bool attached);

void beat_counts(const struct beat *b, int64_t *ret_beating, int64_t *ret_silent);
