/* SPDX-License-Identifier: MIT */
/*
 * bridge/attempt.c — one request to one agent. What the agent sends lives in a scratch arena that
 * ends with the attempt, so a chain of failing agents cannot pile up megabytes of error pages.
 */
#include "bridge/attempt.h"

#include <string.h>

#include "bridge/bridge_int.h"
#include "bridge/sse.h"

enum { PIECE = 16 * 1024, ERROR_BODY = 64 * 1024, ERROR_TEXT = 300, DRAIN_MS = 50 };

struct flight {
    struct bridge *b;
    const struct agent *agent;
    const struct call_sink *sink;
    struct arena *a;      /* of the call */
    struct arena scratch; /* of this attempt */
    struct http_call call;
    uint64_t began_us, began_ms;
    struct attempt *ret;

    /* of a stream */
    struct arena event;
    struct buf text;
    bool will_end, ended; /* its end is an event of its own; that event has come */
};

/* An agent cannot fill our answers: long texts are cut between characters. */
static void fail(struct flight *f, enum error_type type, struct str text)
{
    if (text.n > ERROR_TEXT) {
        text.n = ERROR_TEXT;
        while (text.n && ((unsigned char)text.p[text.n] & 0xc0) == 0x80)
            text.n--;
    }
    f->ret->type = type;
    f->ret->error = arena_str(f->a, text);
    f->ret->retriable = error_retriable(type);
}

/* The caller went away or its sink failed: not the agent's doing. */
static bool is_ours(int r, enum http_fail why)
{
    return r == -ERR_CANCELED || why == HTTP_FAIL_CANCELED;
}

/* What the client library says, without the address in front: callers need not know it. */
static struct str without_address(const char *msg)
{
    const char *colon = strstr(msg, ": ");

    return str_of(colon ? colon + 2 : msg);
}

static void fail_without_answer(struct flight *f, enum http_fail why, const struct err *e)
{
    uint64_t end = f->call.deadline_ms, time = end > f->began_ms ? end - f->began_ms : 0;

    switch (why) {
    case HTTP_FAIL_TIMEOUT:
        fail(f, ERROR_TIMEOUT,
             str_of(arena_printf(&f->scratch, "Request timeout after %gs", (double)time / 1000)));
        break;
    case HTTP_FAIL_CONNECT:
        fail(f, ERROR_NETWORK, STR("All connection attempts failed"));
        break;
    case HTTP_FAIL_DNS:
        fail(f, ERROR_NETWORK, STR("Name or service not known"));
        break;
    case HTTP_FAIL_TOO_BIG:
        fail(f, ERROR_UNKNOWN, STR("Invalid response: larger than bridge.response_max"));
        break;
    default:
        fail(f, classify_fail(why), without_address(e->msg));
        f->ret->retriable &= why != HTTP_FAIL_POLICY;
    }
}

static void fail_with_status(struct flight *f, const struct http_answer *answer)
{
    int status = answer->status;
    const char *kind = status >= 500   ? "Server error"
                       : status >= 400 ? "Client error"
                       : status >= 300 ? "Redirect response"
                                       : "Unexpected status";

    f->ret->retry_after_ms =
        retry_after_parse(http_answer_header(answer, "Retry-After"), wall_us());
    fail(f, classify_status(status, answer->body),
         str_of(arena_printf(&f->scratch, "%s '%d %s'", kind, status, http_status_reason(status))));
}

static bool is_success(int status)
{
    return status >= 200 && status <= 299;
}

/* A whole answer of a good status. */
static void understand(struct flight *f, struct str body)
{
    struct str text;
    struct err e;

    if (adapter_read(&adapters[f->agent->api], body, &f->scratch, &text, &e) < 0) {
        fail(f, ERROR_UNKNOWN, str_of(e.msg));
        return;
    }
    f->ret->type = ERROR_NONE;
    f->ret->text = arena_str(f->a, text);
}

