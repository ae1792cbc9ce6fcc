/* SPDX-License-Identifier: MIT */
/*
 * cli/api.c — asking the daemon, over its unix socket or over --url, and turning its refusals into
 * errors in its own words.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/paths.h"
#include "base/time.h"
#include "cli/cli.h"
#include "net/url.h"

#define ANSWER_MAX  (256 * MIB) /* an export of many sessions */
#define JSON_DEPTH  600
#define HEADERS_MAX 8
#define HUB_MS      120000 /* of one question to the hub; it makes us wait 60 s at most */

static enum err_code code_of(int status)
{
    switch (status) {
    case 401:
        return ERR_UNAUTHORIZED;
    case 403:
        return ERR_FORBIDDEN;
    case 404:
        return ERR_NOT_FOUND;
    case 409:
        return ERR_CONFLICT;
    case 413:
    case 429:
        return ERR_LIMIT;
    case 503:
        return ERR_UNAVAILABLE;
    case 504:
        return ERR_TIMEOUT;
    default:
        return status < 500 ? ERR_INVALID : ERR_INTERNAL;
    }
}

/* What answers is another server than the one that was meant. */
static int no_route(const struct cli *cli, const char *path, struct err *e)
{
    return err_set(e, ERR_INTERNAL,
                   "what listens there does not know %.60s: machine, task, dead and hub are asked "
                   "on the hub's port (9091), all else on the gateway's (18789)",
                   path);
}

/* {"detail": "..."}, {"error": "..."}, or the first of a list of validation errors. */
static int refusal(struct cli *cli, const char *path, int status, struct str body, struct err *e)
{
    const json_t *detail, *first, *where;
    json_t *j = NULL;
    struct err unread;
    struct str text;

    cli->refused = true;
    cli->status = status;
    cli->answer = arena_str(&cli->arena, body);
    if (json_parse(body, JSON_DEPTH, &cli->arena, &j, NULL, &unread) < 0)
        return err_set(e, code_of(status), "the daemon answered %d", status);
    detail = json_object_get(j, "detail");
    first = json_array_get(detail, 0);
    if (first) {
        where = json_object_get(first, "loc");
        text = json_member_str(first, "msg");
        where = json_array_get(where, json_array_size(where) - 1);
        return err_set(e, code_of(status), "%s: " STR_FMT,
                       json_is_string(where) ? json_string_value(where) : "request", STR_ARG(text));
    }
    text = json_member_str(j, json_is_string(detail) ? "detail" : "error");
    if (!text.p)
        return err_set(e, code_of(status), "the daemon answered %d", status);
    if (status == 404 && str_eq_z(text, "Not Found")) /* the server's own word: no such route */
        return no_route(cli, path, e);
    if (status == 401)
        return err_set(e, ERR_UNAUTHORIZED,
                       "Unauthorized: the daemon wants an API key: set CHELA_TOKEN, or use "
                       "its state directory (--state)");
    return err_set(e, code_of(status), STR_FMT, STR_ARG(text));
}

struct way {
    const char *url;
    const char *socket;
    const char *headers[HEADERS_MAX];
};

const char *api_socket(struct cli *cli, const char *name)
{
    AUTO(free) char *fallback = cli->state ? NULL : path_state_default();

    return arena_printf(&cli->arena, "%s/%s", cli->state ? cli->state : fallback, name);
}

/* Without a trailing slash, in the arena; NULL: the socket of the state directory. */
static const char *base_url(struct cli *cli)
{
    const char *url = cli->hub ? cli->hub_url : cli->url;
    size_t len = url ? strlen(url) : 0;

    while (len && url[len - 1] == '/')
        len--;
    return url ? arena_printf(&cli->arena, "%.*s", (int)len, url) : NULL;
}

static int find_way(struct cli *cli, const char *path, const char *const *headers, bool body,
                    struct way *way, struct err *e)
{
    const char *url = base_url(cli);
    size_t n = 0;

