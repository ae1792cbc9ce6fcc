/* SPDX-License-Identifier: MIT */
/*
 * net/ws_handshake.c — the opening of RFC 6455 §4, without I/O: keys, tokens, and what a client
 * accepts as an answer.
 */
#include <string.h>

#include "base/secret.h"
#include "net/ws_int.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void ws_base64(const unsigned char *p, size_t n, char *out)
{
    for (size_t i = 0; i < n; i += 3) {
        unsigned left = n - i < 3 ? (unsigned)(n - i) : 3;
        unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0u);

        *out++ = alphabet[v >> 18];
        *out++ = alphabet[v >> 12 & 63];
        *out++ = left > 1 ? alphabet[v >> 6 & 63] : '=';
        *out++ = left > 2 ? alphabet[v & 63] : '=';
    }
    *out = '\0';
}

/* 16 bytes are 22 characters and "==", of which the last has four bits of zero. */
bool ws_key_valid(struct str key)
{
    if (key.n != WS_KEY_TEXT - 1 || key.p[22] != '=' || key.p[23] != '=')
        return false;
    for (size_t i = 0; i < 22; i++)
        if (!key.p[i] || !strchr(alphabet, key.p[i]))
            return false;
    return strchr("AQgw", key.p[21]) != NULL;
}

void ws_accept_key(struct str key, char out[29])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char digest[20];
    char text[128];

    fmt_z(text, sizeof(text), STR_FMT "%s", STR_ARG(key), guid);
    sha1(text, strlen(text), digest);
    ws_base64(digest, sizeof(digest), out);
}

bool ws_has_token(struct str list, const char *token)
{
    struct str part;

    while (str_split(&list, ',', &part))
        if (str_eq_nocase(str_trim(part), str_of(token)))
            return true;
    return false;
}

/* What a server's head says; each header may come once. */
struct answer {
    struct str upgrade, connection, accept, protocol, extensions;
};

static int note(struct answer *a, struct str name, struct str value, struct err *e)
{
    const struct {
        struct str name, *into;
    } rows[] = {
        { STR("Upgrade"), &a->upgrade },
        { STR("Connection"), &a->connection },
        { STR("Sec-WebSocket-Accept"), &a->accept },
        { STR("Sec-WebSocket-Protocol"), &a->protocol },
        { STR("Sec-WebSocket-Extensions"), &a->extensions },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        if (!str_eq_nocase(name, rows[i].name))
            continue;
        if (rows[i].into->p)
            return err_set(e, ERR_UNAVAILABLE, "answer has two " STR_FMT " headers", STR_ARG(name));
        *rows[i].into = value;
    }
    return 0;
}

/* "HTTP/1.1 101 Switching Protocols" */
static int check_status(struct str line, struct err *e)
{
    struct str version;

    if (!str_split(&line, ' ', &version) || !str_eq_z(version, "HTTP/1.1") || line.n < 3)
        return err_set(e, ERR_UNAVAILABLE, "answer is not HTTP/1.1");
    if (memcmp(line.p, "401", 3) == 0)
        return err_set(e, ERR_UNAUTHORIZED, "answer is 401: the credential is refused");
    if (memcmp(line.p, "101", 3) != 0 || (line.n > 3 && line.p[3] != ' '))
        return err_set(e, ERR_UNAVAILABLE, "answer is %.3s instead of 101", line.p);
    return 0;
}

static int check_headers(const struct answer *a, const char *key, const char *subprotocol,
                         struct err *e)
{
    char want[29];

    ws_accept_key(str_of(key), want);
    if (!a->upgrade.p || !str_eq_nocase(a->upgrade, STR("websocket")))
        return err_set(e, ERR_UNAVAILABLE, "answer does not upgrade to websocket");
    if (!ws_has_token(a->connection, "upgrade"))
        return err_set(e, ERR_UNAVAILABLE, "answer has no Connection: Upgrade");
    if (!str_eq_z(a->accept, want))
        return err_set(e, ERR_UNAVAILABLE, "answer has a wrong Sec-WebSocket-Accept");
    if (a->extensions.n > 0)
        return err_set(e, ERR_UNAVAILABLE, "answer has an extension nobody asked for");
    if (a->protocol.p && (!subprotocol || !str_eq_z(a->protocol, subprotocol)))
        return err_set(e, ERR_UNAVAILABLE, "answer has a subprotocol nobody asked for");
    return 0;
}

int ws_check_answer(struct str head, const char *key, const char *subprotocol, struct err *e)
{
    struct answer answer = { 0 };
    struct str line, name;
    bool first = true;
    int r;

    while (str_split(&head, '\n', &line)) {
        if (line.n == 0 || line.p[line.n - 1] != '\r')
            return err_set(e, ERR_UNAVAILABLE, "answer has a bare line feed");
        line.n--;
        if (first) {
            r = check_status(line, e);
            first = false;
        } else if (memchr(line.p, ':', line.n) && str_split(&line, ':', &name) && name.n > 0) {
            r = note(&answer, name, str_trim(line), e);
        } else {
            r = err_set(e, ERR_UNAVAILABLE, "answer has a line that is no header");
        }
        if (r < 0)
            return r;
    }
    if (first)
        return err_set(e, ERR_UNAVAILABLE, "answer is empty");
    return check_headers(&answer, key, subprotocol, e);
}
