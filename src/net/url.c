/* SPDX-License-Identifier: MIT */
/*
 * net/url.c — strict URL reading. What is not plainly well-formed is refused rather than repaired,
 * so that no two readers (this one and libcurl's) can take one text for two places.
 */
#include "net/url.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define HOST_MAX  253
#define LABEL_MAX 63
#define PAIRS_MAX 64

static const struct scheme {
    const char *name;
    unsigned short port;
    bool user_info; /* libpq's URLs carry it; it is skipped here */
} schemes[] = {
    { "http", 80, false }, { "https", 443, false },    { "ws", 80, false },
    { "wss", 443, false }, { "postgres", 5432, true }, { "postgresql", 5432, true },
};

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n > 0;
}

static bool is_address(int family, struct str s)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char addr[16];

    if (s.n >= sizeof(text))
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return strlen(text) == s.n && inet_pton(family, text, addr) == 1;
}

static bool is_label(struct str s)
{
    if (s.n == 0 || s.n > LABEL_MAX || s.p[0] == '-' || s.p[s.n - 1] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_')
            return false;
    return true;
}

/*
 * Would inet_aton() take this name for an address ("127.1", "0x7f000001")? Those that end in a
 * number and are not a dotted quad mean an address to some readers and a name to others.
 */
static bool ends_in_number(struct str label)
{
    return is_digits(label) || (label.n >= 2 && label.p[0] == '0' && (label.p[1] | 0x20) == 'x');
}

static bool is_name(struct str s)
{
    struct str rest = s, label, last = { 0 };

    if (s.n > 0 && s.p[s.n - 1] == '.')
        rest.n--; /* a fully qualified name */
    if (rest.n == 0 || rest.n > HOST_MAX || rest.p[rest.n - 1] == '.')
        return false;
    while (str_split(&rest, '.', &label)) {
        if (!is_label(label))
            return false;
        last = label;
    }
    return !ends_in_number(last);
}

int host_check(struct str host, bool *ret_ipv6, struct err *e)
{
    struct str bare = host;

    if (host.n == 0)
        return err_set(e, ERR_INVALID, "host is empty");
    if (host.p[0] == '[') {
        bare = (struct str){ host.p + 1, host.n - 1 };
        if (bare.n == 0 || bare.p[bare.n - 1] != ']')
            return err_set(e, ERR_INVALID, "host has a bracket without its partner");
        bare.n--;
    }
    if (is_address(AF_INET6, bare)) {
        *ret_ipv6 = true;
        return 0;
    }
    if (host.p[0] == '[')
        return err_set(e, ERR_INVALID, "host in brackets is not an IPv6 address");
    if (!is_address(AF_INET, host) && !is_name(host))
        return err_set(e, ERR_INVALID, "host is neither a name nor an address");
    *ret_ipv6 = false;
    return 0;
}

static const struct scheme *scheme_find(struct str name)
{
    for (size_t i = 0; i < LEN(schemes); i++)
        if (str_eq_nocase(name, str_of(schemes[i].name)))
            return &schemes[i];
    return NULL;
}

/* "host", "host:", "host:8080", "[::1]:8080" */
static int parse_authority(struct str s, const struct scheme *scheme, struct url *u, struct err *e)
{
    const char *at = s.n ? memrchr(s.p, '@', s.n) : NULL;
    const char *colon;
    struct str port = { 0 };
    long long number;
    int r;

    if (at && !scheme->user_info)
        return err_set(e, ERR_INVALID, "URL holds user info");
    if (at)
        s = (struct str){ at + 1, s.n - (size_t)(at + 1 - s.p) };
    colon = s.n ? memrchr(s.p, ':', s.n) : NULL;
    if (colon && s.p[0] == '[' && s.p[s.n - 1] == ']')
        colon = NULL; /* the last colon is the address's own */
    if (colon) {
        port = (struct str){ colon + 1, s.n - (size_t)(colon + 1 - s.p) };
        s.n = (size_t)(colon - s.p);
    }
    r = host_check(s, &u->ipv6, e);
    if (r < 0)
        return r;
    if (u->ipv6 && s.p[0] != '[')
        return err_set(e, ERR_INVALID, "IPv6 address in a URL needs brackets");
    u->host = u->ipv6 ? (struct str){ s.p + 1, s.n - 2 } : s;
    u->port = scheme->port;
    if (port.n == 0)
        return 0;
    if (!is_digits(port) || int_parse(port, 1, 65535, &number, e) < 0)
        return err_set(e, ERR_INVALID, "URL has a bad port");
    u->port = (unsigned short)number;
    u->port_given = true;
    return 0;
}

static int check_bytes(struct str text, struct err *e)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];

        if (c <= 0x20 || c >= 0x7f || strchr("\"<>\\^`{|}", c))
            return err_set(e, ERR_INVALID, "URL has a character that must be escaped");
        if (c == '#')
            return err_set(e, ERR_INVALID, "URL has a fragment");
    }
    return 0;
}

