/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate_ws.c — a socket of the gateway: its upgrade, who it is, what it is subscribed to, and
 * where its frames go. A socket costs no fiber. What it asks for that needs no disk is answered at
 * once; the rest is for gate_jobs.c.
 */
#include <stdlib.h>

#include "base/log.h"
#include "swarm/gate_int.h"
#include "swarm/life.h"

#define CODE_POLICY 1008
#define CLOSE_MS    2000

#define WRITE_SCOPES (NEED_AGENTS | NEED_BRIDGE)

static bool may_use(const struct http_identity *who)
{
    return who->admin || (who->scopes & WRITE_SCOPES);
}

/* --- subscriptions --- */

static struct gate_session *session_of(struct gate *g, struct str key)
{
    struct strmap_node *node = strmap_find(&g->sessions, key);

    return node ? container_of(node, struct gate_session, node) : NULL;
}

static struct gate_sub *sub_find(struct gate_sock *sock, struct str key)
{
    struct gate_session *session = session_of(sock->gate, key);

    for (struct gate_sub *sub = session ? session->subs : NULL; sub; sub = sub->next_here)
        if (sub->sock == sock)
            return sub;
    return NULL;
}

static struct gate_session *session_take(struct gate *g, struct str key)
{
    struct gate_session *session = session_of(g, key);

    if (session)
        return session;
    session = xcalloc(1, sizeof(*session) + key.n + 1);
    memcpy(session->key, key.p, key.n);
    strmap_add(&g->sessions, &session->node, (struct str){ session->key, key.n });
    life_attached(g->s->life, key, true);
    return session;
}

static void session_leave(struct gate *g, struct gate_session *session, struct gate_sub *sub)
{
    struct gate_sub **at = &session->subs;

    while (*at != sub)
        at = &(*at)->next_here;
    *at = sub->next_here;
    if (session->subs)
        return;
    strmap_remove(&g->sessions, &session->node);
    life_attached(g->s->life, session->node.key, false);
    free(session);
}

static void sub_free(struct gate_sock *sock, struct gate_sub *sub)
{
    struct gate_sub **at = &sock->subs;

    while (*at != sub)
        at = &(*at)->next;
    *at = sub->next;
    sock->n_subs--;
    mail_unsubscribe(sub->mail);
    session_leave(sock->gate, sub->session, sub);
    free(sub);
}

static int push(const struct mail_push *push, void *arg, struct err *e)
{
    struct gate_sub *sub = arg;
    int r = gate_push_message(sub->sock, push, e);

    if (r == -ERR_LIMIT)
        sub->choked = sub->sock->choked = true;
    return r;
}

static void on_drained(struct ws *ws, void *arg)
{
    struct gate_sock *sock = arg;

    if (!sock->choked)
        return;
    sock->choked = false;
    for (struct gate_sub *sub = sock->subs; sub; sub = sub->next)
        if (sub->choked) {
            sub->choked = false;
            mail_sub_ready(sub->mail);
        }
}

static int subscribe(struct gate_sock *sock, struct str key, bool replies, struct err *e)
{
    static const struct mail_sub_ops ops = { .push = push };
    struct gate_sub *sub;
    int r;

    if (sock->n_subs >= GATE_SUBS)
        return err_set(e, ERR_LIMIT, "more than %d subscriptions of one connection", GATE_SUBS);
    sub = xcalloc(1, sizeof(*sub));
    sub->sock = sock;
    sub->replies = replies;
    r = mail_subscribe(sock->gate->s->mail, key, replies, &ops, sub, &sub->mail, e);
    if (r < 0) {
        free(sub);
        return r;
    }
    sub->session = session_take(sock->gate, key);
    sub->next_here = sub->session->subs;
    sub->session->subs = sub;
    sub->next = sock->subs;
    sock->subs = sub;
    sock->n_subs++;
    return 0;
}

/* --- requests that are answered at once --- */

static int session_param(const struct gate_frame *f, struct str *ret, struct err *e)
{
    *ret = json_member_str(f->params, "sessionKey");
    if (!ret->n || ret->n >= MAIL_SESSION)
        return err_set(e, ERR_INVALID, "Invalid request: sessionKey is missing or too long");
    return 0;
}

static int on_subscribe(struct gate_sock *sock, const struct gate_frame *f, struct err *e)
{
    bool replies = json_is_true(json_object_get(f->params, "replies"));
    struct gate_sub *old;
    struct str key;
    int r;

    r = session_param(f, &key, e);
    if (r < 0)
        return r;
    old = sub_find(sock, key);
    if (old && old->replies == replies)
        return 0;
    if (old)
        sub_free(sock, old);
    return subscribe(sock, key, replies, e);
}

