/* SPDX-License-Identifier: MIT */
/*
 * hub/opts.c — the settings [hub] and [machine]. The variables are those of the original hub.
 */
#include "hub/hub.h"

static const char *const full_choices[] = { "drop-oldest", "refuse", NULL };
static const char *const driver_choices[] = { "sandbox", "qemu", "multipass", NULL };
static const char *const exit_choices[] = { "stop", "keep", NULL };
static const char *const accel_choices[] = { "auto", "kvm", "tcg", NULL };

#define ROW(kind, name, member, def, ...) \
    OPT(kind, name, struct hub_settings, member, def, __VA_ARGS__)
#define DAYS (24LL * 3600 * 1000)

/* clang-format off */
const struct opt hub_opts[] = {
    ROW(OPT_STR,  "hub.http_host", http_host, "127.0.0.1", .env = "HUB_BIND",
        .doc = "Address of the hub's HTTP port. Anything but loopback needs an API key or a token."),
    ROW(OPT_INT,  "hub.http_port", http_port, "9091", .min = 0, .max = 65535, .env = "HTTP_PORT",
        .doc = "Port of the hub's HTTP API; 0 picks a free one."),
    ROW(OPT_STR,  "hub.ws_host", ws_host, "127.0.0.1", .env = "HUB_WS_BIND",
        .doc = "Address of the port that agents connect to; each of them needs its token there."),
    ROW(OPT_INT,  "hub.ws_port", ws_port, "9090", .min = 0, .max = 65535, .env = "WS_PORT",
        .doc = "Port that agents connect to by WebSocket; 0 picks a free one."),
    ROW(OPT_STR,  "hub.ws_url", ws_url, "", .env = "PUBLIC_WS_URL",
        .doc = "How agents elsewhere reach that port (wss://hub.example); empty: ws://localhost (wss:// with TLS) and the port."),
    ROW(OPT_STR,  "hub.origins", origins, "http://localhost:9092,http://127.0.0.1:9092",
        .doc = "Web pages that may call the hub, besides those of auth.origins."),
    ROW(OPT_BOOL, "hub.agent_tasks", agent_tasks, "off", .flags = OPT_LIVE,
        .doc = "Agents may send tasks to each other, as the original let them."),
    ROW(OPT_MSEC, "hub.tick", tick_ms, "30s", .min = 100, .max = 600000, .flags = OPT_LIVE,
        .doc = "Between looks at silent agents and old tokens."),
    ROW(OPT_MSEC, "hub.stale", stale_ms, "120s", .min = 200, .max = DAYS, .flags = OPT_LIVE,
        .doc = "An agent that reports no health for so long is cut off, so that it connects anew."),
    ROW(OPT_MSEC, "hub.token_ttl", token_ttl_ms, "365d", .min = 1000, .max = 3650 * DAYS, .flags = OPT_LIVE,
        .doc = "How long an agent's token is valid."),
    ROW(OPT_INT,  "hub.agents_max", agents_max, "100000", .min = 1, .max = 1000000, .flags = OPT_LIVE,
        .doc = "Agents that may be registered."),
    ROW(OPT_MSEC, "hub.ping", ping_ms, "30s", .min = 100, .max = 3600000,
        .doc = "Silence on an agent's WebSocket after which it is pinged."),
    ROW(OPT_SIZE, "hub.message_max", message_max, "32M", .min = 1024, .max = 100LL << 20,
        .doc = "Largest message from an agent; larger ones end its connection (1009)."),
    ROW(OPT_SIZE, "hub.body_max", body_max, "16M", .min = 1024, .max = 100LL << 20, .flags = OPT_LIVE,
        .doc = "Largest task (413)."),
    ROW(OPT_INT,  "hub.rate", rate, "2000", .min = 0, .max = 10000000, .flags = OPT_LIVE,
        .doc = "Messages per second from one agent, over ten seconds; then it is read more slowly. 0: no bound."),
    ROW(OPT_INT,  "hub.queue_max", queue_max, "1000", .min = 1, .max = 1000000, .flags = OPT_LIVE,
        .doc = "Tasks, and messages, that may wait for one agent."),
    ROW(OPT_STR,  "hub.queue_full", queue_full, "drop-oldest", .one_of = full_choices, .flags = OPT_LIVE,
        .doc = "Then the oldest becomes a dead letter, or the new one is refused with 429."),
    ROW(OPT_MSEC, "hub.queue_max_age", queue_max_age_ms, "7d", .min = 0, .max = 3650 * DAYS, .flags = OPT_LIVE,
        .doc = "What waited for an agent so long becomes a dead letter; 0: never."),
    ROW(OPT_INT,  "hub.dead_max", dead_max, "1000", .min = 1, .max = 1000000, .flags = OPT_LIVE,
        .doc = "Dead letters kept, the newest."),
    ROW(OPT_MSEC, "hub.task_timeout", task_timeout_ms, "30m", .min = 1000, .max = 365 * DAYS, .flags = OPT_LIVE,
        .doc = "Time-out of a task that names none."),
    ROW(OPT_MSEC, "hub.task_grace", task_grace_ms, "60s", .min = 0, .max = DAYS, .flags = OPT_LIVE,
        .doc = "How long after its time-out the hub still waits for the agent's own word."),
    ROW(OPT_MSEC, "hub.lease", lease_ms, "5m", .min = 100, .max = 30 * DAYS, .flags = OPT_LIVE,
        .doc = "How long an agent that holds a task may be away before the task is lost, or is run again if it says retry."),
    ROW(OPT_INT,  "hub.task_attempts", task_attempts, "3", .min = 1, .max = 1000, .flags = OPT_LIVE,
        .doc = "Times that a task which says retry is handed out in all."),
    ROW(OPT_MSEC, "hub.task_keep", task_keep_ms, "7d", .min = 1000, .max = 3650 * DAYS, .flags = OPT_LIVE,
        .doc = "How long ended tasks and their results can be looked up."),
    ROW(OPT_INT,  "hub.task_keep_rows", task_keep_rows, "1000", .min = 1, .max = 10000000, .flags = OPT_LIVE,
        .doc = "Of the ended tasks of each agent so many are kept, the newest."),
    ROW(OPT_SIZE, "hub.tasks_memory", tasks_memory, "512M", .min = 1024, .max = 1LL << 40, .flags = OPT_LIVE,
        .doc = "Bytes of all tasks that have not ended; past it new ones are refused with 503."),
    ROW(OPT_SIZE, "hub.output_max", output_max, "256K", .min = 1024, .max = 64LL << 20, .flags = OPT_LIVE,
        .doc = "Live output of a running task that is kept for those who begin to look, the newest."),
    ROW(OPT_SIZE, "hub.audit_max", audit_max, "64M", .min = 4096, .max = 1LL << 40, .flags = OPT_LIVE,
        .doc = "Size at which audit.log begins anew."),
    ROW(OPT_INT,  "hub.audit_keep", audit_keep, "10", .min = 1, .max = 10000, .flags = OPT_LIVE,
        .doc = "Older audit logs kept."),

    ROW(OPT_STR,  "machine.driver", driver, "sandbox", .one_of = driver_choices, .flags = OPT_LIVE,
        .doc = "What a machine is that names no driver."),
    ROW(OPT_STR,  "machine.allow", allow, "", .flags = OPT_LIVE,
        .doc = "Hosts that machines may reach besides the hub, comma-separated (host, host:port, *.host), for those that name none."),
    ROW(OPT_STR,  "machine.images", images, "",
        .doc = "Directory of images; empty: images in the state directory."),
    ROW(OPT_STR,  "machine.qemu", qemu, "qemu-system-x86_64", .doc = "QEMU."),
    ROW(OPT_STR,  "machine.bwrap", bwrap, "bwrap", .doc = "bubblewrap."),
    ROW(OPT_STR,  "machine.multipass", multipass, "multipass", .doc = "Canonical's Multipass."),
    ROW(OPT_STR,  "machine.accel", accel, "auto", .one_of = accel_choices,
        .doc = "How QEMU runs a guest: auto uses KVM if a probe guest has shown that it works."),
    ROW(OPT_STR,  "machine.agent_program", agent_program, "",
        .doc = "The chela-agent that is put into machines; empty: the one beside chelad."),
    ROW(OPT_INT,  "machine.max", machines_max, "1000", .min = 1, .max = 100000, .flags = OPT_LIVE,
        .doc = "Machines that may exist."),
    ROW(OPT_INT,  "machine.uids", uids, "2000000000", .min = 100000, .max = 2147383647,
        .doc = "First of the 100,000,000 user ids that sandboxes run as, when chelad is root."),
    ROW(OPT_STR,  "machine.on_exit", on_exit, "stop", .one_of = exit_choices, .flags = OPT_LIVE,
        .doc = "When the daemon is stopped: stop machines and start them again with it, or keep them running until it comes back."),
    ROW(OPT_MSEC, "machine.create_timeout", create_ms, "15m", .min = 100, .max = DAYS, .flags = OPT_LIVE,
        .doc = "Deadline of creating a machine, until its agent is connected."),
    ROW(OPT_MSEC, "machine.start_timeout", start_ms, "5m", .min = 100, .max = DAYS, .flags = OPT_LIVE,
        .doc = "Deadline of starting one."),
    ROW(OPT_MSEC, "machine.stop_timeout", stop_ms, "2m", .min = 100, .max = DAYS, .flags = OPT_LIVE,
        .doc = "Deadline of stopping one; it is forced then."),
    ROW(OPT_MSEC, "machine.snapshot_timeout", snapshot_ms, "15m", .min = 100, .max = DAYS, .flags = OPT_LIVE,
        .doc = "Deadline of a snapshot, and of going back to one."),
    ROW(OPT_MSEC, "machine.destroy_timeout", destroy_ms, "2m", .min = 100, .max = DAYS, .flags = OPT_LIVE,
        .doc = "Deadline of destroying one."),
};
/* clang-format on */
const size_t hub_opts_len = LEN(hub_opts);
