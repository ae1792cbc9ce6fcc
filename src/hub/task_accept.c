/* SPDX-License-Identifier: MIT */
/*
 * From a request to a row. The task is in memory while its row is on its way, so that an id comes
 * once and the agent's order is that of arrival; nobody sees it before it is written.
 */
#include "base/id.h"
#include "hub/audit.h"
#include "hub/event.h"
#include "hub/task_int.h"

#define TIMEOUT_MAX (365LL * 24 * 3600 * 1000)

/* --- what was posted --- */

static bool id_fits(struct str id)
{
    if (id.n == 0 || id.n > TASK_ID_MAX)
        return false;
    for (size_t i = 0; i < id.n; i++) {
        if ((unsigned char)id.p[i] < ' ' || id.p[i] == 0x7f)
            return false;
    }
    return true;
}

/* What JavaScript takes for nothing counts as none; numbers are ids, as they were. */
static int member_id(const json_t *body, const char *key, char id[TASK_ID_MAX + 1], struct err *e)
{
    const json_t *given = json_object_get(body, key);
    struct str text = json_member_str(body, key);

    id[0] = '\0';
    if (json_is_integer(given) && json_integer_value(given) != 0)
        fmt_z(id, TASK_ID_MAX + 1, "%lld", (long long)json_integer_value(given));
    else if (json_is_string(given) && id_fits(text))
        fmt_z(id, TASK_ID_MAX + 1, STR_FMT, STR_ARG(text));
    else if (json_is_array(given) || json_is_object(given) || json_is_true(given) ||
             (json_is_real(given) && json_real_value(given) != 0) || text.n > 0)
        return err_set(e, ERR_INVALID,
                       "%s must be a text of 1 to %d characters without control characters", key,
                       TASK_ID_MAX);
    return 0;
}

static int choose_id(const json_t *body, char id[TASK_ID_MAX + 1], struct err *e)
{
    int r = member_id(body, "id", id, e);

    if (r == 0 && !id[0])
        r = member_id(body, "taskId", id, e);
    if (r == 0 && !id[0])
        uuid_v4(id);
    return r;
}

static long long timeout_of(const struct tasks *t, const json_t *body)
{
    const json_t *given = json_object_get(body, "timeout");
    long long ms = json_is_integer(given) ? json_integer_value(given) : 0;

    if (ms <= 0) /* absent or 0 means the default; what is wrong the agent says */
        return t->set->task_timeout_ms;
    return ms > TIMEOUT_MAX ? TIMEOUT_MAX : ms;
}

/* --- is there room? --- */

static struct task *oldest_waiting(const struct task_agent *a)
{
    struct task *task = a->first;

    while (task && (task->marked || !task->written || task->ending))
        task = task->next;
    return task;
}

static int make_room(struct tasks *t, struct task_agent *a, struct err *e)
{
    struct task *oldest;

    if (a->n_waiting < t->set->queue_max)
        return 0;
    oldest = str_eq_z(str_of(t->set->queue_full), "refuse") ? NULL : oldest_waiting(a);
    if (!oldest)
        return err_set(e, ERR_LIMIT, "%u tasks wait for '%s' already (hub.queue_max)", a->n_waiting,
                       a->id);
    oldest->dead = "queue full";
    task_end(oldest, TASK_FAILED, "queue full: it was the oldest of those that waited");
    return 0;
}

static int check_room(struct tasks *t, struct str agent, const char *id, size_t bytes,
                      struct err *e)
{
    const struct task_agent *a = task_agent_find(t, agent);

    if (t->stopping)
        return err_set(e, ERR_UNAVAILABLE, "the hub is stopping");
    if (!hub_agents_find(t->h->agents, agent))
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    if (task_find(t, str_of(id)))
        return err_set(e, ERR_CONFLICT, "a task of the id '%s' is known", id);
    if (t->bytes + bytes > (size_t)t->set->tasks_memory)
        return err_set(e, ERR_UNAVAILABLE,
                       "the tasks that have not ended hold %zu bytes (hub.tasks_memory)", t->bytes);
    return a ? make_room(t, task_agent_get(t, agent), e) : 0;
}

