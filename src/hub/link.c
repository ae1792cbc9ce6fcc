/* SPDX-License-Identifier: MIT */
/* hub/link.c — the sockets: their list, their ends, sending, silence; see link.h. */
#include "hub/link.h"

#include <string.h>

#include "base/id.h"
#include "base/log.h"
#include "hub/audit.h"
#include "hub/event.h"
#include "hub/fleet.h"
#include "hub/link_int.h"
#include "hub/task.h"

enum { TICK_MS = 1000, STOP_MS = 3000 };

int links_new(struct hub *h, struct links **ret, struct err *e)
{
    struct links *l = xcalloc(1, sizeof(*l));

    l->h = h;
    l->end = &l->first;
    l->throttle = loop_timer_new(h->conf.loop, link_unthrottle, l);
    *ret = l;
    return 0;
}

void links_free(struct links *l)
{
    if (!l)
        return;
    loop_timer_free(l->throttle);
    link_store_free(l);
    free(l);
}

/* --- the list --- */

struct link *link_new(struct links *l)
{
    struct link *link = xcalloc(1, sizeof(*link));

    link->l = l;
    link->serial = ++l->serial;
    link->health_ms = link->tokens_ms = now_ms();
    link->tokens = l->h->settings->rate * 10 * 1000;
    return link;
}

void link_add(struct link *link)
{
    struct links *l = link->l;

    link->next = l->all;
    link->at = &l->all;
    if (link->next)
        link->next->at = &link->next;
    l->all = link;
    l->n++;
    l->n_observers += link->observer;
    metric_set(&hub_m_sockets, 0, l->n);
}

void link_free(struct link *link)
{
    free(link);
}

struct link *link_of(struct links *l, struct str agent)
{
    struct hub_agent *found = hub_agents_find(l->h->agents, agent);

    return found ? found->link : NULL;
}

unsigned links_count(const struct links *l)
{
    return l->n;
}

size_t link_history(const struct links *l)
{
    return l->history;
}

void link_remember(struct links *l)
{
    if (l->history < LINK_HISTORY)
        l->history++;
}

void link_count(enum frame_type type, enum link_outcome outcome)
{
    metric_add2(&hub_m_messages, type < FRAME_OTHER ? type : FRAME_OTHER, outcome, 1);
}

/* --- whose it is --- */

static void tell_state(struct hub *h, const struct hub_agent *agent, const char *peer)
{
    audit(h, &(struct audit_line){
                 .event = agent->online ? "agent.connected" : "agent.disconnected",
                 .agent = str_of(agent->id),
                 .peer = peer,
             });
    if (event_wanted(h))
        event(h, agent->online ? "agent.online" : "agent.offline",
              json_pack("{s:s}", "agentId", agent->id));
}

void link_attach(struct link *link, struct hub_agent *agent)
{
    struct hub *h = link->l->h;

    link->agent = agent;
    agent->link = link;
    hub_agents_online(h->agents, agent, true);
    tell_state(h, agent, ws_peer(link->ws)->text);
}

static void unblock(struct link *link);

void link_detach(struct link *link)
{
    struct hub *h = link->l->h;
    struct hub_agent *agent = TAKE(link->agent);

    unblock(link);
    if (!agent)
        return;
    agent->link = NULL;
    hub_agents_online(h->agents, agent, false);
    tell_state(h, agent, NULL);
    task_gone(h->tasks, agent->node.key);
    fleet_shell_gone(h, agent->node.key);
}

void link_closed(struct ws *ws, unsigned code, struct str reason, void *arg)
{
    struct link *link = arg;
    struct links *l = link->l;

    link->ws = NULL;
    link_detach(link);
    if (link->blocked_by) { /* nobody reads for it any more */
        struct link **at = &link->blocked_by->blocked;

        while (*at != link)
            at = &(*at)->next_blocked;
        *at = link->next_blocked;
    }
    if (link->flusher)
        fiber_wake(link->flusher);
    *link->at = link->next;
    if (link->next)
        link->next->at = link->at;
    l->n--;
    l->n_observers -= link->observer;
    metric_set(&hub_m_sockets, 0, l->n);
    if (l->n == 0 && l->stopper)
        fiber_wake(l->stopper);
    link_free(link);
}

void link_drop(struct links *l, struct str agent, unsigned code, const char *reason)
{
    struct link *link = link_of(l, agent);

    if (!link)
        return;
    link_detach(link);
    ws_close(link->ws, code, reason);
}

/* --- sending --- */

/* Those who waited for room at this one go on. */
static void unblock(struct link *link)
{
    struct link *sender;

    link->full_ms = 0;
    while ((sender = link->blocked)) {
        link->blocked = sender->next_blocked;
        sender->blocked_by = sender->next_blocked = NULL;
        if (sender->ws && !sender->throttled)
            ws_resume_reading(sender->ws);
    }
}

void link_block(struct link *sender, struct link *by)
{
    if (sender->blocked_by || sender == by)
        return;
    if (!by->full_ms) {
        by->full_ms = now_ms();
        by->full_left = ws_queued(by->ws);
    }
    sender->blocked_by = by;
    sender->next_blocked = by->blocked;
    by->blocked = sender;
    ws_pause_reading(sender->ws);
}

void link_drained(struct ws *ws, void *arg)
{
    struct link *link = arg;

    unblock(link);
    if (link->flusher)
        fiber_wake(link->flusher);
    if (link->agent && !link->flushing)
        task_resume(link->l->h->tasks, link->agent->node.key);
}

