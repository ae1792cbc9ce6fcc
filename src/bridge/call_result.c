/* SPDX-License-Identifier: MIT */
/* bridge/call_result.c — the result of a call as JSON. */
#include "bridge/call.h"

static void write_attempt(const struct call_attempt *one, struct out *o)
{
    out_z(o, "{\"agent\":");
    out_str(o, one->agent);
    out_z(o, ",\"attempt\":");
    out_int(o, one->number);
    out_z(o, ",\"error_type\":");
    out_str(o, str_of(error_type_name(one->type)));
    out_z(o, ",\"status\":");
    if (one->status)
        out_int(o, one->status);
    else
        out_z(o, "null");
    out_z(o, ",\"latency_ms\":");
    out_real(o, one->latency_ms);
    out_z(o, "}");
}

int call_result_write(struct call_result *r, struct arena *a, struct err *e)
{
    AUTO(out_done) struct out o;

    out_init(&o, SIZE_MAX / 2); /* what goes in is bounded: bridge.response_max, the chain */
    out_z(&o, "{\"success\":");
    out_bool(&o, r->success);
    out_z(&o, ",\"agent_name\":");
    out_str(&o, r->agent_name);
    out_z(&o, ",\"response\":");
    out_str(&o, r->response);
    out_z(&o, ",\"error\":");
    out_str(&o, r->error);
    out_z(&o, ",\"fallback_chain\":[");
    for (size_t i = 0; i < r->n_chain; i++) {
        out_comma(&o, i);
        out_str(&o, r->chain[i]);
    }
    out_z(&o, "],\"latency_ms\":");
    out_real(&o, r->latency_ms);
    out_z(&o, ",\"retried\":");
    out_bool(&o, r->retried);
    out_z(&o, ",\"retry_count\":");
    out_int(&o, (long long)r->retry_count);
    out_z(&o, ",\"error_type\":");
    out_str(&o, str_of(error_type_name(r->type)));
    out_z(&o, ",\"attempts\":[");
    for (size_t i = 0; i < r->n_attempts; i++) {
        out_comma(&o, i);
        write_attempt(&r->attempts[i], &o);
    }
    out_z(&o, "]}");
    return out_take(&o, a, &r->text, e);
}
