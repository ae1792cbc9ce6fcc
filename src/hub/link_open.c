/* SPDX-License-Identifier: MIT */
/*
 * hub/link_open.c — a WebSocket is asked for: who is it, may they; and what an agent is sent first:
 * what waited for it, in order, then the welcome.
 *
 * Most agents come back to nothing waiting: that costs no fiber. For others one reads the store
 * bit by bit; until it is done the agent counts as away for everything new, which so stays behind.
 */
#include <string.h>

#include "base/log.h"
#include "hub/api.h"
#include "hub/audit.h"
#include "hub/fleet.h"
#include "hub/link_int.h"
#include "hub/task.h"

enum { SEGMENTS = 4, WRITTEN_MS = 60000, CLOSE_MS = 2000 };

static const struct ws_ops ops = {
    .message = link_message,
    .closed = link_closed,
    .drained = link_drained,
};

/* --- what waited --- */

struct flush {
    struct links *l;
    char agent[HUB_ID_MAX + 1];
    uint64_t serial;
};

/* NULL: the socket is gone, or no longer the agent's. */
static struct link *still(const struct flush *f)
{
    struct link *link = link_of(f->l, str_of(f->agent));

    return link && link->serial == f->serial && link->ws ? link : NULL;
}

static void welcome(struct link *link)
{
    char text[512];
    struct str id = str_of(link->agent->id);

    fmt_z(text, sizeof(text),
          "{\"type\":\"status\",\"from\":\"host\",\"to\":\"" STR_FMT "\",\"timestamp\":%lld,"
          "\"payload\":{\"status\":\"connected\",\"message\":\"Welcome to VM Hub\","
          "\"protocol\":1,\"version\":\"%s\"}}",
          STR_ARG(id), (long long)hub_now(), CHELA_VERSION);
    (void)link_write(link, str_of(text)); /* if it went meanwhile, closed() says so */
}

/* Nothing waits any more. */
static void ready(struct link *link)
{
    struct hub *h = link->l->h;
    struct str id = link->agent->node.key;

    link->flushing = false;
    task_flush(h->tasks, id, INT64_MAX);
    if (!link->agent || link->welcomed)
        return; /* it was closed over that; or there was only more for it */
    link->welcomed = true;
    welcome(link);
    if (link->agent)
        fleet_agent_online(h, id);
}

/* Wait until the socket has taken all. 0, or 1: it is gone. */
static CO int wait_written(const struct flush *f, struct err *e)
{
    uint64_t deadline_ms = now_ms() + WRITTEN_MS;
    struct link *link;
    int r = 0;

    while (r == 0 && (link = still(f)) && ws_queued(link->ws)) {
        link->flusher = fiber_self();
        r = fiber_park(deadline_ms, e);
        link = still(f);
        if (link)
            link->flusher = NULL;
    }
    return r < 0 ? r : still(f) ? 0 : 1;
}

/* Returns 1 when the socket is gone. */
static CO int send_kept(const struct flush *f, const struct kept *kept, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        struct link *link = still(f);
        int r;

        if (!link)
            return 1;
        task_flush(f->l->h->tasks, str_of(f->agent), kept[i].position);
        link = still(f);
        if (!link || !link_write(link, kept[i].text))
            return 1;
        link->agent->stats.messages_received++;
        link->agent->dirty = true;
        link_count(FRAME_OTHER, LINK_DELIVERED);
        if (ws_queued(link->ws) < LINK_FULL)
            continue;
        r = wait_written(f, e);
        if (r != 0)
            return r;
    }
    return wait_written(f, e);
}

static CO int send_batch(const struct flush *f, int64_t *after, struct err *e)
{
    struct arena arena = { 0 };
    struct kept *kept;
    size_t n = 0;
    int r = link_load(f->l, str_of(f->agent), *after, &arena, &kept, &n, e);

    if (r == 0 && n) {
        *after = kept[n - 1].position;
        r = send_kept(f, kept, n, e);
        if (r == 0)
            r = link_forget(f->l, str_of(f->agent), *after, e);
    } else if (r == 0 && still(f)) {
        link_unkept(still(f)->agent, UINT32_MAX, 0); /* so much for what was counted */
    }
    arena_done(&arena);
    return r;
}

