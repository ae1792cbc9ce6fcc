/* SPDX-License-Identifier: MIT */
/*
 * daemon/daemon.c — the life of a daemon as one fiber that reads top to bottom: build the rooms in
 * the order of their arrows, say ready, wait for a signal, let requests finish, take down in
 * reverse. Signals only set a flag and wake that fiber.
 */
#include "daemon/daemon.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metric.h"
#include "base/offload.h"
#include "daemon/sd_notify.h"
#include "net/ws.h"
#include "openclaw/openclaw.h"

#define PING_MS       1000 /* how old the answer of /health may be */
#define EXPIRY_MS     1000 /* how late an expired key's sockets may end */
#define LISTEN_QUEUE  1024
#define LINGER_MS     5000 /* for WebSockets to be gone; each takes 2 s at most */
#define GRACE_LEFT_MS 2000 /* after the deadline: cancelled handlers unwind */

extern char **environ;

/* Look at the database again and again, so that /health is true without waiting for a request. */
static CO int watch_store(void *arg, struct err *e)
{
    struct daemon *d = arg;

    for (;;) {
        struct err ping;
        bool up = store_ping(d->store, &ping) == 0;

        if (fiber_canceled())
            return -ERR_CANCELED; /* the ping may not have been made */
        if (up != d->store_up) {
            if (up)
                log_info("the database is back", "store", LOG_STR(store_kind(d->store)));
            else
                log_error("the database is away", "store", LOG_STR(store_kind(d->store)), "error",
                          LOG_ERR(&ping));
        }
        d->store_up = up;
        if (fiber_sleep(PING_MS, e) < 0)
            return -ERR_CANCELED;
    }
}

/* Other daemons on the same database may make and revoke keys. */
static CO int refresh_keys(void *arg, struct err *e)
{
    struct daemon *d = arg;

    for (;;) {
        struct err why;

        if (fiber_sleep(KEYS_REFRESH_MS, e) < 0)
            return -ERR_CANCELED;
        if (keys_load(d->keys, &why) < 0)
            log_debug("API keys not refreshed", "error", LOG_ERR(&why));
    }
}

/* Who came in by a key that has gone is shown out. */
static void on_keys_lost(void *arg)
{
    struct daemon *d = arg;

    if (d->server)
        http_server_recheck(d->server);
    hub_ports_recheck(&d->hub_ports);
}

static CO int expire_keys(void *arg, struct err *e)
{
    struct daemon *d = arg;

    while (fiber_sleep(EXPIRY_MS, e) == 0)
        keys_look_at_clock(d->keys);
    return -ERR_CANCELED;
}

static CO int feed_watchdog(void *arg, struct err *e)
{
    uint64_t every = sd_watchdog_ms();

    while (fiber_sleep(every, e) == 0)
        sd_notify_send("WATCHDOG=1");
    return -ERR_CANCELED;
}

static int start_chores(struct daemon *d, struct err *e)
{
    int r;

    r = fiber_group_spawn(d->chores, "watch store", watch_store, d, e);
    if (r == 0)
        r = fiber_group_spawn(d->chores, "expire keys", expire_keys, d, e);
    if (r == 0 && strcmp(store_kind(d->store), "sqlite") != 0)
        r = fiber_group_spawn(d->chores, "refresh keys", refresh_keys, d, e);
    if (r == 0 && sd_watchdog_ms())
        r = fiber_group_spawn(d->chores, "watchdog", feed_watchdog, d, e);
    return r;
}

/*
 * Where the database is when no setting says so. The original was told by the variables of libpq;
 * libpq reads them itself, for whatever the URL leaves open.
 */
static char *default_store(const struct daemon *d)
{
    const char *host = getenv("PGHOST"), *database = getenv("PGDATABASE");

    if (host && *host)
        return xstrdup(database && *database ? "postgresql://" : "postgresql:///dbos_system");
    return xasprintf("sqlite:%s", d->opt.dir->db);
}

/* What needs no waiting: the store's file, keys, the way out. */
static int open_parts(struct daemon *d, struct err *e)
{
    const struct settings *s = d->settings;
    AUTO(free)
    char *url = *s->store_url ? xstrdup(s->store_url) : default_store(d);
    const struct store_conf store = {
        .url = url,
        .pool = (unsigned)s->store_pool,
        .wait_ms = (uint64_t)s->store_wait_ms,
        .migrations = store_migrations,
        .n_migrations = store_migrations_len,
    };
    const struct http_client_conf client = {
        .policy = &d->policy,
        .proxy = s->outbound_proxy,
        .ca_file = *s->outbound_ca_file ? s->outbound_ca_file : NULL,
        .per_host = (long)s->outbound_per_host,
    };
    AUTO(free) char *key_path = xasprintf("%s/master.key", d->opt.dir->path);
    int r;

    r = outbound_policy_parse(s->outbound_allow, s->outbound_deny, &d->policy, e);
    if (r == 0)
        r = *s->encryption_key ? secret_key_of(str_of(s->encryption_key), d->master_key, e)
                               : secret_key_file(key_path, d->master_key, e);
    if (r == 0)
        r = store_open(d->loop, &store, &d->store, e);
    if (r == 0)
        r = http_client_new(d->loop, &client, &d->client, e);
    if (r == 0 && *s->tls_cert)
        r = tls_server_new(s->tls_cert, s->tls_key, &d->tls, e);
    return r;
}