/* --- acceptance --- */

static void note(struct tasks *t, const struct task *task, const json_t *body, struct str who,
                 const char *peer)
{
    audit(t->h, &(struct audit_line){
                    .event = "task.received",
                    .agent = task->agent->node.key,
                    .task = task->id,
                    .type = task->type,
                    .from = who,
                    .peer = peer,
                    .body = body,
                });
}

void task_accepted(struct task *task, int r, const struct err *e)
{
    struct tasks *t = task->t;
    struct task_agent *a = task->agent;
    struct hub_agent *agent = hub_agents_find(t->h->agents, a->node.key);

    task->outcome = r;
    task->settled = true;
    if (r < 0)
        *task->why = *e;
    fiber_wake(task->fiber); /* it runs after us */
    if (r < 0) {
        task_drop(task);
        task_release(task);
        return;
    }
    task_release(task);
    task->written = true;
    metric_add(&hub_m_tasks, 0, 1);
    if (agent) {
        agent->stats.received++;
        agent->dirty = true;
    } else {
        task_end(task, TASK_FAILED, "the agent was deregistered");
    }
    if (event_wanted(t->h))
        event(t->h, "task.queued",
              json_pack("{s:s%,s:s,s:o?}", "taskId", task->id.p, task->id.n, "agentId", a->id,
                        "taskType",
                        task->type.p ? json_stringn(task->type.p, task->type.n) : NULL));
    task_due(task);
    task_pump(t, a);
    if (t->pg && !a->connected)
        task_say_waiting(t, a->node.key);
}

/* In the maps, on its way to its row. */
static struct task *begin(struct tasks *t, struct str agent, const json_t *body, struct str from,
                          struct str text, const char *id)
{
    const struct task_texts texts = { str_of(id), from, json_member_str(body, "type"), text };
    struct task_agent *a = task_agent_get(t, agent);
    bool at_once = task_may_send(t, a);
    struct task *task = task_add(t, a, hub_order(t->h), &texts);

    task->here = true;
    task->state = TASK_QUEUED;
    task->created = hub_now();
    task->timeout_ms = timeout_of(t, body);
    task->retry = json_is_true(json_object_get(body, "retry"));
    if (at_once) { /* its row is born so */
        task_mark(task, true);
        task->attempts = 1;
        task->sent = task->created;
    }
    return task;
}

CO int task_accept(struct tasks *t, struct str agent, const json_t *body, struct str from,
                   struct str who, const char *peer, char id[TASK_ID_MAX + 1], struct err *e)
{
    AUTO(buf_done) struct buf text;
    char chosen[TASK_ID_MAX + 1];
    struct task *task;
    struct err why;
    int r;

    buf_init(&text, (size_t)t->set->body_max);
    r = choose_id(body, chosen, e);
    if (r == 0)
        r = json_write(body, &text, e);
    if (r == 0)
        r = check_room(t, agent, chosen, buf_str(&text).n, e);
    if (r < 0)
        return r;
    task = begin(t, agent, body, from, buf_str(&text), chosen);
    note(t, task, body, who, peer);
    task->fiber = fiber_self();
    task->why = &why;
    task->rides++; /* it stays until we have seen how it went */
    task_write_new(task);
    while (!task->settled)
        fiber_park_hard();
    r = task->outcome;
    task_release(task);
    if (r < 0) {
        *e = why;
        return r;
    }
    audit_flush(t->h);
    fmt_z(id, TASK_ID_MAX + 1, "%s", chosen);
    return 0;
}

CO int task_submit(struct tasks *t, struct str agent, const json_t *body, struct str from,
                   const char *peer, char id[TASK_ID_MAX + 1], struct err *e)
{
    return task_accept(t, agent, body, from, from, peer, id, e);
}
