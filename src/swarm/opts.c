/* SPDX-License-Identifier: MIT */
/*
 * swarm/opts.c — the settings [gateway], [swarm], [messages], [agents] and [openclaw] of the agent
 * backend. The variables are those that the originals' documents name; plain numbers in them are in
 * the unit they were in there.
 */
#include "swarm/swarm.h"

static const char *const auth_choices[] = { "none", "token", "jwt", NULL };
static const char *const key_choices[] = { "agent", "web", NULL };

#define ROW(kind, name, member, def, ...) \
    OPT(kind, name, struct swarm_settings, member, def, __VA_ARGS__)
#define DAYS (24LL * 3600 * 1000)

/* clang-format off */
const struct opt swarm_opts[] = {
    ROW(OPT_INT,  "gateway.max_sessions", max_sessions, "1000", .min = 1, .max = 1000000, .flags = OPT_LIVE, .env = "MAX_SESSIONS",
        .doc = "WebSocket connections at once; further ones are refused with 503."),
    ROW(OPT_MSEC, "gateway.session_timeout", session_timeout_ms, "1h", .min = 1000, .max = 365 * DAYS, .flags = OPT_LIVE, .env = "SESSION_TIMEOUT:ms",
        .doc = "A WebSocket that sends nothing, not even a pong, for so long is closed."),
    ROW(OPT_MSEC, "gateway.agent_timeout", agent_timeout_ms, "60s", .min = 0, .max = DAYS, .flags = OPT_LIVE, .env = "AGENT_TIMEOUT:ms",
        .doc = "Longest wait for the reply of an agent that replies."),
    ROW(OPT_SIZE, "gateway.max_message", max_message, "1M", .min = 1024, .max = 1LL << 28, .env = "MAX_MESSAGE_SIZE",
        .doc = "Largest message, over HTTP and WebSocket."),
    ROW(OPT_MSEC, "gateway.ping", ping_ms, "30s", .min = 100, .max = 3600000,
        .doc = "Silence on a WebSocket after which it is pinged."),
    ROW(OPT_MSEC, "gateway.connect_timeout", connect_timeout_ms, "10s", .min = 100, .max = 600000, .flags = OPT_LIVE,
        .doc = "Time for a WebSocket without a token in its upgrade to send one in its connect frame."),
    ROW(OPT_BOOL, "gateway.auth_required", auth_required, "on", .env = "AUTH_REQUIRED",
        .doc = "Off: the gateway's own routes and WebSocket ask for no token, as in the original; for clients that send none."),
    ROW(OPT_BOOL, "gateway.legacy_status", legacy_status, "off", .flags = OPT_LIVE, .env = "LEGACY_STATUS_CODES",
        .doc = "Answer a client's fault in a message with 500, as the original did, instead of 400."),
    ROW(OPT_STR,  "agents.auth", backend_auth, "token", .one_of = auth_choices, .env = "BACKEND_AUTH",
        .doc = "Who may use /api/v1/agents: holders of a token like everywhere, of a JWT, or (on loopback) everybody."),
    ROW(OPT_STR,  "agents.jwt_secret", jwt_secret, "", .env = "JWT_SECRET_KEY", .flags = OPT_SECRET,
        .doc = "Secret that JWTs are signed with (HS256), at least 32 bytes; needed for agents.auth = jwt."),
    ROW(OPT_STR,  "agents.session_key", session_key_form, "agent", .one_of = key_choices,
        .doc = "Form of a new agent's session key: agent:<name>:main or agent:web:<name>."),
    ROW(OPT_INT,  "agents.max", agents_max, "100000", .min = 1, .max = 10000000, .flags = OPT_LIVE,
        .doc = "Agents that may exist, stopped ones not counted."),
    ROW(OPT_INT,  "messages.attempts", message_attempts, "100", .min = 1, .max = 1000000, .flags = OPT_LIVE,
        .doc = "Deliveries that nobody acknowledges before a message is dead."),
    ROW(OPT_MSEC, "messages.max_age", message_max_age_ms, "7d", .min = 0, .max = 3650 * DAYS, .flags = OPT_LIVE,
        .doc = "A message that nobody took for so long expires; 0: never."),
    ROW(OPT_MSEC, "messages.keep", message_keep_ms, "7d", .min = 1000, .max = 3650 * DAYS, .flags = OPT_LIVE,
        .doc = "How long a message that has ended is remembered, to be looked up and to know its duplicates."),
    ROW(OPT_INT,  "messages.keep_rows", message_keep_rows, "1000000", .min = 0, .max = 4000000000LL, .flags = OPT_LIVE,
        .doc = "Of the messages that have ended so many are remembered, the newest; 0: all."),
    ROW(OPT_INT,  "messages.mailbox_max", mailbox_max, "10000", .min = 1, .max = 100000000, .flags = OPT_LIVE,
        .doc = "Messages that may wait in one mailbox; then senders are refused with 429."),
    ROW(OPT_MSEC, "messages.redeliver", redeliver_first_ms, "1s", .min = 10, .max = 3600000, .flags = OPT_LIVE,
        .doc = "Wait for an acknowledgement before a message is delivered again; doubles."),
    ROW(OPT_MSEC, "messages.redeliver_max", redeliver_last_ms, "30s", .min = 10, .max = 86400000, .flags = OPT_LIVE,
        .doc = "Longest such wait."),
    ROW(OPT_MSEC, "agents.beat_grace", beat_grace_ms, "10s", .min = 100, .max = 3600000, .flags = OPT_LIVE,
        .doc = "How long an agent may take to answer a heartbeat."),
    ROW(OPT_INT,  "agents.beat_missed", beat_missed, "3", .min = 1, .max = 1000, .flags = OPT_LIVE,
        .doc = "Heartbeats missed in a row that make an agent silent."),
    ROW(OPT_MSEC, "agents.beat_flush", beat_flush_ms, "5m", .min = 1000, .max = DAYS, .flags = OPT_LIVE,
        .doc = "How often the times of the last heartbeats are written to the database; what changes an agent is written at once."),
    ROW(OPT_STR,  "openclaw.url", openclaw_url, "", .env = "OPENCLAW_GATEWAY_URL",
        .doc = "ws://, wss://, http:// or https:// of an OpenClaw gateway to stay connected to; empty: none."),
    ROW(OPT_STR,  "openclaw.token", openclaw_token, "", .env = "OPENCLAW_GATEWAY_TOKEN,OPENCLAW_AUTH_TOKEN,OPENCLAW_TOKEN,AUTH_TOKEN", .flags = OPT_SECRET,
        .doc = "Its token."),
    ROW(OPT_STR,  "openclaw.route", openclaw_route, "agent:whatsapp:main,whatsapp:*,telegram:*,slack:*,discord:*",
        .doc = "Session keys, * for anything, whose messages are delivered through the OpenClaw gateway."),
    ROW(OPT_STR,  "openclaw.notify_session", notify_session, "agent:whatsapp:main", .env = "OPENCLAW_WHATSAPP_SESSION_KEY",
        .doc = "Session that notifications go to."),
    ROW(OPT_INT,  "openclaw.notify_rate", notify_rate, "20", .min = 1, .max = 100000, .flags = OPT_LIVE,
        .doc = "Texts a minute to one session; what is more waits and is joined."),
    ROW(OPT_STR,  "openclaw.commands", command_sources, "",
        .doc = "Session keys, * for anything, whose messages from people are obeyed as commands; empty: none."),
    ROW(OPT_STR,  "swarm.repository", default_repo, "", .env = "GITHUB_DEFAULT_REPO",
        .doc = "Repository that issue numbers in commands belong to, owner/name."),
    ROW(OPT_STR,  "swarm.model", agent_model, "anthropic/claude-sonnet-4-5", .flags = OPT_LIVE,
        .doc = "Model of agents that commands make, provider/name."),
    ROW(OPT_MSEC, "swarm.check", check_ms, "30s", .min = 100, .max = DAYS, .flags = OPT_LIVE, .env = "HEALTH_CHECK_INTERVAL:ms",
        .doc = "How often workflows are looked at for those that are stuck or failed."),
    ROW(OPT_MSEC, "swarm.stuck", stuck_ms, "5m", .min = 1000, .max = 365 * DAYS, .flags = OPT_LIVE,
        .doc = "A workflow that runs and has recorded nothing for so long counts as stuck."),
    ROW(OPT_MSEC, "swarm.backlog", backlog_ms, "15m", .min = 0, .max = 365 * DAYS, .flags = OPT_LIVE,
        .doc = "Workflows that are enqueued for longer make the whole unhealthy; 0: never."),
    ROW(OPT_INT,  "swarm.failure_rate", failure_rate, "50", .min = 0, .max = 100, .flags = OPT_LIVE,
        .doc = "So do more failures than this share, in percent, of what ended in the last hour (of 10 and more)."),
};
/* clang-format on */
const size_t swarm_opts_len = LEN(swarm_opts);
