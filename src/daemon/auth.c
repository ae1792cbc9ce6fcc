/* SPDX-License-Identifier: MIT */
/*
 * daemon/auth.c — see auth.h. Host is checked against an allow-list because a web page can make
 * its own name resolve to 127.0.0.1 (DNS rebinding); an address literal cannot be rebound and
 * passes. Origin is checked because a browser sends it and a page of another site must not call.
 */
#include "daemon/auth.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/log.h"
#include "base/secret.h"

#define ALL_SCOPES \
    (NEED_NONE | NEED_READ | NEED_BRIDGE | NEED_METRICS | NEED_ADMIN | NEED_WORKFLOWS | NEED_AGENTS)

static bool token_configured(const struct settings *s)
{
    return *s->token || *s->gateway_auth_token || *s->gateway_token || *s->hub_token;
}

bool auth_configured(const struct auth *a)
{
    return token_configured(a->settings) || keys_count(a->keys) > 0;
}

bool auth_required(const struct auth *a)
{
    return auth_configured(a) || !addr_is_loopback(a->bind_host);
}

/* Compare hashes, so that neither length nor content of a secret shows in the time taken. */
static bool token_is(struct str token, const char *secret)
{
    unsigned char have[SECRET_KEY], want[SECRET_KEY];

    if (!*secret)
        return false;
    sha256(token.p, token.n, have);
    sha256(secret, strlen(secret), want);
    return secret_eq((struct str){ (char *)have, sizeof(have) },
                     (struct str){ (char *)want, sizeof(want) });
}

int auth_token(const struct auth *a, struct str token, struct arena *arena,
               struct http_identity *ret, struct err *e)
{
    const struct settings *s = a->settings;
    const struct key_info *key = keys_check(a->keys, token);

    if (key) {
        *ret = (struct http_identity){
            .name = arena_strdup(arena, key->name),
            .scopes = key->scopes | NEED_NONE,
            .admin = key->scopes & NEED_ADMIN,
            .grant = key->id,
        };
        return 0;
    }
    if (token_is(token, a->admin_token) || token_is(token, s->token) ||
        token_is(token, s->gateway_auth_token) || token_is(token, s->gateway_token) ||
        token_is(token, s->hub_token)) {
        *ret = (struct http_identity){ .name = "admin", .scopes = ALL_SCOPES, .admin = true };
        return 0;
    }
    return err_set(e, ERR_UNAUTHORIZED, "Unauthorized");
}

/* The original gateway took its token from the query too; a URL ends in logs, so we say so. */
static struct str query_token(struct http_req *req)
{
    struct str rest = req->query_text, pair;

    while (str_split(&rest, '&', &pair))
        if (str_starts(pair, STR("token="))) {
            log_warn("a token came in a URL, where logs keep it; send it as a header", "peer",
                     LOG_STR(req->peer));
            return (struct str){ pair.p + 6, pair.n - 6 };
        }
    return (struct str){ 0 };
}

static struct str request_token(struct http_req *req)
{
    struct str value = http_header_get(req, "authorization");

    if (value.n > 7 && str_eq_nocase((struct str){ value.p, 7 }, STR("Bearer ")))
        return str_trim((struct str){ value.p + 7, value.n - 7 });
    value = http_header_get(req, "x-auth-token");
    if (value.n)
        return value;
    return str_starts(req->path, STR("/api/vps")) ? query_token(req) : (struct str){ 0 };
}

/* Names that proxies and content networks add; "x-forwarded-..." are told by their beginning. */
static bool is_proxys(struct str name)
{
    static const char *const names[] = {
        "forwarded",
        "forwarded-for",
        "x-real-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "fastly-client-ip",
        "x-original-forwarded-for",
        "x-envoy-external-address",
        "cdn-loop",
    };
    const struct str family = STR("x-forwarded");

    if (name.n >= family.n && str_eq_nocase((struct str){ name.p, family.n }, family))
        return true;
    for (size_t i = 0; i < LEN(names); i++)
        if (str_eq_nocase(name, str_of(names[i])))
            return true;
    return false;
}

/*
 * Could this have been sent by a web page, or for somebody else? Pages send an Origin, but not
 * with an image's GET; browsers say of those that they cross sites.
 */
