/* SPDX-License-Identifier: MIT */
/*
 * Live output of running tasks: kept in memory, the newest hub.output_max bytes of each, in the
 * order in which it came. Offsets count the bytes of the raw stream; the text may be longer or
 * shorter where those were not UTF-8 ("bytes" says how many there were). What comes again after a
 * reconnect is known by its offset.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "hub/event.h"
#include "hub/task_int.h"

#define CHUNK_MAX  (16 * KIB) /* short pieces of one stream are joined up to this */
#define OUTPUT_ALL (256 * MIB)
#define EVENT_MAX  (64 * MIB)
#define BEAT_MS    15000 /* between comments that keep the way open */

enum { OUT, ERR, STREAMS };

struct chunk {
    struct chunk *next;
    uint64_t seq;
    int64_t offset, raw; /* raw: bytes of the stream */
    int stream;
    size_t n, cap;
    char *text;
};

struct reader {
    struct reader *next;
    struct fiber *fiber;
};

struct task_output {
    struct tasks *t;
    struct chunk *first, *last;
    uint64_t seq;
    size_t bytes;
    int64_t have[STREAMS];
    struct reader *readers;
    unsigned refs;
    bool ended;
    char *record;
    size_t record_len;
};

/* --- what is kept --- */

static void drop_first(struct task_output *o)
{
    struct chunk *c = o->first;

    o->first = c->next;
    if (!o->first)
        o->last = NULL;
    o->bytes -= c->cap + sizeof(*c);
    o->t->n_output -= c->cap + sizeof(*c);
    free(c->text);
    free(c);
}

static void unref(struct task_output *o)
{
    if (--o->refs > 0)
        return;
    while (o->first)
        drop_first(o);
    free(o->record);
    free(o);
}

static struct task_output *output_of(struct task *task)
{
    if (!task->output) {
        task->output = xcalloc(1, sizeof(*task->output));
        task->output->refs = 1;
        task->output->t = task->t;
    }
    return task->output;
}

int64_t task_output_have(const struct task *task, bool is_err)
{
    return task->output ? task->output->have[is_err ? ERR : OUT] : 0;
}

static void wake(struct task_output *o)
{
    for (struct reader *reader = o->readers; reader; reader = reader->next)
        fiber_wake(reader->fiber);
}

void task_output_end(struct task *task, const char *record, size_t len)
{
    struct task_output *o = TAKE(task->output);

    if (!o)
        return;
    o->ended = true;
    if (len) {
        o->record = xstrndup(record, len);
        o->record_len = len;
    }
    wake(o);
    unref(o);
}

static void grow(struct task_output *o, struct chunk *c, size_t cap)
{
    o->bytes += cap - c->cap;
    o->t->n_output += cap - c->cap;
    c->text = xrealloc(c->text, cap);
    c->cap = cap;
}

/* Joined to the last where no byte is unsure. */
static bool join(struct task_output *o, int stream, int64_t offset, int64_t raw, struct str text)
{
    struct chunk *c = o->last;

    if (!c || c->stream != stream || c->offset + c->raw != offset || (size_t)c->raw != c->n ||
        (size_t)raw != text.n || c->n + text.n > CHUNK_MAX)
        return false;
    if (c->cap < c->n + text.n)
        grow(o, c, c->cap * 2 < c->n + text.n ? c->n + text.n : c->cap * 2);
    memcpy(c->text + c->n, text.p, text.n);
    c->n += text.n;
    c->raw += raw;
    return true;
}

static void keep(struct task_output *o, int stream, int64_t offset, int64_t raw, struct str text)
{
    struct chunk *c;

    if (!join(o, stream, offset, raw, text)) {
        c = xcalloc(1, sizeof(*c));
        c->seq = ++o->seq;
        c->stream = stream;
        c->offset = offset;
        c->raw = raw;
        o->bytes += sizeof(*c);
        o->t->n_output += sizeof(*c);
        grow(o, c, text.n + 1);
        memcpy(c->text, text.p, text.n);
        c->n = text.n;
        if (o->last)
            o->last->next = c;
        else
            o->first = c;
        o->last = c;
    }
    while (o->first != o->last &&
           (o->bytes > (size_t)o->t->set->output_max || o->t->n_output > OUTPUT_ALL))
        drop_first(o);
    if (o->t->n_output > OUTPUT_ALL && !o->readers)
        drop_first(o); /* who reads is shown the last one all the same */
}

