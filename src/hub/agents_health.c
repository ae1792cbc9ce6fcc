/* SPDX-License-Identifier: MIT */
/*
 * hub/agents_health.c — what agents say of themselves, and how the API shows an agent. What comes
 * from an agent is kept only in the types that readers expect: one agent must not break a page
 * that shows all.
 */
#include <math.h>
#include <string.h>

#include "hub/agents.h"
#include "hub/event.h"
#include "hub/task.h"

enum { TEXT_MAX = 256, LIST_MAX = 16, KEY_MAX = 64 };

static bool good_number(json_t *v)
{
    return json_is_number(v) && isfinite(json_number_value(v));
}

static bool is_percent(json_t *v)
{
    return good_number(v) && json_number_value(v) >= 0 && json_number_value(v) <= 100;
}

static bool is_amount(json_t *v)
{
    return good_number(v) && json_number_value(v) >= 0;
}

static bool is_amounts(json_t *v)
{
    const char *key;
    json_t *one;

    if (!json_is_object(v) || json_object_size(v) > LIST_MAX)
        return false;
    json_object_foreach(v, key, one) if (strlen(key) > KEY_MAX || !is_amount(one)) return false;
    return true;
}

static bool is_numbers(json_t *v)
{
    json_t *one;
    size_t i;

    if (!json_is_array(v) || json_array_size(v) > LIST_MAX)
        return false;
    json_array_foreach(v, i, one) if (!good_number(one)) return false;
    return true;
}

static bool is_short_text(json_t *v)
{
    return json_is_string(v) && json_string_length(v) <= TEXT_MAX;
}

static const struct {
    const char *key;
    bool (*fits)(json_t *v);
} known[] = {
    { "cpu", is_percent },         { "memory", is_amounts },      { "disk", is_amounts },
    { "uptime", is_amount },       { "systemUptime", is_amount }, { "loadAverage", is_numbers },
    { "platform", is_short_text }, { "arch", is_short_text },     { "hostname", is_short_text },
    { "timestamp", is_amount },    { "activeTasks", is_amount },  { "queuedTasks", is_amount },
    { "version", is_short_text },
};

static bool fits(const char *key, json_t *v)
{
    for (size_t i = 0; i < LEN(known); i++)
        if (strcmp(key, known[i].key) == 0)
            return known[i].fits(v);
    return strlen(key) <= KEY_MAX;
}

static json_t *parse_own(const char *text)
{
    return text ? json_loads(text, 0, NULL) : NULL;
}

/* {cpu, memory, disk, uptime} come first and are there from the beginning. */
static json_t *health_of(const struct hub_agent *agent)
{
    static const char *const first[] = { "cpu", "memory", "disk", "uptime" };
    json_t *old = parse_own(agent->health);

    if (old)
        return old;
    old = json_object();
    for (size_t i = 0; i < LEN(first); i++)
        json_object_set_new(old, first[i], json_null());
    return old;
}

/* Merge `more` into `object`, whose text must stay within max; each key that fits. */
static void merge(json_t *object, json_t *more, bool (*good)(const char *, json_t *), size_t max,
                  char **text)
{
    AUTO(buf_done) struct buf b = { 0 };
    const char *key;
    json_t *v;
    struct err e;

    json_object_foreach(more, key, v) if (!good || good(key, v)) json_object_set(object, key, v);
    buf_init(&b, max);
    if (json_write(object, &b, &e) < 0)
        return; /* too much: it stays as it was */
    free(*text);
    *text = str_dup(buf_str(&b));
}

void hub_agent_health(struct hub *h, struct hub_agent *agent, json_t *payload)
{
    AUTO(json_decref) json_t *health = health_of(agent);

    merge(health, payload, fits, HEALTH_MAX, &agent->health);
    agent->last_seen = agent->last_health = hub_now();
    agent->dirty = true;
    if (event_wanted(h))
        event(h, "agent.health",
              json_pack("{s:s, s:o}", "agentId", agent->id, "health", parse_own(agent->health)));
}

void hub_agent_merge_metadata(struct hub *h, struct hub_agent *agent, json_t *payload)
{
    AUTO(json_decref) json_t *metadata = parse_own(agent->metadata);

    if (!metadata)
        metadata = json_object();
    merge(metadata, payload, NULL, METADATA_MAX, &agent->metadata);
    agent->last_seen = hub_now();
    agent->dirty = agent->metadata_dirty = true;
}

static int write_time(struct buf *b, const char *key, int64_t ms, struct err *e)
{
    if (!ms)
        return buf_printf(b, e, ",\"%s\":null", key);
    return buf_printf(b, e, ",\"%s\":%lld", key, (long long)ms);
}

static int write_stats(struct buf *b, const struct agent_stats *s, struct err *e)
{
    return buf_printf(b, e,
                      ",\"stats\":{\"tasksReceived\":%lld,\"tasksCompleted\":%lld,"
                      "\"tasksFailed\":%lld,\"messagesReceived\":%lld,\"messagesSent\":%lld}",
                      s->received, s->completed, s->failed, s->messages_received, s->messages_sent);
}

static int write_tasks(struct hub *h, const struct hub_agent *agent, struct buf *b, struct err *e)
{
    AUTO(json_decref) json_t *tasks = NULL;

    if (!task_current_count(h->tasks, str_of(agent->id)))
        return buf_add_z(b, "[]", e);
    tasks = task_current(h->tasks, str_of(agent->id));
    return tasks ? json_write(tasks, b, e) : buf_add_z(b, "[]", e);
}

int hub_agent_write(struct hub *h, const struct hub_agent *agent, struct buf *b, struct err *e)
{
    int r = buf_printf(b, e, "{\"id\":\"%s\",\"status\":\"%s\",\"registeredAt\":%lld", agent->id,
                       agent->online ? "online" : "offline", (long long)agent->registered_at);

    if (r == 0)
        r = write_time(b, "lastSeen", agent->last_seen, e);
    if (r == 0)
        r = write_time(b, "lastHealthCheck", agent->last_health, e);
    if (r == 0)
        r = buf_printf(b, e, ",\"metadata\":%s", agent->metadata);
    if (r == 0)
        r = write_stats(b, &agent->stats, e);
    if (r == 0)
        r = buf_printf(b, e, ",\"health\":%s",
                       agent->health ? agent->health
                                     : "{\"cpu\":null,\"memory\":null,\"disk\":null,"
                                       "\"uptime\":null}");
    if (r == 0)
        r = buf_add_z(b, ",\"currentTasks\":", e);
    if (r == 0)
        r = write_tasks(h, agent, b, e);
    if (r == 0)
        r = buf_printf(b, e, ",\"draining\":%s}", agent->draining ? "true" : "false");
    return r;
}

json_t *hub_agent_json(struct hub *h, const struct hub_agent *agent)
{
    AUTO(buf_done) struct buf b = { 0 };
    struct err e;

    buf_init(&b, SIZE_MAX / 2);
    if (hub_agent_write(h, agent, &b, &e) < 0)
        return json_object();
    return json_loadb(buf_str(&b).p, b.n, 0, NULL);
}
