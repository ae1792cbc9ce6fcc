/* SPDX-License-Identifier: MIT */
/* daemon/workflows.c — see workflows.h. */
#include "daemon/workflows.h"

#include <string.h>

#include "base/log.h"
#include "daemon/wf_call.h"

#define LISTEN_QUEUE 128

static int offer(struct workflows *w, struct bridge *bridge, struct err *e)
{
    int r;

    wf_call_type(bridge, &w->types[0]);
    w->queues[0] = (struct durable_queue){
        .name = "chela",
        .doc = "chelad's own workflows, without limits.",
    };
    r = durable_register(w->engine, w->types, LEN(w->types), e);
    if (r == 0)
        r = durable_register_queues(w->engine, w->queues, LEN(w->queues), e);
    return r;
}

int workflows_new(struct workflows *w, struct loop *loop, struct store *store,
                  struct bridge *bridge, const struct durable_settings *settings,
                  const char *instance, struct err *e)
{
    const struct durable_conf conf = durable_conf_of(settings, instance);
    int r;

    w->engine = durable_new(loop, store, &conf);
    r = offer(w, bridge, e);
    return r < 0 ? err_wrap(e, "workflows") : 0;
}

CO int workflows_run(struct workflows *w, struct err *e)
{
    return durable_run(w->engine, e) < 0 ? err_wrap(e, "workflows") : 0;
}

int workflows_serve(struct workflows *w, struct loop *loop, const struct auth *auth,
                    const struct durable_settings *settings, const struct http_limits *limits,
                    struct err *e)
{
    const struct http_table *const tables[] = { &w->table };
    struct http_server_ops ops;
    unsigned short port;
    int fd, r;

    if (settings->admin_port < 0)
        return 0;
    w->auth = *auth;
    w->auth.always = true;
    ops = auth_ops(&w->auth);
    durable_admin_table(w->engine, &w->table);
    r = http_server_new(loop, limits, &ops, tables, LEN(tables), &w->server, e);
    if (r == 0)
        r = listen_tcp("127.0.0.1", (unsigned short)settings->admin_port, LISTEN_QUEUE, &fd, &port,
                       e);
    if (r == 0)
        r = http_server_listen(w->server, fd, NULL, e);
    if (r < 0)
        return err_wrap(e, "admin routes");
    fmt_z(w->address, sizeof(w->address), "127.0.0.1:%u", port);
    log_info("serving the admin routes of DBOS", "address", LOG_STR(w->address));
    return 0;
}

CO void workflows_stop(struct workflows *w, uint64_t grace_ms)
{
    struct err e;

    if (w->server && http_server_shutdown(w->server, now_ms() + grace_ms, &e) < 0)
        log_warn("admin requests were cut off", "error", LOG_ERR(&e));
    if (w->engine)
        durable_stop(w->engine, grace_ms);
}

void workflows_done(struct workflows *w)
{
    http_server_free(w->server);
    durable_free(w->engine);
    *w = (struct workflows){ 0 };
}
