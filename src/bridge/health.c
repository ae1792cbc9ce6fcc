/* SPDX-License-Identifier: MIT */
/* bridge/health.c — see health.h for the rule. */
#include "bridge/health.h"

#include <string.h>

static const char *const names[HEALTH_STATUSES] = { "healthy", "degraded", "unhealthy",
                                                    "unreachable" };

const char *health_status_name(enum health_status s)
{
    return names[s];
}

enum health_status health_status_of(struct str name)
{
    for (int s = 0; s < HEALTH_STATUSES; s++)
        if (str_eq_z(name, names[s]))
            return (enum health_status)s;
    return HEALTH_HEALTHY;
}

double health_rate(const struct health *h)
{
    return h->requests ? 100.0 * (double)(h->requests - h->failures) / (double)h->requests : 100.0;
}

bool health_is_unhealthy(const struct health *h)
{
    return h->consecutive >= 3 || health_rate(h) < 50;
}

double health_average_ms(const struct health *h)
{
    int64_t n = h->requests - h->failures;

    return n > 0 ? h->success_ms / (double)n : 0;
}

void health_success(struct health *h, int64_t now_us, double duration_ms, long long recover_after)
{
    h->last_check_us = h->last_success_us = now_us;
    h->consecutive = h->network_run = 0;
    h->requests++;
    h->success_run++;
    h->success_ms += duration_ms;
    if (health_rate(h) > 90 || h->success_run >= recover_after)
        h->status = HEALTH_HEALTHY;
    else
        h->status = HEALTH_DEGRADED;
}

/* Keep the beginning, cut between characters. */
static void keep_text(struct health *h, struct str text)
{
    size_t n = text.n < sizeof(h->last_error) ? text.n : sizeof(h->last_error) - 1;

    while (n < text.n && n && ((unsigned char)text.p[n] & 0xc0) == 0x80)
        n--;
    if (n)
        memcpy(h->last_error, text.p, n);
    h->last_error[n] = '\0';
}

void health_failure(struct health *h, int64_t now_us, enum error_type type, struct str text)
{
    h->last_check_us = now_us;
    h->consecutive++;
    h->failures++;
    h->requests++;
    h->success_run = 0;
    h->network_run = type == ERROR_NETWORK ? h->network_run + 1 : 0;
    memmove(&h->history[1], &h->history[0], sizeof(h->history) - sizeof(h->history[0]));
    h->history[0].at_us = now_us;
    h->history[0].type = type;
    keep_text(h, text);

    if (h->consecutive >= 5 || (h->consecutive >= 3 && h->network_run >= h->consecutive))
        h->status = HEALTH_UNREACHABLE;
    else
        h->status = health_is_unhealthy(h) ? HEALTH_UNHEALTHY : HEALTH_DEGRADED;
}

void health_write(const struct health *h, struct str id, struct out *o)
{
    out_z(o, "{\"agent_id\":");
    out_str(o, id);
    out_z(o, ",\"status\":\"");
    out_z(o, health_status_name(h->status));
    out_z(o, "\",\"last_check_at\":");
    out_time(o, h->last_check_us);
    out_z(o, ",\"last_success_at\":");
    out_time(o, h->last_success_us);
    out_z(o, ",\"consecutive_failures\":");
    out_int(o, h->consecutive);
    out_z(o, ",\"total_failures\":");
    out_int(o, h->failures);
    out_z(o, ",\"total_requests\":");
    out_int(o, h->requests);
    out_z(o, ",\"success_rate\":");
    out_real(o, health_rate(h));
    out_z(o, ",\"is_unhealthy\":");
    out_bool(o, health_is_unhealthy(h));
    out_z(o, "}");
}
