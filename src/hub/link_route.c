/* SPDX-License-Identifier: MIT */
/*
 * hub/link_route.c — what comes from an agent, and where it goes. No message costs a fiber, but a
 * task that one agent gives another where that is allowed.
 */
#include <string.h>

#include "base/log.h"
#include "hub/event.h"
#include "hub/fleet.h"
#include "hub/link_int.h"
#include "hub/task.h"

enum { THROTTLE_MS = 50, BURST_S = 10 };

struct incoming {
    struct link *link;
    struct hub *h;
    struct frame f;
    struct arena arena;
    struct buf out;  /* holds `text` where it had to be changed */
    struct str text; /* what goes on: `from` is the sender's, id and timestamp are there */
};

/* {"error": why, "messageId": …, "to": …} */
static json_t *complaint(const struct incoming *in, const char *why)
{
    struct str id = frame_inside(in->f.id), to = frame_inside(in->f.to);
    json_t *payload = json_pack("{s:s}", "error", why);

    if (id.n)
        json_object_set_new(payload, "messageId", json_stringn(id.p, id.n));
    if (to.n)
        json_object_set_new(payload, "to", json_stringn(to.p, to.n));
    return payload;
}

static void drop(struct incoming *in, enum link_outcome outcome, const char *why)
{
    struct link *link = in->link;
    struct err e;

    link_count(in->f.type, outcome);
    dead_later(in->h, in->text.p ? in->text : in->f.text, why); /* its `from` is true, if it can */
    if (event_wanted(in->h))
        event(in->h, "message.dead",
              json_pack("{s:s, s:s}", "agentId", link->agent->id, "error", why));
    if (link_say(link->l, link->agent->node.key, "error", complaint(in, why), &e) < 0)
        log_debug("a sender was not told of its error", "error", LOG_ERR(&e));
}

/* The payload as a document of the message's arena; NULL: none, or no object. */
static json_t *payload_of(struct incoming *in)
{
    json_t *doc;
    struct err e;

    if (in->f.payload.n < 2 || in->f.payload.p[0] != '{' ||
        json_parse(in->f.payload, FRAME_DEPTH, &in->arena, &doc, NULL, &e) < 0)
        return NULL;
    return doc;
}

/* --- to agents --- */

static bool send_to(struct incoming *in, struct hub_agent *to)
{
    struct link *link = to->link;

    if (!link_write(link, in->text))
        return false;
    to->stats.messages_received++;
    to->dirty = true;
    if (ws_queued(link->ws) > LINK_FULL)
        link_block(in->link, link);
    return true;
}

static void route_to(struct incoming *in, struct hub_agent *to)
{
    if (to->link && !to->link->flushing && send_to(in, to))
        link_count(in->f.type, LINK_DELIVERED);
    else if (link_hold(in->h->links, to, in->text))
        link_count(in->f.type, LINK_QUEUED);
    else
        link_count(in->f.type, LINK_DROPPED);
}

static void broadcast(struct incoming *in)
{
    const struct hub_agent *from = in->link->agent;
    struct hub_agent *to;

    for (size_t i = 0; (to = hub_agents_at(in->h->agents, i)); i++)
        if (to != from && to->link && send_to(in, to))
            link_count(in->f.type, LINK_DELIVERED);
}

/* --- tasks of agents --- */

struct agent_task {
    struct hub *h;
    char from[HUB_ID_MAX + 1], to[HUB_ID_MAX + 1];
    char *frame, *peer;
    json_t *body;
};

static CO int submit(void *arg, struct err *e)
{
    struct agent_task *t = arg;
    char id[TASK_ID_MAX + 1];
    int r;

    r = task_submit(t->h->tasks, str_of(t->to), t->body, str_of(t->from), t->peer, id, e);
    if (r < 0 && r != -ERR_CANCELED)
        dead_later(t->h, str_of(t->frame), e->msg);
    json_decref(t->body);
    free(t->frame);
    free(t->peer);
    free(t);
    return 0;
}

/* One task, kept and watched as those of operators are; its result goes back to the sender. */
static void give_task(struct incoming *in, struct hub_agent *to)
{
    json_t *body = payload_of(in);
    struct agent_task *t;
    struct err e;

    if (!body) {
        drop(in, LINK_ERROR, "invalid message: a task needs an object as its payload");
        return;
    }
    t = xcalloc(1, sizeof(*t));
    t->h = in->h;
    memcpy(t->from, in->link->agent->id, sizeof(t->from));
    memcpy(t->to, to->id, sizeof(t->to));
    t->frame = str_dup(in->text);
    t->peer = xstrdup(ws_peer(in->link->ws)->text);
    t->body = json_incref(body);
    if (fiber_group_spawn(in->h->chores, "hub agent task", submit, t, &e) == 0)
        return;
    json_decref(t->body);
    free(t->frame);
    free(t->peer);
    free(t);
    drop(in, LINK_DROPPED, e.msg);
}

/* --- to the hub itself --- */

static void tell_log(struct incoming *in, json_t *payload)
{
    if (event_wanted(in->h))
        event(in->h, "log",
              json_pack("{s:s, s:s%, s:O?}", "agentId", in->link->agent->id, "type",
                        frame_inside(in->f.kind).p, frame_inside(in->f.kind).n, "payload",
                        payload));
}

