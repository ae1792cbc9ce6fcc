/* SPDX-License-Identifier: MIT */
/*
 * openclaw/hello.c — the handshake: the peer's challenge (our own gateway's protocol has none, and
 * is not waited for long), connect, its answer, and the subscription to what sessions say.
 *
 * As "gateway-client" in mode "backend" the shared token alone is enough; a peer that wants a
 * device identity says so, and gets one at the next attempt.
 */
#include "base/log.h"
#include "openclaw/openclaw_int.h"

#define CLIENT_ID "gateway-client"
#define MODE      "backend"
#define ROLE      "operator"
#define SCOPES    "operator.read,operator.write"
#define PLATFORM  "linux"

#define STARTING_MS 500 /* until a peer that is starting is tried again, when it names no time */

struct challenge {
    char nonce[128]; /* "": none came */
    int64_t at_ms;
};

CO int oc_receive(struct ws *ws, struct arena *a, struct oc_frame *ret, uint64_t deadline_ms,
                  struct err *e)
{
    enum ws_kind kind;
    struct err odd;
    struct str data;
    int r;

    for (;;) {
        r = ws_recv(ws, a, &kind, &data, deadline_ms, e);
        if (r != 0)
            return r;
        if (kind == WS_TEXT && oc_frame_parse(data, a, ret, &odd) == 0)
            return 0;
        metric_add(&oc_m_odd, 0, 1);
        arena_reset(a);
    }
}

enum oc_end oc_end_of(unsigned close_code)
{
    switch (close_code) {
    case 1013: /* try again later */
        return OC_END_STARTING;
    case 1002: /* protocol */
    case 1008: /* policy */
        return OC_END_REFUSED;
    default:
        return OC_END_LOST;
    }
}

static int closed(struct ws *ws, enum oc_end *ret_end, struct err *e)
{
    unsigned code = ws_close_code(ws);

    *ret_end = oc_end_of(code);
    return err_set(e, ERR_UNAVAILABLE, "the peer closed the handshake with %u", code);
}

CO static int challenged(struct oc_client *c, struct ws *ws, uint64_t deadline_ms,
                         struct challenge *ret, enum oc_end *ret_end, struct err *e)
{
    uint64_t until = deadline_ms;
    struct arena a = { 0 };
    struct oc_frame frame;
    struct str nonce;
    int r;

    *ret = (struct challenge){ 0 };
    if (!c->use_device) /* a device cannot sign without one */
        until = deadline_min(deadline_ms, deadline_in((long long)c->pace.greet_ms));
    do {
        arena_reset(&a);
        r = oc_receive(ws, &a, &frame, until, e);
    } while (r == 0 &&
             (frame.kind != OC_FRAME_EVENT || strcmp(frame.name, "connect.challenge") != 0));
    if (r == WS_CLOSED) {
        r = closed(ws, ret_end, e);
    } else if (r == -ERR_TIMEOUT && until < deadline_ms) {
        r = 0; /* none will come */
    } else if (r == 0) {
        nonce = json_member_str(frame.payload, "nonce");
        if (nonce.p && nonce.n < sizeof(ret->nonce))
            memcpy(ret->nonce, nonce.p, nonce.n);
        ret->at_ms = json_integer_value(json_object_get(frame.payload, "ts"));
    }
    arena_done(&a);
    return r;
}

/* The parameters of connect, a new reference. */
static json_t *parameters(struct oc_client *c, const struct challenge *challenge)
{
    const struct oc_claim claim = {
        CLIENT_ID, MODE, ROLE, SCOPES, PLATFORM, c->conf.token, challenge->nonce, challenge->at_ms
    };
    json_t *params;

    params = json_pack("{s:i, s:i, s:{s:s, s:s, s:s, s:s, s:s}, s:s, s:[s, s], s:[]}",
                       "minProtocol", 3, "maxProtocol", 4, "client", "id", CLIENT_ID, "displayName",
                       c->conf.display_name, "version", CHELA_VERSION, "platform", PLATFORM, "mode",
                       MODE, "role", ROLE, "scopes", "operator.read", "operator.write", "caps");
    if (c->conf.token)
        json_object_set_new(params, "auth", json_pack("{s:s}", "token", c->conf.token));
    if (c->use_device && c->device.loaded && challenge->nonce[0])
        json_object_set_new(params, "device", oc_device_sign(&c->device, &claim));
    return params;
}

static int send_request(struct ws *ws, const char *id, const char *method, const json_t *params,
                        struct err *e)
{
    AUTO(buf_done) struct buf out;
    int r;

