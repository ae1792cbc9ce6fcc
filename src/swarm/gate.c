/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate.c — the gateway's life: who has been silent for too long, who has not said who it is,
 * and an end that lets what is under way be written and answered.
 */
#include "swarm/gate.h"

#include <stdlib.h>

#include "base/log.h"
#include "swarm/gate_int.h"
#include "swarm/life.h"

#define TICK_MS    1000
#define FINISH_MS  2000 /* for requests under way, when we stop */
#define CLOSING_MS 3000 /* for peers to answer our close */

#define CODE_GOING_AWAY 1001
#define CODE_POLICY     1008

static void push_event(struct swarm *s, struct str session, const char *event,
                       const json_t *payload)
{
    struct strmap_node *node = s->gate ? strmap_find(&s->gate->sessions, session) : NULL;

    if (!node)
        return;
    for (struct gate_sub *sub = container_of(node, struct gate_session, node)->subs; sub;
         sub = sub->next_here)
        gate_push_event(sub->sock, event, payload);
}

static uint64_t tick_ms(const struct gate *g)
{
    uint64_t ms = (uint64_t)g->s->settings->session_timeout_ms / 4;

    return ms < TICK_MS ? ms : TICK_MS;
}

static void look_at(struct gate_sock *sock, uint64_t now)
{
    const struct swarm_settings *s = sock->gate->s->settings;

    if (!sock->known && now - sock->opened_ms >= (uint64_t)s->connect_timeout_ms)
        ws_close(sock->ws, CODE_POLICY, "no connect in time");
    else if (!sock->paused && sock->n_jobs == 0 &&
             now - ws_heard_ms(sock->ws) >= (uint64_t)s->session_timeout_ms)
        ws_close(sock->ws, CODE_GOING_AWAY, "session timeout");
}

static void on_tick(void *arg)
{
    struct gate *g = arg;
    uint64_t now = now_ms();

    g->ticking = false;
    for (struct gate_sock *sock = g->socks; sock; sock = sock->next)
        look_at(sock, now); /* closed() comes later, from the loop */
    gate_jobs_go(g);
    if (g->n_socks > 0)
        gate_tick_soon(g);
}

void gate_tick_soon(struct gate *g)
{
    if (g->ticking)
        return;
    g->ticking = true;
    loop_timer_set(g->timer, now_ms() + tick_ms(g));
}

/* Without auth_required the gateway's own routes are everybody's; see swarm.h for who is let near.
 */
static struct http_route *copy_routes(const struct gate *g, const struct http_route *routes,
                                      size_t n)
{
    struct http_route *copy = xcalloc(n, sizeof(*copy));

    for (size_t i = 0; i < n; i++) {
        copy[i] = routes[i];
        if (!g->s->settings->auth_required)
            copy[i].need |= NEED_NONE;
        if (copy[i].in)
            copy[i].max_body = (size_t)g->s->settings->max_message;
    }
    return copy;
}

static const struct {
    const char *prefix;
    const struct http_route *routes;
    const size_t *n;
} tables[GATE_TABLES] = {
    { "/messages", gate_message_routes, &gate_message_routes_len },
    { "/workflows", gate_flow_routes, &gate_flow_routes_len },
    { "/chat", gate_chat_routes, &gate_chat_routes_len },
};

int gate_new(struct swarm *s, struct gate **ret, struct err *e)
{
    struct gate *g = xcalloc(1, sizeof(*g));

    (void)e;
    g->s = s;
    g->queue_end = &g->queue;
    g->fibers = fiber_group_new(s->conf.loop);
    g->timer = loop_timer_new(s->conf.loop, on_tick, g);
    buf_init(&g->out, SIZE_MAX / 2);
    for (size_t i = 0; i < GATE_TABLES; i++)
        g->routes[i] = copy_routes(g, tables[i].routes, *tables[i].n);
    life_push = push_event;
    *ret = g;
    return 0;
}

CO int gate_start(struct gate *g, struct err *e)
{
    (void)e;
    if (!g->s->settings->auth_required)
        log_warn("gateway.auth_required is off: whoever reaches this machine's loopback may use "
                 "the gateway's own routes and its WebSocket");
    return 0;
}

/* Wait until *n is 0. */
static CO void wait_for_none(struct gate *g, const unsigned *n, uint64_t ms)
{
    uint64_t deadline_ms = now_ms() + ms;
    struct err e;

    g->stopper = fiber_self();
    while (*n > 0 && now_ms() < deadline_ms && !fiber_canceled())
        if (fiber_park(deadline_ms, &e) < 0)
            break;
    g->stopper = NULL;
}

/* Those that wait for an agent's reply are not waited for. */
static CO void finish_work(struct gate *g)
{
    uint64_t deadline_ms = now_ms() + FINISH_MS;
    struct err e;

    while ((g->n_at_work > 0 || g->queue) && now_ms() < deadline_ms)
        if (fiber_sleep(5, &e) < 0)
            break;
}

CO void gate_stop(struct gate *g)
{
    struct err e;

    g->stopping = true;
    finish_work(g);
    for (struct gate_sock *sock = g->socks; sock; sock = sock->next)
        ws_close(sock->ws, CODE_GOING_AWAY, "shutting down");
    wait_for_none(g, &g->n_socks, CLOSING_MS);
    for (struct gate_sock *sock = g->socks; sock; sock = sock->next)
        ws_abort(sock->ws);
    wait_for_none(g, &g->n_socks, CLOSING_MS);
    gate_jobs_drop(g);
    fiber_group_cancel(g->fibers);
    (void)fiber_group_join(g->fibers, &e); /* they end by being cancelled */
    g->stopper = fiber_self();
    while (g->n_at_work > 0)
        fiber_park_hard(); /* the store ends it */
    g->stopper = NULL;
}

void gate_free(struct gate *g)
{
    if (!g)
        return;
    assert(!g->socks && !g->queue);
    while (g->pool) {
        struct gate_job *job = g->pool;

        g->pool = job->next;
        arena_done(&job->arena);
        free(job);
    }
    for (size_t i = 0; i < GATE_TABLES; i++)
        free(g->routes[i]);
    strmap_done(&g->sessions);
    buf_done(&g->out);
    loop_timer_free(g->timer);
    fiber_group_free(g->fibers);
    free(g);
}

void gate_tables(struct gate *g, struct http_table out[GATE_TABLES])
{
    for (size_t i = 0; i < GATE_TABLES; i++)
        out[i] = (struct http_table){ .prefix = tables[i].prefix,
                                      .dialect = &dialect_express,
                                      .routes = g->routes[i],
                                      .n = *tables[i].n,
                                      .room = g };
}

unsigned gate_sockets(const struct gate *g)
{
    return g->n_socks;
}

const struct http_route swarm_upgrade_route = {
    .method = HTTP_M_GET,
    .path = "/",
    .run = gate_upgrade,
    .need = NEED_NONE,
    .flags = ROUTE_WS | ROUTE_ASKS | ROUTE_HIDDEN,
    .doc = "The gateway's WebSocket, on any path.",
};