static void to_host(struct incoming *in)
{
    struct str agent = in->link->agent->node.key;
    json_t *payload;

    link_observe(in->h->links, in->text);
    if (in->f.type == FRAME_RESPONSE || in->f.type == FRAME_TASK)
        return; /* the first was taken already, the second is refused before */
    payload = payload_of(in);
    if (in->f.type == FRAME_STATUS && payload && task_status(in->h->tasks, agent, payload))
        return;
    if (in->f.type == FRAME_LOG && payload && task_output(in->h->tasks, agent, payload))
        return;
    tell_log(in, payload);
}

/* --- one message --- */

static void route(struct incoming *in)
{
    struct str to = frame_inside(in->f.to);
    bool all = str_eq(to, STR("broadcast")) || str_eq(to, STR("*"));
    bool task = in->f.type == FRAME_TASK;
    struct hub_agent *agent;

    link_remember(in->h->links);
    if (task && !in->h->settings->agent_tasks) {
        drop(in, LINK_DROPPED, "agents may not send tasks (hub.agent_tasks)");
    } else if (str_eq(to, STR("host"))) {
        if (task)
            drop(in, LINK_DROPPED, "the hub takes no tasks");
        else
            to_host(in);
    } else if (all) {
        broadcast(in);
    } else if (!(agent = hub_agents_find(in->h->agents, to))) {
        drop(in, LINK_DROPPED, "unknown recipient");
    } else if (task) {
        give_task(in, agent);
    } else {
        route_to(in, agent);
    }
}

/* Whatever it is addressed to, a result is the hub's first. False: it cannot be one. */
static bool take_response(struct incoming *in)
{
    json_t *payload = payload_of(in);

    if (!payload) {
        drop(in, LINK_ERROR, "invalid message: a response needs an object as its payload");
        return false;
    }
    task_response(in->h->tasks, in->link->agent->node.key, payload);
    return in->link->agent;
}

static void take_health(struct incoming *in)
{
    json_t *payload = payload_of(in);

    in->link->health_ms = now_ms();
    if (payload)
        hub_agent_health(in->h, in->link->agent, payload);
    else
        in->link->agent->last_seen = hub_now();
}

/* Types beside the six: the Docker agents', and ours. */
static void take_other(struct incoming *in)
{
    json_t *payload = in->f.type == FRAME_OTHER || in->f.type == FRAME_PONG ? NULL : payload_of(in);

    if (in->f.type == FRAME_METADATA && payload)
        hub_agent_merge_metadata(in->h, in->link->agent, payload);
    else if (in->f.type == FRAME_SHELL && payload)
        fleet_shell_message(in->h, in->link->agent->node.key, payload);
    else if (in->f.type != FRAME_PONG)
        drop(in, LINK_DROPPED, "invalid message: unknown type");
}

static void take(struct incoming *in)
{
    struct link *link = in->link;
    struct err e;

    link_count(in->f.type, LINK_RECEIVED);
    link->agent->stats.messages_sent++;
    link->agent->dirty = true;
    if (in->f.type == FRAME_HEALTH) {
        take_health(in);
        return;
    }
    if (in->f.type >= FRAME_OTHER) {
        take_other(in);
        return;
    }
    if (in->f.type == FRAME_RESPONSE && !take_response(in))
        return;
    if (!frame_addressed(&in->f)) {
        drop(in, LINK_DROPPED, "invalid message: from, to and type are needed");
    } else if (frame_forward(&in->f, link->agent->node.key, hub_now(), &in->out, &in->text, &e) <
               0) {
        drop(in, LINK_ERROR, e.msg);
    } else {
        route(in);
    }
}

/* --- how fast --- */

static void refill(struct link *link, int64_t rate)
{
    uint64_t now = now_ms();
    int64_t most = rate * BURST_S * 1000;

    if (now == link->tokens_ms)
        return;
    link->tokens += (int64_t)(now - link->tokens_ms) * rate;
    if (link->tokens > most)
        link->tokens = most;
    link->tokens_ms = now;
}

static void charge(struct link *link)
{
    struct links *l = link->l;
    int64_t rate = l->h->settings->rate;

    if (!rate)
        return;
    refill(link, rate);
    link->tokens -= 1000;
    if (link->tokens >= 0 || link->throttled)
        return;
    link->throttled = true;
    ws_pause_reading(link->ws);
    loop_timer_set(l->throttle, now_ms() + THROTTLE_MS);
}

void link_unthrottle(void *arg)
{
    struct links *l = arg;
    int64_t rate = l->h->settings->rate;
    bool more = false;

    for (struct link *link = l->all; link; link = link->next) {
        if (!link->throttled)
            continue;
        refill(link, rate);
        if (rate && link->tokens < rate * THROTTLE_MS) {
            more = true;
            continue;
        }
        link->throttled = false;
        if (!link->blocked_by)
            ws_resume_reading(link->ws);
    }
    if (more)
        loop_timer_set(l->throttle, now_ms() + THROTTLE_MS);
}

void link_message(struct ws *ws, enum ws_kind kind, struct str data, void *arg)
{
    struct link *link = arg;
    struct incoming in = { .link = link, .h = link->l->h };
    struct err e;

    if (!link->agent)
        return; /* an observer only looks on; or it is being closed */
    charge(link);
    buf_init(&in.out, data.n + 1024);
    if (frame_parse(data, &in.arena, &in.f, &e) < 0) {
        in.f = (struct frame){ .text = data, .type = FRAME_OTHER };
        drop(&in, LINK_ERROR, "not a JSON object");
    } else {
        take(&in);
    }
    buf_done(&in.out);
    arena_done(&in.arena);
}
