/* SPDX-License-Identifier: MIT */
/*
 * openclaw/request.c — requests under way. Each is on the stack of the fiber that waits for it and
 * in a slot of the table; its id names slot and serial number, so an answer that comes too late
 * finds nothing.
 *
 * A request may have two answers with its id: "accepted", and later the result.
 */
#include "openclaw/openclaw_int.h"

static int take_slot(struct oc_client *c, struct oc_call *call, struct err *e)
{
    struct oc_calls *calls = &c->calls;

    if (calls->n == OC_PENDING_MAX)
        return err_set(e, ERR_LIMIT, "%u requests to the OpenClaw gateway are under way", calls->n);
    while (calls->slots[calls->next])
        calls->next = (calls->next + 1) % OC_PENDING_MAX;
    call->slot = calls->next;
    calls->slots[call->slot] = call;
    calls->next = (calls->next + 1) % OC_PENDING_MAX;
    calls->n++;
    metric_set(&oc_m_pending, 0, calls->n);
    fmt_z(call->id, sizeof(call->id), "%llu-%u", (unsigned long long)++calls->serial, call->slot);
    return 0;
}

static void free_slot(struct oc_client *c, struct oc_call *call)
{
    if (c->calls.slots[call->slot] != call)
        return;
    c->calls.slots[call->slot] = NULL;
    c->calls.n--;
    metric_set(&oc_m_pending, 0, c->calls.n);
}

static void end(struct oc_client *c, struct oc_call *call, int r)
{
    free_slot(c, call);
    call->done = true;
    call->r = r;
    fiber_wake(call->fiber);
}

static struct oc_call *find(struct oc_client *c, struct str id)
{
    const char *dash = id.n ? memchr(id.p, '-', id.n) : NULL;
    struct oc_call *call;
    long long slot;

    if (!dash || int_parse((struct str){ dash + 1, (size_t)(id.p + id.n - dash - 1) }, 0,
                           OC_PENDING_MAX - 1, &slot, NULL) < 0)
        return NULL;
    call = c->calls.slots[slot];
    return call && str_eq_z(id, call->id) ? call : NULL;
}

void oc_calls_answer(struct oc_client *c, const struct oc_frame *frame)
{
    struct oc_call *call = find(c, frame->id);

    if (!call)
        return; /* whoever asked has gone */
    if (frame->ok && str_eq_z(json_member_str(frame->payload, "status"), "accepted")) {
        call->accepted = true;
        return;
    }
    if (frame->ok) {
        call->payload = frame->payload ? json_incref(frame->payload) : json_object();
    } else {
        oc_refusal_read(frame->error, &call->refusal);
    }
    end(c, call, frame->ok ? 0 : -(int)call->refusal.code);
}

void oc_calls_lost(struct oc_client *c)
{
    for (unsigned i = 0; i < OC_PENDING_MAX; i++) {
        struct oc_call *call = c->calls.slots[i];

        if (!call)
            continue;
        call->lost = true;
        end(c, call, -ERR_UNAVAILABLE);
    }
}

static int send_it(struct oc_client *c, const char *id, const char *method, const json_t *params,
                   struct err *e)
{
    AUTO(buf_done) struct buf out;
    int r;

    buf_init(&out, c->peer.max_payload);
    r = oc_frame_request(&out, id, method, params, e);
    if (r == -ERR_LIMIT)
        return err_set(e, ERR_LIMIT, "%s: larger than the %zu bytes that the peer takes", method,
                       c->peer.max_payload);
    if (r == 0)
        r = ws_send(c->ws, WS_TEXT, buf_str(&out), e);
    return r;
}

void oc_call_away(struct oc_client *c, const char *method)
{
    struct err e;

    if (c->ws && send_it(c, "away", method, NULL, &e) < 0)
        oc_error_set(c, e.msg);
}

/* May it be made at all? */
static int allowed(struct oc_client *c, const char *method, struct err *e)
{
    if (!c->ws)
        return err_set(e, ERR_UNAVAILABLE, "%s: not connected to the OpenClaw gateway%s%s", method,
                       c->last_error[0] ? ": " : "", c->last_error);
    if (!oc_breaker_lets(&c->breaker, now_ms())) {
        metric_add(&oc_m_requests, OC_OUT_BREAKER, 1);
        return err_set(
            e, ERR_UNAVAILABLE,
            "%s: the OpenClaw gateway has failed %d requests in a row, and is left alone", method,
            OC_BREAK_AFTER);
    }
    return 0;
}

static void failed(struct oc_client *c, enum oc_outcome outcome)
{
    metric_add(&oc_m_requests, outcome, 1);
    if (oc_breaker_bad(&c->breaker, now_ms()))
        metric_add(&oc_m_breaks, 0, 1);
}

/* The outcome of a call that is done. */
static int outcome(struct oc_client *c, const char *method, const struct oc_call *call,
                   struct err *e)
{
    if (call->lost) {
        failed(c, OC_OUT_LOST);
        return err_set(e, ERR_UNAVAILABLE, "%s: the connection to the OpenClaw gateway was lost",
                       method);
    }
    oc_breaker_good(&c->breaker);
    metric_add(&oc_m_requests, call->r < 0 ? OC_OUT_REFUSED : OC_OUT_OK, 1);
    return call->r < 0 ? oc_refusal_err(&call->refusal, method, e) : 0;
}

/* The outcome of a call whose fiber waits no longer. */
static int given_up(struct oc_client *c, const char *method, struct oc_call *call, int r,
                    struct err *e)
{
    free_slot(c, call);
    if (r != -ERR_TIMEOUT)
        return r;
    if (call->accepted) { /* the peer is there, and at work */
        oc_breaker_good(&c->breaker);
        metric_add(&oc_m_requests, OC_OUT_TIMEOUT, 1);
        if (call->once)
            return OC_ACCEPTED;
        return err_set(e, ERR_TIMEOUT, "%s: accepted, but no result in time", method);
    }
    failed(c, OC_OUT_TIMEOUT);
    return err_set(e, ERR_TIMEOUT, "%s: no answer from the OpenClaw gateway in time", method);
}

CO int oc_call(struct oc_client *c, const char *method, const json_t *params, uint64_t deadline_ms,
               struct oc_call *call, struct err *e)
{
    uint64_t start_us = now_us();
    int r;

    call->fiber = fiber_self();
    r = allowed(c, method, e);
    if (r == 0)
        r = take_slot(c, call, e);
    if (r < 0)
        return r;
    r = send_it(c, call->id, method, params, e);
    if (r < 0) {
        free_slot(c, call);
        return r;
    }
    while (!call->done && r == 0)
        r = fiber_park(deadline_ms, e);
    if (!call->done)
        return given_up(c, method, call, r, e);
    metric_observe(&oc_m_request_seconds, 0, (int64_t)(now_us() - start_us));
    return outcome(c, method, call, e);
}

CO int oc_request(struct oc_client *c, const char *method, const json_t *params,
                  uint64_t deadline_ms, json_t **ret, struct err *e)
{
    struct oc_call call = { 0 };
    int r;

    if (deadline_ms == 0 || deadline_ms == DEADLINE_NONE)
        deadline_ms = deadline_in((long long)c->conf.request_ms);
    r = oc_call(c, method, params, deadline_ms, &call, e);
    if (r == 0 && ret)
        *ret = call.payload;
    else
        json_decref(call.payload);
    return r;
}
