/* SPDX-License-Identifier: MIT */
/* daemon/hub_ports.c — see hub_ports.h. */
#include "daemon/hub_ports.h"

#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define LISTEN_QUEUE 1024

static const struct http_route no_routes[] = {
    { HTTP_M_OTHER, "/", NULL, .need = NEED_NONE, .flags = ROUTE_HIDDEN, .doc = "Nothing." },
};

/* Agents show a token in their path; they come under whatever name the host has for them, and no
 * web page is one of them. */
static bool any_host(struct str host, const struct stream_addr *peer, void *arg)
{
    return true;
}

static bool no_origin(struct str origin, void *arg)
{
    return false;
}

/* A sandbox is behind the socket of this port: only a token makes an operator here. */
static int token_only(struct http_req *req, const struct stream_addr *peer, void *arg,
                      struct http_identity *ret, struct err *e)
{
    const struct auth *a = arg;
    struct str value = http_header_get(req, "authorization");

    if (value.n <= 7 || !str_eq_nocase((struct str){ value.p, 7 }, STR("Bearer ")))
        return err_set(e, ERR_UNAUTHORIZED, "Unauthorized");
    return auth_token(a, str_trim((struct str){ value.p + 7, value.n - 7 }), req->arena, ret, e);
}

static int listen_both(struct http_server *server, const char *path, const char *host,
                       long long number, struct tls_context *tls, char address[96],
                       unsigned short *ret_port, struct err *e)
{
    int fd, r;

    r = listen_unix(path, &fd, e);
    if (r == 0)
        r = http_server_listen(server, fd, NULL, e);
    if (r == 0)
        r = listen_tcp(host, (unsigned short)number, LISTEN_QUEUE, &fd, ret_port, e);
    if (r == 0)
        r = http_server_listen(server, fd, tls, e);
    if (r == 0)
        fmt_z(address, 96, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, *ret_port);
    return r;
}

static int check_bind(const struct hub_ports *p, const struct hub_settings *s, struct err *e)
{
    if (!addr_is_loopback(s->http_host) && !auth_configured(&p->auth))
        return err_set(e, ERR_INVALID,
                       "hub.http_host is '%s', which others can reach, and no API key exists: make "
                       "one first (chela key create NAME, on loopback) or set auth.hub_token",
                       s->http_host);
    if (!addr_is_loopback(s->http_host) && !p->tls)
        log_warn("the hub serves a public address without TLS: tokens and tasks travel readable",
                 "host", LOG_STR(s->http_host));
    return 0;
}

static int make(struct hub_ports *p, struct loop *loop, struct hub *hub,
                const struct settings *settings, struct err *e)
{
    const struct http_server_ops ops = auth_ops(&p->auth);
    struct http_server_ops agents = ops;
    int r;

    agents.authenticate = token_only;
    agents.host_allowed = any_host;
    agents.origin_allowed = no_origin;
    p->agent_limits = settings->limits;
    p->agent_limits.connections = settings->hub.agents_max + 64;
    p->agent_limits.connections_per_ip = p->agent_limits.connections;
    hub_tables(hub, p->tables);
    for (size_t i = 0; i < HUB_TABLES; i++)
        p->list[i] = &p->tables[i];
    p->nothing = (struct http_table){ "/", &dialect_agents, no_routes, 0, hub };
    p->nothings[0] = &p->nothing;
    r = http_server_new(loop, &settings->limits, &ops, p->list, HUB_TABLES, &p->http, e);
    if (r == 0)
        r = http_server_new(loop, &p->agent_limits, &agents, p->nothings, 1, &p->agents, e);
    if (r == 0) {
        http_server_upgrades(p->http, &hub_upgrade_route, &dialect_hub, hub);
        http_server_upgrades(p->agents, &hub_upgrade_route, &dialect_agents, hub);
    }
    return r;
}

int hub_ports_serve(struct hub_ports *p, struct loop *loop, struct hub *hub,
                    const struct auth *auth, const struct settings *settings, const char *state_dir,
                    struct tls_context *tls, struct err *e)
{
    const struct hub_settings *s = &settings->hub;
    unsigned short http_port = 0, ws_port = 0;
    int r;

    p->auth = *auth;
    p->auth.bind_host = s->http_host;
    p->auth.origins = s->origins;
    p->tls = tls;
    p->http_socket = xasprintf("%s/hub.sock", state_dir);
    p->agents_socket = xasprintf("%s/agents.sock", state_dir);
    r = check_bind(p, s, e);
    if (r == 0)
        r = make(p, loop, hub, settings, e);
    if (r == 0)
        r = listen_both(p->http, p->http_socket, s->http_host, s->http_port, tls, p->http_address,
                        &http_port, e);
    if (r == 0)
        r = listen_both(p->agents, p->agents_socket, s->ws_host, s->ws_port, tls, p->agents_address,
                        &ws_port, e);
    if (r < 0)
        return err_wrap(e, "hub");
    hub_ports(hub, http_port, ws_port);
    return 0;
}

void hub_ports_recheck(struct hub_ports *p)
{
    if (p->http)
        http_server_recheck(p->http);
    if (p->agents)
        http_server_recheck(p->agents);
}

CO void hub_ports_stop(struct hub_ports *p, uint64_t deadline_ms)
{
    struct err e;

    if (p->agents && http_server_shutdown(p->agents, deadline_ms, &e) < 0)
        log_warn("connections of agents were cut off", "error", LOG_ERR(&e));
    if (p->http && http_server_shutdown(p->http, deadline_ms, &e) < 0)
        log_warn("requests to the hub were cut off", "error", LOG_ERR(&e));
}

void hub_ports_done(struct hub_ports *p)
{
    http_server_free(p->agents);
    http_server_free(p->http);
    if (p->http_socket)
        unlink(p->http_socket);
    if (p->agents_socket)
        unlink(p->agents_socket);
    free(p->http_socket);
    free(p->agents_socket);
    *p = (struct hub_ports){ 0 };
}