static int who_sent(struct str token, struct arena *a, void *arg, struct http_identity *ret,
                    struct err *e)
{
    const struct daemon *d = arg;

    return auth_token(&d->auth, token, a, ret, e);
}

static bool token_needed(void *arg)
{
    const struct daemon *d = arg;

    return auth_required(&d->auth);
}

static int make_swarm(struct daemon *d, struct err *e)
{
    const struct swarm_conf conf = {
        .loop = d->loop,
        .store = d->store,
        .engine = d->workflows.engine,
        .client = d->client,
        .settings = &d->settings->swarm,
        .state_dir = d->opt.dir->path,
        .instance = d->opt.dir->instance,
        .port = (unsigned)d->settings->port,
        .ops = { .authenticate = who_sent, .auth_required = token_needed, .arg = d },
    };

    return swarm_new(&conf, &d->swarm, e);
}

static int make_hub(struct daemon *d, struct err *e)
{
    struct hub_conf conf = {
        .loop = d->loop,
        .store = d->store,
        .engine = d->workflows.engine,
        .client = d->client,
        .settings = &d->settings->hub,
        .state_dir = d->opt.dir->path,
        .instance = d->opt.dir->instance,
        .tls = *d->settings->tls_cert,
        .ops = { .authenticate = who_sent, .arg = d },
    };

    d->program = realpath("/proc/self/exe", NULL);
    if (!d->program)
        return err_sys(e, "where is chelad itself: /proc/self/exe");
    conf.program = d->program;
    return hub_new(&conf, &d->hub, e);
}

static CO int start_rooms(struct daemon *d, struct err *e)
{
    int r;

    d->keys = keys_new(d->store);
    keys_on_lost(d->keys, on_keys_lost, d);
    r = keys_load(d->keys, e);
    if (r < 0)
        return r;
    d->auth = (struct auth){
        .settings = d->settings,
        .keys = d->keys,
        .admin_token = d->opt.dir->token,
        .bind_host = d->settings->host,
    };
    r = bridge_new(d->loop, d->store, d->client, &d->settings->bridge, d->master_key, &d->bridge,
                   e);
    if (r == 0)
        r = bridge_start(d->bridge, e);
    if (r == 0)
        r = workflows_new(&d->workflows, d->loop, d->store, d->bridge, &d->settings->durable,
                          d->opt.dir->instance, e);
    if (r == 0)
        r = make_swarm(d, e);
    if (r == 0)
        r = make_hub(d, e);
    if (r == 0)
        r = workflows_run(&d->workflows, e);
    if (r == 0)
        r = swarm_start(d->swarm, e);
    if (r == 0)
        r = hub_start(d->hub, e);
    return r;
}

/* A public address without a credential would be an open door. */
static int check_bind(const struct daemon *d, struct err *e)
{
    const struct settings *s = d->settings;

    if (addr_is_loopback(s->host))
        return 0;
    if (!s->swarm.auth_required)
        return err_set(e, ERR_INVALID,
                       "gateway.auth_required is off, so anybody who reaches gateway.host '%s' "
                       "could use the gateway: that is for loopback addresses only",
                       s->host);
    if (strcmp(s->swarm.backend_auth, "none") == 0)
        return err_set(e, ERR_INVALID,
                       "gateway.host is '%s', which others can reach, and agents.auth is 'none': "
                       "set it to token or jwt; none is for loopback addresses only",
                       s->host);
    if (!auth_configured(&d->auth))
        return err_set(e, ERR_INVALID,
                       "gateway.host is '%s', which others can reach, and no API key exists: make "
                       "one first (chela key create NAME, on loopback) or set auth.token",
                       s->host);
    if (!d->tls)
        log_warn("serving a public address without TLS: tokens and prompts travel readable", "host",
                 LOG_STR(s->host));
    return 0;
}

