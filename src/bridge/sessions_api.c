/* SPDX-License-Identifier: MIT */
/* bridge/sessions_api.c — routes about sessions. */
#include <stdio.h>

#include "bridge/api.h"
#include "bridge/export.h"
#include "bridge/session.h"
#include "bridge/shapes.h"

#define HOUR_US     (3600LL * 1000000)
#define HOURS_MAX   (24LL * 366 * 200) /* nothing is older, and the product does not overflow */
#define SESSION_MAX (1024 * MIB)

static int reply_no_session(struct http_req *req)
{
    return reply_detail(req, 404, "Session '%s' not found", req->args[0].p);
}

static int reply_taken(struct http_req *req, struct out *o, struct err *e)
{
    struct str text;
    int r;

    r = out_take(o, req->arena, &text, e);
    return r < 0 ? r : reply_json(req, text);
}

CO int api_session(struct http_req *req, struct err *e)
{
    const struct bridge *b = req->room;
    const struct lane *lane = lane_find(&b->sessions, req->args[0]);
    AUTO(out_done) struct out o;
    int r;

    out_init(&o, SESSION_MAX);
    r = session_write(b->store, req->args[0], lane ? lane->sid : 0, lane ? lane->seq : 0, &o, e);
    if (r == -ERR_NOT_FOUND)
        return reply_no_session(req);
    return r < 0 ? r : reply_taken(req, &o, e);
}

CO int api_session_delete(struct http_req *req, struct err *e)
{
    struct bridge *b = req->room;
    int r;

    r = session_delete(b->store, req->args[0], e);
    if (r == -ERR_NOT_FOUND)
        return reply_no_session(req);
    if (r == 0)
        b->n_sessions--;
    return r;
}

CO int api_sessions(struct http_req *req, struct err *e)
{
    const struct list_query *query = req->query;
    const struct bridge *b = req->room;
    AUTO(out_done) struct out o;
    int r;

    out_init(&o, SESSION_MAX);
    r = session_list(b->store, str_of(query->after), query->limit, &o, e);
    return r < 0 ? r : reply_taken(req, &o, e);
}

static const char *stamp(struct arena *a, int64_t us)
{
    char *text = arena_alloc(a, TIME_TEXT);

    if (!us)
        return NULL;
    time_format_naive(us, text);
    return text;
}

CO int api_session_stats(struct http_req *req, struct err *e)
{
    const struct bridge *b = req->room;
    struct stats_out *out = arena_new(req->arena, struct stats_out);
    struct session_stats stats = { 0 };
    int r;

    r = session_stats(b->store, &stats, e);
    if (r < 0)
        return r;
    *out = (struct stats_out){
        .total_sessions = stats.sessions,
        .total_messages = stats.messages,
        .active_calls = b->n_calls,
        .oldest_activity = stamp(req->arena, stats.oldest_us),
        .newest_activity = stamp(req->arena, stats.newest_us),
    };
    req->out = out;
    return 0;
}

CO int api_cleanup(struct http_req *req, struct err *e)
{
    const struct cleanup_query *query = req->query;
    struct cleanup_out *out = arena_new(req->arena, struct cleanup_out);
    struct bridge *b = req->room;
    int64_t hours = query->max_age_hours < HOURS_MAX ? query->max_age_hours : HOURS_MAX;
    int64_t before = hours ? wall_us() - hours * HOUR_US : INT64_MAX;
    long long removed = 0;
    int r;

    r = sessions_cleanup(b, before, &removed, e);
    if (r == 0)
        r = sessions_recount(b, e);
    if (r < 0)
        return r;
    out->cleaned_up = removed;
    out->remaining_sessions = b->n_sessions;
    req->out = out;
    return 0;
}

/* --- export and import --- */

CO static int send_export(struct http_req *req, const struct export *x, struct err *e)
{
    char *piece = arena_raw(req->arena, 64 * KIB);
    size_t n;
    int r;

    r = http_stream_begin(req, 200, "application/json", e);
    if (r == 0)
        r = http_stream_write(req, str_of(x->head), e);
    while (r == 0 && (n = fread(piece, 1, 64 * KIB, x->body)) > 0)
        r = http_stream_write(req, (struct str){ piece, n }, e);
    if (r == 0 && ferror(x->body))
        r = err_set(e, ERR_INTERNAL, "the export cannot be read back");
    return r < 0 ? r : http_stream_write(req, str_of(x->tail), e);
}

CO int api_export(struct http_req *req, struct err *e)
{
    struct export x;
    int r;

    r = export_open(req->room, &x, e);
    if (r < 0)
        return r;
    r = send_export(req, &x, e);
    export_close(&x);
    return r;
}

CO int api_import(struct http_req *req, struct err *e)
{
    struct import_out *out = arena_new(req->arena, struct import_out);
    long long n = 0;
    int r;

    r = import_text(req->room, req->body, &n, e);
    if (r < 0)
        return r;
    out->imported = n;
    req->out = out;
    return 0;
}
