/* SPDX-License-Identifier: MIT */
/*
 * hub/dead.c — dead letters as operators see them: listed, looked at, delivered once more, dropped.
 * link_store.c writes them.
 *
 * A replayed letter is delivered first and forgotten then, so that a crash in between leaves it
 * here, and not nowhere. Replays come one after the other: of two for one letter the second finds
 * nothing.
 */
#include "hub/dead.h"

#include <string.h>

#include "hub/agents.h"
#include "hub/api.h"
#include "hub/audit.h"
#include "hub/event.h"
#include "hub/link_int.h"
#include "hub/task.h"

#define READ (NEED_AGENTS | NEED_READ)

/* clang-format off */
static const struct sql sql_dead_list = { "hub dead list", "SELECT position, message, error, created_at FROM hub_dead ORDER BY position DESC", NULL };
static const struct sql sql_dead_one = { "hub dead one", "SELECT position, message, error, created_at FROM hub_dead WHERE position = ?1", NULL };
static const struct sql sql_dead_drop = { "hub dead drop", "DELETE FROM hub_dead WHERE position = ?1", NULL };
static const struct sql sql_dead_clear = { "hub dead clear", "DELETE FROM hub_dead", NULL };
/* clang-format on */

struct listing {
    json_t *list;
    size_t bytes;
    int64_t position; /* 0: all, the newest first */
};

static int take(struct store_row *row, void *arg, struct err *e)
{
    struct listing *l = arg;
    struct str message = row_str(row, 1), error = row_str(row, 2);
    json_t *parsed;

    l->bytes += message.n + error.n;
    if (l->bytes > LINK_DEAD_SHOWN)
        return 1;
    parsed = json_loadb(message.p, message.n, JSON_DECODE_ANY, NULL);
    if (!parsed)
        parsed = json_stringn(message.p, message.n);
    json_array_append_new(l->list,
                          json_pack("{s:I, s:o?, s:s%, s:I}", "position",
                                    (json_int_t)row_int(row, 0), "message", parsed, "error",
                                    error.p, error.n, "timestamp", (json_int_t)row_int(row, 3)));
    return 0;
}

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct listing *l = arg;
    const struct sql_arg args[] = { SQL_INT(l->position) };
    int r;

    json_array_clear(l->list);
    l->bytes = 0;
    if (l->position)
        r = store_run(tx, &sql_dead_one, args, 1, take, l, e);
    else
        r = store_run(tx, &sql_dead_list, NULL, 0, take, l, e);
    return r < 0 ? r : 0;
}

static CO int dead_list(struct hub *h, json_t **ret, struct err *e)
{
    struct listing l = { .list = json_array() };
    int r = store_read(h->conf.store, list_body, &l, e);

    if (r < 0) {
        json_decref(l.list);
        return r;
    }
    *ret = json_array();
    for (size_t i = json_array_size(l.list); i-- > 0;)
        json_array_append(*ret, json_array_get(l.list, i));
    json_decref(l.list);
    return 0;
}

/* A new reference. */
static CO int dead_one(struct hub *h, int64_t position, json_t **ret, struct err *e)
{
    struct listing l = { .list = json_array(), .position = position };
    int r = store_read(h->conf.store, list_body, &l, e);

    if (r == 0 && json_array_size(l.list))
        *ret = json_incref(json_array_get(l.list, 0));
    else if (r == 0)
        r = err_set(e, ERR_NOT_FOUND, "Dead letter not found");
    json_decref(l.list);
    return r;
}

struct dropping {
    int64_t position; /* 0: all */
    int64_t gone;
};

static int drop_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct dropping *d = arg;
    const struct sql_arg args[] = { SQL_INT(d->position) };
    int r = d->position ? store_run(tx, &sql_dead_drop, args, 1, NULL, NULL, e)
                        : store_run(tx, &sql_dead_clear, NULL, 0, NULL, NULL, e);

    d->gone = r < 0 ? 0 : store_changed(tx);
    return r < 0 ? r : 0;
}

