/* SPDX-License-Identifier: MIT */
/*
 * hub/event.c — a ring of the newest events, as text. A reader is a fiber with a number: it sends
 * what is newer, and sleeps when there is nothing. Who is slower than the ring loses the oldest and
 * is told so ("missed").
 *
 * Numbers begin with the wall clock in microseconds at the start, so that those of a daemon that
 * starts anew are greater than all before: a reader that comes back with an old one is told that it
 * has missed some.
 */
#include "hub/event.h"

#include <string.h>

#define RING_BYTES    (8 * MIB)
#define EVENT_MAX     (256 * KIB)
#define KEEP_ALIVE_MS 15000
#define LINGER_MS     60000 /* events are still made so long after the last reader has gone */

struct kept {
    char *text;
    size_t len;
    const char *type; /* a constant of the caller */
};

struct reader { /* on the stack of its fiber */
    struct reader *next;
    struct fiber *fiber;
};

struct events {
    struct hub *h;
    struct kept ring[EVENTS_KEPT]; /* of number n: n % EVENTS_KEPT */
    int64_t first, next;           /* numbers kept: first .. next - 1 */
    size_t bytes;
    struct reader *readers;
    uint64_t watched_ms; /* when the last reader went */
    bool watched, stop;
};

int events_new(struct hub *h, struct events **ret, struct err *e)
{
    struct events *v = xcalloc(1, sizeof(*v));

    v->h = h;
    v->first = v->next = wall_us();
    *ret = v;
    return 0;
}

static void wake_all(struct events *v)
{
    for (struct reader *r = v->readers; r; r = r->next)
        fiber_wake(r->fiber);
}

void events_stop(struct events *v)
{
    v->stop = true;
    wake_all(v);
}

static struct kept *at(struct events *v, int64_t number)
{
    return &v->ring[(uint64_t)number % EVENTS_KEPT];
}

static void drop_oldest(struct events *v)
{
    struct kept *k = at(v, v->first++);

    v->bytes -= k->len;
    free(TAKE(k->text));
    k->len = 0;
}

void events_free(struct events *v)
{
    if (!v)
        return;
    while (v->first < v->next)
        drop_oldest(v);
    free(v);
}

bool event_wanted(const struct hub *h)
{
    const struct events *v = h->events;

    return v->readers || (v->watched && now_ms() - v->watched_ms < LINGER_MS);
}

static void add(struct events *v, const char *type, char *text, size_t len)
{
    while (v->first < v->next && (v->next - v->first >= EVENTS_KEPT || v->bytes + len > RING_BYTES))
        drop_oldest(v);
    *at(v, v->next++) = (struct kept){ text, len, type };
    v->bytes += len;
    wake_all(v);
}

void event(struct hub *h, const char *type, json_t *body)
{
    struct events *v = h->events;
    AUTO(json_decref) json_t *owned = body;
    AUTO(buf_done) struct buf b = { 0 };
    struct err e;

    if (!event_wanted(h) || v->stop)
        return;
    json_object_set_new(owned, "type", json_string(type));
    json_object_set_new(owned, "seq", json_integer(v->next));
    json_object_set_new(owned, "timestamp", json_integer(hub_now()));
    buf_init(&b, EVENT_MAX);
    if (json_write(owned, &b, &e) < 0) { /* too large: that it happened is told */
        buf_clear(&b);
        if (buf_printf(&b, &e, "{\"type\":\"%s\",\"seq\":%lld,\"timestamp\":%lld,\"cut\":true}",
                       type, (long long)v->next, (long long)hub_now()) < 0)
            return;
    }
    add(v, type, str_dup(buf_str(&b)), b.n);
}

/* --- readers --- */

struct events_query {
    const char *type;
};
/* clang-format off */
static const struct shape_field events_fields[] = {
    FIELD(struct events_query, type, .doc = "Only of these types: comma-separated; task. means all that begin so."),
};
static const struct shape events_shape = SHAPE(struct events_query, "HubEvents", events_fields);
/* clang-format on */

static bool fits(const char *types, const char *type)
{
    struct str rest = str_of(types), one;

    if (!rest.n)
        return true;
    while (str_split(&rest, ',', &one)) {
        one = str_trim(one);
        if (str_eq_z(one, type) || (str_ends(one, STR(".")) && str_starts(str_of(type), one)))
            return true;
    }
    return false;
}

/* Send what there is from *from on. */
static CO int send_new(struct http_req *req, struct events *v, int64_t *from, struct err *e)
{
    const struct events_query *query = req->query;
    char number[24];
    int r = 0;

    while (r == 0 && *from < v->next && !v->stop) {
        AUTO(free) char *copy = NULL; /* sending waits, and the ring goes on */
        struct kept *k;

        if (*from < v->first) {
            char gap[64];

            *from = v->first;
            fmt_z(gap, sizeof(gap), "{\"type\":\"missed\",\"before\":%lld}", (long long)*from);
            r = http_sse_send(req, "missed", str_of(gap), e);
            continue;
        }
        k = at(v, *from);
        fmt_z(number, sizeof(number), "%lld", (long long)(*from)++);
        if (!fits(query->type, k->type))
            continue;
        copy = xstrndup(k->text, k->len);
        r = http_sse_send_id(req, number, k->type, str_of(copy), e);
    }
    return r;
}

static CO int follow(struct http_req *req, struct events *v, int64_t from, struct err *e)
{
    int r = 0;

    while (r == 0 && !v->stop) {
        r = send_new(req, v, &from, e);
        if (r < 0 || v->stop || from < v->next)
            continue;
        r = fiber_park(now_ms() + KEEP_ALIVE_MS, e);
        if (r == -ERR_TIMEOUT)
            r = http_sse_comment(req, "keep-alive", e);
    }
    return r;
}

/* Where to begin: after what was seen, or now. A number from an earlier life is older than ours. */
static int begin_at(const struct http_req *req, const struct events *v, int64_t *ret, struct err *e)
{
    struct str last = http_header_get(req, "Last-Event-ID");
    long long seen;

    *ret = v->next;
    if (!last.n)
        return 0;
    if (int_parse(last, 0, INT64_MAX - 1, &seen, e) < 0)
        return err_wrap(e, "Last-Event-ID");
    if (seen + 1 < *ret)
        *ret = seen + 1;
    return 0;
}

static CO int get_events(struct http_req *req, struct err *e)
{
    struct events *v = req->room;
    struct reader self = { NULL, fiber_self() }, **p;
    int64_t from = 0;
    int r = begin_at(req, v, &from, e);

    if (r < 0)
        return r;
    self.next = v->readers;
    v->readers = &self;
    v->watched = true;
    r = http_stream_begin(req, 200, "text/event-stream", e);
    if (r == 0)
        r = http_sse_comment(req, "here", e);
    if (r == 0)
        r = follow(req, v, from, e);
    for (p = &v->readers; *p != &self;)
        p = &(*p)->next;
    *p = self.next;
    v->watched_ms = now_ms();
    return r;
}

/* clang-format off */
const struct http_route event_routes[] = {
    { HTTP_M_GET, "/events", get_events, .need = NEED_AGENTS | NEED_READ, .query = &events_shape, .flags = ROUTE_STREAM,
      .doc = "What happens to agents, tasks and machines, as server-sent events; Last-Event-ID goes on from there.", .tag = "hub" },
};
/* clang-format on */
const size_t event_routes_len = LEN(event_routes);
