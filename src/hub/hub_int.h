/* SPDX-License-Identifier: MIT */
/*
 * hub/hub_int.h — what the parts of the room share. Each part is a struct of its own with
 * new/start/stop/free, made in this order and taken down in reverse (hub.c):
 *
 *   audit    the append-only, hash-chained log of who did what      audit*.c
 *   event    what happens, for /events, the console and the CLI     event.c
 *   agents   registered agents, their tokens, health, counters      agents*.c
 *   task     tasks from acceptance to result, durable               task*.c
 *   link     WebSockets of agents and observers, routing, queues    link*.c
 *   fleet    machines and their lives, shells                       fleet*.c
 *   api      the routes of the HTTP port, its dialect               api*.c
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
#include "hub/hub.h"
#include "store/store.h"

#define HUB_ID_MAX 128 /* bytes of an agent's id, without the terminator */

struct audit;
struct events;
struct hub_agents;
struct tasks;
struct links;
struct fleet;

struct hub {
    struct hub_conf conf;
    const struct hub_settings *settings; /* conf.settings */
    struct fiber_group *chores;
    struct audit *audit;
    struct events *events;
    struct hub_agents *agents;
    struct tasks *tasks;
    struct links *links;
    struct fleet *fleet;
    unsigned http_port, ws_port;
    uint64_t started_ms; /* now_ms() */
    int64_t last_order;  /* see hub_order() */
    bool pg, stopping;
};

/* Wall clock in ms since 1970: what the tables hold and clients see. */
static inline int64_t hub_now(void)
{
    return wall_us() / 1000;
}

/* A number that grows with each call, also over restarts: places waiting tasks and messages of an
 * agent in one order. Microseconds since 1970, made distinct. */
int64_t hub_order(struct hub *h);

/* "ws://localhost:9090", or the configured public URL, without a slash at the end. In the arena. */
const char *hub_ws_url(const struct hub *h, struct arena *a);

/* Letters, digits, . _ - and a letter or digit first, at most HUB_ID_MAX; not broadcast or *.
 * ERR_INVALID says what is wrong. "host" passes: who may use it is another question. */
int hub_id_check(struct str id, struct err *e) MUST_CHECK;

extern struct metric hub_m_messages, hub_m_agents, hub_m_active, hub_m_tasks, hub_m_task_ms,
    hub_m_dead, hub_m_machines, hub_m_machine_ms, hub_m_sockets;