static void list_tables(struct daemon *d)
{
    struct http_table *t = d->tables;

    d->dialect = dialect_fastapi;  /* unknown paths of the gateway were answered so */
    d->dialect.head_is_get = true; /* load balancers probe with HEAD */
    d->dialect.any_case = true;    /* the rest is as the original of /health had it */
    d->dialect.slash_fits = true;
    bridge_tables(d->bridge, t);
    t += BRIDGE_TABLES;
    durable_tables(d->workflows.engine, t);
    t += DURABLE_TABLES;
    swarm_tables(d->swarm, t);
    t += SWARM_TABLES;
    *t++ = (struct http_table){ "/", &d->dialect, system_routes, system_routes_len, d };
    *t++ = (struct http_table){ "/api/v1/keys", &dialect_plain, keys_routes, keys_routes_len,
                                d->keys };
    *t = (struct http_table){ "/docs", &dialect_plain, http_docs_routes, http_docs_routes_len };
    for (size_t i = 0; i < LEN(d->tables); i++)
        d->table_list[i] = &d->tables[i];
}

static int serve(struct daemon *d, struct err *e)
{
    const struct http_server_ops ops = auth_ops(&d->auth);
    unsigned short port = 0;
    int fd, r;

    list_tables(d);
    r = http_server_new(d->loop, &d->settings->limits, &ops, d->table_list, LEN(d->table_list),
                        &d->server, e);
    if (r < 0)
        return r;
    http_server_upgrades(d->server, &swarm_upgrade_route, &dialect_express, d->swarm);
    r = listen_unix(d->opt.dir->socket, &fd, e);
    if (r == 0)
        r = http_server_listen(d->server, fd, NULL, e);
    if (r == 0)
        r = listen_tcp(d->settings->host, (unsigned short)d->settings->port, LISTEN_QUEUE, &fd,
                       &port, e);
    if (r == 0)
        r = http_server_listen(d->server, fd, d->tls, e);
    if (r < 0)
        return err_wrap(e, "gateway");
    fmt_z(d->gateway, sizeof(d->gateway), strchr(d->settings->host, ':') ? "[%s]:%u" : "%s:%u",
          d->settings->host, port);
    r = workflows_serve(&d->workflows, d->loop, &d->auth, &d->settings->durable,
                        &d->settings->limits, e);
    if (r == 0)
        r = hub_ports_serve(&d->hub_ports, d->loop, d->hub, &d->auth, d->settings, d->opt.dir->path,
                            d->tls, e);
    return r;
}

static int say_ready(struct daemon *d, struct err *e)
{
    AUTO(close_fd) int fd = d->opt.ready_fd;
    AUTO(buf_done) struct buf line;
    const char *admin = d->workflows.address;
    int r;

    log_info("ready", "version", LOG_STR(CHELA_VERSION), "gateway", LOG_STR(d->gateway), "hub",
             LOG_STR(d->hub_ports.http_address), "agents", LOG_STR(d->hub_ports.agents_address),
             "tls", LOG_BOOL(d->tls != NULL), "store", LOG_STR(store_kind(d->store)), "state",
             LOG_STR(d->opt.dir->path));
    sd_notify_send("READY=1");
    buf_init(&line, 16 * KIB);
    if (fd < 0)
        return 0;
    r = buf_printf(&line, e,
                   "{\"ready\":true,\"version\":\"%s\",\"pid\":%ld,"
                   "\"listeners\":{\"gateway\":\"%s\",\"hub\":\"%s\",\"agents\":\"%s\"%s%s%s},"
                   "\"socket\":",
                   CHELA_VERSION, (long)getpid(), d->gateway, d->hub_ports.http_address,
                   d->hub_ports.agents_address, *admin ? ",\"dbos_admin\":\"" : "", admin,
                   *admin ? "\"" : "");
    if (r == 0)
        r = json_write_str(&line, str_of(d->opt.dir->socket), e);
    if (r == 0)
        r = buf_add_z(&line, ",\"state\":", e);
    if (r == 0)
        r = json_write_str(&line, str_of(d->opt.dir->path), e);
    if (r == 0)
        r = buf_add_z(&line, "}\n", e);
    if (r == 0 && write(fd, buf_str(&line).p, buf_str(&line).n) < 0)
        log_warn("nobody reads the ready descriptor", "fd", LOG_INT(fd));
    return r;
}

static CO int start(struct daemon *d, struct err *e)
{
    int r;

    r = open_parts(d, e);
    if (r == 0)
        r = start_rooms(d, e);
    if (r == 0)
        r = check_bind(d, e);
    if (r == 0)
        r = serve(d, e);
    if (r == 0)
        r = start_chores(d, e);
    if (r == 0)
        r = say_ready(d, e);
    return r;
}

/* Beside the requests: who waits for a workflow's result is let go by this. */
static CO int stop_workflows(void *arg, struct err *e)
{
    struct daemon *d = arg;

    workflows_stop(&d->workflows, (uint64_t)d->settings->shutdown_ms);
    return 0;
}

/* WebSockets that have said good-bye linger a moment, so that their peers can read it. */
static CO void await_sockets(void)
{
    uint64_t deadline_ms = now_ms() + LINGER_MS;
    struct err e;

    while (ws_streams() > 0 && now_ms() < deadline_ms)
        if (fiber_sleep(10, &e) < 0)
            break;
}

