/* SPDX-License-Identifier: MIT */
/*
 * net/ws_accept.c — the server's side of the opening (RFC 6455 §4.2): judge the request, take the
 * connection from the HTTP server, answer 101.
 */
#include "net/ws.h"

#include "net/ws_int.h"

#define REST_MAX (64 * KIB) /* bytes a client may have sent behind its request */

static int refuse(struct http_req *req, int status, const char *text)
{
    http_reply_text(req, status, "text/plain; charset=utf-8", str_of(text));
    return WS_REFUSED;
}

/* 0, or WS_REFUSED with the answer in req. */
static int judge(struct http_req *req)
{
    if (req->method != HTTP_M_GET || req->minor < 1)
        return refuse(req, 400, "A WebSocket is opened with GET and HTTP/1.1.\n");
    if (!ws_has_token(http_header_get(req, "Upgrade"), "websocket") ||
        !ws_has_token(http_header_get(req, "Connection"), "upgrade")) {
        http_reply_header(req, "Upgrade", "websocket");
        http_reply_header(req, "Connection", "Upgrade");
        return refuse(req, 426, "This path speaks WebSocket only.\n");
    }
    if (!str_eq_z(http_header_get(req, "Sec-WebSocket-Version"), "13")) {
        http_reply_header(req, "Sec-WebSocket-Version", "13");
        return refuse(req, 426, "Only version 13 of the WebSocket protocol is spoken.\n");
    }
    if (!ws_key_valid(http_header_get(req, "Sec-WebSocket-Key")))
        return refuse(req, 400, "Sec-WebSocket-Key is not 16 bytes in base64.\n");
    return 0;
}

/* May the subprotocol be answered? Only one the client has offered, in its very letters. */
static bool offered(const struct http_req *req, const char *subprotocol)
{
    struct str part;

    for (size_t i = 0; subprotocol && i < req->n_headers; i++) {
        struct str list = req->headers[i].value;

        if (!str_eq_nocase(req->headers[i].name, STR("Sec-WebSocket-Protocol")))
            continue;
        while (str_split(&list, ',', &part))
            if (str_eq_z(str_trim(part), subprotocol))
                return true;
    }
    return false;
}

int ws_accept(struct http_req *req, const char *subprotocol, const struct ws_limits *limits,
              const struct ws_ops *ops, void *arg, struct ws **ret, struct err *e)
{
    AUTO(buf_done) struct buf rest = { 0 };
    bool named = offered(req, subprotocol);
    struct http_seat *seat = NULL;
    struct stream *stream;
    char accept[29];
    const char *head;
    int r;

    r = judge(req);
    if (r != 0)
        return r;
    ws_accept_key(http_header_get(req, "Sec-WebSocket-Key"), accept);
    head = arena_printf(req->arena,
                        "HTTP/1.1 101 Switching Protocols\r\n"
                        "Upgrade: websocket\r\n"
                        "Connection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n"
                        "%s%s%s\r\n",
                        accept, named ? "Sec-WebSocket-Protocol: " : "", named ? subprotocol : "",
                        named ? "\r\n" : "");
    r = http_conn_take(req, REST_MAX, &stream, &rest, &seat, e);
    if (r < 0)
        return r;
    *ret =
        ws_new(fiber_loop(), stream, seat, false, limits, ops, arg, str_of(head), buf_str(&rest));
    ws_rest_on(*ret, req->who.grant);
    return 0;
}
