/* SPDX-License-Identifier: MIT */
/*
 * From a row to a socket: in the order of positions, and only what the row says may have been sent.
 * An agent holds at most hub.queue_max tasks; the rest waits here.
 */
#include "base/id.h"
#include "base/log.h"
#include "hub/event.h"
#include "hub/link.h"
#include "hub/task_int.h"

#define FRAME_MORE 512  /* of a frame besides the task's own texts */
#define PREPARE_MS 5000 /* the database is away: what is not marked is sent later */

/* --- frames --- */

static int begin_frame(struct buf *b, struct str from, const char *agent, const char *type,
                       struct err *e)
{
    char id[UUID_TEXT];

    uuid_v4(id);
    return buf_printf(b, e,
                      "{\"id\":\"%s\",\"from\":\"" STR_FMT "\",\"to\":\"%s\",\"type\":\"%s\","
                      "\"timestamp\":%lld,\"payload\":{\"taskId\":",
                      id, STR_ARG(from), agent, type, (long long)hub_now());
}

/* The body, less its own taskId: ours is the one that counts. */
static int add_body(const struct task *task, struct buf *b, struct err *e)
{
    struct str body = task->body;
    AUTO(json_decref) json_t *object = NULL;
    int r;

    if (memmem(body.p, body.n, "\"taskId\"", 8)) {
        object = json_loadb(body.p, body.n, 0, NULL);
        if (object)
            json_object_del(object, "taskId");
    }
    if (object) {
        AUTO(buf_done) struct buf text;

        buf_init(&text, TASK_TEXT_MAX);
        r = json_write(object, &text, e);
        if (r == 0)
            r = buf_add_z(b, json_object_size(object) ? "," : "", e);
        return r < 0 ? r : buf_add(b, buf_str(&text).p + 1, buf_str(&text).n - 1, e);
    }
    r = buf_add_z(b, body.n > 2 ? "," : "", e);
    return r < 0 ? r : buf_add(b, body.p + 1, body.n - 1, e);
}

int task_frame(const struct task *task, struct buf *b, struct err *e)
{
    int r = begin_frame(b, task->sender, task->agent->id, "task", e);

    if (r == 0)
        r = json_write_str(b, task->id, e);
    if (r == 0)
        r = add_body(task, b, e);
    return r < 0 ? r : buf_add_z(b, "}", e);
}

void task_tell(struct tasks *t, struct str agent, const char *type, struct str id,
               const char *reason)
{
    AUTO(buf_done) struct buf b = { 0 };
    char name[HUB_ID_MAX + 1];
    struct err e;
    int r;

    if (agent.n >= sizeof(name))
        return;
    fmt_z(name, sizeof(name), STR_FMT, STR_ARG(agent));
    buf_init(&b, 64 * KIB);
    r = begin_frame(&b, STR("host"), name, type, &e);
    if (r == 0)
        r = json_write_str(&b, id, &e);
    if (r == 0 && reason)
        r = buf_add_z(&b, ",\"reason\":", &e);
    if (r == 0 && reason)
        r = json_write_str(&b, str_of(reason), &e);
    if (r == 0)
        r = buf_add_z(&b, "}}", &e);
    if (r == 0)
        r = link_send(t->h->links, agent, buf_str(&b), &e);
    if (r < 0 && r != -ERR_UNAVAILABLE) /* away: it will ask again when it is back */
        log_warn("an agent could not be told of a task", "agent", LOG_STR(name), "error",
                 LOG_ERR(&e));
}

/* --- sending --- */

static bool drained(const struct tasks *t, const struct task_agent *a)
{
    const struct hub_agent *agent = hub_agents_find(t->h->agents, a->node.key);

    return agent && agent->draining;
}

bool task_may_send(const struct tasks *t, const struct task_agent *a)
{
    return a->ready && a->n_waiting == 0 && a->n_held < t->set->queue_max && !drained(t, a);
}

static void tell_sent(const struct task *task)
{
    struct hub *h = task->t->h;

    if (event_wanted(h))
        event(h, "task.sent",
              json_pack("{s:s%,s:s,s:i}", "taskId", task->id.p, task->id.n, "agentId",
                        task->agent->id, "attempt", (int)task->attempts));
}

