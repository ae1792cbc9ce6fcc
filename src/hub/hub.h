/* SPDX-License-Identifier: MIT */
/*
 * hub/hub.h — the hub as the daemon sees it: agents isolated in machines connect by WebSocket, take
 * tasks, report results and health; machines are made for them.
 *
 *   struct hub *h = hub_new(...);   before durable_run(): it registers its workflows
 *   hub_start(h, e);                after it: loads agents, tasks and machines
 *   hub_ports(h, http, ws);         the ports are open: adopts machines that run, starts others
 *   hub_tables(h, tables);          routes of the HTTP port; hub_upgrade_route takes WebSockets on
 *                                   any path of both ports
 *   hub_stop(h); hub_free(h);       stop while the engine still runs
 */
#pragma once

#include "base/conf.h"
#include "base/metric.h"
#include "durable/durable.h"
#include "net/http.h"
#include "net/http_client.h"

struct hub;

struct hub_settings { /* [hub] and [machine] of the settings file */
    char *http_host, *ws_host;
    long long http_port, ws_port; /* 0 picks a free one */
    char *ws_url;                 /* how agents elsewhere reach the WebSocket port; PUBLIC_WS_URL */
    char *origins;                /* web pages that may call, besides the console's */
    bool agent_tasks;             /* agents may send tasks to each other */
    long long tick_ms;            /* between looks at stale agents, old tokens, late tasks */
    long long stale_ms;           /* without health: the socket is closed */
    long long token_ttl_ms;
    long long agents_max;
    long long ping_ms;          /* silence on a WebSocket after which it is pinged */
    long long slow_ms;          /* a full socket that takes nothing so long is closed */
    long long message_max;      /* bytes of a message from an agent */
    long long body_max;         /* bytes of a task */
    long long rate;             /* messages per second of one agent, on average; 0: no bound */
    long long queue_max;        /* waiting messages, and waiting tasks, of one agent */
    long long queue_bytes;      /* of waiting messages of one agent */
    char *queue_full;           /* drop-oldest or refuse */
    long long queue_max_age_ms; /* 0: none */
    long long dead_max;         /* dead letters kept */
    long long task_timeout_ms;  /* of a task that names none */
    long long task_grace_ms;    /* on top of it, before the hub gives a task up */
    long long lease_ms;         /* how long an agent may be away while it holds a task */
    long long task_attempts;    /* of a task that may be run again */
    long long task_keep_ms, task_keep_rows; /* ended tasks, rows per agent */
    long long tasks_memory;                 /* bytes of tasks that have not ended */
    long long output_max;                   /* bytes of live output kept for a running task */
    long long audit_max;                    /* bytes of audit.log before it is rotated */
    long long audit_keep;                   /* rotated files kept */
    /* machines */
    char *driver; /* of a machine that names none: sandbox, qemu, multipass */
    char *allow;  /* hosts that machines may reach besides the hub, for those that name none */
    char *images; /* directory of images; empty: images/ in the state directory */
    char *qemu, *bwrap, *multipass; /* programs */
    char *accel;                    /* auto, kvm or tcg */
    char *on_exit;                  /* keep or stop: machines, when the daemon is stopped */
    char *agent_program; /* chela-agent that is put into machines; empty: beside chelad */
    long long machines_max;
    long long lost_max, lost_keep_ms; /* directories in machines/.lost */
    long long uids;                   /* first user id of sandboxes */
    long long create_ms, start_ms, stop_ms, snapshot_ms, destroy_ms; /* deadlines of operations */
};
extern const struct opt hub_opts[];
extern const size_t hub_opts_len;

/* What the hub asks of the program; filled in by the daemon. */
struct hub_ops {
    /* Whose token is this? Texts in the arena; -ERR_UNAUTHORIZED. */
    int (*authenticate)(struct str token, struct arena *a, void *arg, struct http_identity *ret,
                        struct err *e);
    void *arg;
};

struct hub_conf {
    struct loop *loop;
    struct store *store;
    struct durable *engine;
    struct http_client *client;
    const struct hub_settings *settings;
    const char *state_dir;
    const char *instance;
    const char *program; /* chelad itself, absolute: for shims */
    bool tls;            /* the ports speak it */
    struct hub_ops ops;
};

int hub_new(const struct hub_conf *conf, struct hub **ret, struct err *e) MUST_CHECK;
CO int hub_start(struct hub *h, struct err *e) MUST_CHECK;
CO void hub_stop(struct hub *h);
void hub_free(struct hub *h); /* NULL is fine */

/* After hub_start(): the ports that were really opened. Machines are adopted and started now. */
void hub_ports(struct hub *h, unsigned http_port, unsigned ws_port);

#define HUB_TABLES 7
void hub_tables(struct hub *h, struct http_table out[HUB_TABLES]);

/* WebSockets on any path of either port: /agent/<id>/<token>, observers and shells of operators;
 * answers 401 and 404 itself. The room is the struct hub. */
extern const struct http_route hub_upgrade_route;
/* The HTTP port's way with paths and errors (vm-agent hub, Express): 404, CORS, compact JSON. */
extern const struct http_dialect dialect_hub;
/* The agents' port: what is not a WebSocket is answered 426. */
extern const struct http_dialect dialect_agents;

void hub_gauges(struct hub *h); /* before a scrape */
extern struct metric *const hub_metrics[];
extern const size_t hub_metrics_len;