static bool came_through(struct http_req *req)
{
    struct str site = http_header_get(req, "sec-fetch-site");

    if (req->minor == 0)
        return true; /* nginx passes requests on as HTTP/1.0 by default; people hardly speak it */
    if (http_header_get(req, "origin").p)
        return true;
    if (site.p && !str_eq(site, STR("none")) && !str_eq(site, STR("same-origin")))
        return true;
    for (size_t i = 0; i < req->n_headers; i++)
        if (is_proxys(req->headers[i].name))
            return true;
    return false;
}

static int authenticate(struct http_req *req, const struct stream_addr *peer, void *arg,
                        struct http_identity *ret, struct err *e)
{
    const struct auth *a = arg;
    struct str token;

    if (peer->local) {
        *ret = (struct http_identity){ .name = "admin", .scopes = ALL_SCOPES, .admin = true };
        return 0;
    }
    token = request_token(req);
    if (token.n && auth_token(a, token, req->arena, ret, e) == 0)
        return 0;
    /* On a fresh installation a wrong token is no worse than none: the originals' scripts send one.
     */
    if (!a->always && peer->loopback && !auth_required(a) && !came_through(req)) {
        *ret = (struct http_identity){ .name = "loopback", .scopes = ALL_SCOPES, .admin = true };
        return 0;
    }
    return err_set(e, ERR_UNAUTHORIZED, "Unauthorized");
}

/* Is name one of a comma-separated list? */
static bool in_list(struct str name, const char *list)
{
    struct str rest = str_of(list), part;

    while (str_split(&rest, ',', &part))
        if (name.n && str_eq_nocase(str_trim(part), name))
            return true;
    return false;
}

/* Nothing, or a colon and digits. */
static bool is_port(struct str s)
{
    for (size_t i = 1; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n == 0 || s.p[0] == ':';
}

/* "name", "name:port", "[v6]", "[v6]:port" without the port and the brackets; else nothing. */
static struct str without_port(struct str host)
{
    const char *end;
    struct str name = host, port;

    if (host.n == 0)
        return host;
    end = memchr(host.p, host.p[0] == '[' ? ']' : ':', host.n);
    if (host.p[0] == '[') {
        if (!end)
            return (struct str){ 0 };
        name = (struct str){ host.p + 1, (size_t)(end++ - host.p - 1) };
    } else if (end) {
        name.n = (size_t)(end - host.p);
    } else {
        return host;
    }
    port = (struct str){ end, (size_t)(host.p + host.n - end) };
    return is_port(port) ? name : (struct str){ 0 };
}

static bool is_literal(struct str host)
{
    unsigned char bytes[16];
    char text[64];

    if (host.n >= sizeof(text))
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

static bool name_allowed(const struct auth *a, struct str host)
{
    return str_eq_nocase(host, STR("localhost")) || str_eq_nocase(host, str_of(a->bind_host)) ||
           in_list(host, a->settings->hosts);
}

static bool host_allowed(struct str host, const struct stream_addr *peer, void *arg)
{
    const struct auth *a = arg;

    host = without_port(host);
    return peer->local || (host.n && (is_literal(host) || name_allowed(a, host)));
}

static bool origin_allowed(struct str origin, void *arg)
{
    const struct auth *a = arg;
    struct str rest = origin;

    if (in_list(origin, a->settings->origins) || (a->origins && in_list(origin, a->origins)))
        return true;
    if (str_starts(rest, STR("http://")))
        rest = (struct str){ rest.p + 7, rest.n - 7 };
    else if (str_starts(rest, STR("https://")))
        rest = (struct str){ rest.p + 8, rest.n - 8 };
    else
        return false; /* "null", files, extensions */
    rest = without_port(rest);
    return name_allowed(a, rest) || str_eq(rest, STR("127.0.0.1")) || str_eq(rest, STR("::1"));
}

/* Only a key can be taken back; configured tokens stand as long as the daemon. */
static bool grant_holds(uint64_t grant, void *arg)
{
    const struct auth *a = arg;

    return keys_holds(a->keys, grant);
}

struct http_server_ops auth_ops(struct auth *a)
{
    return (struct http_server_ops){
        .authenticate = authenticate,
        .host_allowed = host_allowed,
        .origin_allowed = origin_allowed,
        .grant_holds = grant_holds,
        .arg = a,
    };
}
