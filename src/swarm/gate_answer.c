/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate_answer.c — frames to clients. They are written by hand into one buffer of the gateway:
 * an answer is a dozen bytes around texts that stand there already.
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "swarm/gate_int.h"

enum { OUT_KEEP = 256 * 1024, PAYLOAD_MAX = 4096 };

#define CODE_FULL 1008 /* of the close: it does not take what it asked for */

struct buf *gate_out(struct gate *g)
{
    if (g->out.cap > OUT_KEEP)
        buf_done(&g->out);
    else
        buf_clear(&g->out);
    return &g->out;
}

/* The buffer has no bound of its own but that of the queue it goes to. */
static void add(struct buf *b, const char *z)
{
    int r = buf_add_z(b, z, NULL);

    assert(r == 0);
    (void)r;
}

static void add_str(struct buf *b, struct str s)
{
    int r = buf_add_str(b, s, NULL);

    assert(r == 0);
    (void)r;
}

static void add_text(struct buf *b, struct str s)
{
    int r = json_write_str(b, s, NULL);

    assert(r == 0);
    (void)r;
}

static void add_int(struct buf *b, int64_t v)
{
    int r = json_write_int(b, v, NULL);

    assert(r == 0);
    (void)r;
}

static void add_id(struct buf *b, struct str id)
{
    add_str(b, id.n ? id : STR("null"));
}

void gate_out_send(struct gate_sock *sock)
{
    struct err e;
    int r;

    if (!sock->ws)
        return;
    r = ws_send(sock->ws, WS_TEXT, buf_str(&sock->gate->out), &e);
    if (r == -ERR_LIMIT) {
        log_info("a client of the gateway does not read: closed", "peer",
                 LOG_STR(ws_peer(sock->ws)->text));
        ws_close(sock->ws, CODE_FULL, "you do not read what you asked for");
    }
}

static struct buf *begin_answer(struct gate_sock *sock, struct str id, bool ok)
{
    struct buf *b = gate_out(sock->gate);

    add(b, "{\"type\":\"res\",\"id\":");
    add_id(b, id);
    add(b, ok ? ",\"ok\":true,\"payload\":" : ",\"ok\":false,\"error\":{\"code\":");
    return b;
}

void gate_answer(struct gate_sock *sock, struct str id, const char *payload_fmt, ...)
{
    struct buf *b = begin_answer(sock, id, true);
    char payload[PAYLOAD_MAX];
    va_list ap;
    int n;

    va_start(ap, payload_fmt);
    n = vsnprintf(payload, sizeof(payload), payload_fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof(payload));
    add(b, payload);
    add(b, "}");
    gate_out_send(sock);
}

static void bare_error(struct gate_sock *sock, struct str id, const char *message)
{
    struct buf *b = gate_out(sock->gate);

    add(b, "{\"type\":\"error\"");
    if (id.n) {
        add(b, ",\"id\":");
        add_str(b, id);
    }
    add(b, ",\"error\":");
    add_text(b, str_of(message));
    add(b, "}");
    gate_out_send(sock);
}

void gate_answer_failed(struct gate_sock *sock, const struct gate_frame *f, const char *code,
                        const char *message)
{
    struct buf *b;

    if (!f->request) {
        bare_error(sock, f->id, message);
        return;
    }
    b = begin_answer(sock, f->id, false);
    add_text(b, str_of(code));
    add(b, ",\"message\":");
    add_text(b, str_of(message));
    add(b, "}}");
    gate_out_send(sock);
}

const char *gate_code(enum err_code code)
{
    static const char *const names[] = {
        [ERR_INVALID] = "INVALID_REQUEST", [ERR_UNAUTHORIZED] = "UNAUTHORIZED",
        [ERR_FORBIDDEN] = "FORBIDDEN",     [ERR_NOT_FOUND] = "NOT_FOUND",
        [ERR_CONFLICT] = "CONFLICT",       [ERR_LIMIT] = "LIMIT_EXCEEDED",
        [ERR_UNAVAILABLE] = "UNAVAILABLE", [ERR_TIMEOUT] = "TIMEOUT",
        [ERR_CANCELED] = "UNAVAILABLE",    [ERR_INTERNAL] = "INTERNAL",
        [ERR_PARKED] = "INTERNAL",
    };

    return names[code];
}

