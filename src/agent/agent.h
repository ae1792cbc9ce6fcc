/* SPDX-License-Identifier: MIT */
/*
 * agent/agent.h — the runtime inside a machine: one outbound WebSocket to the hub, tasks, health.
 *
 *   conf.c     config.json and the environment
 *   link.c     the WebSocket: connect, back off, hello, resync, what is said and heard
 *   runner.c   tasks: limit, queue, dedupe, cancel; spool.c what is on disk; deliver.c results on
 *              their way; live.c output as it comes
 *   run.c      processes;  types.c, files.c, git.c, transfer.c, … the types of tasks
 *   health.c   the report from /proc;  audit.c the agent's audit log;  pty.c interactive shells
 *   relay.c    ways out of a sandbox: loopback ports to unix sockets;  init.c being PID 1
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/fiber.h"
#include "base/json.h"
#include "base/str.h"

#define AGENT_PROTOCOL 1 /* of `hello` in docs/agent-protocol.md */

struct agent_relay { /* "127.0.0.1:9090" → "/run/chela/hub.sock" */
    char *listen, *to;
};

struct agent_conf {
    char *id, *token, *hub_url; /* ws://, wss:// or unix:/path */
    char *ca_file;              /* of a hub by wss://; NULL: the system's CAs */
    char *type;
    char **capabilities; /* NULL-terminated */
    long long max_concurrent, max_queued, default_timeout_ms;
    bool allow_sudo;
    bool token_in_header;   /* Authorization instead of the URL; the original hub wants the URL */
    long long keep_alive_s; /* TCP keep-alive: idle seconds before it asks */
    long long spool_bytes;  /* on disk, past which no task is accepted */
    long long reconnect_attempts; /* 0: for ever */
    long long reconnect_first_ms, reconnect_last_ms;
    long long health_ms;
    char *state_dir; /* the spool; see agent_conf_load() */
    char *audit_path;
    char *work_dir;             /* of tasks that name no cwd; default: the agent's own */
    char *root;                 /* file:* and git:* stay below it; NULL: no such bound */
    json_t *env;                /* over the agent's own for tasks; object or NULL */
    struct agent_relay *relays; /* see relay.c */
    size_t n_relays;
};

/*
 * Read AGENT_CONFIG (default /etc/vm-agent/config.json; a block device is read up to its NULs or
 * line feeds); failing that, say so on stderr and take AGENT_ID, AGENT_TOKEN and HUB_URL; never a
 * mixture. Without stateDir the state is in $STATE_DIRECTORY, else for root in
 * /var/lib/vm-agent/<id>, else in ~/.vm-agent/<id>. ERR_INVALID: a value that is none;
 * ERR_UNAUTHORIZED: no token. Blocking.
 */
int agent_conf_load(struct agent_conf *ret, struct err *e) MUST_CHECK;

/* The same of a text. */
int agent_conf_parse(struct str text, struct agent_conf *ret, struct err *e) MUST_CHECK;
void agent_conf_done(struct agent_conf *c);

struct agent;

/* Run until SIGTERM or SIGINT, or until reconnecting is given up. Blocking. 0 after a signal. */
int agent_run(const struct agent_conf *conf, struct err *e) MUST_CHECK;

const struct agent_conf *agent_conf(const struct agent *a);
struct loop *agent_loop(const struct agent *a);

/* Say a message to the hub: {id, from, to, type, timestamp, payload}. Takes the reference.
 * ERR_UNAVAILABLE: not connected, or too much waits. Results go by the spool instead. */
int agent_say(struct agent *a, const char *to, const char *type, json_t *payload, struct err *e)
    MUST_CHECK;
bool agent_connected(const struct agent *a);

/* Is there room for more of what comes fast (output, shells)? Less than 256 KiB wait to be sent. */
bool agent_has_room(const struct agent *a);
struct audit_log *agent_audit(const struct agent *a); /* NULL: there is none */

/* --- health.c --- */
struct health;
struct health *health_new(void);
void health_free(struct health *h);
/* The payload of a report, a new reference. CPU is that since the last call; the first one waits
 * 100 ms to have something to compare. */
CO int health_report(struct health *h, unsigned active_tasks, json_t **ret, struct err *e)
    MUST_CHECK;

/* --- audit.c: append-only JSON lines, 0640 --- */
struct audit_log;
int audit_log_open(const char *path, struct audit_log **ret, struct err *e) MUST_CHECK;
void audit_log_close(struct audit_log *l);
/* One line: event "task.received" (response NULL), "task.finished", "shell.opened",
 * "shell.closed". Nothing of env but its names; credentials in URLs are masked. l NULL is fine. */
void audit_task(struct audit_log *l, const char *event, const char *agent, const char *from,
                const json_t *payload, const json_t *response);

/* --- pty.c: shells; `shell` messages of the hub --- */
struct shells;
struct shells *shells_new(struct agent *a);
void shells_message(struct shells *s, const json_t *payload); /* open, data, resize, close */
void shells_lost(struct shells *s);    /* the link is gone, and those who typed: hang up on all */
CO void shells_free(struct shells *s); /* ends them */

/* --- relay.c --- */
struct relays;
int relays_new(struct loop *loop, const struct agent_conf *conf, struct relays **ret, struct err *e)
    MUST_CHECK;
CO void relays_free(struct relays *r);

/* --- init.c: `chela-agent init`: mount what a minimal guest lacks, set up the network (static
 * address of QEMU's user network), read the config from the kernel command line or the seed disk,
 * reap, power off at the end. Never returns. --- */
void init_main(void) __attribute__((noreturn));