static int on_unsubscribe(struct gate_sock *sock, const struct gate_frame *f, struct err *e)
{
    struct gate_sub *sub;
    struct str key;
    int r;

    r = session_param(f, &key, e);
    if (r < 0)
        return r;
    sub = sub_find(sock, key);
    if (!sub)
        return err_set(e, ERR_NOT_FOUND, "not subscribed to " STR_FMT, STR_ARG(key));
    sub_free(sock, sub);
    return 0;
}

static int on_heartbeat(struct gate_sock *sock, const struct gate_frame *f, struct err *e)
{
    struct str key;
    int r;

    r = session_param(f, &key, e);
    return r < 0 ? r : life_alive(sock->gate->s->life, key, e);
}

static int64_t protocol_param(const struct gate_frame *f, const char *key)
{
    const json_t *v = json_object_get(f->params, key);

    return json_is_integer(v) ? json_integer_value(v) : GATE_PROTOCOL;
}

/* 0, or why it may not come in. */
static int check_token(struct gate_sock *sock, const struct gate_frame *f, struct arena *a,
                       struct err *e)
{
    const struct swarm *s = sock->gate->s;
    const struct swarm_ops *ops = &s->conf.ops;
    struct str token = json_member_str(json_object_get(f->params, "auth"), "token");
    struct http_identity who = { .name = "anonymous" };
    int r;

    if (!s->settings->auth_required)
        return 0;
    /* On a fresh installation a wrong token is no worse than none, as over HTTP. */
    if (sock->known && (!token.n || !ops->auth_required(ops->arg)))
        return 0;
    if (!token.n)
        return err_set(e, ERR_UNAUTHORIZED, "Unauthorized");
    r = ops->authenticate(token, a, ops->arg, &who, e);
    if (r < 0)
        return err_set(e, ERR_UNAUTHORIZED, "Unauthorized");
    if (!may_use(&who))
        return err_set(e, ERR_FORBIDDEN, "Forbidden: this needs the scope bridge or agents");
    ws_rest_on(sock->ws, who.grant);
    return 0;
}

static void on_connect(struct gate_sock *sock, const struct gate_frame *f, struct arena *a)
{
    struct gate *g = sock->gate;
    struct err e;

    if (check_token(sock, f, a, &e) < 0) {
        gate_answer_error(sock, f, &e);
        ws_close(sock->ws, CODE_POLICY, gate_text(&e));
        return;
    }
    if (protocol_param(f, "minProtocol") > GATE_PROTOCOL ||
        protocol_param(f, "maxProtocol") < GATE_PROTOCOL) {
        gate_answer_failed(sock, f, "PROTOCOL_MISMATCH", "Protocol 3 is spoken here");
        return;
    }
    if (!sock->known) {
        sock->known = true;
        g->n_strangers--;
        ws_limit_message(sock->ws, (size_t)g->s->settings->max_message);
    }
    gate_answer(sock, f->id,
                "{\"protocol\":%d,\"server\":{\"id\":\"openclaw-gateway-dbos\","
                "\"displayName\":\"OpenClaw Gateway\",\"version\":\"1.0.0\"}}",
                GATE_PROTOCOL);
}

static void answer_unknown(struct gate_sock *sock, const struct gate_frame *f, struct arena *a)
{
    struct str name = f->name.n <= 200 ? f->name : (struct str){ f->name.p, 200 };

    gate_answer_failed(sock, f, "UNKNOWN_METHOD",
                       arena_printf(a, "Unknown method: " STR_FMT, STR_ARG(name)));
}

static const struct {
    int (*run)(struct gate_sock *sock, const struct gate_frame *f, struct err *e);
    const char *payload;
} at_once[METHOD_UNKNOWN] = {
    [METHOD_SUBSCRIBE] = { on_subscribe, "{\"status\":\"subscribed\"}" },
    [METHOD_UNSUBSCRIBE] = { on_unsubscribe, "{\"status\":\"unsubscribed\"}" },
    [METHOD_HEARTBEAT] = { on_heartbeat, "{\"status\":\"alive\"}" },
};

