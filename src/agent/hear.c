/* SPDX-License-Identifier: MIT */
/*
 * agent/hear.c — what the hub says, by a table of message types. What a newer hub says that we do
 * not know is logged and left alone; so is what is not even a message.
 */
#include <string.h>

#include "agent/agent_int.h"
#include "base/log.h"

#define DEPTH_MAX 512

struct heard {
    struct agent *agent;
    const json_t *message, *payload;
    const char *from;
};

static bool is_hub(const char *from)
{
    return strcmp(from, "host") == 0;
}

static void on_task(const struct heard *h)
{
    runner_task(h->agent->runner, h->payload, h->from);
}

static void on_ack(const struct heard *h)
{
    runner_ack(h->agent->runner, h->payload);
}

static void on_cancel(const struct heard *h)
{
    runner_cancel(h->agent->runner, h->payload);
}

static void on_resync(const struct heard *h)
{
    runner_resync(h->agent->runner, h->payload);
}

static void on_shell(const struct heard *h)
{
    shells_message(h->agent->shells, h->payload);
}

static void on_status(const struct heard *h)
{
    const char *status = json_string_value(json_object_get(h->payload, "status"));
    const json_t *when = json_object_get(h->message, "timestamp");

    if (status && strcmp(status, "connected") == 0 && is_hub(h->from))
        link_welcome(h->agent->link, h->payload, json_integer_value(when));
    else
        log_info("status", "from", LOG_STR(h->from), "status", LOG_STR(status));
}

/* The Docker agents' hub could ask so; the original's never did. */
static void on_ping(const struct heard *h)
{
    struct err e;

    if (agent_say(h->agent, h->from, "pong", json_object(), &e) < 0)
        log_debug("no pong", "error", LOG_ERR(&e));
}

static const struct {
    const char *type;
    void (*fn)(const struct heard *h);
    bool hub_only; /* other agents may say the other ones; the hub sees to it that from is true */
} types[] = {
    { "task", on_task, false },    { "status", on_status, false }, { "ack", on_ack, true },
    { "cancel", on_cancel, true }, { "resync", on_resync, true },  { "shell", on_shell, true },
    { "ping", on_ping, true },
};

static void act(struct agent *a, const json_t *message)
{
    const char *type = json_string_value(json_object_get(message, "type"));
    const char *from = json_string_value(json_object_get(message, "from"));
    struct heard h = { a, message, json_object_get(message, "payload"), from ? from : "host" };

    for (size_t i = 0; type && i < LEN(types); i++) {
        if (strcmp(types[i].type, type) != 0)
            continue;
        if (!json_is_object(h.payload))
            log_warn("a message without a payload", "type", LOG_STR(type));
        else if (types[i].hub_only && !is_hub(h.from))
            log_warn("a message that only the hub may send", "type", LOG_STR(type), "from",
                     LOG_STR(h.from));
        else
            types[i].fn(&h);
        return;
    }
    log_info("a message of an unknown type", "type", LOG_STR(type), "from", LOG_STR(from));
}

void hear(struct agent *a, struct str frame)
{
    struct arena arena = { 0 };
    json_t *message;
    struct err e;

    if (a->deaf)
        return;
    if (json_parse(frame, DEPTH_MAX, &arena, &message, NULL, &e) < 0)
        log_warn("a message that is not JSON", "error", LOG_ERR(&e));
    else
        act(a, message);
    arena_done(&arena);
}