/* 1: gone, 0: there was none. */
static CO int dead_drop(struct hub *h, int64_t position, struct err *e)
{
    struct dropping d = { .position = position };
    struct links *l = h->links;
    int r = store_do(h->conf.store, drop_body, &d, e);

    if (r >= 0)
        l->dead -= (size_t)d.gone < l->dead ? (size_t)d.gone : l->dead;
    return r < 0 ? r : d.gone > 0;
}

size_t dead_count(const struct hub *h)
{
    const struct links *l = h->links;

    return l->dead + l->n_dead_items;
}

/* --- once more --- */

struct replay {
    struct hub *h;
    json_t *message;
    struct str to;
    const char *peer;
    char task[TASK_ID_MAX + 1]; /* the new task's id; empty: it is a message */
};

/* A task is asked for anew: its old id is that of one that has ended. */
static CO int replay_task(struct replay *p, struct err *e)
{
    AUTO(json_decref) json_t *body = json_deep_copy(json_object_get(p->message, "payload"));

    if (!json_is_object(body))
        return err_set(e, ERR_CONFLICT, "the task has no object as its payload");
    json_object_del(body, "id");
    json_object_del(body, "taskId");
    return task_submit(p->h->tasks, p->to, body, STR("host"), p->peer, p->task, e);
}

/* To the agent's socket, or into its queue. */
static CO int replay_message(struct replay *p, int64_t position, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    enum frame_type type = frame_type_of(json_member_str(p->message, "type"));
    struct hub_agent *to;
    int r;

    buf_init(&b, 8 * LINK_DEAD_MAX);
    r = json_write(p->message, &b, e);
    if (r < 0)
        return r;
    to = hub_agents_find(p->h->agents, p->to);
    if (to && to->link && !to->link->flushing && link_write(to->link, buf_str(&b))) {
        to->stats.messages_received++;
        to->dirty = true;
        link_count(type, LINK_DELIVERED);
        return dead_drop(p->h, position, e);
    }
    r = link_revive(p->h->links, p->to, position, buf_str(&b), e);
    if (r > 0)
        link_count(type, LINK_QUEUED);
    return r;
}

/* What is a letter because it was no message stays one. */
static int check_letter(struct hub *h, const json_t *message, struct err *e)
{
    struct str to = json_member_str(message, "to");

    if (json_is_string(message))
        return err_set(e, ERR_CONFLICT, "it is no message, or only its beginning was kept");
    if (!json_member_str(message, "from").n || !to.n ||
        frame_type_of(json_member_str(message, "type")) == FRAME_OTHER)
        return err_set(e, ERR_CONFLICT, "it is no message: from, to and a known type are needed");
    if (!hub_agents_find(h->agents, to))
        return err_set(e, ERR_CONFLICT, "no agent '%.128s' is registered", to.p);
    return 0;
}

static CO int replay_it(struct replay *p, int64_t position, struct err *e)
{
    int r = check_letter(p->h, p->message, e);

    if (r < 0)
        return r;
    p->to = json_member_str(p->message, "to");
    if (frame_type_of(json_member_str(p->message, "type")) != FRAME_TASK)
        return replay_message(p, position, e);
    r = replay_task(p, e);
    return r < 0 ? r : dead_drop(p->h, position, e);
}

static CO int replay_in_lane(struct replay *p, int64_t position, struct err *e)
{
    json_t *letter;
    int r = dead_one(p->h, position, &letter, e);

    if (r < 0)
        return r;
    p->message = json_incref(json_object_get(letter, "message"));
    json_decref(letter);
    r = replay_it(p, position, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "Dead letter not found"); /* somebody dropped it */
    return r;
}

/* --- over HTTP --- */

static int position_of(const struct http_req *req, int64_t *ret, struct err *e)
{
    long long position;
    int r = int_parse(req->args[0], 1, INT64_MAX, &position, e);

    if (r < 0)
        return err_set(e, ERR_NOT_FOUND, "Dead letter not found");
    *ret = position;
    return 0;
}