/* Without its first n bytes and the rest of a character there: byte for byte, else about. */
static void skip(size_t n, int64_t *offset, int64_t *raw, struct str *text)
{
    int64_t gone;

    while (n < text->n && ((unsigned char)text->p[n] & 0xc0) == 0x80)
        n++;
    gone = (int64_t)n < *raw ? (int64_t)n : *raw;
    text->p += n;
    text->n -= n;
    *offset += gone;
    *raw -= gone;
}

/* What is there already goes; false: all of it. */
static bool cut(const struct task_output *o, int stream, int64_t *offset, int64_t *raw,
                struct str *text)
{
    int64_t known = o->have[stream] - *offset;

    if (known <= 0)
        return true;
    if (known >= *raw)
        return false;
    if ((size_t)*raw == text->n) /* byte for byte */
        skip((size_t)known, offset, raw, text);
    return true;
}

bool task_output(struct tasks *t, struct str agent, const json_t *payload)
{
    struct str id = json_member_str(payload, "taskId");
    struct str name = json_member_str(payload, "stream"), text = json_member_str(payload, "data");
    const json_t *at = json_object_get(payload, "offset");
    const json_t *bytes = json_object_get(payload, "bytes");
    int stream = str_eq_z(name, "stderr") ? ERR : OUT;
    int64_t offset = json_integer_value(at), raw;
    struct task *task = id.p ? task_find(t, id) : NULL;
    struct task_output *o;

    if (!id.p || !name.p)
        return false;
    if (!task || !str_eq(task->agent->node.key, agent) || task->ending || !task->written ||
        task->attempts == 0)
        return true; /* it has ended and nobody looks at it, or was never sent */
    raw = json_is_integer(bytes) ? json_integer_value(bytes) : (int64_t)text.n;
    if (!text.p || offset < 0 || raw < 0 || raw > (int64_t)TASK_TEXT_MAX || offset > INT64_MAX / 2)
        return true;
    o = output_of(task);
    if (!json_is_integer(at))
        offset = o->have[stream];
    if (!cut(o, stream, &offset, &raw, &text))
        return true;
    if (text.n > (size_t)t->set->output_max)
        skip(text.n - (size_t)t->set->output_max, &offset, &raw, &text);
    keep(o, stream, offset, raw, text);
    o->have[stream] = offset + raw;
    wake(o);
    if (event_wanted(t->h))
        event(t->h, "task.output",
              json_pack("{s:s%,s:s%,s:s,s:I,s:s%}", "taskId", id.p, id.n, "agentId", agent.p,
                        agent.n, "stream", stream == ERR ? "stderr" : "stdout", "offset",
                        (json_int_t)offset, "data", text.p, text.n));
    return true;
}

/* --- who reads --- */

struct cursor {
    uint64_t seq; /* of the chunk that was read last */
    size_t pos;   /* bytes of its text */
    int64_t sent[STREAMS];
};

/* The next piece that the reader has not seen, copied. */
static bool next_piece(const struct task_output *o, struct cursor *at, struct buf *text,
                       int *ret_stream, int64_t *ret_offset, struct err *e)
{
    for (const struct chunk *c = o->first; c; c = c->next) {
        size_t pos = c->seq == at->seq ? at->pos : 0;

        if (c->seq < at->seq || pos == c->n)
            continue;
        at->seq = c->seq;
        at->pos = c->n;
        if (c->offset + c->raw <= at->sent[c->stream])
            continue; /* it had this before it came back */
        buf_clear(text);
        if (buf_add(text, c->text + pos, c->n - pos, e) < 0)
            continue; /* its bound is above any chunk's */
        *ret_stream = c->stream;
        *ret_offset = c->offset + (int64_t)pos;
        at->sent[c->stream] = c->offset + c->raw;
        return true;
    }
    return false;
}