CO static int fetch(struct flight *f, struct err *e)
{
    struct http_answer answer;
    int r;

    r = http_fetch(f->b->client, &f->call, &f->scratch, &answer, e);
    f->ret->status = answer.status;
    if (r < 0 && is_ours(r, answer.fail))
        return -ERR_CANCELED;
    if (r < 0 && (!answer.status || is_success(answer.status)))
        fail_without_answer(f, answer.fail, e);
    else if (!is_success(answer.status))
        fail_with_status(f, &answer);
    else
        understand(f, answer.body);
    return 0;
}

/* --- streams --- */

enum { STREAM_ENDED = 1, STREAM_FAILED = 2 };

CO static int pass_on(struct flight *f, struct str text, struct err *e)
{
    int r;

    f->ret->begun = true;
    r = f->sink->delta(f->sink->arg, str_of(f->agent->name), text, e);
    return r < 0 ? r : 0;
}

CO static int on_event(const char *event, struct str data, void *arg, struct err *e)
{
    struct flight *f = arg;
    struct delta delta;
    int r = 0;

    arena_reset(&f->event);
    switch (delta_read(data, &f->event, &delta)) {
    case DELTA_TEXT:
        if (buf_add_str(&f->text, delta.text, e) < 0) {
            fail(f, ERROR_UNKNOWN, STR("Invalid response: larger than bridge.response_max"));
            return STREAM_FAILED;
        }
        r = pass_on(f, delta.text, e);
        break;
    case DELTA_BEGIN:
        f->will_end = true;
        break;
    case DELTA_END:
        f->ended = true;
        r = STREAM_ENDED;
        break;
    case DELTA_ERROR:
        fail(f, delta.type, delta.text);
        r = STREAM_FAILED;
        break;
    case DELTA_NONE:
        break;
    }
    return r;
}

/* Read to the end so that the connection can be used again, but not at the cost of a real wait. */
CO static void drain(struct http_exchange *x, char *piece)
{
    uint64_t until = deadline_in(DRAIN_MS);
    struct err e;
    size_t n;

    while (http_exchange_read(x, piece, PIECE, &n, until, &e) == 0 && n)
        ;
}

CO static int read_events(struct flight *f, struct http_exchange *x, struct err *e)
{
    char *piece = arena_raw(&f->scratch, PIECE);
    struct sse sse;
    size_t n = 1;
    int r = 0;

    sse_init(&sse, (size_t)f->b->conf->response_max);
    while (r == 0 && n) {
        r = http_exchange_read(x, piece, PIECE, &n, DEADLINE_NONE, e);
        if (r < 0) {
            if (!is_ours(r, http_exchange_fail(x))) {
                fail_without_answer(f, http_exchange_fail(x), e);
                r = STREAM_FAILED;
            }
            break;
        }
        r = sse_feed(&sse, (struct str){ piece, n }, on_event, f, e);
        if (r == -ERR_LIMIT) {
            fail(f, ERROR_UNKNOWN, STR("Invalid response: an event is too large"));
            r = STREAM_FAILED;
        }
    }
    sse_done(&sse);
    if (r < 0 || r == STREAM_FAILED)
        return r < 0 ? r : 0;
    if (r == STREAM_ENDED)
        drain(x, piece);
    if (f->will_end && !f->ended) {
        fail(f, ERROR_NETWORK, STR("the stream was cut short"));
        return 0;
    }
    if (!f->ended && !f->text.n) {
        fail(f, ERROR_UNKNOWN, STR("Invalid response: a stream without text"));
        return 0;
    }
    f->ret->type = ERROR_NONE;
    f->ret->text = arena_str(f->a, f->text.n ? buf_str(&f->text) : STR(""));
    return 0;
}

/* Read a body that is no stream, at most max bytes of it. */
CO static int read_whole(struct flight *f, struct http_exchange *x, size_t max, struct str *ret,
                         struct err *e)
{
    char *piece = arena_raw(&f->scratch, PIECE);
    size_t n = 1;
    int r;

