/* SPDX-License-Identifier: MIT */
/*
 * daemon/settings.c — the settings of the daemon, once. The names of the variables that the four
 * original systems read stand in .env; every setting can also be given as CHELA_SECTION_KEY.
 */
#include "daemon/settings.h"

#include <string.h>

#include "base/log.h"
#include "durable/routes.h"

static const char *const log_levels[] = { "error", "warn", "info", "debug", NULL };
static const char *const log_formats[] = { "auto", "text", "json", NULL };

#define ROW(kind, name, member, def, ...) OPT(kind, name, struct settings, member, def, __VA_ARGS__)

/* clang-format off */
static const struct opt opts[] = {
    ROW(OPT_STR,  "gateway.host", host, "127.0.0.1", .env = "HOST,GATEWAY_HOST",
        .doc = "Address the gateway listens on. Anything but loopback needs an API key or a token."),
    ROW(OPT_INT,  "gateway.port", port, "18789", .min = 0, .max = 65535, .env = "PORT,GATEWAY_PORT",
        .doc = "Port of the gateway; 0 picks a free one."),

    ROW(OPT_STR,  "store.url", store_url, "", .env = "DATABASE_URL", .flags = OPT_SECRET,
        .doc = "sqlite:PATH or postgres://...; empty: where PGHOST and the other variables of libpq lead, else chela.db in the state directory."),
    ROW(OPT_INT,  "store.pool", store_pool, "20", .min = 1, .max = 200,
        .doc = "Connections to PostgreSQL, opened as they are needed; one more stands by to hear of other processes."),
    ROW(OPT_MSEC, "store.wait", store_wait_ms, "5s", .min = 10, .max = 600000,
        .doc = "How long a request waits for a database that is away before it is answered 503."),

    ROW(OPT_STR,  "log.level", log_level, "info", .env = "LOG_LEVEL", .one_of = log_levels, .flags = OPT_LIVE,
        .doc = "error, warn, info or debug."),
    ROW(OPT_STR,  "log.format", log_format, "auto", .one_of = log_formats, .flags = OPT_LIVE,
        .doc = "text, json, or auto: text on a terminal, JSON otherwise."),

    ROW(OPT_INT,  "limits.connections", limits.connections, "4096", .min = 1, .max = 1000000, .flags = OPT_LIVE,
        .doc = "Open connections in all; more are answered 503."),
    ROW(OPT_INT,  "limits.connections_per_ip", limits.connections_per_ip, "1024", .min = 1, .max = 1000000, .flags = OPT_LIVE,
        .doc = "Open connections from one address; more are answered 503."),
    ROW(OPT_SIZE, "limits.header", limits.header_bytes, "64K", .min = 1024, .max = 1 << 20, .flags = OPT_LIVE,
        .doc = "Largest request line and headers together (431)."),
    ROW(OPT_SIZE, "limits.body", limits.body_bytes, "16M", .min = 1024, .max = 1LL << 30, .flags = OPT_LIVE,
        .doc = "Largest request body (413)."),
    ROW(OPT_INT,  "limits.json_depth", limits.json_depth, "512", .min = 8, .max = 512, .flags = OPT_LIVE,
        .doc = "Deepest nesting of a JSON body (400)."),
    ROW(OPT_MSEC, "limits.first_byte", limits.first_byte_ms, "10s", .min = 10, .max = 600000, .flags = OPT_LIVE,
        .doc = "Time for a whole request head to arrive (408)."),
    ROW(OPT_MSEC, "limits.body_idle", limits.body_idle_ms, "30s", .min = 10, .max = 600000, .flags = OPT_LIVE,
        .doc = "Longest silence inside a request body (408)."),
    ROW(OPT_MSEC, "limits.idle", limits.idle_ms, "75s", .min = 10, .max = 3600000, .flags = OPT_LIVE,
        .doc = "Close a kept connection that has been silent this long."),
    ROW(OPT_MSEC, "limits.request", limits.request_ms, "0", .min = 0, .max = 86400000, .flags = OPT_LIVE,
        .doc = "Deadline of one request as a whole (504); 0: none."),
    ROW(OPT_MSEC, "limits.write_idle", limits.write_idle_ms, "60s", .min = 10, .max = 3600000, .flags = OPT_LIVE,
        .doc = "Reset a connection whose peer has accepted no byte of its answer this long."),
    ROW(OPT_MSEC, "limits.shutdown", shutdown_ms, "10s", .min = 0, .max = 600000, .flags = OPT_LIVE,
        .doc = "How long running requests may finish when the daemon is asked to stop."),

    ROW(OPT_STR,  "auth.token", token, "", .env = "AUTH_TOKEN", .flags = OPT_SECRET,
        .doc = "An admin token besides the generated one. With it set, every caller needs a token."),
    ROW(OPT_STR,  "auth.gateway_auth_token", gateway_auth_token, "", .env = "GATEWAY_AUTH_TOKEN", .flags = OPT_SECRET,
        .doc = "The same, under the name of the original gateway."),
    ROW(OPT_STR,  "auth.gateway_token", gateway_token, "", .env = "GATEWAY_TOKEN", .flags = OPT_SECRET,
        .doc = "The same, under the name of the original deployment manifest."),
    ROW(OPT_STR,  "auth.hub_token", hub_token, "", .env = "HUB_ADMIN_TOKEN", .flags = OPT_SECRET,
        .doc = "The same, under the name of the original hub."),
    ROW(OPT_STR,  "auth.hosts", hosts, "", .flags = OPT_LIVE,
        .doc = "Names besides localhost that a Host header may carry, comma-separated."),
    ROW(OPT_STR,  "auth.origins", origins, "", .flags = OPT_LIVE,
        .doc = "Origins of web pages that may call, comma-separated (https://console.example)."),
    ROW(OPT_STR,  "auth.encryption_key", encryption_key, "", .env = "ENCRYPTION_KEY", .flags = OPT_SECRET,
        .doc = "Key for secrets kept in the store: 64 hex digits or a passphrase; empty: master.key in the state directory."),

    ROW(OPT_STR,  "tls.cert", tls_cert, "", .doc = "PEM file of the certificate chain; with tls.key the gateway and the hub speak TLS."),
    ROW(OPT_STR,  "tls.key", tls_key, "", .doc = "PEM file of its private key."),

    ROW(OPT_STR,  "outbound.allow", outbound_allow, "",
        .doc = "Address ranges that calls may go to although they are refused by default (link-local, metadata)."),
    ROW(OPT_STR,  "outbound.deny", outbound_deny, "",
        .doc = "Address ranges that calls may not go to; wins over everything."),
    ROW(OPT_STR,  "outbound.proxy", outbound_proxy, "", .flags = OPT_SECRET,
        .doc = "Proxy for calls to agents; empty: none, whatever HTTP_PROXY says."),
    ROW(OPT_INT,  "outbound.connections_per_host", outbound_per_host, "128", .min = 1, .max = 10000,
        .doc = "Connections to one agent; further calls wait their turn."),
    ROW(OPT_STR,  "outbound.ca_file", outbound_ca_file, "", .env = "SSL_CERT_FILE",
        .doc = "PEM file of the authorities that agents' certificates are checked with; empty: the system's."),
};
/* clang-format on */

