/* SPDX-License-Identifier: MIT */
/*
 * bridge/bridge_opts.c — the settings [bridge]. The variables in .env are those that the original's
 * documents name.
 */
#include "bridge/bridge.h"

static const char *const plain_token_choices[] = { "warn", "refuse", NULL };

#define ROW(kind, name, member, def, ...) \
    OPT(kind, "bridge." name, struct bridge_conf, member, def, __VA_ARGS__)
#define DAYS (24LL * 3600 * 1000)

/* clang-format off */
const struct opt bridge_opts[] = {
    ROW(OPT_MSEC, "timeout", timeout_ms, "30s", .min = 1, .max = 3600000, .flags = OPT_LIVE, .env = "OPENCLAW_TIMEOUT_SECONDS",
        .doc = "Deadline of one attempt on an agent that was registered without timeout_seconds."),
    ROW(OPT_INT,  "retries", retries, "3", .min = 1, .max = 10, .flags = OPT_LIVE, .env = "OPENCLAW_MAX_RETRIES",
        .doc = "Attempts in all on an agent that was registered without max_retries."),
    ROW(OPT_MSEC, "backoff_initial", backoff_initial_ms, "1s", .min = 1, .max = 600000, .flags = OPT_LIVE,
        .doc = "Wait before the second attempt; doubles for each further one."),
    ROW(OPT_MSEC, "backoff_max", backoff_max_ms, "4s", .min = 1, .max = 3600000, .flags = OPT_LIVE,
        .doc = "Longest wait between attempts, also when an agent asks for more by Retry-After."),
    ROW(OPT_MSEC, "call_deadline", call_deadline_ms, "0", .min = 0, .max = 7 * DAYS, .flags = OPT_LIVE,
        .doc = "Deadline of a call as a whole, over attempts and fallbacks; 0: none."),
    ROW(OPT_SIZE, "response_max", response_max, "16M", .min = 1024, .max = 1LL << 30, .flags = OPT_LIVE,
        .doc = "Largest answer of an agent."),
    ROW(OPT_MSEC, "session_max_age", session_max_age_ms, "24h", .min = 0, .max = 3650 * DAYS, .flags = OPT_LIVE, .env = "SESSION_CLEANUP_HOURS:h",
        .doc = "Sessions idle longer than this are removed by the sweep; 0: never."),
    ROW(OPT_MSEC, "sweep_every", sweep_every_ms, "10m", .min = 0, .max = 365 * DAYS, .flags = OPT_LIVE,
        .doc = "How often idle sessions and old idempotency records are looked for; 0: not at all."),
    ROW(OPT_INT,  "sessions_max", sessions_max, "100000", .min = 1, .max = 100000000, .flags = OPT_LIVE,
        .doc = "Sessions kept; when more are made, those idle longest are dropped."),
    ROW(OPT_INT,  "messages_max", messages_max, "1000", .min = 2, .max = 1000000, .flags = OPT_LIVE,
        .doc = "Messages kept in one session; when more come, its oldest are dropped."),
    ROW(OPT_INT,  "agents_max", agents_max, "10000", .min = 1, .max = 1000000, .flags = OPT_LIVE,
        .doc = "Agents that may be registered."),
    ROW(OPT_MSEC, "half_open", half_open_ms, "60s", .min = 1, .max = 365 * DAYS, .flags = OPT_LIVE,
        .doc = "After this long an unreachable agent is tried at its own place in the chain again."),
    ROW(OPT_INT,  "recover_after", recover_after, "5", .min = 1, .max = 1000, .flags = OPT_LIVE,
        .doc = "Successes in a row that make a degraded agent healthy."),
    ROW(OPT_INT,  "context_messages", context_messages, "50", .min = 0, .max = 1000, .flags = OPT_LIVE,
        .doc = "Earlier messages sent along to agents registered with context = session."),
    ROW(OPT_SIZE, "context_bytes", context_bytes, "256K", .min = 0, .max = 1 << 24, .flags = OPT_LIVE,
        .doc = "Bytes of earlier messages sent along at most."),
    ROW(OPT_MSEC, "idempotency_keep", idempotency_keep_ms, "24h", .min = 1000, .max = 365 * DAYS, .flags = OPT_LIVE,
        .doc = "How long the result of a call with an Idempotency-Key can be asked for again."),
    ROW(OPT_STR,  "agents", agents, "", .env = "VPS_AGENTS", .flags = OPT_SECRET,
        .doc = "JSON list of agents to register at start, in the form of POST /api/vps/register."),
    ROW(OPT_STR,  "export_path", export_path, "", .env = "SESSION_EXPORT_PATH",
        .doc = "File that an orderly stop exports all sessions to; empty: none."),
    ROW(OPT_STR,  "vps_endpoint", vps_endpoint, "", .env = "OPENCLAW_VPS_ENDPOINT",
        .doc = "URL to register at start as the agent 'vps', which falls back to 'cloudflare'."),
    ROW(OPT_STR,  "cf_endpoint", cf_endpoint, "", .env = "OPENCLAW_CF_ENDPOINT",
        .doc = "URL to register at start as the agent 'cloudflare'."),
    ROW(OPT_STR,  "plain_token", plain_token, "warn", .one_of = plain_token_choices, .flags = OPT_LIVE,
        .doc = "A bearer token for an agent over plain HTTP: warn about it or refuse it."),
};
/* clang-format on */
const size_t bridge_opts_len = LEN(bridge_opts);
