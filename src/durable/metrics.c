/* SPDX-License-Identifier: MIT */
/*
 * durable/metrics.c — the engine's rows for Prometheus. Each has one value (label 0).
 */
#include "durable/durable_int.h"

struct metric durable_m_runs = {
    .name = "chela_durable_runs_total",
    .kind = METRIC_COUNTER,
    .help = "Executions of workflows begun in this process.",
};

struct metric durable_m_running = {
    .name = "chela_durable_running",
    .kind = METRIC_GAUGE,
    .help = "Workflows with a stack in this process.",
};

struct metric durable_m_steps = {
    .name = "chela_durable_steps_total",
    .kind = METRIC_COUNTER,
    .help = "Steps recorded by this process.",
};

struct metric durable_m_step_seconds = {
    .name = "chela_durable_step_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "From the call of a step until its result was on the disk, body included.",
};

struct metric durable_m_batch = {
    .name = "chela_durable_batches_total",
    .kind = METRIC_COUNTER,
    .help = "Statements that steps, starts and results were written with, many in each.",
};

struct metric durable_m_recovered = {
    .name = "chela_durable_recovered_total",
    .kind = METRIC_COUNTER,
    .help = "Workflows of dead processes that this process put back into their queues.",
};

struct metric durable_m_dead = {
    .name = "chela_durable_dead_total",
    .kind = METRIC_COUNTER,
    .help = "Workflows given up here after too many starts.",
};

struct metric durable_m_parked = {
    .name = "chela_durable_parked_total",
    .kind = METRIC_COUNTER,
    .help = "Times that a waiting workflow gave its stack up.",
};

struct metric durable_m_lost = {
    .name = "chela_durable_lost_total",
    .kind = METRIC_COUNTER,
    .help = "Executions that ended because the workflow was no longer theirs.",
};

struct metric durable_m_diverged = {
    .name = "chela_durable_diverged_total",
    .kind = METRIC_COUNTER,
    .help = "Workflows that failed because their code no longer follows their records.",
};

struct metric durable_m_queue_depth = {
    .name = "chela_durable_queue_depth",
    .kind = METRIC_GAUGE,
    .help = "Workflows that wait to run, in all queues of the database.",
};

struct metric durable_m_queue_age = {
    .name = "chela_durable_queue_age_seconds",
    .kind = METRIC_GAUGE,
    .help = "How long the one that has waited longest in a queue has been there.",
};

struct metric durable_m_blocked_version = {
    .name = "chela_durable_blocked_version",
    .kind = METRIC_GAUGE,
    .help = "Workflows known here whose version no living process runs.",
};

struct metric durable_m_stuck = {
    .name = "chela_durable_stuck_total",
    .kind = METRIC_COUNTER,
    .help = "Workflows owned by this process that did not run here, and were put back.",
};

struct metric durable_m_hears = {
    .name = "chela_durable_hears",
    .kind = METRIC_GAUGE,
    .help = "1 when other processes are heard through LISTEN, 0 when tables are looked at instead.",
};

struct metric durable_m_chore_failures = {
    .name = "chela_durable_chore_failures_total",
    .kind = METRIC_COUNTER,
    .help = "Background looks at the database that failed; they are made again.",
};

struct metric *const durable_metrics[] = {
    &durable_m_runs,
    &durable_m_running,
    &durable_m_steps,
    &durable_m_step_seconds,
    &durable_m_batch,
    &durable_m_recovered,
    &durable_m_dead,
    &durable_m_parked,
    &durable_m_lost,
    &durable_m_diverged,
    &durable_m_queue_depth,
    &durable_m_queue_age,
    &durable_m_blocked_version,
    &durable_m_stuck,
    &durable_m_hears,
    &durable_m_chore_failures,
};
const size_t durable_metrics_len = LEN(durable_metrics);
