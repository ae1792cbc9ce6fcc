/* SPDX-License-Identifier: MIT */
/*
 * hub/audit_line.c — what is said of an act. Of a task it says what was to be run and where, never
 * what it was given as environment, content or input; passwords in URLs are masked.
 */
#include <string.h>

#include "hub/audit_int.h"

enum { TEXT_MAX = 8192, SHORT_MAX = 512 };

/* Cut between code points, and say so. */
static struct str cut(struct str s, size_t max, bool *ret_cut)
{
    *ret_cut = s.n > max;
    if (*ret_cut)
        for (s.n = max; s.n && (s.p[s.n] & 0xc0) == 0x80;)
            s.n--;
    return s;
}

static int add_text(struct buf *b, const char *key, struct str value, size_t max, struct err *e)
{
    bool was_cut;
    int r;

    if (!value.p)
        return 0;
    value = cut(value, max, &was_cut);
    r = buf_printf(b, e, ",\"%s\":", key);
    if (r == 0)
        r = json_write_str(b, value, e);
    if (r == 0 && was_cut)
        r = buf_printf(b, e, ",\"%sCut\":true", key);
    return r;
}

/* https://user:password@host/… without user and password. */
static int add_repo(struct buf *b, struct str repo, struct err *e)
{
    const char *start, *end, *at = NULL;
    AUTO(free) char *masked = NULL;

    if (!repo.n)
        return 0;
    start = memmem(repo.p, repo.n, "://", 3);
    end = repo.p + repo.n;
    for (const char *p = start ? start + 3 : end; p < end && *p != '/'; p++)
        if (*p == '@')
            at = p;
    if (!at)
        return add_text(b, "repo", repo, SHORT_MAX, e);
    masked = xasprintf("%.*s***%.*s", (int)(start + 3 - repo.p), repo.p, (int)(end - at), at);
    return add_text(b, "repo", str_of(masked), SHORT_MAX, e);
}

static int add_body(struct buf *b, const json_t *body, struct err *e)
{
    int r = add_text(b, "command", json_member_str(body, "command"), TEXT_MAX, e);

    if (r == 0)
        r = add_text(b, "filePath", json_member_str(body, "filePath"), SHORT_MAX, e);
    if (r == 0)
        r = add_repo(b, json_member_str(body, "repo"), e);
    if (r == 0)
        r = add_text(b, "cwd", json_member_str(body, "cwd"), SHORT_MAX, e);
    if (r == 0 && json_is_true(json_object_get(body, "sudo")))
        r = buf_add_z(b, ",\"sudo\":true", e);
    return r;
}

/* A member of the response, or of its result. */
static const json_t *of_response(const json_t *response, const char *key)
{
    const json_t *v = json_object_get(response, key);

    return v ? v : json_object_get(json_object_get(response, "result"), key);
}

static int add_response(struct buf *b, const json_t *response, struct err *e)
{
    const json_t *code = of_response(response, "exitCode"), *signal, *ms;
    int r = 0;

    signal = of_response(response, "signal");
    ms = of_response(response, "duration");
    if (json_is_integer(code))
        r = buf_printf(b, e, ",\"exitCode\":%lld", (long long)json_integer_value(code));
    if (r == 0 && json_is_string(signal))
        r = add_text(b, "signal", str_of(json_string_value(signal)), SHORT_MAX, e);
    if (r == 0 && response)
        r = buf_printf(b, e, ",\"success\":%s",
                       json_is_false(json_object_get(response, "success")) ? "false" : "true");
    if (r == 0 && json_is_number(ms))
        r = buf_printf(b, e, ",\"durationMs\":%lld", (long long)json_number_value(ms));
    return r;
}

static int add_head(struct buf *b, const char *event, struct err *e)
{
    char ts[TIME_TEXT];

    time_format_z(wall_us(), ts);
    return buf_printf(b, e, "{\"ts\":\"%s\",\"event\":\"%s\"", ts, event);
}

int audit_line_own(const char *event, const char *extra, struct buf *b, struct err *e)
{
    int r = add_head(b, event, e);

    return r < 0 ? r : buf_printf(b, e, "%s\n", extra);
}

int audit_line_write(const struct audit_line *line, struct buf *b, struct err *e)
{
    int r = add_head(b, line->event, e);

    if (r == 0)
        r = add_text(b, "agentId", line->agent, SHORT_MAX, e);
    if (r == 0)
        r = add_text(b, "taskId", line->task, SHORT_MAX, e);
    if (r == 0)
        r = add_text(b, "type", line->type, SHORT_MAX, e);
    if (r == 0)
        r = add_text(b, "from", line->from, SHORT_MAX, e);
    if (r == 0)
        r = add_text(b, "remoteAddr", str_of(line->peer), SHORT_MAX, e);
    if (r == 0 && line->body)
        r = add_body(b, line->body, e);
    if (r == 0 && line->response)
        r = add_response(b, line->response, e);
    if (r == 0)
        r = add_text(b, "reason", str_of(line->reason), SHORT_MAX, e);
    if (r == 0 && line->count)
        r = buf_printf(b, e, ",\"count\":%llu", line->count);
    return r < 0 ? r : buf_add_z(b, "\n", e);
}
