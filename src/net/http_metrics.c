/* SPDX-License-Identifier: MIT */
/*
 * net/http_metrics.c — the server's rows in GET /metrics.
 */
#include "net/http_int.h"

#include "base/metric.h"

static struct metric requests = {
    .name = "chela_http_requests_total",
    .kind = METRIC_COUNTER,
    .help = "Answered requests by class of status.",
    .label = "status",
    .values = { "1xx", "2xx", "3xx", "4xx", "5xx" },
};

static struct metric latency = {
    .name = "chela_http_request_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "From the whole head of a request to the end of its handler.",
};

static struct metric connections = {
    .name = "chela_http_connections",
    .kind = METRIC_GAUGE,
    .help = "Open connections that speak HTTP.",
};

static struct metric running = {
    .name = "chela_http_requests_in_flight",
    .kind = METRIC_GAUGE,
    .help = "Requests whose handler is running.",
};

static struct metric refused = {
    .name = "chela_http_refused_total",
    .kind = METRIC_COUNTER,
    .help = "Connections and requests that reached no handler, or left it, by reason.",
    .label = "reason",
    .values = { "connections", "address", "descriptors", "malformed", "too_large", "slow", "origin",
                "abandoned" },
};

struct metric *const http_metrics[] = { &requests, &latency, &connections, &running, &refused };
const size_t http_metrics_len = LEN(http_metrics);

void http_count_refused(enum http_refusal why)
{
    metric_add(&refused, why, 1);
}

void http_count_answer(int status, uint64_t us)
{
    metric_add(&requests, status >= 100 && status < 600 ? (unsigned)status / 100 - 1 : 4, 1);
    metric_observe(&latency, 0, (int64_t)us);
}

void http_count_connections(int delta)
{
    metric_add(&connections, 0, delta);
}

void http_count_running(int delta)
{
    metric_add(&running, 0, delta);
}