    buf_init(&out, OC_FIRST_MAX);
    r = oc_frame_request(&out, id, method, params, e);
    if (r == 0)
        r = ws_send(ws, WS_TEXT, buf_str(&out), e);
    return r;
}

/* Read until the answer to id comes; events meanwhile go where they go. */
CO static int answered(struct oc_client *c, struct ws *ws, const char *id, struct arena *a,
                       struct oc_frame *ret, uint64_t deadline_ms, struct err *e)
{
    int r;

    for (;;) {
        arena_reset(a);
        r = oc_receive(ws, a, ret, deadline_ms, e);
        if (r != 0)
            return r;
        if (ret->kind == OC_FRAME_ANSWER && str_eq_z(ret->id, id))
            return 0;
        if (ret->kind == OC_FRAME_EVENT)
            oc_event_in(c, ret);
    }
}

/* What a refused connect means for the next attempt. */
static int refused(struct oc_client *c, const struct oc_frame *answer, enum oc_end *ret_end,
                   uint64_t *ret_hint_ms, struct err *e)
{
    struct oc_refusal why;

    oc_refusal_read(answer->error, &why);
    if (why.starting || strcmp(why.name, "UNAVAILABLE") == 0) {
        *ret_end = OC_END_STARTING;
        *ret_hint_ms = why.retry_ms ? why.retry_ms : STARTING_MS;
    } else if (why.wants_device && c->conf.identity_path && !c->use_device) {
        c->use_device = true;
        *ret_end = OC_END_AGAIN;
    } else {
        *ret_end = OC_END_REFUSED;
    }
    return oc_refusal_err(&why, "connect", e);
}

CO static int connect_it(struct oc_client *c, struct ws *ws, const struct challenge *challenge,
                         uint64_t deadline_ms, struct oc_peer *ret, enum oc_end *ret_end,
                         uint64_t *ret_hint_ms, struct err *e)
{
    AUTO(json_decref) json_t *params = parameters(c, challenge);
    struct arena a = { 0 };
    struct oc_frame frame;
    int r;

    r = send_request(ws, "hello", "connect", params, e);
    if (r == 0)
        r = answered(c, ws, "hello", &a, &frame, deadline_ms, e);
    if (r == WS_CLOSED)
        r = closed(ws, ret_end, e);
    else if (r == 0 && !frame.ok)
        r = refused(c, &frame, ret_end, ret_hint_ms, e);
    else if (r == 0)
        r = oc_peer_read(frame.payload, ret, e);
    arena_done(&a);
    return r;
}

/* A peer that refuses it still takes requests. */
CO static int subscribe(struct oc_client *c, struct ws *ws, uint64_t deadline_ms,
                        enum oc_end *ret_end, struct err *e)
{
    struct arena a = { 0 };
    struct oc_refusal why;
    struct oc_frame frame;
    int r;

    r = send_request(ws, "subscribe", "sessions.subscribe", NULL, e);
    if (r == 0)
        r = answered(c, ws, "subscribe", &a, &frame, deadline_ms, e);
    if (r == WS_CLOSED) {
        r = closed(ws, ret_end, e);
    } else if (r == 0 && !frame.ok) {
        oc_refusal_read(frame.error, &why);
        log_warn("the OpenClaw gateway tells us nothing of its sessions", "why", LOG_STR(why.text));
    }
    arena_done(&a);
    return r;
}

CO int oc_hello(struct oc_client *c, struct ws *ws, uint64_t deadline_ms, enum oc_end *ret_end,
                uint64_t *ret_hint_ms, struct err *e)
{
    struct challenge challenge;
    struct oc_peer peer;
    int r;

    *ret_end = OC_END_LOST;
    *ret_hint_ms = 0;
    if (c->use_device && oc_device_load(&c->device, c->conf.identity_path, e) < 0) {
        *ret_end = OC_END_REFUSED;
        return -e->code;
    }
    r = challenged(c, ws, deadline_ms, &challenge, ret_end, e);
    if (r == 0)
        r = connect_it(c, ws, &challenge, deadline_ms, &peer, ret_end, ret_hint_ms, e);
    if (r < 0)
        return r;
    if (peer.powerless && c->conf.identity_path && !c->use_device) {
        c->use_device = true;
        *ret_end = OC_END_AGAIN;
        return err_set(e, ERR_FORBIDDEN, "connect: the peer gives no scopes without a device");
    }
    if (peer.powerless)
        log_warn("the OpenClaw gateway has given us no scopes", "version", LOG_STR(peer.version));
    if (c->conf.subscribe && peer.subscribes)
        r = subscribe(c, ws, deadline_ms, ret_end, e);
    if (r == 0)
        c->peer = peer;
    return r;
}
