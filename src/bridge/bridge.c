/* SPDX-License-Identifier: MIT */
/* bridge/bridge.c — the life of a bridge. */
#include <string.h>

#include "base/log.h"
#include "base/rand.h"
#include "base/secret.h"
#include "bridge/bridge_int.h"
#include "bridge/export.h"
#include "bridge/metrics.h"

int bridge_new(struct loop *loop, struct store *store, struct http_client *client,
               const struct bridge_conf *conf, const unsigned char key[32], struct bridge **ret,
               struct err *e)
{
    struct bridge *b = xcalloc(1, sizeof(*b));

    b->loop = loop;
    b->store = store;
    b->client = client;
    b->conf = conf;
    memcpy(b->key, key, sizeof(b->key));
    b->flush_due_ms = DEADLINE_NONE;
    b->sid_salt = (unsigned)(rand_u64() & 0xfff);
    (void)e; /* nothing here can fail yet */
    *ret = b;
    return 0;
}

void bridge_free(struct bridge *b)
{
    if (!b)
        return;
    agents_done(&b->agents);
    tracker_done(&b->tracker);
    lanes_done(&b->sessions);
    lanes_done(&b->keys);
    secret_wipe(b->key, sizeof(b->key));
    free(b);
}

CO int bridge_start(struct bridge *b, struct err *e)
{
    int r;

    r = agents_load(b, e);
    if (r < 0)
        return err_wrap(e, "load agents");
    r = health_load(b, e);
    if (r < 0)
        return err_wrap(e, "load health");
    r = sessions_recount(b, e);
    if (r < 0)
        return err_wrap(e, "count sessions");
    r = bridge_register_declared(b, e);
    if (r < 0)
        return r;
    r = fiber_spawn(b->loop, "bridge sweeper", bridge_sweeper, b, &b->sweeper, e);
    if (r < 0)
        return r;
    return fiber_spawn(b->loop, "bridge health", health_flusher, b, &b->flusher, e);
}

CO static void end_fiber(struct fiber **f)
{
    struct err e;

    if (!*f)
        return;
    fiber_cancel(*f);
    (void)fiber_join(*f, &e); /* they end with 0 when cancelled */
    *f = NULL;
}

CO void bridge_stop(struct bridge *b)
{
    long long n;
    struct err e;

    b->stopping = true;
    end_fiber(&b->sweeper);
    end_fiber(&b->flusher);
    if (health_flush(b, &e) < 0)
        log_warn("the last health counters are not stored", "error", LOG_ERR(&e));
    if (b->conf->export_path && *b->conf->export_path &&
        export_to_file(b, b->conf->export_path, &n, &e) < 0)
        log_error("sessions are not exported", "file", LOG_STR(b->conf->export_path), "error",
                  LOG_ERR(&e));
}

size_t bridge_agent_count(const struct bridge *b)
{
    return b->agents.map.n;
}

long long bridge_session_count(const struct bridge *b)
{
    return b->n_sessions;
}

void bridge_gauges(const struct bridge *b)
{
    struct tracker_summary s;

    tracker_sum(&b->tracker, &s);
    for (unsigned i = 0; i < HEALTH_STATUSES; i++)
        metric_set(&bridge_m_agents, i, s.status[i]);
    metric_set(&bridge_m_sessions, 0, b->n_sessions);
    metric_set(&bridge_m_running, 0, b->n_calls);
}
