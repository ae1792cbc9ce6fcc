/* SPDX-License-Identifier: MIT */
/*
 * openclaw/turn.c — turns and posts: requests under a key, sent again after a loss until the
 * deadline, and done once by the peer.
 *
 * A turn that is sent again while it runs is answered from the peer's memory, by "in_flight" or
 * (the older releases) by "accepted" once more, and its result goes to the connection that was
 * lost. So the result of such a turn is asked for, under the same key, until it is there.
 */
#include "openclaw/openclaw_int.h"

#define AGAIN_MS      200   /* between attempts on a connection that holds */
#define AGAIN_MOST_MS 30000 /* whatever the peer says */

/* Of attempt(). IN_FLIGHT: the peer is at work, and another request has the result. */
enum { IN_FLIGHT = 2, SENT_BEFORE = 3 };

/* A string member; "" is left out. ERR_INVALID when it is not UTF-8. */
static int put(json_t *object, const char *key, struct str text, struct err *e)
{
    json_t *value;

    if (!text.n)
        return 0;
    value = json_stringn(text.p, text.n);
    if (!value)
        return err_set(e, ERR_INVALID, "%s is not UTF-8", key);
    json_object_set_new(object, key, value);
    return 0;
}

/* After this failure: is there sense in sending it again, and when? */
static bool again(const struct oc_call *call, uint64_t *ret_ms)
{
    uint64_t ms = call->refusal.retry_ms ? call->refusal.retry_ms : AGAIN_MS;

    *ret_ms = ms < AGAIN_MOST_MS ? ms : AGAIN_MOST_MS;
    return call->lost || call->refusal.starting;
}

struct job { /* what is sent until it is answered */
    const char *method;
    const json_t *params;
    const struct oc_post *post; /* NULL: a turn */
    bool resent;
};

/* Look before a text is sent again. A peer that cannot tell gets it again. */
CO static int look(struct oc_client *c, const struct job *job, uint64_t deadline_ms, struct err *e)
{
    int r;

    if (!job->post || c->peer.basic || !(job->resent || job->post->again))
        return 0;
    r = oc_posted(c, job->post, deadline_ms, e);
    if (r == OC_POSTED)
        return SENT_BEFORE;
    return r == -ERR_CANCELED ? r : 0;
}

/* Ask once: 0, OC_ACCEPTED, IN_FLIGHT, SENT_BEFORE. */
CO static int attempt(struct oc_client *c, const struct job *job, uint64_t deadline_ms,
                      struct oc_call *call, struct err *e)
{
    int r;

    r = oc_ready(c, deadline_ms, e);
    if (r == 0)
        r = look(c, job, deadline_ms, e);
    if (r != 0)
        return r;
    call->once = job->resent && !job->post;
    if (call->once) /* another request may have the result */
        deadline_ms = deadline_min(deadline_ms, deadline_in((long long)c->pace.resend_ms));
    r = oc_call(c, job->method, job->params, deadline_ms, call, e);
    if (r == 0 && str_eq_z(json_member_str(call->payload, "status"), "in_flight")) {
        json_decref(TAKE(call->payload));
        return IN_FLIGHT;
    }
    return r;
}

/* As long as the peer asks for, but not past the deadline. *e stays as it is when this is 0. */
CO static int pause_until(uint64_t ms, uint64_t deadline_ms, struct err *e)
{
    uint64_t now = now_ms(), left = deadline_ms > now ? deadline_ms - now : 0;
    struct err why;
    int r = fiber_sleep(ms < left ? ms : left, &why);

    if (r < 0)
        *e = why;
    return r;
}

/* Sent until it is answered: 0 or SENT_BEFORE. call: the payload, or the refusal. */
CO static int persist(struct oc_client *c, struct job job, uint64_t deadline_ms,
                      struct oc_call *call, struct err *e)
{
    uint64_t ms;
    int r, slept;

    for (;;) {
        *call = (struct oc_call){ 0 };
        r = attempt(c, &job, deadline_ms, call, e);
        if (r == 0 || r == SENT_BEFORE || (r < 0 && !again(call, &ms)))
            return r;
        if (r == IN_FLIGHT)
            ms = c->pace.resend_ms;
        slept = r == OC_ACCEPTED ? 0 : pause_until(ms, deadline_ms, e); /* it has waited already */
        if (slept < 0)
            return slept;
        if (now_ms() >= deadline_ms)
            return r < 0 ? r : err_set(e, ERR_TIMEOUT, "%s: no result in time", job.method);
        job.resent = true;
    }
}

static uint64_t deadline_of(const struct oc_client *c, uint64_t deadline_ms)
{
    if (deadline_ms == 0 || deadline_ms == DEADLINE_NONE)
        return deadline_in((long long)c->conf.request_ms);
    return deadline_ms;
}

/* --- turns --- */

static int turn_params(const struct oc_client *c, const struct oc_turn *turn, uint64_t deadline_ms,
                       json_t *params, struct err *e)
{
    uint64_t now = now_ms();
    int r;

    r = put(params, "message", turn->message, e);
    if (r == 0)
        r = put(params, "sessionKey", turn->session, e);
    if (r == 0)
        r = put(params, "idempotencyKey", turn->key, e);
    if (r < 0)
        return r;
    json_object_set_new(
        params, "timeout",
        json_integer(deadline_ms > now ? (json_int_t)(deadline_ms - now) / 1000 + 1 : 1));
    if (c->peer.basic)
        return 0;
    if (turn->deliver)
        json_object_set_new(params, "deliver", json_true());
    r = put(params, "agentId", str_of(turn->agent), e);
    if (r == 0)
        r = put(params, "extraSystemPrompt", str_of(turn->extra_prompt), e);
    return r;
}

