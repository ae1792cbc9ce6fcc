/* SPDX-License-Identifier: MIT */
/*
 * machine/egress_head.c — the head of a request to the proxy, and the list it is held against. Both
 * pure. Strict, because another program reads the same bytes behind us: lines end with CRLF, there
 * is no folding, no second length.
 */
#include <string.h>

#include "machine/egress.h"
#include "net/url.h"

#define HEADERS_MAX 100

/* --- the list --- */

static struct str lower(struct str s, char *out, size_t size)
{
    if (s.n >= size)
        s.n = size - 1;
    for (size_t i = 0; i < s.n; i++)
        out[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] + 32 : s.p[i]);
    out[s.n] = '\0';
    return (struct str){ out, s.n };
}

/* "name:port", "[address]:port", "name": the port 0 when none is given. -1: no port. */
static struct str split_port(struct str text, long long *ret_port)
{
    const char *colon = memrchr(text.p, ':', text.n);
    struct str host = text, port;
    struct err e;

    *ret_port = 0;
    if (text.n > 0 && text.p[0] == '[') {
        const char *end = memchr(text.p, ']', text.n);

        if (!end || (end + 1 < text.p + text.n && end[1] != ':')) {
            *ret_port = -1;
            return host;
        }
        host = (struct str){ text.p + 1, (size_t)(end - text.p) - 1 };
        colon = end + 1 < text.p + text.n ? end + 1 : NULL;
    } else if (colon && memchr(text.p, ':', (size_t)(colon - text.p))) {
        return host; /* a bare IPv6 address */
    } else if (colon) {
        host.n = (size_t)(colon - text.p);
    }
    if (!colon)
        return host;
    port = (struct str){ colon + 1, (size_t)(text.p + text.n - colon) - 1 };
    if (port.n == 0 || port.p[0] < '0' || port.p[0] > '9' ||
        int_parse(port, 1, 65535, ret_port, &e) < 0)
        *ret_port = -1;
    return host;
}

static bool entry_covers(struct str entry, struct str host, unsigned port, bool *ret_wild)
{
    long long wanted;
    struct str name = split_port(str_trim(entry), &wanted);

    if (name.n == 0 || wanted < 0 || (wanted == 0 && port != 80 && port != 443) ||
        (wanted > 0 && wanted != port))
        return false;
    *ret_wild = name.p[0] == '*';
    if (!*ret_wild)
        return str_eq_nocase(name, host);
    if (name.n == 1)
        return true;
    if (name.p[1] != '.' || host.n <= name.n - 1)
        return false;
    return str_eq_nocase((struct str){ name.p + 1, name.n - 1 },
                         (struct str){ host.p + host.n - (name.n - 1), name.n - 1 });
}

bool egress_allows(const char *const *allow, size_t n, struct str host, unsigned port,
                   bool *ret_exact)
{
    bool allowed = false, exact = false;

    if (host.n > 1 && host.p[host.n - 1] == '.')
        host.n--;
    for (size_t i = 0; i < n; i++) {
        bool wild = false;

        if (!entry_covers(str_of(allow[i]), host, port, &wild))
            continue;
        allowed = true;
        exact = exact || !wild;
    }
    if (ret_exact)
        *ret_exact = exact;
    return allowed;
}

/* --- the head --- */

static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= 0x20 || s.p[i] >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", s.p[i]))
            return false;
    return s.n > 0;
}

/* Cut one line with its CRLF off *rest. */
static bool cut_line(struct str *rest, struct str *ret)
{
    const char *end = memmem(rest->p, rest->n, "\r\n", 2);

    if (!end)
        return false;
    *ret = (struct str){ rest->p, (size_t)(end - rest->p) };
    rest->n -= ret->n + 2;
    rest->p = end + 2;
    return true;
}

static int take_host(struct egress_head *head, struct str host, struct err *e)
{
    bool ipv6;
    int r;

    if (host.n > 1 && host.p[host.n - 1] == '.')
        host.n--;
    if (host.n >= sizeof(head->host))
        return err_set(e, ERR_INVALID, "the host's name is too long");
    r = host_check(host, &ipv6, e);
    if (r == 0)
        lower(host, head->host, sizeof(head->host));
    return r;
}

static int parse_authority(struct egress_head *head, struct str target, struct err *e)
{
    long long port;
    struct str host = split_port(target, &port);

    if (port <= 0)
        return err_set(e, ERR_INVALID, "CONNECT wants host:port");
    head->tunnel = true;
    head->port = (unsigned)port;
    return take_host(head, host, e);
}

