/* SPDX-License-Identifier: MIT */
/*
 * swarm/swarm.h — the agent backend as the daemon sees it: lives of agents, messages that are sure
 * to arrive, commands from chat, and the gateway's HTTP routes and WebSocket.
 *
 *   struct swarm *s = swarm_new(...);   before durable_run(): it registers its workflows
 *   swarm_start(s, e);                  after it: loads, connects, begins to deliver
 *   swarm_tables(s, tables);            routes; swarm_upgrade() takes WebSockets on any path
 *   swarm_stop(s); swarm_free(s);       stop while the engine still runs
 */
#pragma once

#include "base/conf.h"
#include "base/metric.h"
#include "durable/durable.h"
#include "net/http.h"
#include "net/http_client.h"

struct swarm;

struct swarm_settings { /* [swarm], [gateway] and [openclaw] of the settings file */
    /* gateway */
    long long max_sessions;       /* WebSocket connections; MAX_SESSIONS */
    long long session_timeout_ms; /* silence after which one is closed; SESSION_TIMEOUT */
    long long agent_timeout_ms;   /* longest wait for an agent's reply; AGENT_TIMEOUT */
    long long max_message;        /* bytes of a message, HTTP and WebSocket; MAX_MESSAGE_SIZE */
    long long ping_ms;            /* between pings */
    long long connect_timeout_ms; /* for a WebSocket to say who it is */
    bool auth_required;           /* off: HTTP callers need no token; AUTH_REQUIRED */
    bool legacy_status; /* faults of a client are 500 as in the original; LEGACY_STATUS_CODES */
    /* backend */
    char *backend_auth;     /* none, token or jwt; BACKEND_AUTH */
    char *jwt_secret;       /* HS256; JWT_SECRET_KEY */
    char *session_key_form; /* "agent" or "web" */
    long long agents_max;
    /* messages */
    long long message_attempts;   /* deliveries without acknowledgement before it is dead */
    long long message_max_age_ms; /* 0: none */
    long long message_keep_ms; /* how long one that has ended can be looked up and is a duplicate */
    long long message_keep_rows; /* the newest so many of the ended */
    long long mailbox_max;       /* pending in one session; then senders are refused with 429 */
    long long redeliver_first_ms, redeliver_last_ms;
    /* heartbeats */
    long long beat_grace_ms; /* how long an answer may take */
    long long beat_missed;   /* in a row, before an agent counts as silent */
    long long beat_flush_ms; /* how often last_heartbeat_at is written for those that changed */
    /* openclaw */
    char *openclaw_url, *openclaw_token;
    char *openclaw_route;  /* patterns of session keys that are delivered there */
    char *notify_session;  /* OPENCLAW_WHATSAPP_SESSION_KEY */
    long long notify_rate; /* a minute and session */
    char *command_sources; /* patterns of session keys whose messages are read as commands */
    char *default_repo;    /* GITHUB_DEFAULT_REPO */
    char *agent_model;     /* of agents that commands make */
    /* monitor */
    long long check_ms;                 /* HEALTH_CHECK_INTERVAL */
    long long stuck_ms;                 /* PENDING without a step for so long */
    long long backlog_ms, failure_rate; /* enqueued for longer; percent of the last hour */
};
extern const struct opt swarm_opts[]; /* offsets into struct swarm_settings */
extern const size_t swarm_opts_len;

/* What it needs of rooms it may not include; filled in by the daemon. */
struct swarm_ops {
    /*
     * Who sent this token (of a WebSocket's first frame)? 0 and *ret with texts in the arena, or
     * -ERR_UNAUTHORIZED.
     */
    int (*authenticate)(struct str token, struct arena *a, void *arg, struct http_identity *ret,
                        struct err *e);
    bool (*auth_required)(void *arg); /* does a caller on loopback need one now? */
    void *arg;
};

struct swarm_conf {
    struct loop *loop;
    struct store *store;
    struct durable *engine;
    struct http_client *client;
    const struct swarm_settings *settings; /* lent; live ones change under us */
    const char *state_dir;                 /* device key of the OpenClaw client */
    const char *instance;
    unsigned port; /* that the gateway is to listen on; 0: any */
    struct swarm_ops ops;
};

int swarm_new(const struct swarm_conf *conf, struct swarm **ret, struct err *e) MUST_CHECK;
CO int swarm_start(struct swarm *s, struct err *e) MUST_CHECK;
CO void swarm_stop(struct swarm *s); /* closes sockets with 1001, stops delivering and beating */
void swarm_free(struct swarm *s);    /* NULL is fine */

enum { SWARM_TABLES = 9 };
void swarm_tables(struct swarm *s, struct http_table out[SWARM_TABLES]);

/* Runs for an upgrade to WebSocket on a path that no ROUTE_WS names; its room is the swarm. */
extern const struct http_route swarm_upgrade_route;

void swarm_gauges(struct swarm *s); /* before metrics are printed */
extern struct metric *const swarm_metrics[];
extern const size_t swarm_metrics_len;