    while (n && f->text.n < max) {
        r = http_exchange_read(x, piece, PIECE, &n, DEADLINE_NONE, e);
        if (r < 0)
            return r;
        r = buf_add(&f->text, piece, n, e);
        if (r < 0)
            return r;
    }
    *ret = f->text.n ? buf_str(&f->text) : STR("");
    return 0;
}

CO static int read_plain(struct flight *f, struct http_exchange *x, struct http_answer *head,
                         struct err *e)
{
    bool good = is_success(head->status);
    int r;

    r = read_whole(f, x, good ? SIZE_MAX : ERROR_BODY, &head->body, e);
    if (r < 0 && is_ours(r, http_exchange_fail(x)))
        return -ERR_CANCELED;
    if (!good) {
        fail_with_status(f, head);
        return 0;
    }
    if (r < 0) {
        fail_without_answer(f, r == -ERR_LIMIT ? HTTP_FAIL_TOO_BIG : http_exchange_fail(x), e);
        return 0;
    }
    understand(f, head->body);
    if (f->ret->type == ERROR_NONE && f->ret->text.n)
        return pass_on(f, f->ret->text, e);
    return 0;
}

static bool is_event_stream(const struct http_answer *head)
{
    struct str type = http_answer_header(head, "Content-Type"), media = { 0 };

    str_split(&type, ';', &media);
    return str_eq_nocase(str_trim(media), STR("text/event-stream"));
}

CO static int stream(struct flight *f, struct err *e)
{
    struct http_exchange *x;
    struct http_answer head;
    int r;

    r = http_exchange_open(f->b->client, &f->call, &f->scratch, &head, &x, e);
    if (r < 0) {
        if (is_ours(r, head.fail))
            return -ERR_CANCELED;
        fail_without_answer(f, head.fail, e);
        return 0;
    }
    f->ret->status = head.status;
    if (is_success(head.status) && is_event_stream(&head))
        r = read_events(f, x, e);
    else
        r = read_plain(f, x, &head, e);
    http_exchange_close(x);
    return r;
}

/*
 * A call that had to wait for its turn may come to an agent with next to no time left; that the
 * agent did not answer then says nothing about it.
 */
static bool is_hurried(const struct flight *f)
{
    uint64_t own = (uint64_t)f->agent->timeout_ms, whole = (uint64_t)f->b->conf->call_deadline_ms;

    if (whole && whole < own)
        own = whole;
    return f->call.deadline_ms < f->began_ms + own / 2;
}

CO int attempt_make(struct bridge *b, const struct agent *agent, struct str body,
                    uint64_t deadline_ms, const struct call_sink *sink, struct arena *a,
                    struct attempt *ret, struct err *e)
{
    uint64_t now = now_ms();
    struct flight f = {
        .b = b,
        .agent = agent,
        .sink = sink,
        .a = a,
        .call = { .method = HTTP_M_POST,
                  .url = agent->call_url,
                  .headers = agent->headers,
                  .body = body,
                  .deadline_ms = deadline_min(now + (uint64_t)agent->timeout_ms, deadline_ms),
                  .max_answer = (size_t)b->conf->response_max },
        .began_us = now_us(),
        .began_ms = now,
        .ret = ret,
    };
    int r;

    *ret = (struct attempt){ .type = ERROR_UNKNOWN };
    buf_init(&f.text, (size_t)b->conf->response_max);
    r = sink ? stream(&f, e) : fetch(&f, e);
    ret->latency_ms = (double)(now_us() - f.began_us) / 1000;
    ret->hurried = ret->type == ERROR_TIMEOUT && !ret->status && is_hurried(&f);
    buf_done(&f.text);
    arena_done(&f.event);
    arena_done(&f.scratch);
    return r;
}