static int parse_request(struct egress_head *head, struct str line, struct str *ret_method,
                         struct url *ret_url, struct err *e)
{
    struct str method, target;
    int r;

    if (memchr(line.p, '\0', line.n) || !str_split(&line, ' ', &method) ||
        !str_split(&line, ' ', &target) || !is_token(method) ||
        (!str_eq_z(line, "HTTP/1.1") && !str_eq_z(line, "HTTP/1.0")))
        return err_set(e, ERR_INVALID, "not a request line");
    *ret_method = method;
    if (str_eq_z(method, "CONNECT"))
        return parse_authority(head, target, e);
    r = url_parse(target, ret_url, e);
    if (r < 0)
        return err_set(e, ERR_INVALID, "this is a proxy: it wants CONNECT or http://host/path");
    if (!str_eq_z(ret_url->scheme, "http"))
        return err_set(e, ERR_INVALID, "for https: CONNECT");
    head->port = ret_url->port;
    return take_host(head, ret_url->host, e);
}

static bool is_for_proxies(struct str name)
{
    static const char *const names[] = {
        "host", "connection",          "proxy-connection",   "keep-alive",
        "te",   "proxy-authorization", "proxy-authenticate", "upgrade"
    };

    for (size_t i = 0; i < LEN(names); i++)
        if (str_eq_nocase(name, str_of(names[i])))
            return true;
    return false;
}

static int copy_headers(struct str rest, struct buf *origin, struct err *e)
{
    bool length = false, chunked = false;
    size_t n = 0;
    struct str line;
    int r = 0;

    while (r == 0 && cut_line(&rest, &line) && line.n > 0) {
        const char *colon = memchr(line.p, ':', line.n);
        struct str name = { line.p, colon ? (size_t)(colon - line.p) : 0 };

        if (!is_token(name) || memchr(line.p, '\0', line.n) || memchr(line.p, '\n', line.n) ||
            memchr(line.p, '\r', line.n) || ++n > HEADERS_MAX)
            return err_set(e, ERR_INVALID, "not a header");
        if (str_eq_nocase(name, STR("content-length"))) {
            if (length)
                return err_set(e, ERR_INVALID, "two lengths");
            length = true;
        }
        chunked = chunked || str_eq_nocase(name, STR("transfer-encoding"));
        if (length && chunked)
            return err_set(e, ERR_INVALID, "two lengths");
        if (!is_for_proxies(name))
            r = buf_printf(origin, e, STR_FMT "\r\n", STR_ARG(line));
    }
    return r;
}

static int write_origin(const struct egress_head *head, struct str method, const struct url *url,
                        struct str rest, struct buf *origin, struct err *e)
{
    const char *open = strchr(head->host, ':') ? "[" : "", *close = *open ? "]" : "";
    int r;

    r = buf_printf(origin, e, STR_FMT " " STR_FMT "%s" STR_FMT " HTTP/1.1\r\nHost: %s%s%s",
                   STR_ARG(method), STR_ARG(url->path), url->query.n ? "?" : "",
                   STR_ARG(url->query), open, head->host, close);
    if (r == 0 && head->port != 80)
        r = buf_printf(origin, e, ":%u", head->port);
    if (r == 0)
        r = buf_add_z(origin, "\r\n", e);
    if (r == 0)
        r = copy_headers(rest, origin, e);
    return r == 0 ? buf_add_z(origin, "Connection: close\r\n\r\n", e) : r;
}

int egress_head_parse(struct str bytes, struct egress_head *ret, struct buf *origin, struct err *e)
{
    const char *end = memmem(bytes.p, bytes.n, "\r\n\r\n", 4);
    struct egress_head head = { 0 };
    struct str rest, line, method;
    struct url url = { 0 };
    int r;

    if (!end && bytes.n >= EGRESS_HEAD_MAX)
        return err_set(e, ERR_INVALID, "the head of the request is too long");
    if (!end)
        return EGRESS_MORE;
    head.size = (size_t)(end - bytes.p) + 4;
    rest = (struct str){ bytes.p, head.size };
    if (!cut_line(&rest, &line))
        return err_set(e, ERR_INVALID, "not a request line");
    r = parse_request(&head, line, &method, &url, e);
    if (r == 0 && !head.tunnel)
        r = write_origin(&head, method, &url, rest, origin, e);
    if (r == 0)
        *ret = head;
    return r;
}