/* True: the job waits for the disk now and is no longer ours. */
static bool dispatch(struct gate_sock *sock, struct gate_job *job)
{
    const struct gate_frame *f = &job->frame;
    struct err e;

    if (f->method == METHOD_CONNECT) {
        on_connect(sock, f, &job->arena);
    } else if (!sock->known) {
        gate_answer_failed(sock, f, "UNAUTHORIZED", "Unauthorized");
    } else if (sock->gate->stopping) {
        gate_answer_failed(sock, f, "UNAVAILABLE", "The gateway is shutting down");
    } else if (f->method == METHOD_UNKNOWN) {
        answer_unknown(sock, f, &job->arena);
    } else if (at_once[f->method].run) {
        if (at_once[f->method].run(sock, f, &e) < 0)
            gate_answer_error(sock, f, &e);
        else
            gate_answer(sock, f->id, "%s", at_once[f->method].payload);
    } else {
        gate_job_start(sock, job);
        return true;
    }
    return false;
}

/* What is no frame. Who is not known yet learns no more of a request than that. */
static void refuse(struct gate_sock *sock, const struct gate_frame *f, const struct err *e)
{
    if (sock->known || !f->request) {
        gate_answer_error(sock, f, e);
        return;
    }
    gate_answer_failed(sock, f, "UNAUTHORIZED", "Unauthorized");
    if (f->method == METHOD_CONNECT)
        ws_close(sock->ws, CODE_POLICY, "Unauthorized");
}

static void on_message(struct ws *ws, enum ws_kind kind, struct str data, void *arg)
{
    struct gate_sock *sock = arg;
    struct gate *g = sock->gate;
    struct gate_job *job = gate_job_take(g);
    struct err e;

    job->bytes = data.n;
    if (kind != WS_TEXT) {
        job->frame = (struct gate_frame){ 0 };
        gate_answer_failed(sock, &job->frame, "", "Invalid message: frames must be text");
    } else if (gate_frame_parse(data, &job->arena, &job->frame, &e) < 0) {
        refuse(sock, &job->frame, &e);
    } else if (dispatch(sock, job)) {
        return;
    }
    gate_job_give(g, job);
}

/* --- its life --- */

void gate_sock_unref(struct gate_sock *sock)
{
    if (--sock->refs == 0)
        free(sock);
}

static void on_closed(struct ws *ws, unsigned code, struct str reason, void *arg)
{
    struct gate_sock *sock = arg;
    struct gate *g = sock->gate;

    log_debug("gateway socket closed", "code", LOG_INT(code));
    sock->ws = NULL;
    while (sock->subs)
        sub_free(sock, sock->subs);
    *sock->at = sock->next;
    if (sock->next)
        sock->next->at = sock->at;
    g->n_socks--;
    if (!sock->known)
        g->n_strangers--;
    if (g->n_socks == 0 && g->stopper)
        fiber_wake(g->stopper);
    gate_sock_unref(sock);
}

static void sock_add(struct gate *g, struct gate_sock *sock)
{
    sock->next = g->socks;
    sock->at = &g->socks;
    if (sock->next)
        sock->next->at = &sock->next;
    g->socks = sock;
    g->n_socks++;
    if (!sock->known)
        g->n_strangers++;
}

static int check_room(const struct gate *g, bool known, struct err *e)
{
    if (g->stopping)
        return err_set(e, ERR_UNAVAILABLE, "The gateway is shutting down");
    if (g->n_socks >= (unsigned long long)g->s->settings->max_sessions)
        return err_set(e, ERR_UNAVAILABLE, "Too many sessions");
    if (!known && g->n_strangers >= GATE_STRANGERS)
        return err_set(e, ERR_UNAVAILABLE, "Too many connections without a token");
    return 0;
}

int gate_upgrade(struct http_req *req, struct err *e)
{
    static const struct ws_ops ops = { .message = on_message,
                                       .closed = on_closed,
                                       .drained = on_drained };
    const struct swarm *s = req->room;
    struct gate *g = s->gate;
    bool known = may_use(&req->who) || !s->settings->auth_required;
    const struct ws_limits limits = {
        .message = known ? (size_t)s->settings->max_message : GATE_CONNECT_MAX,
        .queue = GATE_QUEUE,
        .ping_ms = (uint64_t)s->settings->ping_ms,
        .close_ms = CLOSE_MS,
        .gather = true,
    };
    struct gate_sock *sock;
    int r;

    r = check_room(g, known, e);
    if (r < 0)
        return r;
    sock = xcalloc(1, sizeof(*sock));
    sock->gate = g;
    sock->refs = 1;
    sock->known = known;
    sock->opened_ms = now_ms();
    r = ws_accept(req, NULL, &limits, &ops, sock, &sock->ws, e);
    if (r != 0) {
        free(sock);
        return r < 0 ? r : 0; /* the refusal is in req */
    }
    sock_add(g, sock);
    gate_tick_soon(g);
    return 0;
}