int settings_new(struct settings *into, struct conf **ret, struct err *e)
{
    const struct conf_table tables[] = {
        { .opts = opts, .n = LEN(opts) },
        { .opts = bridge_opts, .n = bridge_opts_len, .base = offsetof(struct settings, bridge) },
        { .opts = durable_opts, .n = durable_opts_len, .base = offsetof(struct settings, durable) },
        { .opts = swarm_opts, .n = swarm_opts_len, .base = offsetof(struct settings, swarm) },
        { .opts = hub_opts, .n = hub_opts_len, .base = offsetof(struct settings, hub) },
    };

    return conf_new(tables, LEN(tables), into, ret, e);
}

/* Texts that are a mistake of whoever templated the configuration, not a secret. */
static int check_token(const char *name, const char *token, struct err *e)
{
    static const char *const placeholders[] = { "undefined", "null",  "none",     "changeme",
                                                "secret",    "token", "password", "example" };

    if (!*token)
        return 0;
    for (size_t i = 0; i < LEN(placeholders); i++)
        if (str_eq_nocase(str_of(token), str_of(placeholders[i])))
            return err_set(e, ERR_INVALID, "%s is the placeholder '%s': set a real secret", name,
                           placeholders[i]);
    if (!str_eq(str_trim(str_of(token)), str_of(token)) || strpbrk(token, "\t\r\n"))
        return err_set(e, ERR_INVALID,
                       "%s has blanks around it or a tab in it: no header carries that", name);
    if (strlen(token) < 8)
        return err_set(e, ERR_INVALID, "%s has fewer than 8 characters: use a longer secret", name);
    if (strlen(token) < 24)
        log_warn("a configured token is short; 32 random bytes in hex are recommended", "setting",
                 LOG_STR(name));
    return 0;
}

int settings_check(const struct settings *s, struct err *e)
{
    const struct {
        const char *name, *value;
    } tokens[] = {
        { "auth.token", s->token },
        { "auth.gateway_auth_token", s->gateway_auth_token },
        { "auth.gateway_token", s->gateway_token },
        { "auth.hub_token", s->hub_token },
        { "auth.encryption_key", s->encryption_key },
    };
    int r;

    for (size_t i = 0; i < LEN(tokens); i++) {
        r = check_token(tokens[i].name, tokens[i].value, e);
        if (r < 0)
            return r;
    }
    if (!*s->tls_cert != !*s->tls_key)
        return err_set(e, ERR_INVALID, "tls.cert and tls.key belong together: set both or neither");
    return 0;
}

enum log_level settings_log_level(const struct settings *s)
{
    enum log_level level = LOG_INFO;
    struct err e;

    if (log_level_parse(s->log_level, &level, &e) < 0)
        return LOG_INFO; /* cannot be: the row's one_of has checked it */
    return level;
}

enum log_format settings_log_format(const struct settings *s)
{
    if (strcmp(s->log_format, "text") == 0)
        return LOG_TEXT;
    return strcmp(s->log_format, "json") == 0 ? LOG_JSON : LOG_AUTO;
}