static CO int flush(void *arg, struct err *e)
{
    struct flush *f = arg;
    int64_t after = 0;
    struct link *link;
    int r = 0;

    while (r == 0 && (link = still(f)) && (link->agent->waiting || link->agent->going)) {
        if (link->agent->waiting)
            r = send_batch(f, &after, e);
        else
            r = fiber_sleep(2, e); /* they are being written just now */
    }
    link = still(f);
    if (link && r == 0)
        ready(link);
    else if (link)
        ws_close(link->ws, LINK_STALE, "what waited could not be sent");
    if (r < 0 && r != -ERR_CANCELED)
        log_warn("what waited for an agent could not be sent", "agent", LOG_STR(f->agent), "error",
                 LOG_ERR(e));
    free(f);
    return 0;
}

static void spawn_flush(struct link *link, const struct flush *key)
{
    struct flush *f = xmalloc(sizeof(*f));
    struct err e;

    *f = *key;
    if (fiber_group_spawn(link->l->h->chores, "hub flush", flush, f, &e) == 0)
        return;
    log_warn("an agent is turned away", "error", LOG_ERR(&e));
    free(f);
    ws_close(link->ws, 1013, "try again later");
}

void link_more(struct links *l, struct str id)
{
    struct hub_agent *agent = hub_agents_find(l->h->agents, id);
    struct flush key = { .l = l };

    if (!agent)
        return;
    agent->waiting++; /* at least; a flush finds out */
    if (!agent->link || !agent->link->ws || agent->link->flushing)
        return;
    agent->link->flushing = true;
    key.serial = agent->link->serial;
    memcpy(key.agent, agent->id, sizeof(key.agent));
    spawn_flush(agent->link, &key);
}

static CO void begin(struct links *l, struct flush key)
{
    struct link *link;
    struct err e;

    if (task_prepare(l->h->tasks, str_of(key.agent), &e) < 0)
        log_warn("that tasks are sent could not be noted", "agent", LOG_STR(key.agent), "error",
                 LOG_ERR(&e));
    link = still(&key);
    if (!link)
        return;
    if (!link->agent->waiting && !link->agent->going) {
        ready(link);
        return;
    }
    spawn_flush(link, &key);
}

/* --- who is it --- */

static int refuse(struct http_req *req, int status, const char *text)
{
    req->close = true;
    hub_refuse(req, status, text);
    return 0;
}

static bool is_operator(const struct http_req *req)
{
    return req->who.admin || (req->who.scopes & NEED_AGENTS);
}

/* 401, and a line in the audit log. */
static int refuse_stranger(struct http_req *req, struct hub *h, struct str agent)
{
    audit_refused(h, agent.n <= HUB_ID_MAX ? agent : (struct str){ agent.p, HUB_ID_MAX },
                  req->peer);
    return refuse(req, 401, "unauthorized");
}

static struct str bearer(const struct http_req *req)
{
    struct str value = http_header_get(req, "authorization");

    if (value.n <= 7 || !str_eq_nocase((struct str){ value.p, 7 }, STR("Bearer ")))
        return (struct str){ 0 };
    return str_trim((struct str){ value.p + 7, value.n - 7 });
}

/* The handshake as the original judged it, where ws_accept() would answer otherwise. */
static bool handshake_fits(struct http_req *req)
{
    struct str version = http_header_get(req, "Sec-WebSocket-Version");

    if (str_eq(version, STR("13")))
        return true;
    http_reply_header(req, "Sec-WebSocket-Version", "13");
    (void)refuse(req, 400, "Missing or invalid Sec-WebSocket-Version header"); /* always 0 */
    return false;
}

/* 0 and *ret open and in the list; 1: refused, the answer is in req. */
static int accept_link(struct http_req *req, struct hub *h, bool observer, struct link **ret,
                       struct err *e)
{
    const struct hub_settings *s = h->settings;
    const struct ws_limits limits = {
        .message = (size_t)s->message_max,
        .queue = LINK_QUEUE,
        .ping_ms = (uint64_t)s->ping_ms,
        .close_ms = CLOSE_MS,
        .gather = true,
    };
    struct link *link;
    int r;

