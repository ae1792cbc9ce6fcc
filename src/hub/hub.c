/* SPDX-License-Identifier: MIT */
/* hub/hub.c — the parts of the room, made in the order of their needs. */
#include "hub/hub.h"

#include <string.h>

#include "hub/agents.h"
#include "hub/api.h"
#include "hub/audit.h"
#include "hub/dead.h"
#include "hub/event.h"
#include "hub/fleet.h"
#include "hub/link.h"
#include "hub/task.h"

int hub_new(const struct hub_conf *conf, struct hub **ret, struct err *e)
{
    struct hub *h = xcalloc(1, sizeof(*h));
    int r;

    h->conf = *conf;
    h->settings = conf->settings;
    h->pg = strcmp(store_kind(conf->store), "sqlite") != 0;
    h->started_ms = now_ms();
    h->chores = fiber_group_new(conf->loop);
    r = audit_new(h, &h->audit, e);
    if (r == 0)
        r = events_new(h, &h->events, e);
    if (r == 0)
        r = hub_agents_new(h, &h->agents, e);
    if (r == 0)
        r = tasks_new(h, &h->tasks, e);
    if (r == 0)
        r = links_new(h, &h->links, e);
    if (r == 0)
        r = fleet_new(h, &h->fleet, e);
    if (r < 0) {
        hub_free(h);
        return err_wrap(e, "hub");
    }
    *ret = h;
    return 0;
}

void hub_ports(struct hub *h, unsigned http_port, unsigned ws_port)
{
    h->http_port = http_port;
    h->ws_port = ws_port;
    fleet_ready(h->fleet);
}

CO int hub_start(struct hub *h, struct err *e)
{
    int r = audit_start(h->audit, e);

    if (r == 0)
        r = hub_agents_start(h->agents, e);
    if (r == 0)
        r = tasks_start(h->tasks, e);
    if (r == 0)
        r = links_start(h->links, e);
    if (r == 0)
        r = fleet_start(h->fleet, e);
    return r < 0 ? err_wrap(e, "hub") : 0;
}

CO void hub_stop(struct hub *h)
{
    struct err e;

    h->stopping = true;
    events_stop(h->events);
    fleet_stop(h->fleet);
    links_stop(h->links);
    tasks_stop(h->tasks);
    fiber_group_cancel(h->chores);
    (void)fiber_group_join(h->chores, &e); /* they end by being cancelled */
    hub_agents_stop(h->agents);
    audit_stop(h->audit);
}

void hub_free(struct hub *h)
{
    if (!h)
        return;
    fleet_free(h->fleet);
    links_free(h->links);
    tasks_free(h->tasks);
    hub_agents_free(h->agents);
    events_free(h->events);
    audit_free(h->audit);
    fiber_group_free(h->chores);
    free(h);
}

int64_t hub_order(struct hub *h)
{
    int64_t now = wall_us();

    h->last_order = now > h->last_order ? now : h->last_order + 1;
    return h->last_order;
}

const char *hub_ws_url(const struct hub *h, struct arena *a)
{
    struct str url = str_of(h->settings->ws_url);

    while (url.n && url.p[url.n - 1] == '/')
        url.n--;
    if (url.n)
        return arena_printf(a, "%.*s", (int)url.n, url.p);
    return arena_printf(a, "%s://localhost:%u", h->conf.tls ? "wss" : "ws", h->ws_port);
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int hub_id_check(struct str id, struct err *e)
{
    bool good = id.n > 0 && id.n <= HUB_ID_MAX && is_alnum(id.p[0]);

    for (size_t i = 0; good && i < id.n; i++)
        good = is_alnum(id.p[i]) || id.p[i] == '.' || id.p[i] == '_' || id.p[i] == '-';
    if (!good)
        return err_set(e, ERR_INVALID,
                       "agentId must be 1 to %d letters, digits, '.', '_' or '-', the first a "
                       "letter or a digit",
                       HUB_ID_MAX);
    if (str_eq(id, STR("broadcast")))
        return err_set(e, ERR_INVALID, "agentId 'broadcast' means everybody; choose another");
    return 0;
}

void hub_tables(struct hub *h, struct http_table out[HUB_TABLES])
{
    const struct http_table tables[] = {
        { "/", &dialect_hub, api_routes, api_routes_len, h, .body_max = &h->settings->body_max },
        { "/", &dialect_hub, dead_routes, dead_routes_len, h },
        { "/", &dialect_hub, task_routes, task_routes_len, h->tasks,
          .body_max = &h->settings->body_max },
        { "/", &dialect_hub, fleet_routes, fleet_routes_len, h->fleet,
          .body_max = &h->settings->body_max },
        { "/", &dialect_hub, event_routes, event_routes_len, h->events,
          .body_max = &h->settings->body_max },
        { "/", &dialect_hub, audit_routes, audit_routes_len, h->audit },
        { "/", &dialect_hub, http_docs_routes, http_docs_routes_len, h },
    };

    _Static_assert(LEN(tables) == HUB_TABLES, "count them");
    memcpy(out, tables, sizeof(tables));
}
