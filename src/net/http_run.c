/* SPDX-License-Identifier: MIT */
/*
 * net/http_run.c — a whole request through its handler, as a fiber: who is it, may they, what
 * does the body say, run, keep the answer.
 */
#include "base/log.h"
#include "net/http_int.h"
#include "net/url.h"

/* Refusals of the door are the same for every room. */
static void refuse_at_door(struct http_req *req, const struct err *e)
{
    const struct http_dialect *dialect = http_job_of(req)->dialect;

    if (e->code == ERR_UNAUTHORIZED) {
        http_reply_plain(req, 401, "error", dialect->stranger ? dialect->stranger : "Unauthorized");
        http_reply_header(req, "WWW-Authenticate", "Bearer");
    } else {
        http_reply_plain(req, 403, "error", arena_printf(req->arena, "Forbidden: %s", e->msg));
    }
}

const char *http_scope_names(unsigned need, char out[HTTP_SCOPES_TEXT])
{
    static const struct {
        unsigned bit;
        const char *name;
    } rows[] = { { NEED_READ, "read" },       { NEED_BRIDGE, "bridge" },
                 { NEED_METRICS, "metrics" }, { NEED_WORKFLOWS, "workflows" },
                 { NEED_AGENTS, "agents" },   { NEED_ADMIN, "admin" } };
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; i < LEN(rows); i++)
        if (need & rows[i].bit) {
            fmt_z(out + n, HTTP_SCOPES_TEXT - n, "%s%s", n ? " or " : "", rows[i].name);
            n += strlen(out + n);
        }
    return out;
}

/* The table's own lock. */
static int ask_door(struct http_job *job, struct err *e)
{
    const struct http_table *table = job->table;

    if (!table || !table->door || stream_peer(job->conn->stream)->local)
        return HTTP_DOOR_NEXT;
    return table->door(&job->req, table->room, &job->req.who, e);
}

int http_authorise(struct http_job *job, struct err *e)
{
    struct http_server_ops *ops = &job->conn->server->ops;
    struct http_req *req = &job->req;
    bool open = req->route->need & NEED_NONE;
    char names[HTTP_SCOPES_TEXT];
    int r;

    if (open && !(req->route->flags & ROUTE_ASKS))
        return 0;
    r = ask_door(job, e);
    if (r < 0)
        return r;
    if (r == HTTP_DOOR_NEXT && ops->authenticate) {
        r = ops->authenticate(req, stream_peer(job->conn->stream), ops->arg, &req->who, e);
        if (open && (r == -ERR_UNAUTHORIZED || r == -ERR_FORBIDDEN))
            return 0; /* a stranger, as the request was born */
        if (r == -ERR_UNAUTHORIZED || r == -ERR_FORBIDDEN) {
            refuse_at_door(req, e);
            return 1;
        }
        if (r < 0)
            return r;
    }
    if (open || req->who.admin || (req->who.scopes & req->route->need))
        return 0;
    (void)err_set(e, ERR_FORBIDDEN, "this needs the scope %s",
                  http_scope_names(req->route->need, names));
    refuse_at_door(req, e);
    return 1;
}

/* "application/json", "application/x+json", in any case and with any parameters; absent counts. */
static bool is_json(struct str type)
{
    struct str essence;

    if (!type.p)
        return true;
    if (!str_split(&type, ';', &essence))
        return false;
    essence = str_trim(essence);
    if (essence.n < 12 || !str_eq_nocase((struct str){ essence.p, 12 }, STR("application/")))
        return false;
    if (essence.n == 16 && str_eq_nocase((struct str){ essence.p + 12, 4 }, STR("json")))
        return true;
    return essence.n > 17 &&
           str_eq_nocase((struct str){ essence.p + essence.n - 5, 5 }, STR("+json"));
}

/* 1, and the answer is the dialect's for this one issue of the body itself. */
static int body_issue(struct http_job *job, const char *type, const char *msg, const json_t *input)
{
    struct shape_issue issue = { .type = type, .msg = msg, .index = -1, .input = input };
    struct err e;

    (void)err_set(&e, ERR_INVALID, "body: %s", msg);
    job->dialect->error(&job->req, &e, 400, &issue, "body");
    return 1;
}

static int body_not_object(struct http_job *job, const json_t *input)
{
    return body_issue(job, "model_attributes_type",
                      "Input should be a valid dictionary or object to extract fields from", input);
}

static void drop_json(void *p)
{
    json_decref(p);
}