/* One frame to its socket; false: not now. */
static bool send_frame(struct task *task)
{
    struct tasks *t = task->t;
    struct task_agent *a = task->agent;
    AUTO(buf_done) struct buf b = { 0 };
    struct err e;
    int r;

    if (link_room(t->h->links, a->node.key) < task->body.n + FRAME_MORE)
        return false; /* task_resume() comes when there is room */
    buf_init(&b, TASK_TEXT_MAX);
    r = task_frame(task, &b, &e);
    if (r == 0)
        r = link_send(t->h->links, a->node.key, buf_str(&b), &e);
    if (r < 0)
        return false;
    task->epoch = a->epoch;
    return true;
}

static bool send_first(struct task *task)
{
    if (!send_frame(task))
        return false;
    task->state = TASK_SENT;
    task->sent = hub_now();
    task->sent_ms = task_mono();
    task->not_before_ms = 0;
    task_due(task);
    tell_sent(task);
    return true;
}

void task_send_again(struct task *task)
{
    (void)send_frame(task); /* no socket, no room: it asks again when it comes back */
}

/* Those whose turn it is get marked; the answer comes here again. */
static void mark_next(struct tasks *t, struct task_agent *a, struct task *from)
{
    for (struct task *task = from; task; task = task->next) {
        if (a->n_marking >= TASK_MARK_MAX || a->n_held >= t->set->queue_max)
            return;
        if (task->state != TASK_QUEUED || task->marked || task->ending)
            continue;
        if (!task->written)
            return;
        task_mark(task, true);
        task->marking = true;
        task->attempts++;
        a->n_marking++;
        task_write_mark(task);
    }
}

static void pump(struct tasks *t, struct task_agent *a, int64_t before)
{
    if (t->stopping || drained(t, a))
        return;
    for (struct task *task = a->first; task && task->position < before; task = task->next) {
        if (task->state != TASK_QUEUED || task->ending)
            continue;
        if (!task->written || task->marking)
            return; /* in their order: the answer of the write comes here again */
        if (!task->marked) {
            if (before == INT64_MAX)
                mark_next(t, a, task);
            return;
        }
        if (!send_first(task))
            return;
    }
}

void task_pump(struct tasks *t, struct task_agent *a)
{
    if (a->ready && a->n_open > 0)
        pump(t, a, INT64_MAX);
}

void task_marked(struct task *task, bool ours)
{
    struct task_agent *a = task->agent;

    task->marking = false;
    a->n_marking--;
    if (task->gone)
        return;
    if (!ours)
        task_drop(task); /* another daemon has it */
    task_pump(task->t, a);
}

/* --- called by link --- */

CO int task_prepare(struct tasks *t, struct str agent, struct err *e)
{
    struct task_agent *a = task_agent_get(t, agent); /* never freed while we run */
    uint64_t until_ms = deadline_in(PREPARE_MS);
    unsigned held;
    int r = 0;

    if (t->pg)
        r = task_load_agent(t, agent, e);
    do {
        held = a->n_held;
        mark_next(t, a, a->first);
        while (r == 0 && a->n_marking > 0 && !t->stopping && now_ms() < until_ms)
            r = fiber_sleep(1, e);
    } while (r == 0 && a->n_held > held && a->n_marking == 0);
    return r;
}

void task_connected(struct task_agent *a)
{
    if (a->connected)
        return;
    a->connected = true;
    a->dedupes = false;
    a->epoch++;
    a->due_ms = 0;
}

void task_flush(struct tasks *t, struct str agent, int64_t before)
{
    struct task_agent *a = task_agent_get(t, agent);

    task_connected(a);
    a->ready = before == INT64_MAX;
    if (a->n_open > 0)
        pump(t, a, before);
}

void task_gone(struct tasks *t, struct str agent)
{
    struct task_agent *a = task_agent_get(t, agent);

    a->connected = a->ready = a->dedupes = false;
    a->gone_ms = task_mono();
    a->due_ms = 0;
}

void task_resume(struct tasks *t, struct str agent)
{
    struct task_agent *a = task_agent_find(t, agent);

    if (a)
        task_pump(t, a);
}