static CO int say_piece(struct http_req *req, const struct cursor *at, int stream, int64_t offset,
                        struct str text, struct err *e)
{
    AUTO(buf_done) struct buf b;
    char id[48];
    int r;

    buf_init(&b, EVENT_MAX);
    fmt_z(id, sizeof(id), "%" PRId64 ".%" PRId64, at->sent[OUT], at->sent[ERR]);
    r = buf_printf(&b, e, "{\"stream\":\"%s\",\"offset\":%" PRId64 ",\"data\":",
                   stream == ERR ? "stderr" : "stdout", offset);
    if (r == 0)
        r = json_write_str(&b, text, e);
    if (r == 0)
        r = buf_add_z(&b, "}", e);
    return r < 0 ? r : http_sse_send_id(req, id, "output", buf_str(&b), e);
}

static CO int wait_more(struct task_output *o, struct http_req *req, struct err *e)
{
    struct reader me = { .next = o->readers, .fiber = fiber_self() };
    struct reader **at = &o->readers;
    int r;

    o->readers = &me;
    r = fiber_park(deadline_in(BEAT_MS), e);
    while (*at != &me)
        at = &(*at)->next;
    *at = me.next;
    return r == -ERR_TIMEOUT ? http_sse_comment(req, "still running", e) : r;
}

/* Until it has ended: 1 when its record was sent, 0 when the task is to be looked for again. */
static CO int follow(struct task_output *o, struct http_req *req, struct cursor *at, struct err *e)
{
    AUTO(buf_done) struct buf text;
    int64_t offset;
    int stream, r = 0;

    buf_init(&text, EVENT_MAX);
    while (r == 0) {
        if (next_piece(o, at, &text, &stream, &offset, e))
            r = say_piece(req, at, stream, offset, buf_str(&text), e);
        else if (o->ended)
            break;
        else
            r = wait_more(o, req, e);
    }
    if (r < 0 || !o->record)
        return r;
    r = http_sse_send(req, "end", (struct str){ o->record, o->record_len }, e);
    return r < 0 ? r : 1;
}

/* Not in memory here: it has ended, or another daemon has it. */
static CO int await_end(struct tasks *t, struct http_req *req, struct str id, struct err *e)
{
    struct str text;
    int r = task_await(t, (struct str){ 0 }, id, deadline_in(BEAT_MS), &text, e);

    if (r < 0)
        return r;
    if (r == 0)
        r = http_sse_send(req, "end", text, e);
    else
        r = http_sse_comment(req, "still running", e) < 0 ? -ERR_CANCELED : TASK_OPEN;
    free((char *)(uintptr_t)text.p);
    return r;
}

static void begin_at(struct http_req *req, struct cursor *at)
{
    struct str given = http_header_get(req, "last-event-id"), part;
    long long v;

    for (int i = 0; i < STREAMS && given.p && str_split(&given, '.', &part); i++) {
        if (int_parse(part, 0, INT64_MAX / 2, &v, NULL) == 0)
            at->sent[i] = v;
    }
}

CO int task_output_stream(struct tasks *t, struct http_req *req, struct str id, struct err *e)
{
    struct cursor at = { 0 };
    struct str text;
    int r = task_await(t, (struct str){ 0 }, id, 0, &text, e); /* is there one? */

    if (r < 0)
        return r;
    free((char *)(uintptr_t)text.p);
    begin_at(req, &at);
    r = http_stream_begin(req, 200, "text/event-stream", e);
    while (r == 0) {
        struct task *task = task_find(t, id);

        if (t->stopping)
            return 0;
        if (task && task->written) {
            struct task_output *o = output_of(task);

            o->refs++;
            r = follow(o, req, &at, e);
            unref(o);
            if (r != 0)
                break;
            at = (struct cursor){ 0 }; /* it is run again */
            continue;
        }
        r = await_end(t, req, id, e);
        if (r == 0)
            return 0;
        if (r == TASK_OPEN)
            r = 0;
    }
    return r < 0 ? r : 0;
}