    if (!handshake_fits(req))
        return 1;
    link = link_new(h->links);
    link->observer = observer;
    r = ws_accept(req, NULL, &limits, &ops, link, &link->ws, e);
    if (r != 0) {
        link_free(link);
        return r;
    }
    link_add(link);
    *ret = link;
    return 0;
}

static CO int open_agent(struct http_req *req, struct hub *h, struct str id, struct str token,
                         struct err *e)
{
    struct hub_agent *agent = hub_agents_find(h->agents, id);
    struct flush key = { .l = h->links };
    struct link *link;
    int r;

    if (!agent || !hub_agent_token_ok(agent, token, hub_now())) {
        hub_agents_ask(h->agents, id); /* it may have registered at another daemon just now */
        agent = hub_agents_find(h->agents, id);
    }
    if (!agent || !hub_agent_token_ok(agent, token, hub_now()))
        return refuse_stranger(req, h, id);
    r = accept_link(req, h, false, &link, e);
    if (r != 0)
        return r < 0 ? r : 0;
    ws_rest_on(link->ws, 0); /* it is here by its own token, whatever else it sent */
    link_drop(h->links, id, LINK_REPLACED, "a newer connection took its place");
    link->flushing = true;
    link_attach(link, agent);
    key.serial = link->serial;
    memcpy(key.agent, agent->id, sizeof(key.agent));
    begin(h->links, key);
    return 0;
}

/* An operator looks on. */
static int open_observer(struct http_req *req, struct hub *h, struct str token, struct err *e)
{
    struct http_identity who = req->who;
    struct link *link;
    int r;

    if (!is_operator(req)) {
        r = token.n ? h->conf.ops.authenticate(token, req->arena, h->conf.ops.arg, &who, e)
                    : -ERR_UNAUTHORIZED;
        if (r < 0 || !(who.admin || (who.scopes & NEED_AGENTS)))
            return refuse_stranger(req, h, STR("host"));
    }
    r = accept_link(req, h, true, &link, e);
    if (r == 0)
        ws_rest_on(link->ws, who.grant);
    return r < 0 ? r : 0;
}

static CO int open_shell(struct http_req *req, struct hub *h, struct str name, struct err *e)
{
    if (!is_operator(req))
        return refuse_stranger(req, h, name);
    return fleet_shell(req, h, name, e);
}

/* "/a/b/c" into "a", "b", "c"; 0: no such path, or an empty part. */
static size_t cut(struct str path, struct str parts[SEGMENTS])
{
    size_t n = 0;
    struct str part;

    if (!path.n || path.p[0] != '/' || path.p[path.n - 1] == '/')
        return 0;
    path = (struct str){ path.p + 1, path.n - 1 };
    while (str_split(&path, '/', &part)) {
        if (!part.n || n == SEGMENTS)
            return 0;
        parts[n++] = part;
    }
    return n;
}

static CO int upgrade(struct http_req *req, struct err *e)
{
    struct hub *h = req->room;
    struct str part[SEGMENTS] = { { 0 } }, token;
    size_t n = cut(req->path, part);

    hub_hide_token(req);
    if (h->stopping)
        return refuse(req, 503, "the hub is shutting down");
    if (n == 3 && str_eq(part[2], STR("shell")) &&
        (str_eq(part[0], STR("agents")) || str_eq(part[0], STR("machines"))))
        return open_shell(req, h, part[1], e);
    if ((n != 2 && n != 3) || !str_eq(part[0], STR("agent")))
        return refuse(req, 404, "Not Found");
    token = n == 3 ? part[2] : bearer(req);
    if (str_eq(part[1], STR("host")))
        return open_observer(req, h, token, e);
    return open_agent(req, h, part[1], token, e);
}

const struct http_route hub_upgrade_route = {
    .method = HTTP_M_GET,
    .path = "/",
    .run = upgrade,
    .need = NEED_NONE,
    .flags = ROUTE_WS | ROUTE_ASKS | ROUTE_HIDDEN,
    .doc = "WebSockets of agents, observers and shells.",
};
