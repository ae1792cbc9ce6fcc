/* SPDX-License-Identifier: MIT */
/*
 * openclaw/status.c — what is told of a client: its state, the last commands, metrics.
 */
#include "openclaw/openclaw_int.h"

struct metric oc_m_connected = {
    .name = "chela_openclaw_connected",
    .kind = METRIC_GAUGE,
    .help = "1 while connected to the OpenClaw gateway.",
};

struct metric oc_m_connects = {
    .name = "chela_openclaw_connects_total",
    .kind = METRIC_COUNTER,
    .help = "Connections to the OpenClaw gateway, and those that failed or were lost.",
    .label = "outcome",
    .values = { "connected", "failed" },
};

struct metric oc_m_requests = {
    .name = "chela_openclaw_requests_total",
    .kind = METRIC_COUNTER,
    .help = "Requests to the OpenClaw gateway by outcome.",
    .label = "outcome",
    .values = { "ok", "refused", "lost", "timeout", "breaker" },
};

struct metric oc_m_request_seconds = {
    .name = "chela_openclaw_request_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "From a request to the OpenClaw gateway to its last answer.",
};

struct metric oc_m_pending = {
    .name = "chela_openclaw_requests_in_flight",
    .kind = METRIC_GAUGE,
    .help = "Requests to the OpenClaw gateway that wait for an answer.",
};

struct metric oc_m_events = {
    .name = "chela_openclaw_events_total",
    .kind = METRIC_COUNTER,
    .help = "Events that the OpenClaw gateway has told.",
};

struct metric oc_m_gaps = {
    .name = "chela_openclaw_events_missed_total",
    .kind = METRIC_COUNTER,
    .help = "Events that were missing in the OpenClaw gateway's count.",
};

struct metric oc_m_odd = {
    .name = "chela_openclaw_odd_frames_total",
    .kind = METRIC_COUNTER,
    .help = "Messages of the OpenClaw gateway that were no frames.",
};

struct metric oc_m_breaks = {
    .name = "chela_openclaw_breaker_opened_total",
    .kind = METRIC_COUNTER,
    .help = "Times that the breaker before the OpenClaw gateway has opened.",
};

struct metric *const oc_metrics[] = {
    &oc_m_connected, &oc_m_connects, &oc_m_requests, &oc_m_request_seconds, &oc_m_pending,
    &oc_m_events,    &oc_m_gaps,     &oc_m_odd,      &oc_m_breaks,
};
const size_t oc_metrics_len = LEN(oc_metrics);

const char *oc_state_name(enum oc_state state)
{
    static const char *const names[] = { "disconnected", "connecting", "connected", "reconnecting",
                                         "failed" };

    return names[state];
}

void oc_state_set(struct oc_client *c, enum oc_state state)
{
    bool changed = c->state != state;

    c->state = state;
    for (struct oc_waiter *w = c->waiters; w; w = w->next)
        fiber_wake(w->fiber);
    if (changed && c->conf.changed)
        c->conf.changed(state, c->conf.arg);
}

void oc_error_set(struct oc_client *c, const char *text)
{
    fmt_z(c->last_error, sizeof(c->last_error), "%.*s", (int)sizeof(c->last_error) - 1, text);
}

/* As much of a text as fits, cut between characters. */
static void shorten(char *out, size_t size, struct str text)
{
    size_t n = 0, step;

    while (n < text.n && (step = utf8_step(text.p + n, text.n - n)) > 0 && n + step < size)
        n += step;
    if (n)
        memcpy(out, text.p, n);
    out[n] = '\0';
}

uint64_t oc_history_add(struct oc_client *c, const char *command, struct str session,
                        struct str message)
{
    struct oc_memory line = { .serial = ++c->history_serial };

    line.command.command = command;
    line.command.status = "pending";
    line.command.at_ms = wall_us() / 1000;
    shorten(line.command.session, sizeof(line.command.session), session);
    shorten(line.command.message, sizeof(line.command.message), message);
    memmove(&c->history[1], &c->history[0], (OC_HISTORY - 1) * sizeof(c->history[0]));
    c->history[0] = line;
    if (c->n_history < OC_HISTORY)
        c->n_history++;
    return line.serial;
}

void oc_history_end(struct oc_client *c, uint64_t serial, bool ok)
{
    for (size_t i = 0; i < c->n_history; i++)
        if (c->history[i].serial == serial)
            c->history[i].command.status = ok ? "success" : "failed";
}

void oc_status(const struct oc_client *c, struct oc_status *ret)
{
    uint64_t now = now_ms();

    *ret = (struct oc_status){
        .state = c->state,
        .configured = true,
        .breaker_open = c->breaker.open && now < c->breaker.until_ms,
        .url = c->shown,
        .last_error = c->last_error[0] ? c->last_error : NULL,
        .version = c->met ? c->peer.version : NULL,
        .protocol = c->met ? c->peer.protocol : 0,
        .connected_ms = c->ws ? now - c->connected_at_ms : 0,
        .attempts = c->attempts,
        .pending = c->calls.n,
        .n_history = c->n_history,
    };
    for (size_t i = 0; i < c->n_history; i++)
        ret->history[i] = c->history[i].command;
}