bool link_write(struct link *link, struct str text)
{
    struct err e;
    int r;

    if (!link->ws)
        return false;
    r = ws_send(link->ws, WS_TEXT, text, &e);
    if (r == 0)
        return true;
    if (r == -ERR_LIMIT) {
        log_warn("an agent does not read what it is sent: its connection is closed", "agent",
                 LOG_STR(link->agent ? link->agent->id : "host"), "error", LOG_ERR(&e));
        ws_close(link->ws, LINK_STALE, "too much is unread");
    }
    link_detach(link);
    return false;
}

bool link_online(struct links *l, struct str agent)
{
    const struct link *link = link_of(l, agent);

    return link && !link->flushing;
}

size_t link_room(struct links *l, struct str agent)
{
    const struct link *link = link_of(l, agent);
    size_t queued = link && link->ws ? ws_queued(link->ws) : LINK_QUEUE;

    return queued < LINK_QUEUE ? LINK_QUEUE - queued : 0;
}

static int send_counted(struct links *l, struct str agent, struct str frame, enum frame_type type,
                        struct err *e)
{
    struct link *link = link_of(l, agent);
    struct hub_agent *to = link ? link->agent : NULL;

    if (!link || !link_write(link, frame))
        return err_set(e, ERR_UNAVAILABLE, "agent '" STR_FMT "' is not connected", STR_ARG(agent));
    if (type < FRAME_OTHER) {
        to->stats.messages_received++;
        to->dirty = true;
        link_count(type, LINK_DELIVERED);
        link_remember(l);
    }
    return 0;
}

int link_send(struct links *l, struct str agent, struct str frame, struct err *e)
{
    return send_counted(l, agent, frame, FRAME_TASK, e);
}

static int write_envelope(struct buf *b, struct str to, const char *type, const json_t *payload,
                          struct err *e)
{
    char id[UUID_TEXT];
    int r;

    uuid_v4(id);
    r = buf_printf(b, e,
                   "{\"id\":\"%s\",\"from\":\"host\",\"to\":\"" STR_FMT "\",\"type\":\"%s\","
                   "\"timestamp\":%lld,\"payload\":",
                   id, STR_ARG(to), type, (long long)hub_now());
    if (r == 0)
        r = json_write(payload, b, e);
    return r < 0 ? r : buf_add(b, "}", 1, e);
}

int link_say(struct links *l, struct str agent, const char *type, json_t *payload, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    int r;

    buf_init(&b, LINK_QUEUE);
    r = write_envelope(&b, agent, type, payload, e);
    json_decref(payload);
    if (r < 0)
        return r;
    return send_counted(l, agent, buf_str(&b), frame_type_of(str_of(type)), e);
}

void link_observe(struct links *l, struct str frame)
{
    struct err e;

    if (!l->n_observers)
        return;
    for (struct link *link = l->all; link; link = link->next)
        if (link->observer && ws_queued(link->ws) < LINK_FULL &&
            ws_send(link->ws, WS_TEXT, frame, &e) < 0)
            log_debug("an observer misses a copy", "error", LOG_ERR(&e));
}

/* --- time --- */

static void close_over(struct link *link, unsigned code, const char *reason)
{
    log_info("an agent's connection is closed", "agent",
             LOG_STR(link->agent ? link->agent->id : "host"), "reason", LOG_STR(reason));
    ws_close(link->ws, code, reason);
    link_detach(link);
}

/* Has a full socket taken next to nothing for so long? Asked at every tick. */
static bool is_stuck(struct link *link, uint64_t slow_ms)
{
    size_t left = ws_queued(link->ws);

    if (left + LINK_PROGRESS <= link->full_left)
        link->full_ms = now_ms();
    link->full_left = left;
    return now_ms() - link->full_ms > slow_ms;
}

/* Closing frees nobody before the loop turns. */
static void look_at_all(struct links *l, bool health)
{
    uint64_t stale_ms = (uint64_t)l->h->settings->stale_ms;
    uint64_t slow_ms = (uint64_t)l->h->settings->slow_ms;
    int64_t now = hub_now();

    for (struct link *link = l->all; link; link = link->next) {
        if (link->full_ms && is_stuck(link, slow_ms))
            close_over(link, LINK_STALE, "does not read what it is sent");
        else if (link->agent && !hub_agent_token_lives(link->agent, now))
            close_over(link, LINK_REVOKED, "its token has expired");
        else if (health && link->agent && now_ms() - link->health_ms > stale_ms)
            close_over(link, LINK_STALE, "no health report");
    }
}

static CO int tick(void *arg, struct err *e)
{
    struct links *l = arg;
    uint64_t due_ms = 0;
    int r;

    while ((r = fiber_sleep(TICK_MS, e)) == 0) {
        bool due = now_ms() >= due_ms;

        look_at_all(l, due);
        if (!due)
            continue;
        due_ms = now_ms() + (uint64_t)l->h->settings->tick_ms;
        if (link_expire(l, e) < 0)
            log_warn("waiting messages could not be looked through", "error", LOG_ERR(e));
    }
    return r;
}

CO int links_start(struct links *l, struct err *e)
{
    int r = link_store_start(l, e);

    return r < 0 ? r : fiber_group_spawn(l->h->chores, "hub tick", tick, l, e);
}

CO void links_stop(struct links *l)
{
    uint64_t deadline_ms = now_ms() + STOP_MS;
    struct err e;

    for (struct link *link = l->all; link; link = link->next)
        ws_close(link->ws, 1000, "Server shutting down");
    l->stopper = fiber_self();
    while (l->n && now_ms() < deadline_ms && fiber_park(deadline_ms, &e) == 0)
        ;
    for (struct link *link = l->all; link; link = link->next)
        ws_abort(link->ws);
    while (l->n && fiber_park(now_ms() + STOP_MS, &e) == 0)
        ;
    l->stopper = NULL;
    link_store_stop(l);
}
