/* SPDX-License-Identifier: MIT */
/*
 * swarm/command.c — see command.h. Commands heard in channels wait in a bounded queue for one
 * fiber, which begins them in the order in which they came and waits a little for each: what was
 * begun goes on by itself. When the queue is full the newest is dropped, with a line in the log.
 */
#include "swarm/command_int.h"

#include "base/id.h"
#include "base/log.h"
#include "base/secret.h"

enum { HEARD_WAIT_MS = 5000, AGAIN_MS = 1000 };

struct inbound_item { /* texts behind it in the arena */
    struct arena a;
    struct command_in in;
};

static void item_free(struct inbound_item *item)
{
    if (!item)
        return;
    arena_done(&item->a);
    free(item);
}

DEFINE_AUTO(item_free, struct inbound_item *);

/* --- running --- */

/* "cmd:<id of the message>" */
static const char *id_of(struct str id, struct arena *a)
{
    char text[2 * SECRET_KEY + 1];

    if (!id.n) {
        uuid_v4(text);
        id = str_of(text);
    } else if (id.n > COMMAND_ID) {
        sha256_hex(id, text);
        id = str_of(text);
    }
    return arena_printf(a, "cmd:" STR_FMT, STR_ARG(id));
}

static json_t *argument(const struct command_in *in)
{
    json_t *j = json_object();

    json_object_set_new(j, "text", json_stringn(in->text.p ? in->text.p : "", in->text.n));
    if (in->id.n)
        json_object_set_new(j, "id", json_stringn(in->id.p, in->id.n));
    if (in->from.n)
        json_object_set_new(j, "from", json_stringn(in->from.p, in->from.n));
    if (in->channel.n)
        json_object_set_new(j, "channel", json_stringn(in->channel.p, in->channel.n));
    json_object_set_new(j, "reply", json_boolean(in->reply));
    return j;
}

CO int command_run(struct command *c, const struct command_in *in, uint64_t deadline_ms,
                   char ret_workflow[DURABLE_ID], struct buf *out, struct err *e)
{
    AUTO(json_decref) json_t *arg = argument(in);
    struct durable_started started = { 0 };
    struct arena a = { 0 };
    int r;

    r = swarm_run(c->s, COMMAND_CLASS, COMMAND_NAME, str_of(id_of(in->id, &a)), arg, deadline_ms,
                  &started, out, e);
    fmt_z(ret_workflow, DURABLE_ID, "%s", started.id);
    arena_done(&a);
    return r;
}

/* --- hearing --- */

static CO void obey(struct command *c, const struct inbound_item *item)
{
    AUTO(buf_done) struct buf out = { 0 };
    char id[DURABLE_ID];
    struct err e;
    int r;

    buf_init(&out, COMMAND_RESULT);
    for (;;) {
        r = command_run(c, &item->in, deadline_in(HEARD_WAIT_MS), id, &out, &e);
        if (r != -ERR_UNAVAILABLE || c->stopping || fiber_sleep(AGAIN_MS, &e) < 0)
            break; /* with the same id it is the same command */
    }
    if (r < 0 && r != -ERR_TIMEOUT && r != -ERR_CANCELED)
        log_warn("a command from a channel failed", "channel", LOG_SLICE(item->in.channel), "error",
                 LOG_ERR(&e));
}

static CO int obey_all(void *arg, struct err *e)
{
    struct command *c = arg;
    void *item;
    int r;

    while ((r = chan_recv(c->waiting, &item, DEADLINE_NONE, e)) == 0) {
        obey(c, item);
        item_free(item);
    }
    return r < 0 ? r : 0;
}

/* A message's id is unique in its session only. */
static struct str message_id(const struct inbound *in, struct arena *a)
{
    return str_of(arena_printf(a, STR_FMT ":" STR_FMT, STR_ARG(in->session), STR_ARG(in->id)));
}

/* People talk of other things too: what is no command is none of ours. */
static void hear(struct swarm *s, const struct inbound *in)
{
    struct command *c = s->command;
    AUTO(item_free) struct inbound_item *item = NULL;
    struct command_parsed p;
    enum command_fault fault = command_look(in->text, &p);

    if (!c || c->stopping || fault == CMD_EMPTY || fault == CMD_UNKNOWN ||
        in->text.n > COMMAND_TEXT)
        return;
    item = xcalloc(1, sizeof(*item));
    item->in = (struct command_in){
        .id = message_id(in, &item->a),
        .from = arena_str(&item->a, in->session),
        .text = arena_str(&item->a, in->text),
        .channel = arena_str(&item->a, in->channel),
        .reply = true,
    };
    if (chan_try_send(c->waiting, item) == 0)
        TAKE(item);
    else
        log_warn("a command from a channel was dropped: too many wait", "session",
                 LOG_SLICE(in->session), "waiting", LOG_INT(COMMAND_WAITING));
}

/* --- life --- */

int command_new(struct swarm *s, struct command **ret, struct err *e)
{
    struct command *c = xcalloc(1, sizeof(*c));
    int r;

    c->s = s;
    c->fibers = fiber_group_new(s->conf.loop);
    c->waiting = chan_new(COMMAND_WAITING);
    c->type = (struct durable_type){
        .name = COMMAND_NAME,
        .class_name = COMMAND_CLASS,
        .fn = command_flow,
        .ctx = c,
        .doc = "A command from chat: one argument {text, from?, reply?}.",
    };
    r = durable_register(s->conf.engine, &c->type, 1, e);
    if (r < 0) {
        command_free(c);
        return r;
    }
    notify_inbound = hear;
    *ret = c;
    return 0;
}

CO int command_start(struct command *c, struct err *e)
{
    return fiber_group_spawn(c->fibers, "commands", obey_all, c, e);
}

CO void command_stop(struct command *c)
{
    struct err e;

    c->stopping = true;
    fiber_group_cancel(c->fibers);
    (void)fiber_group_join(c->fibers, &e); /* it ends by being cancelled */
}

void command_free(struct command *c)
{
    void *item;

    if (!c)
        return;
    while (chan_try_recv(c->waiting, &item) == 0)
        item_free(item);
    chan_free(c->waiting);
    fiber_group_free(c->fibers);
    free(c);
}