/* Take down in reverse what start() has built, however far it came. */
static CO void stop(struct daemon *d)
{
    struct fiber *workflows = NULL;
    struct err e;

    sd_notify_send("STOPPING=1");
    if (d->swarm)
        swarm_stop(d->swarm);
    if (d->hub)
        hub_stop(d->hub);
    if (fiber_spawn(d->loop, "stop workflows", stop_workflows, d, &workflows, &e) < 0)
        (void)stop_workflows(d, &e); /* it always returns 0 */
    if (d->server &&
        http_server_shutdown(d->server, now_ms() + (uint64_t)d->settings->shutdown_ms, &e) < 0)
        log_warn("requests were cut off", "error", LOG_ERR(&e));
    hub_ports_stop(&d->hub_ports, now_ms() + (uint64_t)d->settings->shutdown_ms);
    if (workflows)
        (void)fiber_join(workflows, &e); /* the same */
    await_sockets();
    fiber_group_cancel(d->chores);
    (void)fiber_group_join(d->chores, &e); /* they end by being cancelled */
    if (d->bridge)
        bridge_stop(d->bridge);
    http_server_free(d->server);
    workflows_done(&d->workflows);
    hub_ports_done(&d->hub_ports);
    hub_free(d->hub);
    swarm_free(d->swarm);
    bridge_free(d->bridge);
    keys_free(d->keys);
    http_client_free(d->client);
    tls_context_free(d->tls);
    unlink(d->opt.dir->socket);
    free(d->program);
}

static CO int live(void *arg, struct err *e)
{
    struct daemon *d = arg;
    struct err waited;
    int r;

    r = start(d, e);
    while (r == 0 && !d->stopping)
        if (fiber_park(DEADLINE_NONE, &waited) < 0)
            break;
    if (r == 0)
        log_info("stopping");
    stop(d);
    loop_stop(d->loop);
    return r;
}

static void on_stop(void *arg)
{
    struct daemon *d = arg;

    if (d->stopping)
        log_info("stopping already; SIGKILL ends at once");
    d->stopping = true;
    if (d->flow)
        fiber_wake(d->flow);
}

static void on_reload(void *arg)
{
    struct daemon *d = arg;
    struct err e;

    if (conf_reload(d->opt.conf, d->opt.conf_path, &e) < 0) {
        log_error("settings not reloaded, the old ones stay", "error", LOG_ERR(&e));
        return;
    }
    log_setup(settings_log_level(d->settings), settings_log_format(d->settings));
    log_info("settings reloaded");
}

/* A connection is a descriptor: take as many as we are allowed to. */
static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* the old bound is good enough to go on */
    }
}

struct outcome {
    struct daemon *d;
    int r;
    struct err e;
};

/* The outermost fiber: keeps the outcome for main(), which is no fiber. */
static CO int run_flow(void *arg, struct err *e)
{
    struct outcome *out = arg;

    out->d->flow = fiber_self();
    out->r = live(out->d, &out->e);
    return 0;
}

static void register_metrics(void)
{
    metric_register(http_metrics, http_metrics_len);
    metric_register(store_metrics, store_metrics_len);
    metric_register(bridge_metrics, bridge_metrics_len);
    metric_register(durable_metrics, durable_metrics_len);
    metric_register(swarm_metrics, swarm_metrics_len);
    metric_register(oc_metrics, oc_metrics_len);
    metric_register(hub_metrics, hub_metrics_len);
}

int daemon_run(const struct daemon_options *opt, struct err *e)
{
    static const int stop_signals[] = { SIGTERM, SIGINT };
    struct daemon d = { .opt = *opt, .settings = opt->settings, .started_ms = now_ms() };
    struct outcome out = { .d = &d };
    struct loop_signal *signals[3];
    int r;

    signal(SIGPIPE, SIG_IGN);
    raise_descriptors();
    register_metrics();
    r = loop_new(&d.loop, e);
    if (r < 0)
        return r;
    d.chores = fiber_group_new(d.loop);
    d.store_up = true;
    r = fiber_spawn(d.loop, "daemon", run_flow, &out, NULL, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < LEN(stop_signals); i++)
        signals[i] = loop_signal_new(d.loop, stop_signals[i], on_stop, &d);
    signals[2] = loop_signal_new(d.loop, SIGHUP, on_reload, &d);
    loop_run(d.loop);
    for (size_t i = 0; i < LEN(signals); i++)
        loop_signal_free(signals[i]);
    store_close(d.store);
    fiber_group_free(d.chores);
    offload_shutdown();
    loop_free(d.loop);
    secret_wipe(d.master_key, sizeof(d.master_key));
    if (out.r < 0)
        *e = out.e;
    return out.r;
}
