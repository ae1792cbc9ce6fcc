/* SPDX-License-Identifier: MIT */
/*
 * openclaw/client.c — the life of the connection: one fiber that opens it, shakes hands, reads
 * until it is lost, waits as long as the end of it asks for, and begins again.
 */
#include <assert.h>

#include "base/log.h"
#include "base/rand.h"
#include "base/secret.h"
#include "net/url.h"
#include "openclaw/openclaw_int.h"

DEFINE_AUTO(ws_free, struct ws *);

#define STARTING_LEAST_MS 50
#define STARTING_MOST_MS  5000
#define RESUBSCRIBE_MS    10000 /* at most once in so long */
#define ARENA_KEPT        MIB

static const struct oc_pace usual_pace = {
    .backoff_first_ms = OC_BACKOFF_FIRST_MS,
    .backoff_last_ms = OC_BACKOFF_LAST_MS,
    .refused_ms = 300000,
    .greet_ms = 1000,
    .settled_ms = 5000,
    .resend_ms = 1000,
};

static bool is_local(const struct url *u)
{
    return str_eq_nocase(u->host, STR("localhost")) || str_starts(u->host, STR("127.")) ||
           str_eq(u->host, STR("::1"));
}

/* http:// and https:// are taken for ws:// and wss://. */
static int normalise(const char *text, bool secret, struct arena *a, const char **ret,
                     struct err *e)
{
    struct url u;
    bool tls;
    int r;

    r = url_parse(str_of(text), &u, e);
    if (r < 0)
        return err_wrap(e, "openclaw URL");
    tls = str_eq_nocase(u.scheme, STR("wss")) || str_eq_nocase(u.scheme, STR("https"));
    if (!tls && !str_eq_nocase(u.scheme, STR("ws")) && !str_eq_nocase(u.scheme, STR("http")))
        return err_set(e, ERR_INVALID, "openclaw URL: its scheme is none of ws, wss, http, https");
    if (secret && !tls && !is_local(&u))
        log_warn("the token for the OpenClaw gateway goes over the network in clear", "host",
                 LOG_SLICE(u.host));
    *ret = arena_printf(a, "%s%s", tls ? "wss" : "ws", text + u.scheme.n);
    return 0;
}

static const char *some(const char *text, struct arena *a)
{
    return text && text[0] ? arena_strdup(a, text) : NULL;
}

int oc_new(struct loop *loop, const struct oc_conf *conf, struct oc_client **ret, struct err *e)
{
    struct oc_client *c = xcalloc(1, sizeof(*c));
    int r;

    c->loop = loop;
    c->conf = *conf;
    c->pace = usual_pace;
    r = normalise(conf->url, conf->token && conf->token[0], &c->texts, &c->conf.url, e);
    if (r < 0) {
        oc_free(c);
        return r;
    }
    c->shown = arena_printf(&c->texts, "%.*s", (int)strcspn(c->conf.url, "?"), c->conf.url);
    c->conf.token = some(conf->token, &c->texts);
    c->conf.identity_path = some(conf->identity_path, &c->texts);
    c->conf.display_name = some(conf->display_name, &c->texts);
    if (!c->conf.display_name)
        c->conf.display_name = "chela";
    if (!c->conf.connect_ms)
        c->conf.connect_ms = 15000;
    if (!c->conf.request_ms)
        c->conf.request_ms = 30000;
    *ret = c;
    return 0;
}

void oc_free(struct oc_client *c)
{
    if (!c)
        return;
    assert(!c->tender);
    secret_wipe(c->device.key, sizeof(c->device.key));
    arena_done(&c->texts);
    free(c);
}

/* --- what is read --- */

static void count(struct oc_client *c, int64_t seq)
{
    int64_t last = c->last_seq;

    if (seq < 0)
        return;
    c->last_seq = seq;
    if (last < 0 || seq - 1 <= last) /* last + 1 may be too large a number */
        return;
    metric_add(&oc_m_gaps, 0, seq - last - 1);
    if (c->conf.subscribe && c->peer.subscribes &&
        now_ms() >= c->resubscribed_at_ms + RESUBSCRIBE_MS) {
        c->resubscribed_at_ms = now_ms();
        log_warn("the OpenClaw gateway has left events out", "missing", LOG_INT(seq - last - 1));
        oc_call_away(c, "sessions.subscribe");
    }
}

