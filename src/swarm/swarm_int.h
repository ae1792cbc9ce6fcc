/* SPDX-License-Identifier: MIT */
/*
 * swarm/swarm_int.h — what the parts of the room share. Each part is a struct of its own with
 * new/start/stop/free, made in this order and taken down in reverse (swarm.c):
 *
 *   mail     messages, mailboxes, deliveries                      mail*.c
 *   life     agents and their lives, heartbeats                   life*.c, beat*.c
 *   notify   the OpenClaw client, what is delivered through it    notify*.c, bridge_client.c
 *   command  chat commands, orchestrator, trackers                command*.c
 *   monitor  health of workflows, status                          monitor*.c
 *   gate     HTTP routes of the gateway and its WebSocket         gate*.c
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/time.h"
#include "durable/durable.h"
#include "durable/manage.h"
#include "swarm/swarm.h"

struct mail;
struct life;
struct notify;
struct command;
struct monitor;
struct gate;
struct oc_client;

struct swarm {
    struct swarm_conf conf;
    const struct swarm_settings *settings; /* conf.settings */
    struct fiber_group *chores;
    struct mail *mail;
    struct life *life;
    struct notify *notify;
    struct command *command;
    struct monitor *monitor;
    struct gate *gate;
    bool pg, stopping;
};

/* Wall clock in ms since 1970: what the tables hold. */
static inline int64_t swarm_now(void)
{
    return wall_us() / 1000;
}

/* "2026-02-20T12:34:56.789000+00:00" as Python's isoformat() writes it, without a fraction that is
 * zero; NULL for 0. In the arena. */
const char *time_python(int64_t ms, struct arena *a);

/* Does a session key fit one of a comma-separated list of patterns, in which * stands for anything?
 */
bool session_fits(struct str session, const char *patterns);

/* Start a workflow of ours and wait for it: *out gets its result's JSON. Its error becomes *e (by
 * its name and words). id: what makes a repeat the same workflow; its id is in *ret. */
CO int swarm_run(struct swarm *s, const char *class_name, const char *name, struct str id,
                 const json_t *arg, uint64_t deadline_ms, struct durable_started *ret,
                 struct buf *out, struct err *e) MUST_CHECK;

/* Metrics are defined in metrics.c */
extern struct metric swarm_m_accepted, swarm_m_duplicates, swarm_m_delivered, swarm_m_redelivered,
    swarm_m_acked, swarm_m_dead, swarm_m_expired, swarm_m_pending, swarm_m_accept_ms,
    swarm_m_deliver_ms, swarm_m_sockets, swarm_m_agents, swarm_m_beats, swarm_m_silent,
    swarm_m_commands, swarm_m_notified, swarm_m_coalesced, swarm_m_unhealthy;
