/* SPDX-License-Identifier: MIT */
/* hub/metrics.c — the room's rows for Prometheus; the first three are those of the original hub. */
#include "hub/agents.h"
#include "hub/hub_int.h"
#include "hub/task.h"

static _Atomic int64_t messages[METRIC_LABELS][METRIC_LABELS];

struct metric hub_m_messages = {
    .name = "vm_hub_messages_total",
    .kind = METRIC_COUNTER,
    .help = "Messages by type, and what became of them.",
    .label = "type",
    .values = { "task", "response", "health", "log", "status", "error", "unknown" },
    .label2 = "status",
    .values2 = { "received", "delivered", "queued", "dropped", "error" },
    .v2 = messages,
};

struct metric hub_m_agents = {
    .name = "vm_hub_agents",
    .kind = METRIC_GAUGE,
    .help = "Registered agents by status.",
    .label = "status",
    .values = { "online", "offline" },
};

struct metric hub_m_active = {
    .name = "vm_hub_active_tasks",
    .kind = METRIC_GAUGE,
    .help = "Tasks that have not ended.",
};

struct metric hub_m_sockets = {
    .name = "chela_hub_sockets",
    .kind = METRIC_GAUGE,
    .help = "WebSockets of agents and observers.",
};

struct metric hub_m_tasks = {
    .name = "chela_hub_tasks_total",
    .kind = METRIC_COUNTER,
    .help = "Tasks that were accepted, and how they ended.",
    .label = "event",
    .values = { "accepted", "completed", "failed", "timeout", "canceled", "lost" },
};

struct metric hub_m_task_ms = {
    .name = "chela_hub_task_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "From acceptance of a task to its result.",
};

struct metric hub_m_dead = {
    .name = "chela_hub_dead_letters_total",
    .kind = METRIC_COUNTER,
    .help = "Messages and tasks that became dead letters.",
};

struct metric hub_m_machines = {
    .name = "chela_machines",
    .kind = METRIC_GAUGE,
    .help = "Machines by state.",
    .label = "state",
    .values = { "running", "stopped", "failed", "busy" },
};

struct metric hub_m_machine_ms = {
    .name = "chela_machine_ready_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "From the wish for a machine to its connected agent.",
};

struct metric *const hub_metrics[] = {
    &hub_m_messages, &hub_m_agents, &hub_m_active,   &hub_m_sockets,    &hub_m_tasks,
    &hub_m_task_ms,  &hub_m_dead,   &hub_m_machines, &hub_m_machine_ms,
};
const size_t hub_metrics_len = LEN(hub_metrics);

void hub_gauges(struct hub *h)
{
    size_t online, total = hub_agents_count(h->agents, &online);

    metric_set(&hub_m_agents, 0, (int64_t)online);
    metric_set(&hub_m_agents, 1, (int64_t)(total - online));
    metric_set(&hub_m_active, 0, (int64_t)tasks_active(h->tasks));
}
