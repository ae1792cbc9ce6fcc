/* SPDX-License-Identifier: MIT */
/* bridge/call_api.c — POST /api/vps/call, plain and streamed. */
#include <string.h>

#include "base/secret.h"
#include "bridge/api.h"
#include "bridge/call.h"
#include "bridge/shapes.h"

enum { KEY_MAX = 255, KEEP_ALIVE_MS = 15000 };

/*
 * An answer as server-sent events. Pieces of the answer and the comments that keep the way open
 * come from two fibers, so each takes the lane to write.
 */
struct streaming {
    struct http_req *req;
    struct fiber_lane lane;
    struct fiber *keeper;
};

CO static int send_event(struct streaming *s, const char *event, struct str data, struct err *e)
{
    int r;

    r = fiber_lane_enter(&s->lane, DEADLINE_NONE, e);
    if (r < 0)
        return r;
    r = http_sse_send(s->req, event, data, e);
    fiber_lane_leave(&s->lane);
    return r;
}

CO static int keep_alive(void *arg, struct err *e)
{
    struct streaming *s = arg;
    int r;

    do {
        r = fiber_sleep(KEEP_ALIVE_MS, e);
        if (r == 0)
            r = fiber_lane_enter(&s->lane, DEADLINE_NONE, e);
        if (r < 0)
            return 0; /* cancelled: the call is over */
        r = http_sse_comment(s->req, "keep-alive", e);
        fiber_lane_leave(&s->lane);
    } while (r == 0);
    return 0; /* the client is gone: the server cancels the call itself */
}

CO static int begin(void *arg, struct err *e)
{
    struct streaming *s = arg;
    int r;

    r = http_stream_begin(s->req, 200, "text/event-stream", e);
    if (r < 0)
        return r;
    return fiber_spawn(fiber_loop(), "call keep-alive", keep_alive, s, &s->keeper, e);
}

CO static int delta(void *arg, struct str agent, struct str text, struct err *e)
{
    struct streaming *s = arg;
    AUTO(out_done) struct out o;

    out_init(&o, SIZE_MAX / 2); /* bounded by bridge.response_max */
    out_z(&o, "{\"agent_name\":");
    out_str(&o, agent);
    out_z(&o, ",\"text\":");
    out_str(&o, text);
    out_z(&o, "}");
    if (o.r < 0) {
        *e = o.e;
        return o.r;
    }
    return send_event(s, "delta", out_text(&o), e);
}

CO static void end_keeper(struct streaming *s)
{
    struct err e;

    if (!s->keeper)
        return;
    fiber_cancel(s->keeper);
    (void)fiber_join(s->keeper, &e); /* always 0 */
    s->keeper = NULL;
}

static int refuse(struct http_req *req, int outcome)
{
    const struct call_in *in = req->in;

    if (outcome == CALL_FOREIGN)
        return reply_detail(req, 403, "Session '%s' belongs to another user", in->session_id);
    return reply_detail(req, 422, "This Idempotency-Key was used with a different request");
}

CO static int call_streamed(struct http_req *req, struct call_request *call, struct err *e)
{
    struct streaming s = { .req = req };
    const struct call_sink sink = { .begin = begin, .delta = delta, .arg = &s };
    struct call_result result;
    int r;

    call->sink = &sink;
    r = bridge_call(req->room, call, req->arena, &result, e);
    if (r < 0 && r != -ERR_CANCELED && http_stream_begun(req)) {
        /* Too late for a status: the result itself has to say that it could not be kept. */
        result.success = false;
        result.response = (struct str){ 0 };
        result.agent_name = call->agent;
        result.error = str_of(arena_printf(req->arena, "The answer is not stored: %s", e->msg));
        result.type = ERROR_INTERNAL;
        r = call_result_write(&result, req->arena, e);
    }
    if (r == 0 && !http_stream_begun(req))
        r = begin(&s, e);
    if (r == 0)
        r = send_event(&s, "result", result.text, e);
    end_keeper(&s);
    return r > 0 ? refuse(req, r) : r;
}

CO static int call_plain(struct http_req *req, const struct call_request *call, struct err *e)
{
    struct call_result result;
    int r;

    r = bridge_call(req->room, call, req->arena, &result, e);
    if (r)
        return r > 0 ? refuse(req, r) : r;
    return reply_json(req, result.text);
}

/* The key with its caller's name before it, so that callers cannot get at each other's results. */
static void take_key(struct http_req *req, struct str key, struct call_request *call)
{
    char *hash = arena_alloc(req->arena, 2 * SECRET_KEY + 1);

    if (!key.n)
        return;
    sha256_hex(req->body, hash);
    call->hash = str_of(hash);
    call->key = str_of(arena_printf(req->arena, "%s\n" STR_FMT, req->who.name, STR_ARG(key)));
}

CO int api_call(struct http_req *req, struct err *e)
{
    const struct call_in *in = req->in;
    struct str key = http_header_get(req, "Idempotency-Key");
    struct call_request call = {
        .agent = str_of(in->agent_name),
        .prompt = str_of(in->prompt),
        .session_id = str_of(in->session_id),
        .user_id = str_of(in->user_id),
        .metadata = in->metadata,
        .deadline_ms = req->deadline_ms,
    };

    if (in->session_id && strcmp(in->session_id, "stats") == 0)
        return reply_problem(req, "body", "session_id", "'stats' is a reserved id",
                             str_of(in->session_id));
    if (key.n > KEY_MAX || !utf8_valid(key.p, key.n))
        return reply_problem(req, "header", "idempotency-key",
                             "a key is UTF-8 text of at most 255 bytes", (struct str){ 0 });
    take_key(req, key, &call);
    return in->stream ? call_streamed(req, &call, e) : call_plain(req, &call, e);
}