    *way = (struct way){ 0 };
    if (cli->hub && cli->url && !url)
        return err_set(e, ERR_INVALID,
                       "CHELA_URL names a daemon elsewhere: name its hub with --url or "
                       "CHELA_HUB_URL (http://host:9091)");
    if (url && strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return err_set(e, ERR_INVALID, "'%.80s' is no URL of a daemon: write http://%s", url,
                       cli->hub ? "localhost:9091" : "localhost:18789");
    if (url) {
        way->url = arena_printf(&cli->arena, "%s%s", url, path);
    } else {
        way->socket = api_socket(cli, cli->hub ? "hub.sock" : "chelad.sock");
        way->url = arena_printf(&cli->arena, "http://localhost%s", path);
        cli->no_daemon = access(way->socket, F_OK) < 0;
        if (cli->no_daemon)
            return err_set(e, ERR_UNAVAILABLE,
                           "no daemon at '%s': start chelad, or name its --state or --url",
                           way->socket);
    }
    if (body)
        way->headers[n++] = "Content-Type: application/json";
    if (url && cli->token)
        way->headers[n++] = arena_printf(&cli->arena, "Authorization: Bearer %s", cli->token);
    for (size_t i = 0; headers && headers[i] && n + 1 < HEADERS_MAX; i++)
        way->headers[n++] = headers[i];
    return 0;
}

static struct http_call call_of(const struct way *way, enum http_method method, struct str body)
{
    return (struct http_call){
        .method = method,
        .url = way->url,
        .headers = way->headers,
        .body = body,
        .unix_socket = way->socket,
        .deadline_ms = DEADLINE_NONE,
        .max_answer = ANSWER_MAX,
    };
}

static int unreachable(struct cli *cli, const struct way *way, enum http_fail fail, struct err *e)
{
    struct err why = *e;

    cli->no_daemon = fail == HTTP_FAIL_CONNECT || fail == HTTP_FAIL_DNS;
    if (cli->no_daemon)
        return err_set(e, ERR_UNAVAILABLE, "no daemon answers at '%s': %s",
                       way->socket ? way->socket : way->url, why.msg);
    return err_wrap(e, "ask the daemon");
}

CO int api_call_raw(struct cli *cli, enum http_method method, const char *path,
                    const char *const *headers, struct str body, struct str *ret, struct err *e)
{
    struct http_answer answer;
    struct http_call call;
    struct way way;
    int r;

    r = find_way(cli, path, headers, body.p != NULL, &way, e);
    if (r < 0)
        return r;
    call = call_of(&way, method, body);
    if (cli->hub)
        call.deadline_ms = deadline_in(HUB_MS);
    r = http_fetch(cli->client, &call, &cli->arena, &answer, e);
    if (r < 0)
        return unreachable(cli, &way, answer.fail, e);
    if (answer.status >= 400)
        return refusal(cli, path, answer.status, answer.body, e);
    *ret = answer.body;
    return 0;
}

CO int api_call(struct cli *cli, enum http_method method, const char *path, struct str body,
                json_t **ret, struct err *e)
{
    struct str text;
    int r;

    r = api_call_raw(cli, method, path, NULL, body, &text, e);
    if (r < 0)
        return r;
    *ret = NULL;
    return text.n ? json_parse(text, JSON_DEPTH, &cli->arena, ret, NULL, e) : 0;
}

/* The events that are whole in b; what is left stays. */
static int cut_events(struct buf *b, int (*fn)(struct str, struct str, void *, struct err *),
                      void *arg, struct err *e)
{
    for (;;) {
        struct str held = buf_str(b), rest, line, event = { 0 }, data = { 0 };
        const char *end = held.n ? memmem(held.p, held.n, "\n\n", 2) : NULL;
        int r;

        if (!end)
            return 0;
        rest = (struct str){ held.p, (size_t)(end - held.p) };
        while (str_split(&rest, '\n', &line)) {
            if (str_starts(line, STR("event: ")))
                event = (struct str){ line.p + 7, line.n - 7 };
            else if (str_starts(line, STR("data: ")))
                data = (struct str){ line.p + 6, line.n - 6 }; /* ours are JSON: one line */
        }
        r = data.p ? fn(event, data, arg, e) : 0;
        if (r != 0)
            return r;
        buf_eat(b, (size_t)(end - held.p) + 2);
    }
}

CO int api_events(struct cli *cli, const char *path, const char *const *headers, struct str body,
                  int (*fn)(struct str, struct str, void *, struct err *), void *arg, struct err *e)
{
    AUTO(buf_done) struct buf held;
    struct http_exchange *x = NULL;
    struct http_answer head;
    struct http_call call;
    struct way way;
    size_t n = 1;
    int r;

    buf_init(&held, ANSWER_MAX);
    r = find_way(cli, path, headers, body.p != NULL, &way, e);
    if (r < 0)
        return r;
    call = call_of(&way, body.p ? HTTP_M_POST : HTTP_M_GET, body);
    r = http_exchange_open(cli->client, &call, &cli->arena, &head, &x, e);
    if (r < 0)
        return unreachable(cli, &way, head.fail, e);
    while (r == 0 && n) {
        char *room;

        r = buf_reserve(&held, 16 * KIB, &room, e);
        if (r == 0)
            r = http_exchange_read(x, room, 16 * KIB, &n, DEADLINE_NONE, e);
        if (r == 0) {
            buf_commit(&held, n);
            r = head.status < 400 ? cut_events(&held, fn, arg, e) : 0;
        }
    }
    http_exchange_close(x);
    if (r == 0 && head.status >= 400)
        return refusal(cli, path, head.status, buf_str(&held), e);
    return r;
}

int api_ws(struct cli *cli, const char *path, const char **ret_url, const char *const **ret_headers,
           const char **ret_socket, struct err *e)
{
    struct way *way = arena_new(&cli->arena, struct way);
    struct str url;
    int r;

    r = find_way(cli, path, NULL, false, way, e);
    if (r < 0)
        return r;
    url = str_of(way->url);
    if (!str_starts(url, STR("http")))
        return err_set(e, ERR_INVALID, "the URL of the hub begins with http:// or https://");
    *ret_url = arena_printf(&cli->arena, "ws%s", way->url + 4); /* https becomes wss */
    *ret_headers = way->headers;
    *ret_socket = way->socket;
    return 0;
}

const char *api_path(struct cli *cli, const char *prefix, const char *name, const char *suffix)
{
    struct str encoded = percent_encode(str_of(name), &cli->arena);

    return arena_printf(&cli->arena, "%s" STR_FMT "%s", prefix, STR_ARG(encoded), suffix);
}

int api_body(struct cli *cli, json_t *object, struct str *ret, struct err *e)
{
    AUTO(json_decref) json_t *owned = object;

    return json_text(owned, ANSWER_MAX, &cli->arena, ret, e);
}
