/* SPDX-License-Identifier: MIT */
/* swarm/metrics.c — the room's rows for Prometheus. Each has one value (label 0). */
#include "swarm/swarm_int.h"

struct metric swarm_m_accepted = {
    .name = "chela_messages_accepted_total",
    .kind = METRIC_COUNTER,
    .help = "Messages that were written to a mailbox.",
};

struct metric swarm_m_duplicates = {
    .name = "chela_messages_duplicates_total",
    .kind = METRIC_COUNTER,
    .help = "Messages that had been said before.",
};

struct metric swarm_m_delivered = {
    .name = "chela_messages_delivered_total",
    .kind = METRIC_COUNTER,
    .help = "Messages handed to a consumer for the first time.",
};

struct metric swarm_m_redelivered = {
    .name = "chela_messages_redelivered_total",
    .kind = METRIC_COUNTER,
    .help = "Messages handed to a consumer again.",
};

struct metric swarm_m_acked = {
    .name = "chela_messages_acknowledged_total",
    .kind = METRIC_COUNTER,
    .help = "Messages that a consumer has acknowledged.",
};

struct metric swarm_m_dead = {
    .name = "chela_messages_dead_total",
    .kind = METRIC_COUNTER,
    .help = "Messages given up after too many deliveries or a refusal.",
};

struct metric swarm_m_expired = {
    .name = "chela_messages_expired_total",
    .kind = METRIC_COUNTER,
    .help = "Messages that were too old before anybody took them.",
};

struct metric swarm_m_pending = {
    .name = "chela_messages_pending",
    .kind = METRIC_GAUGE,
    .help = "Messages that wait for their consumers, at the last look.",
};

struct metric swarm_m_accept_ms = {
    .name = "chela_messages_accept_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "From the call that sends a message until it was on the disk.",
};

struct metric swarm_m_deliver_ms = {
    .name = "chela_messages_deliver_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "From acceptance of a message to its first delivery.",
};

struct metric swarm_m_sockets = {
    .name = "chela_gateway_sockets",
    .kind = METRIC_GAUGE,
    .help = "WebSocket connections of the gateway.",
};

struct metric swarm_m_agents = {
    .name = "chela_agents_beating",
    .kind = METRIC_GAUGE,
    .help = "Agents that run and have heartbeats.",
};

struct metric swarm_m_beats = {
    .name = "chela_agent_beats_total",
    .kind = METRIC_COUNTER,
    .help = "Heartbeats that were due.",
};

struct metric swarm_m_silent = {
    .name = "chela_agents_silent",
    .kind = METRIC_GAUGE,
    .help = "Agents that have missed their last heartbeats.",
};

struct metric swarm_m_commands = {
    .name = "chela_swarm_commands_total",
    .kind = METRIC_COUNTER,
    .help = "Commands from chat that were carried out.",
};

struct metric swarm_m_notified = {
    .name = "chela_swarm_notifications_total",
    .kind = METRIC_COUNTER,
    .help = "Texts delivered through OpenClaw.",
};

struct metric swarm_m_coalesced = {
    .name = "chela_swarm_notifications_joined_total",
    .kind = METRIC_COUNTER,
    .help = "Notifications that went out as a part of another text.",
};

struct metric swarm_m_unhealthy = {
    .name = "chela_workflows_unhealthy",
    .kind = METRIC_GAUGE,
    .help = "Workflows that are stuck, failed lately or have no living owner.",
};

struct metric *const swarm_metrics[] = {
    &swarm_m_accepted,  &swarm_m_duplicates, &swarm_m_delivered, &swarm_m_redelivered,
    &swarm_m_acked,     &swarm_m_dead,       &swarm_m_expired,   &swarm_m_pending,
    &swarm_m_accept_ms, &swarm_m_deliver_ms, &swarm_m_sockets,   &swarm_m_agents,
    &swarm_m_beats,     &swarm_m_silent,     &swarm_m_commands,  &swarm_m_notified,
    &swarm_m_coalesced, &swarm_m_unhealthy,
};
const size_t swarm_metrics_len = LEN(swarm_metrics);
