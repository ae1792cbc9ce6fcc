/* SPDX-License-Identifier: MIT */
/* bridge/agent.c — registrations and the registry in memory. */
#include "bridge/agent.h"

#include <string.h>

#include "base/secret.h"
#include "net/url.h"

enum { TOKEN_MAX = 8192, TIMEOUT_MAX_MS = 3600 * 1000, RETRIES_MAX = 10 };

#define PROBLEM(name, ...) \
    (problem->field = (name), snprintf(problem->text, sizeof(problem->text), __VA_ARGS__), \
     err_set(e, ERR_INVALID, "%s: %s", problem->field, problem->text))

/* A header value: visible ASCII and blanks. Anything else could end the header. */
static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || (unsigned char)s.p[i] >= 0x7f)
            return false;
    return s.n <= TOKEN_MAX;
}

static int check(const struct agent_spec *spec, bool *ret_ipv6, struct agent_problem *problem,
                 struct err *e)
{
    struct err why;

    if (!spec->name.n || spec->name.n > 4 * AGENT_NAME_MAX)
        return PROBLEM("name", "name must have 1 to %d characters", AGENT_NAME_MAX);
    if (host_check(spec->host, ret_ipv6, &why) < 0)
        return PROBLEM("host", "%s", why.msg);
    if (spec->port < 1 || spec->port > 65535)
        return PROBLEM("port", "port must be 1 to 65535");
    if (!str_eq_z(spec->protocol, "http") && !str_eq_z(spec->protocol, "https"))
        return PROBLEM("protocol", "protocol must be http or https");
    if (!is_token(spec->auth_token))
        return PROBLEM("auth_token", "token must be printable ASCII of at most %d characters",
                       TOKEN_MAX);
    if (spec->timeout_ms < 1 || spec->timeout_ms > TIMEOUT_MAX_MS)
        return PROBLEM("timeout_seconds", "timeout must be at most 3600 seconds");
    if (spec->max_retries < 1 || spec->max_retries > RETRIES_MAX)
        return PROBLEM("max_retries", "max_retries must be 1 to %d", RETRIES_MAX);
    if (spec->n_fallbacks > AGENT_FALLBACKS_MAX)
        return PROBLEM("fallback_agents", "there may be at most %d fallback agents",
                       AGENT_FALLBACKS_MAX);
    return 0;
}

int agent_new(const struct agent_spec *spec, struct agent **ret, struct agent_problem *problem,
              struct err *e)
{
    struct str host = spec->host;
    struct agent *a;
    bool ipv6;
    int r;

    r = check(spec, &ipv6, problem, e);
    if (r < 0)
        return r;
    if (ipv6 && *host.p == '[')
        host = (struct str){ host.p + 1, host.n - 2 };
    a = xcalloc(1, sizeof(*a));
    a->refs = 1;
    a->name = str_dup(spec->name);
    a->host = str_dup(host);
    a->port = (int)spec->port;
    a->tls = str_eq_z(spec->protocol, "https");
    a->context = spec->context;
    a->api = spec->api;
    a->timeout_ms = spec->timeout_ms;
    a->max_retries = spec->max_retries;
    a->n_fallbacks = spec->n_fallbacks;
    a->fallbacks = xcalloc(spec->n_fallbacks + 1, sizeof(char *));
    for (size_t i = 0; i < spec->n_fallbacks; i++)
        a->fallbacks[i] = str_dup(spec->fallbacks[i]);
    a->url = xasprintf("%s://%s%s%s:%d", a->tls ? "https" : "http", ipv6 ? "[" : "", a->host,
                       ipv6 ? "]" : "", a->port);
    a->call_url = xasprintf("%s%s", a->url, adapters[a->api].path);
    a->headers[0] = "Content-Type: application/json";
    if (spec->auth_token.n) {
        a->token = str_dup(spec->auth_token);
        a->authorization = xasprintf("Authorization: Bearer %s", a->token);
        a->headers[1] = a->authorization;
    }
    *ret = a;
    return 0;
}

struct agent *agent_ref(struct agent *a)
{
    a->refs++;
    return a;
}

static void wipe_free(char *z)
{
    if (z)
        secret_wipe(z, strlen(z));
    free(z);
}

void agent_unref(struct agent *a)
{
    if (!a || --a->refs)
        return;
    for (size_t i = 0; i < a->n_fallbacks; i++)
        free(a->fallbacks[i]);
    free(a->fallbacks);
    wipe_free(a->token);
    wipe_free(a->authorization);
    free(a->name);
    free(a->host);
    free(a->url);
    free(a->call_url);
    free(a);
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool agent_equal(const struct agent *a, const struct agent *b)
{
    if (!same(a->name, b->name) || !same(a->call_url, b->call_url) || !same(a->token, b->token) ||
        a->context != b->context || a->timeout_ms != b->timeout_ms ||
        a->max_retries != b->max_retries || a->n_fallbacks != b->n_fallbacks)
        return false;
    for (size_t i = 0; i < a->n_fallbacks; i++)
        if (!same(a->fallbacks[i], b->fallbacks[i]))
            return false;
    return true;
}

struct agent_entry *agents_find(const struct agents *all, struct str name)
{
    struct strmap_node *node = strmap_find(&all->map, name);

    return node ? container_of(node, struct agent_entry, node) : NULL;
}

struct agent_entry *agents_put(struct agents *all, struct agent *agent, int64_t position,
                               struct tracker *tracker)
{
    struct agent_entry *entry = agents_find(all, str_of(agent->name));
    size_t n = strlen(agent->name);

    if (entry) {
        agent_unref(entry->agent);
        entry->agent = agent;
        return entry;
    }
    entry = xcalloc(1, sizeof(*entry) + n + 1);
    memcpy(entry->name, agent->name, n);
    strmap_add(&all->map, &entry->node, (struct str){ entry->name, n });
    entry->agent = agent;
    entry->position = position;
    entry->tracked = tracker_get(tracker, entry->node.key);
    entry->prev = all->last;
    if (all->last)
        all->last->next = entry;
    else
        all->first = entry;
    all->last = entry;
    if (position > all->last_position)
        all->last_position = position;
    return entry;
}

static void entry_free(struct agent_entry *entry)
{
    agent_unref(entry->agent);
    free(entry);
}

void agents_remove(struct agents *all, struct agent_entry *entry, struct tracker *tracker)
{
    strmap_remove(&all->map, &entry->node);
    if (entry->prev)
        entry->prev->next = entry->next;
    else
        all->first = entry->next;
    if (entry->next)
        entry->next->prev = entry->prev;
    else
        all->last = entry->prev;
    tracker_remove(tracker, entry->tracked);
    entry_free(entry);
}

void agents_done(struct agents *all)
{
    for (struct agent_entry *entry = all->first, *next; entry; entry = next) {
        next = entry->next;
        entry_free(entry);
    }
    strmap_done(&all->map);
    *all = (struct agents){ 0 };
}
