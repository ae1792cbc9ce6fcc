/* SPDX-License-Identifier: MIT */
/*
 * daemon/hub_ports.h — the hub's two ports: HTTP for operators (also as hub.sock in the state
 * directory), and WebSocket for agents (also as agents.sock, which is handed into sandboxes).
 */
#pragma once

#include "daemon/auth.h"
#include "hub/hub.h"

struct hub_ports {
    struct auth auth; /* of the HTTP port: its own address decides who needs a token */
    struct http_server *http, *agents;
    struct http_table tables[HUB_TABLES], nothing;
    const struct http_table *list[HUB_TABLES], *nothings[1];
    struct http_limits agent_limits;
    struct tls_context *tls; /* borrowed */
    char *http_socket, *agents_socket;
    char http_address[96], agents_address[96]; /* "127.0.0.1:9091" */
};

/* Open both; hub_ports() is told the numbers. */
int hub_ports_serve(struct hub_ports *p, struct loop *loop, struct hub *hub,
                    const struct auth *auth, const struct settings *settings, const char *state_dir,
                    struct tls_context *tls, struct err *e) MUST_CHECK;
CO void hub_ports_stop(struct hub_ports *p, uint64_t deadline_ms);
void hub_ports_recheck(struct hub_ports *p); /* keys have gone: http_server_recheck() on both */
void hub_ports_done(struct hub_ports *p);    /* works on a zeroed one */