static CO int get_all(struct http_req *req, struct err *e)
{
    json_t *list;
    int r = dead_list(req->room, &list, e);

    return r < 0 ? r : hub_reply_json(req, 200, json_pack("{s:o}", "deadLetterQueue", list), e);
}

static CO int delete_all(struct http_req *req, struct err *e)
{
    struct hub *h = req->room;
    int r = link_store_drop_dead(h->links, e);

    if (r == 0)
        r = dead_drop(h, 0, e);
    if (r < 0)
        return r;
    http_reply_text(req, 200, HUB_JSON, STR("{\"status\":\"cleared\"}"));
    return 0;
}

static CO int get_one(struct http_req *req, struct err *e)
{
    int64_t position;
    json_t *letter;
    int r = position_of(req, &position, e);

    if (r == 0)
        r = dead_one(req->room, position, &letter, e);
    return r < 0 ? r : hub_reply_json(req, 200, json_pack("{s:o}", "deadLetter", letter), e);
}

static CO int delete_one(struct http_req *req, struct err *e)
{
    int64_t position;
    int r = position_of(req, &position, e);

    if (r == 0)
        r = dead_drop(req->room, position, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "Dead letter not found");
    if (r > 0)
        http_reply_text(req, 200, HUB_JSON, STR("{\"status\":\"dropped\"}"));
    return r < 0 ? r : 0;
}

static CO int answer_replayed(struct http_req *req, const struct replay *p, struct err *e)
{
    json_t *answer = json_pack("{s:s, s:s%}", "status", "replayed", "agentId", p->to.p, p->to.n);

    if (*p->task)
        json_object_set_new(answer, "taskId", json_string(p->task));
    audit(p->h, &(struct audit_line){ .event = "message.replayed",
                                      .agent = p->to,
                                      .task = str_of(p->task),
                                      .from = str_of(req->who.name),
                                      .peer = req->peer });
    audit_flush(p->h);
    return hub_reply_json(req, 200, answer, e);
}

static CO int post_replay(struct http_req *req, struct err *e)
{
    struct hub *h = req->room;
    struct replay p = { .h = h, .peer = req->peer };
    int64_t position;
    int r = position_of(req, &position, e);

    if (r == 0)
        r = fiber_lane_enter(&h->links->replays, DEADLINE_NONE, e);
    if (r < 0)
        return r;
    r = replay_in_lane(&p, position, e);
    fiber_lane_leave(&h->links->replays);
    if (r == -ERR_LIMIT) { /* a full queue is no large body */
        hub_refuse(req, 429, arena_strdup(req->arena, e->msg));
        r = 0;
    } else if (r >= 0) {
        r = answer_replayed(req, &p, e);
    }
    json_decref(p.message);
    return r;
}

/* clang-format off */
const struct http_route dead_routes[] = {
    { HTTP_M_GET, "/admin/dlq", get_all, .need = READ, .tag = "hub", .doc = "Dead letters, oldest first." },
    { HTTP_M_DELETE, "/admin/dlq", delete_all, .need = NEED_AGENTS, .tag = "hub", .doc = "Forget the dead letters." },
    { HTTP_M_GET, "/admin/dlq/{position}", get_one, .need = READ, .tag = "hub", .doc = "One dead letter." },
    { HTTP_M_DELETE, "/admin/dlq/{position}", delete_one, .need = NEED_AGENTS, .tag = "hub", .doc = "Forget one dead letter." },
    { HTTP_M_POST, "/admin/dlq/{position}/replay", post_replay, .need = NEED_AGENTS, .tag = "hub",
      .doc = "Deliver it again: a message to its agent, or into its queue; a task as a new one, whose id is answered. It is no dead letter then." },
};
/* clang-format on */
const size_t dead_routes_len = LEN(dead_routes);