/* What is not JSON by its own word comes back as the string it is, as far as it is text. */
static int body_foreign(struct http_job *job)
{
    struct str body = job->req.body;
    json_t *text = NULL;

    if (utf8_valid(body.p, body.n))
        text = json_stringn(body.p, body.n);
    if (text)
        arena_on_free(job->req.arena, drop_json, text);
    return body_not_object(job, text);
}

static int body_malformed(struct http_job *job, const struct json_fail *fail, const struct err *e)
{
    struct shape_issue issue = { .type = "json_invalid", .msg = "JSON decode error" };
    struct err depth;
    json_t *empty;

    if (fail->kind == JSON_FAIL_DEPTH) {
        (void)err_set(&depth, ERR_INVALID, "There was an error parsing the body");
        job->dialect->error(&job->req, &depth, 400, NULL, NULL);
        return 1;
    }
    empty = json_object();
    arena_on_free(job->req.arena, drop_json, empty);
    issue.index = (int)fail->offset;
    issue.ctx_key = "error";
    issue.ctx_text = fail->text;
    issue.input = empty;
    job->dialect->error(&job->req, e, 400, &issue, "body");
    return 1;
}

/* 0: req->in is filled. 1: refused, and the answer says so. */
static int decode_body(struct http_job *job, struct err *e)
{
    struct http_req *req = &job->req;
    const struct shape *shape = req->route->in;
    struct shape_issue *issues = NULL;
    struct json_fail fail = { 0 };
    json_t *doc;
    void *in;
    int r;

    if (req->body.n == 0 && !(req->route->flags & ROUTE_OPTIONAL))
        return body_issue(job, "missing", "Field required", NULL);
    if (req->body.n && !is_json(http_header_get(req, "Content-Type")))
        return body_foreign(job);
    r = json_parse(req->body.n ? json_unmarked(req->body) : STR("{}"),
                   (size_t)job->conn->server->limits->json_depth, req->arena, &doc, &fail, e);
    if (r == -ERR_INVALID)
        return body_malformed(job, &fail, e);
    if (r < 0)
        return r;
    if (json_is_null(doc))
        return body_issue(job, "missing", "Field required", NULL);
    if (!json_is_object(doc))
        return body_not_object(job, doc);

    in = arena_alloc(req->arena, shape->size);
    r = shape_decode(shape, doc, req->arena, in, &issues, e);
    if (r == -ERR_INVALID) {
        job->dialect->error(req, e, 400, issues, "body");
        return 1;
    }
    if (r < 0)
        return r;
    req->in = in;
    return 0;
}

/* The same for req->query. */
static int decode_query(struct http_job *job, struct err *e)
{
    struct http_req *req = &job->req;
    const struct shape *shape = req->route->query;
    struct shape_issue *issues = NULL;
    struct shape_pair *pairs = NULL;
    size_t n = 0;
    void *query;
    int r;

    r = query_parse(req->query_text, req->arena, &pairs, &n, e);
    if (r == 0) {
        query = arena_alloc(req->arena, shape->size);
        r = shape_decode_pairs(shape, pairs, n, req->arena, query, &issues, e);
    }
    if (r == -ERR_INVALID) {
        job->dialect->error(req, e, 400, issues, "query");
        return 1;
    }
    if (r < 0)
        return r;
    req->query = query;
    return 0;
}

/* Everything from the door to the answer; <0 is an error that has no answer yet. */
CO static int serve(struct http_job *job, struct err *e)
{
    const struct http_route *route = job->req.route;
    int r;

    if (job->canceled)
        return err_set(e, ERR_CANCELED, "canceled");
    r = http_authorise(job, e);
    if (r == 0 && route->query)
        r = decode_query(job, e);
    if (r == 0 && route->in)
        r = decode_body(job, e);
    if (r == 0)
        r = route->run(&job->req, e);
    return r;
}

CO int http_run(void *arg, struct err *e)
{
    struct http_job *job = arg;
    struct log_ctx ctx;
    struct err failed;
    int r;

    job->fiber = fiber_self();
    log_push(&ctx, "req", job->req.id);
    r = serve(job, &failed);
    if (http_conn_gone(job->conn)) {
        r = 0; /* nobody is there to be answered */
    } else if (r < 0 && job->begun) {
        if (failed.code != ERR_CANCELED)
            log_warn("streamed answer broken off", "path", LOG_SLICE(job->req.path), "error",
                     LOG_ERR(&failed));
        job->broken = job->close = true;
    } else if (r < 0) {
        http_reply_error(job, &failed);
    }
    log_pop(&ctx);
    job->fiber = NULL;
    http_conn_answered(job->conn);
    return 0;
}