const char *gate_text(const struct err *e)
{
    if (e->code == ERR_INTERNAL)
        return "Internal Server Error";
    if (e->code == ERR_UNAVAILABLE)
        return GATE_AWAY; /* the text of a database names its host */
    if (e->code == ERR_CANCELED)
        return "The gateway is shutting down";
    return e->msg;
}

void gate_answer_error(struct gate_sock *sock, const struct gate_frame *f, const struct err *e)
{
    if (e->code == ERR_INTERNAL)
        log_error("a request over WebSocket failed", "method", LOG_SLICE(f->name), "error",
                  LOG_ERR(e));
    else if (e->code == ERR_UNAVAILABLE)
        log_debug("a request over WebSocket failed", "method", LOG_SLICE(f->name), "error",
                  LOG_ERR(e));
    gate_answer_failed(sock, f, gate_code(e->code), gate_text(e));
}

void gate_answer_sent(struct gate_sock *sock, struct str id, struct str to, struct str response,
                      const struct mail_out *out)
{
    struct buf *b = begin_answer(sock, id, true);
    static const char told[] = "Message delivered to ";
    char text[sizeof(told) + MAIL_SESSION];

    if (!response.p) {
        memcpy(text, told, sizeof(told) - 1);
        memcpy(text + sizeof(told) - 1, to.p, to.n); /* it was accepted, so it is not longer */
        response = (struct str){ text, sizeof(told) - 1 + to.n };
    }
    add(b, "{\"response\":");
    add_text(b, response);
    add(b, ",\"message_id\":");
    add_id(b, id);
    add(b, ",\"status\":\"delivered\",\"workflowUuid\":");
    add_text(b, str_of(out->workflow));
    add(b, "}}");
    gate_out_send(sock);
}

void gate_answer_result(struct gate_sock *sock, struct str id, struct str response,
                        const struct mail_out *out)
{
    struct buf *b = gate_out(sock->gate);
    int r;

    add(b, "{\"type\":\"workflow_result\",\"workflowUuid\":");
    add_text(b, str_of(out->workflow));
    add(b, ",\"workflowUUID\":");
    add_text(b, str_of(out->workflow));
    if (id.n) {
        add(b, ",\"id\":");
        add_str(b, id);
    }
    add(b, ",\"result\":");
    r = mail_result_json(out, response, b, NULL);
    assert(r == 0); /* as add() */
    (void)r;
    add(b, "}");
    gate_out_send(sock);
}

static struct buf *begin_event(struct gate *g, const char *event)
{
    struct buf *b = gate_out(g);

    add(b, "{\"type\":\"evt\",\"event\":\"");
    add(b, event); /* a constant of ours */
    add(b, "\",\"payload\":");
    return b;
}

int gate_push_message(struct gate_sock *sock, const struct mail_push *push, struct err *e)
{
    const struct {
        const char *before;
        struct str text;
    } texts[] = {
        { "{\"messageId\":", push->id },
        { ",\"workflowUuid\":", push->workflow },
        { ",\"from\":", push->from },
        { ",\"to\":", push->to },
    };
    struct buf *b;

    if (!sock->ws)
        return err_set(e, ERR_UNAVAILABLE, "the subscriber has gone");
    if (ws_queued(sock->ws) > GATE_PUSH_QUEUE)
        return err_set(e, ERR_LIMIT, "the subscriber reads too slowly");
    b = begin_event(sock->gate, push->notice ? "agent.delivery_failed" : "agent.message");
    for (size_t i = 0; i < LEN(texts); i++) {
        add(b, texts[i].before);
        add_text(b, texts[i].text);
    }
    add(b, ",\"content\":");
    if (push->notice)
        add_str(b, push->content); /* an object */
    else
        add_text(b, push->content);
    add(b, ",\"metadata\":");
    add_str(b, push->metadata.n ? push->metadata : STR("null"));
    add(b, ",\"timestamp\":");
    add_int(b, push->accepted_ms);
    add(b, ",\"attempt\":");
    add_int(b, push->attempt);
    add(b, "}}");
    return ws_send(sock->ws, WS_TEXT, buf_str(b), e);
}

void gate_push_event(struct gate_sock *sock, const char *event, const json_t *payload)
{
    struct buf *b = begin_event(sock->gate, event);

    if (!payload)
        add(b, "null");
    else if (json_write(payload, b, NULL) < 0)
        return; /* what is no JSON is no event */
    add(b, "}");
    if (sock->ws && ws_queued(sock->ws) <= GATE_PUSH_QUEUE)
        gate_out_send(sock);
}
