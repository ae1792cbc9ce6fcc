/* SPDX-License-Identifier: MIT */
/*
 * hub/dialect.c — how the hub's two ports speak where no handler does: the HTTP port as Express
 * did, but in JSON; the port of agents says 426 to everything that is no WebSocket.
 */
#include <string.h>

#include "hub/api.h"
#include "hub/hub_int.h"

static void say_error(struct http_req *req, int status, const char *text)
{
    AUTO(buf_done) struct buf b = { 0 };
    struct err e;
    int r;

    buf_init(&b, 64 * KIB); /* far more than an error's text */
    r = buf_add_z(&b, "{\"error\":", &e);
    if (r == 0)
        r = json_write_str(&b, str_of(text), &e);
    if (r == 0)
        r = buf_add_z(&b, "}", &e);
    http_reply_text(req, status, HUB_JSON,
                    r == 0 ? arena_str(req->arena, buf_str(&b)) : STR("{\"error\":\"error\"}"));
}

void hub_refuse(struct http_req *req, int status, const char *text)
{
    say_error(req, status, text);
}

static void hub_error(struct http_req *req, const struct err *e, int status,
                      const struct shape_issue *issues, const char *where)
{
    const char *text = e->code == ERR_UNAUTHORIZED ? "unauthorized" : e->msg;

    if (e->code != ERR_INTERNAL) {
        say_error(req, status, text);
        return;
    }
    text = arena_printf(req->arena, "{\"error\":\"Internal Server Error\",\"id\":\"%s\"}", req->id);
    http_reply_text(req, 500, HUB_JSON, str_of(text));
}

void hub_hide_token(struct http_req *req)
{
    const struct str own = STR("/agent/");
    size_t n = own.n;

    if (req->path.n <= own.n || !str_eq_nocase((struct str){ req->path.p, own.n }, own))
        return;
    while (n < req->path.n && req->path.p[n] != '/')
        n++;
    req->path.n = n;
}

/*
 * The original let every web page call. The server has refused the origins that are not allowed
 * already, and told the others that they may.
 */
static void allow_origin(struct http_req *req)
{
    hub_hide_token(req);
    http_reply_header(req, "Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS");
    http_reply_header(req, "Access-Control-Allow-Headers", "Content-Type, Authorization");
}

/* Nothing but WebSockets is here, so whatever was not found was not asked for rightly. */
static void agents_error(struct http_req *req, const struct err *e, int status,
                         const struct shape_issue *issues, const char *where)
{
    if (status != 404 && status != 405) {
        hub_error(req, e, status, issues, where);
        return;
    }
    if (http_header_get(req, "Upgrade").n) {
        say_error(req, 405, "A WebSocket is opened with GET");
        return;
    }
    http_reply_header(req, "Upgrade", "websocket");
    http_reply_header(req, "Connection", "Upgrade");
    say_error(req, 426, "Agents connect here by WebSocket; the API is on the hub's HTTP port");
}

const struct http_dialect dialect_hub = {
    .name = "hub",
    .error = hub_error,
    .head_is_get = true,
    .options_ok = true,
    .any_case = true,
    .slash_fits = true,
    .unknown_method = true,
    .stranger = "unauthorized",
    .begin = allow_origin,
};

const struct http_dialect dialect_agents = {
    .name = "agents",
    .error = agents_error,
    .head_is_get = true,
    .unknown_method = true,
    .stranger = "unauthorized",
    .begin = hub_hide_token,
};

/* "application/json" with whatever parameters. */
static bool is_json(struct str type)
{
    struct str essence;

    return str_split(&type, ';', &essence) &&
           str_eq_nocase(str_trim(essence), STR("application/json"));
}

static void drop_json(void *p)
{
    json_decref(p);
}

int hub_body(struct http_req *req, json_t **ret, struct err *e)
{
    json_t *doc;
    int r;

    if (!req->body.n || !is_json(http_header_get(req, "Content-Type"))) {
        doc = json_object();
        arena_on_free(req->arena, drop_json, doc);
        *ret = doc;
        return 0;
    }
    r = json_parse(req->body, HUB_DEPTH, req->arena, &doc, NULL, e);
    if (r < 0)
        return err_wrap(e, "the body is not JSON");
    if (!json_is_object(doc) && !json_is_array(doc))
        return err_set(e, ERR_INVALID, "the body must be a JSON object");
    *ret = doc;
    return 0;
}

int hub_reply(struct http_req *req, int status, struct buf *b, struct err *e)
{
    http_reply_text(req, status, HUB_JSON, arena_str(req->arena, buf_str(b)));
    return 0;
}

int hub_reply_json(struct http_req *req, int status, json_t *body, struct err *e)
{
    struct str text = { 0 };
    int r = json_text(body, SIZE_MAX / 2, req->arena, &text, e);

    json_decref(body);
    if (r == 0)
        http_reply_text(req, status, HUB_JSON, text);
    return r;
}
