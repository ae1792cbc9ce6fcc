/* SPDX-License-Identifier: MIT */
/*
 * daemon/settings.h — every setting of chelad in one struct, filled from the rows in settings.c
 * and from those that the rooms declare for themselves.
 */
#pragma once

#include "base/conf.h"
#include "bridge/bridge.h"
#include "durable/durable.h"
#include "hub/hub.h"
#include "net/http_server.h"
#include "swarm/swarm.h"

struct settings {
    char *host;
    long long port;
    char *store_url; /* "" means an SQLite file in the state directory */
    long long store_pool;
    long long store_wait_ms;
    char *log_level;
    char *log_format;
    struct http_limits limits;
    long long shutdown_ms;
    char *token, *gateway_auth_token, *gateway_token, *hub_token;
    char *hosts, *origins;
    char *encryption_key;
    char *tls_cert, *tls_key;
    char *outbound_allow, *outbound_deny, *outbound_proxy, *outbound_ca_file;
    long long outbound_per_host;
    struct bridge_conf bridge;
    struct durable_settings durable;
    struct swarm_settings swarm;
    struct hub_settings hub;
};

/* A conf over all tables, filling *into, which must outlive it. */
int settings_new(struct settings *into, struct conf **ret, struct err *e) MUST_CHECK;

/* What no single row can check: which settings contradict each other. Call after conf_apply(). */
int settings_check(const struct settings *s, struct err *e) MUST_CHECK;

enum log_level settings_log_level(const struct settings *s);
enum log_format settings_log_format(const struct settings *s);
