/* SPDX-License-Identifier: MIT */
/*
 * net/http_dialect.c — how errors look: FastAPI's {"detail": …} with pydantic's lists for inputs
 * that do not fit their shape, and the plain {"error": "…"}, which Express' routes speak too.
 */
#include "net/http_int.h"

enum { INPUT_MAX = 64 * 1024 }; /* an echoed input longer than this is left out as null */

static void add(struct buf *b, const char *z)
{
    struct err ignored;

    http_sure(buf_add_z(b, z, &ignored));
}

static void add_str(struct buf *b, const char *z)
{
    struct err ignored;

    http_sure(json_write_str(b, str_of(z), &ignored));
}

static void add_int(struct buf *b, long long v)
{
    struct err ignored;

    http_sure(buf_printf(b, &ignored, "%lld", v));
}

static void add_input(struct buf *b, const json_t *input)
{
    AUTO(buf_done) struct buf text = { 0 };
    struct err ignored;

    buf_init(&text, INPUT_MAX);
    if (input && json_write(input, &text, &ignored) == 0)
        http_sure(buf_add_str(b, buf_str(&text), &ignored));
    else
        add(b, "null");
}

/* "agents.0.host" as its parts: "agents",0,"host". */
static void add_path(struct buf *b, const char *field)
{
    struct str rest = str_of(field), part;
    struct err ignored;
    long long index;

    while (str_split(&rest, '.', &part)) {
        add(b, ",");
        if (part.p != field && int_parse(part, 0, INT32_MAX, &index, &ignored) == 0)
            add_int(b, index);
        else
            http_sure(json_write_str(b, part, &ignored));
    }
}

static void add_issue(struct buf *b, const struct shape_issue *issue, const char *where)
{
    add(b, "{\"type\":");
    add_str(b, issue->type);
    add(b, ",\"loc\":[");
    add_str(b, where);
    if (issue->field)
        add_path(b, issue->field);
    if (issue->index >= 0) {
        add(b, ",");
        add_int(b, issue->index);
    }
    add(b, "],\"msg\":");
    add_str(b, issue->msg);
    add(b, ",\"input\":");
    add_input(b, issue->input);
    if (issue->ctx_key) {
        add(b, ",\"ctx\":{");
        add_str(b, issue->ctx_key);
        add(b, ":");
        if (issue->ctx_text)
            add_str(b, issue->ctx_text);
        else
            add_int(b, issue->ctx_value);
        add(b, "}");
    }
    add(b, "}");
}

static void reply_from(struct http_req *req, int status, struct buf *b)
{
    http_reply_text(req, status, "application/json", arena_str(req->arena, buf_str(b)));
}

static void reply_internal(struct http_req *req, const char *key)
{
    http_reply_text(
        req, 500, "application/json",
        str_of(arena_printf(req->arena, "{\"%s\":\"Internal Server Error\",\"id\":\"%s\"}", key,
                            req->id)));
}

static void fastapi_error(struct http_req *req, const struct err *e, int status,
                          const struct shape_issue *issues, const char *where)
{
    AUTO(buf_done) struct buf b = { 0 };

    if (e->code == ERR_INTERNAL) {
        reply_internal(req, "detail");
        return;
    }
    if (!issues) {
        http_reply_plain(req, status, "detail", e->msg);
        return;
    }
    buf_init(&b, SIZE_MAX / 2);
    add(&b, "{\"detail\":[");
    for (const struct shape_issue *i = issues; i; i = i->next) {
        if (i != issues)
            add(&b, ",");
        add_issue(&b, i, where);
    }
    add(&b, "]}");
    reply_from(req, 422, &b);
}

static void plain_error(struct http_req *req, const struct err *e, int status,
                        const struct shape_issue *issues, const char *where)
{
    if (e->code == ERR_INTERNAL)
        reply_internal(req, "error");
    else
        http_reply_plain(req, status, "error", e->msg);
}

const struct http_dialect dialect_fastapi = {
    .name = "fastapi",
    .error = fastapi_error,
    .slash_redirect = true,
};

const struct http_dialect dialect_express = {
    .name = "express",
    .error = plain_error,
    .head_is_get = true,
    .options_answer = true,
    .options_text = true,
    .any_case = true,
    .slash_fits = true,
    .unknown_method = true,
    .names_unknown = true,
};

const struct http_dialect dialect_plain = {
    .name = "plain",
    .error = plain_error,
    .head_is_get = true,
    .options_answer = true,
};
