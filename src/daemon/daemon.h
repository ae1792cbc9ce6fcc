/* SPDX-License-Identifier: MIT */
/*
 * daemon/daemon.h — one running chelad: what it is made of, how it starts and how it ends.
 * The only place that knows every room.
 */
#pragma once

#include "base/conf.h"
#include "bridge/bridge.h"
#include "daemon/auth.h"
#include "daemon/hub_ports.h"
#include "daemon/settings.h"
#include "daemon/state_dir.h"
#include "daemon/workflows.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "store/store.h"
#include "swarm/swarm.h"

struct daemon_options {
    struct settings *settings;
    struct conf *conf;
    const char *conf_path; /* read again on SIGHUP; may not exist */
    struct state_dir *dir;
    int ready_fd; /* -1: nobody waits */
};

struct daemon {
    struct daemon_options opt;
    struct settings *settings;
    struct loop *loop;
    struct store *store;
    struct outbound_policy policy;
    struct http_client *client;
    struct keys *keys;
    struct auth auth;
    struct bridge *bridge;
    struct workflows workflows;
    struct swarm *swarm;
    struct hub *hub;
    struct hub_ports hub_ports;
    struct http_dialect dialect; /* of the gateway's own routes and of unknown paths */
    struct http_table tables[BRIDGE_TABLES + DURABLE_TABLES + SWARM_TABLES + 3];
    const struct http_table *table_list[BRIDGE_TABLES + DURABLE_TABLES + SWARM_TABLES + 3];
    struct http_server *server;
    struct tls_context *tls;
    struct fiber *flow; /* the fiber that is this daemon's life */
    struct fiber_group *chores;
    unsigned char master_key[SECRET_KEY];
    char *program;    /* chelad itself, absolute */
    char gateway[96]; /* "127.0.0.1:18789" */
    uint64_t started_ms;
    bool stopping;
    bool store_up; /* what the last ping of the store said */
};

/* Run until SIGTERM or SIGINT. 0 after an orderly end. Blocking. */
int daemon_run(const struct daemon_options *opt, struct err *e) MUST_CHECK;

/* The tables of routes the daemon itself answers: /, /health, /metrics, /api/v1/status. Their room
 * is the struct daemon. */
extern const struct http_route system_routes[];
extern const size_t system_routes_len;