static void shutting_down(struct oc_client *c, const json_t *payload)
{
    const json_t *expected = json_object_get(payload, "restartExpectedMs");

    if (json_is_integer(expected) && json_integer_value(expected) >= 0)
        c->restart_hint_ms = (uint64_t)json_integer_value(expected) + 1;
}

void oc_event_in(struct oc_client *c, const struct oc_frame *frame)
{
    const struct oc_event event = { frame->name, frame->payload };

    count(c, frame->seq);
    metric_add(&oc_m_events, 0, 1);
    if (strcmp(frame->name, "shutdown") == 0)
        shutting_down(c, frame->payload);
    if (strcmp(frame->name, "tick") == 0 || strcmp(frame->name, "connect.challenge") == 0)
        return;
    if (c->conf.event)
        c->conf.event(&event, c->conf.arg);
}

/* Read until the connection is lost, and say why it was. */
CO static int read_on(struct oc_client *c, struct ws *ws, enum oc_end *ret_end, struct err *e)
{
    uint64_t silence_ms = c->peer.tick_ms * 5 / 2; /* two ticks and a half */
    struct arena a = { 0 };
    struct oc_frame frame;
    int r;

    for (;;) {
        if (a.total > ARENA_KEPT)
            arena_done(&a);
        else
            arena_reset(&a);
        r = oc_receive(ws, &a, &frame, deadline_in((long long)silence_ms), e);
        if (r != 0)
            break;
        if (frame.kind == OC_FRAME_ANSWER)
            oc_calls_answer(c, &frame);
        else if (frame.kind == OC_FRAME_EVENT)
            oc_event_in(c, &frame);
    }
    arena_done(&a);
    if (r == WS_CLOSED) {
        *ret_end = oc_end_of(ws_close_code(ws));
        return err_set(e, ERR_UNAVAILABLE, "the connection ended with %u", ws_close_code(ws));
    }
    if (r == -ERR_TIMEOUT)
        return err_set(e, ERR_UNAVAILABLE, "nothing was heard for %llu ms",
                       (unsigned long long)silence_ms);
    return r;
}

/* --- one connection, and the next --- */

/* What the tending fiber remembers from one connection to the next. */
struct tide {
    enum oc_end end;
    uint64_t hint_ms;
    unsigned streak; /* failures in a row */
};

static void connected(struct oc_client *c, struct ws *ws)
{
    c->ws = ws;
    c->met = true;
    c->attempts = 0;
    c->connected_at_ms = now_ms();
    c->last_error[0] = '\0';
    oc_breaker_met(&c->breaker);
    metric_add(&oc_m_connects, 0, 1);
    metric_set(&oc_m_connected, 0, 1);
    log_info("connected to the OpenClaw gateway", "url", LOG_STR(c->shown), "version",
             LOG_STR(c->peer.version), "protocol", LOG_INT(c->peer.protocol));
    oc_state_set(c, OC_CONNECTED);
}

static void disconnected(struct oc_client *c, struct tide *tide)
{
    c->ws = NULL;
    metric_set(&oc_m_connected, 0, 0);
    if (now_ms() - c->connected_at_ms >= c->pace.settled_ms)
        tide->streak = 0;
    if (c->restart_hint_ms)
        tide->hint_ms = c->restart_hint_ms;
    oc_calls_lost(c);
}

CO static int live(struct oc_client *c, struct tide *tide, struct err *e)
{
    static const struct ws_limits limits = { .message = OC_FRAME_MAX + KIB,
                                             .queue = OC_FRAME_MAX + MIB,
                                             .close_ms = 1000 };
    const struct ws_connect target = { .url = c->conf.url,
                                       .deadline_ms = deadline_in((long long)c->conf.connect_ms) };
    AUTO(ws_free) struct ws *ws = NULL;
    int r;

    tide->end = OC_END_LOST;
    tide->hint_ms = 0;
    c->restart_hint_ms = 0;
    c->last_seq = -1;
    c->attempts++;
    r = ws_open(c->loop, &target, &limits, NULL, NULL, &ws, e);
    if (r == 0)
        r = oc_hello(c, ws, target.deadline_ms, &tide->end, &tide->hint_ms, e);
    if (r < 0)
        return r;
    connected(c, ws);
    if (c->stopping) /* asked for while the last answer was on its way */
        ws_close(ws, 1000, NULL);
    r = read_on(c, ws, &tide->end, e);
    disconnected(c, tide);
    return r;
}