/* The texts of an answer, joined by newlines. */
static int turn_text(const json_t *payload, struct buf *out, struct err *e)
{
    const json_t *payloads = json_object_get(json_object_get(payload, "result"), "payloads"), *one;
    const json_t *response = json_object_get(payload, "response");
    struct str text;
    bool any = false;
    size_t i;
    int r;

    if (json_is_string(response)) /* of our own gateway's protocol */
        return buf_add_str(out, json_member_str(payload, "response"), e);
    json_array_foreach(payloads, i, one)
    {
        text = json_member_str(one, "text");
        if (!text.n)
            continue;
        r = any ? buf_add_z(out, "\n", e) : 0;
        if (r == 0)
            r = buf_add_str(out, text, e);
        if (r < 0)
            return r;
        any = true;
    }
    return 0;
}

CO static int take_turn(struct oc_client *c, const struct oc_turn *turn, uint64_t deadline_ms,
                        struct buf *out, struct err *e)
{
    AUTO(json_decref) json_t *params = json_object();
    struct oc_call call = { 0 };
    struct job job = { .params = params };
    int r;

    r = oc_ready(c, deadline_ms, e); /* only a peer that is known can be asked in its words */
    if (r < 0)
        return r;
    job.method = c->peer.basic ? "agent.send" : "agent";
    r = turn_params(c, turn, deadline_ms, params, e);
    if (r == 0)
        r = persist(c, job, deadline_ms, &call, e);
    /* A session without a channel is refused as a whole: then it is a turn without delivery. */
    if (r == -ERR_INVALID && json_object_del(params, "deliver") == 0)
        r = persist(c, job, deadline_ms, &call, e);
    if (r == 0)
        r = turn_text(call.payload, out, e);
    json_decref(call.payload);
    return r;
}

CO int oc_turn(struct oc_client *c, const struct oc_turn *turn, uint64_t deadline_ms,
               struct buf *out, struct err *e)
{
    uint64_t line = oc_history_add(c, "agent_turn", turn->session, turn->message);
    size_t held = out->n;
    int r;

    r = take_turn(c, turn, deadline_of(c, deadline_ms), out, e);
    if (r < 0)
        out->n = held; /* a text that did not fit */
    oc_history_end(c, line, r == 0);
    return r;
}

/* --- posts --- */

static int post_params(const struct oc_client *c, const struct oc_post *post, json_t *params,
                       struct err *e)
{
    AUTO(free) char *session = NULL;
    int r;

    r = put(params, "message", post->message, e);
    if (r == 0)
        r = put(params, "idempotencyKey", post->key, e);
    if (r < 0)
        return r;
    if (c->peer.basic) { /* knows sessions, and no channels */
        session = xasprintf(STR_FMT ":" STR_FMT, STR_ARG(post->channel), STR_ARG(post->to));
        return put(params, "sessionKey", str_of(session), e);
    }
    r = put(params, "channel", post->channel, e);
    if (r == 0)
        r = put(params, "to", post->to, e);
    if (r == 0)
        r = put(params, "accountId", str_of(post->account), e);
    return r;
}

static const char *id_of(const json_t *payload, struct arena *a)
{
    const json_t *id = json_object_get(payload, "messageId");

    if (!id)
        id = json_object_get(payload, "message_id"); /* of our own gateway's protocol */
    if (json_is_integer(id))
        return arena_printf(a, "%lld", (long long)json_integer_value(id));
    return arena_strdup(a, json_string_value(id));
}

CO static int make_post(struct oc_client *c, const struct oc_post *post, uint64_t deadline_ms,
                        struct arena *a, const char **ret_id, struct err *e)
{
    AUTO(json_decref) json_t *params = json_object();
    struct oc_call call = { 0 };
    struct job job = { .params = params, .post = post };
    const char *id = NULL;
    int r;

    r = oc_ready(c, deadline_ms, e);
    if (r < 0)
        return r;
    job.method = c->peer.basic ? "agent.send" : "send";
    r = post_params(c, post, params, e);
    if (r == 0)
        r = persist(c, job, deadline_ms, &call, e);
    if (r == 0 && ret_id)
        id = id_of(call.payload, a);
    if (r == SENT_BEFORE || (r < 0 && call.refusal.queued))
        r = 0; /* queued: the peer has it, and will try again by itself */
    if (r == 0 && ret_id)
        *ret_id = id;
    json_decref(call.payload);
    return r;
}

CO int oc_post(struct oc_client *c, const struct oc_post *post, uint64_t deadline_ms,
               struct arena *a, const char **ret_id, struct err *e)
{
    AUTO(free) char *to = xasprintf(STR_FMT ":" STR_FMT, STR_ARG(post->channel), STR_ARG(post->to));
    uint64_t line = oc_history_add(c, "send_message", str_of(to), post->message);
    int r;

    r = make_post(c, post, deadline_of(c, deadline_ms), a, ret_id, e);
    oc_history_end(c, line, r == 0);
    return r;
}