int url_parse(struct str text, struct url *ret, struct err *e)
{
    const char *mark = text.n ? memmem(text.p, text.n, "://", 3) : NULL;
    const struct scheme *scheme;
    struct str authority;
    struct url u = { 0 };
    const char *p, *q, *end;
    int r;

    r = check_bytes(text, e);
    if (r < 0)
        return r;
    if (!mark)
        return err_set(e, ERR_INVALID, "URL is not absolute");
    u.scheme = (struct str){ text.p, (size_t)(mark - text.p) };
    scheme = scheme_find(u.scheme);
    if (!scheme)
        return err_set(e, ERR_INVALID, "URL has an unsupported scheme");

    end = text.p + text.n;
    authority.p = mark + 3;
    for (p = authority.p; p < end && *p != '/' && *p != '?';)
        p++;
    authority.n = (size_t)(p - authority.p);
    r = parse_authority(authority, scheme, &u, e);
    if (r < 0)
        return r;
    q = memchr(p, '?', (size_t)(end - p));
    u.path = (struct str){ p, (size_t)((q ? q : end) - p) };
    if (u.path.n == 0)
        u.path = STR("/");
    if (q)
        u.query = (struct str){ q + 1, (size_t)(end - q - 1) };
    *ret = u;
    return 0;
}

bool url_address(const struct url *u, struct sockaddr_storage *ret)
{
    struct sockaddr_in6 *in6 = (void *)ret;
    struct sockaddr_in *in = (void *)ret;
    char text[INET6_ADDRSTRLEN];

    if (u->host.n >= sizeof(text))
        return false;
    memset(ret, 0, sizeof(*ret));
    memcpy(text, u->host.p, u->host.n);
    text[u->host.n] = '\0';
    if (u->ipv6 && inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(u->port);
        return true;
    }
    if (!u->ipv6 && inet_pton(AF_INET, text, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(u->port);
        return true;
    }
    return false;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int decode(struct str s, bool plus_is_space, struct arena *a, struct str *ret, struct err *e)
{
    char *out = arena_raw(a, s.n + 1);
    size_t n = 0;

    for (size_t i = 0; i < s.n; i++) {
        int hi, lo;

        if (s.p[i] != '%') {
            out[n++] = plus_is_space && s.p[i] == '+' ? ' ' : s.p[i];
            continue;
        }
        hi = i + 2 < s.n ? hex_value(s.p[i + 1]) : -1;
        lo = i + 2 < s.n ? hex_value(s.p[i + 2]) : -1;
        if (hi < 0 || lo < 0)
            return err_set(e, ERR_INVALID, "bad percent escape");
        if (hi == 0 && lo == 0)
            return err_set(e, ERR_INVALID, "escaped NUL");
        out[n++] = (char)(hi << 4 | lo);
        i += 2;
    }
    out[n] = '\0';
    *ret = (struct str){ out, n };
    return 0;
}

int percent_decode(struct str s, struct arena *a, struct str *ret, struct err *e)
{
    return decode(s, false, a, ret, e);
}

struct str percent_encode(struct str s, struct arena *a)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_raw(a, 3 * s.n + 1);
    size_t n = 0;

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (is_alnum(s.p[i]) || c == '-' || c == '.' || c == '_' || c == '~') {
            out[n++] = s.p[i];
        } else {
            out[n++] = '%';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        }
    }
    out[n] = '\0';
    return (struct str){ out, n };
}

int query_parse(struct str text, struct arena *a, struct shape_pair **ret, size_t *ret_n,
                struct err *e)
{
    struct shape_pair *pairs = NULL;
    struct str rest = text, part, name;
    size_t n = 0;
    int r;

    while (rest.n > 0 && str_split(&rest, '&', &part)) {
        if (part.n == 0)
            continue;
        if (n == PAIRS_MAX)
            return err_set(e, ERR_INVALID, "query has over %d parameters", PAIRS_MAX);
        if (!pairs)
            pairs = arena_alloc(a, PAIRS_MAX * sizeof(*pairs));
        if (!str_split(&part, '=', &name))
            name = (struct str){ part.p, 0 };
        r = decode(name, true, a, &pairs[n].name, e);
        if (r == 0)
            r = decode(part, true, a, &pairs[n].value, e);
        if (r < 0)
            return r;
        n++;
    }
    *ret = pairs;
    *ret_n = n;
    return 0;
}