static uint64_t pause_ms(const struct oc_client *c, struct tide *tide)
{
    switch (tide->end) {
    case OC_END_AGAIN:
        return 0;
    case OC_END_REFUSED:
        return c->pace.refused_ms;
    case OC_END_STARTING:
        if (tide->hint_ms < STARTING_LEAST_MS)
            return 10 * STARTING_LEAST_MS;
        return tide->hint_ms < STARTING_MOST_MS ? tide->hint_ms : STARTING_MOST_MS;
    case OC_END_LOST:
        break;
    }
    if (tide->hint_ms)
        return tide->hint_ms < c->pace.backoff_last_ms ? tide->hint_ms : c->pace.backoff_last_ms;
    return oc_backoff_ms(c->pace.backoff_first_ms, c->pace.backoff_last_ms, tide->streak++,
                         rand_unit());
}

static void failed(struct oc_client *c, const struct tide *tide, const struct err *why)
{
    bool told = strcmp(c->last_error, why->msg) == 0;

    oc_error_set(c, why->msg);
    if (tide->end == OC_END_STARTING || tide->end == OC_END_AGAIN)
        log_debug("the OpenClaw gateway asks for another try", "why", LOG_STR(why->msg));
    else if (!told) /* the same again is no news */
        log_warn("no connection to the OpenClaw gateway", "url", LOG_STR(c->shown), "why",
                 LOG_STR(why->msg));
    metric_add(&oc_m_connects, 1, 1);
    if (tide->end == OC_END_REFUSED)
        oc_state_set(c, OC_FAILED);
    else
        oc_state_set(c, c->met ? OC_RECONNECTING : OC_CONNECTING);
}

CO static int tend(void *arg, struct err *e)
{
    struct oc_client *c = arg;
    struct tide tide = { 0 };
    uint64_t ms;
    int r;

    while (!c->stopping) {
        r = live(c, &tide, e);
        if (c->stopping || r == -ERR_CANCELED)
            break;
        failed(c, &tide, e);
        ms = pause_ms(c, &tide);
        if (ms && fiber_sleep(ms, e) < 0)
            break;
    }
    return 0;
}

int oc_start(struct oc_client *c, struct err *e)
{
    int r;

    assert(!c->tender);
    c->stopping = false;
    r = fiber_spawn(c->loop, "openclaw", tend, c, &c->tender, e);
    if (r == 0)
        oc_state_set(c, OC_CONNECTING);
    return r;
}

CO void oc_stop(struct oc_client *c)
{
    struct fiber *tender = c->tender;
    struct err e;

    if (!tender)
        return;
    c->stopping = true;
    c->tender = NULL;
    if (c->ws)
        ws_close(c->ws, 1000, NULL);
    else
        fiber_cancel(tender);
    (void)fiber_join(tender, &e); /* it ends with 0 */
    oc_state_set(c, OC_DISCONNECTED);
}

/* --- waiting for it --- */

CO static int park(struct oc_client *c, uint64_t deadline_ms, struct err *e)
{
    struct oc_waiter me = { fiber_self(), c->waiters }, **at;
    int r;

    c->waiters = &me;
    r = fiber_park(deadline_ms, e);
    for (at = &c->waiters; *at != &me; at = &(*at)->next) {
    }
    *at = me.next;
    return r;
}

CO static int wait_for(struct oc_client *c, bool patient, uint64_t deadline_ms, struct err *e)
{
    int r;

    while (!c->ws) {
        if (!c->tender)
            return err_set(e, ERR_UNAVAILABLE, "the OpenClaw client is stopped");
        if (!patient && c->state == OC_FAILED)
            return err_set(e, ERR_UNAVAILABLE, "the OpenClaw gateway refuses us: %s",
                           c->last_error);
        r = park(c, deadline_ms, e);
        if (r == -ERR_TIMEOUT)
            return err_set(e, patient ? ERR_TIMEOUT : ERR_UNAVAILABLE,
                           "not connected to the OpenClaw gateway%s%s",
                           c->last_error[0] ? ": " : " yet", c->last_error);
        if (r < 0)
            return r;
    }
    return 0;
}

CO int oc_wait(struct oc_client *c, uint64_t deadline_ms, struct err *e)
{
    return wait_for(c, true, deadline_ms, e);
}

CO int oc_ready(struct oc_client *c, uint64_t deadline_ms, struct err *e)
{
    return wait_for(c, false, deadline_ms, e);
}
