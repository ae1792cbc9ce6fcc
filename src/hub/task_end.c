/* SPDX-License-Identifier: MIT */
/*
 * How tasks end: the row first, then those who wait, the agent's acknowledgement and the counters.
 * While the row is on its way the task still counts as what it was.
 */
#include <stdlib.h>

#include "base/log.h"
#include "hub/audit.h"
#include "hub/event.h"
#include "hub/task_int.h"

#define LOOK_MS 1000 /* at rows of others, without news */
#define QUIT_MS 5000 /* for ends to be written */

/* --- to the row --- */

void task_end_by(struct task *task, enum task_state state, char *response, const char *reason)
{
    struct task_ending *end;

    if (task->ending || task->gone) {
        free(response);
        return;
    }
    end = xcalloc(1, sizeof(*end));
    end->task = task;
    end->state = state;
    end->position = task->position;
    end->attempts = task->attempts;
    end->sent = task->state == TASK_QUEUED ? 0 : task->sent;
    end->started = task->started;
    end->completed = hub_now();
    end->response = response;
    end->reason = reason ? xstrdup(reason) : NULL;
    task_write_end(end);
}

void task_end(struct task *task, enum task_state state, const char *reason)
{
    if (task->ending || task->gone)
        return;
    audit(task->t->h, &(struct audit_line){
                          .event = "task.finished",
                          .agent = task->agent->node.key,
                          .task = task->id,
                          .type = task->type,
                          .from = STR("host"),
                          .reason = reason,
                      });
    task_end_by(task, state, NULL, reason);
}

void task_lost(struct task *task, const char *reason)
{
    if (task->retry && task->attempts < task->t->set->task_attempts && !task->cancel)
        task_requeue(task);
    else
        task_end(task, task->cancel ? TASK_CANCELED : TASK_LOST, reason);
}

/* --- from the row --- */

static void count(struct task *task, const struct task_ending *end)
{
    struct hub *h = task->t->h;
    struct hub_agent *agent = hub_agents_find(h->agents, task->agent->node.key);

    metric_add(&hub_m_tasks, (unsigned)(end->state - TASK_COMPLETED) + 1, 1);
    metric_observe(&hub_m_task_ms, 0, (end->completed - task->created) * 1000);
    task->agent->n_ended++;
    if (agent && end->state == TASK_COMPLETED)
        agent->stats.completed++;
    else if (agent)
        agent->stats.failed++;
    if (agent)
        agent->dirty = true;
    if (event_wanted(h))
        event(h, "task.ended",
              json_pack("{s:s%,s:s,s:o?,s:s,s:s?}", "taskId", task->id.p, task->id.n, "agentId",
                        task->agent->id, "taskType",
                        task->type.p ? json_stringn(task->type.p, task->type.n) : NULL, "status",
                        task_state_name(end->state), "reason", end->reason));
}

static void end_done(struct task_ending *end)
{
    free(end->response);
    free(end->reason);
    free(end);
}

/* What cannot be stored would come again and again. */
static bool end_without(struct task_ending *end, const struct err *e)
{
    struct task *task = end->task;
    char reason[TASK_REASON + 64];

    if (!end->response || e->code == ERR_UNAVAILABLE)
        return false;
    fmt_z(reason, sizeof(reason), "its result could not be stored: %s", e->msg);
    task_end_by(task, TASK_FAILED, NULL, reason);
    return true;
}

void task_ended(struct task_ending *end, int r, const struct err *e)
{
    struct task *task = end->task;
    struct tasks *t = task->t;
    struct task_agent *a = task->agent;

    task->ending = false;
    if (r < 0) {
        log_error("the end of a task could not be written", "task", LOG_SLICE(task->id), "error",
                  LOG_ERR(e));
        (void)end_without(end, e); /* without a result it stays, and is ended again */
    } else {
        if (end->changed) {
            count(task, end);
            if (task->dead)
                task_bury(t, task, task->dead);
            task_wake(t, &task->waiters, task->id, task, end);
            task_wake(t, &t->outside, task->id, NULL, NULL);
        }
        if (end->response || end->state == TASK_FAILED)
            task_tell(t, a->node.key, "ack", task->id, NULL);
        if (!task->here && end->changed)
            task_say_ended(t, task->id);
        task_drop(task);
    }
    task_release(task);
    end_done(end);
    task_pump(t, a);
}

/* --- who waits --- */

void task_wake(struct tasks *t, struct task_waiter **list, struct str id, const struct task *task,
               const struct task_ending *end)
{
    AUTO(buf_done) struct buf text = { 0 };
    struct task_waiter **at = list;
    struct task_view view;
    struct err e;

    if (!*at && !(task && task->output))
        return;
    buf_init(&text, TASK_TEXT_MAX);
    if (task) {
        task_view_of(task, end, &view);
        if (task_record(&view, &text, &e) < 0)
            buf_clear(&text); /* they read the row */
        task_output_end((struct task *)(uintptr_t)task, buf_str(&text).p, buf_str(&text).n);
    }
    while (*at) {
        struct task_waiter *w = *at;

        if (id.p && !str_eq(w->id, id)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->done = true;
        if (buf_str(&text).n) {
            w->text = str_dup(buf_str(&text));
            w->len = buf_str(&text).n;
        }
        fiber_wake(w->fiber);
    }
}

static void forget(struct task_waiter **list, struct task_waiter *w)
{
    while (*list && *list != w)
        list = &(*list)->next;
    if (*list)
        *list = w->next;
}

/* Until it has ended or another look is due. ret_text: see task_await(); 1: look again. */
static CO int wait_in(struct tasks *t, struct task_waiter **list, struct str id,
                      uint64_t deadline_ms, struct str *ret_text, struct err *e)
{
    struct task_waiter w = { .next = *list, .fiber = fiber_self(), .id = id };
    int r = 0;

    *list = &w;
    while (r == 0 && !w.done)
        r = fiber_park(deadline_ms, e);
    if (!w.done)
        forget(list, &w); /* the list is there: whoever drops a task wakes who waits for it */
    if (r < 0 && r != -ERR_TIMEOUT) {
        free(w.text);
        return r;
    }
    if (!w.text)
        return 1;
    *ret_text = (struct str){ w.text, w.len };
    return 0;
}

static int show_open(const struct task *task, struct str *ret_text, struct err *e)
{
    AUTO(buf_done) struct buf text;
    struct task_view view;
    int r;

    buf_init(&text, TASK_TEXT_MAX);
    task_view_of(task, NULL, &view);
    r = task_record(&view, &text, e);
    if (r < 0)
        return r;
    *ret_text = (struct str){ str_dup(buf_str(&text)), buf_str(&text).n };
    return TASK_OPEN;
}

static CO int look_in_store(struct tasks *t, struct str agent, struct str id, struct str *ret_text,
                            struct err *e)
{
    AUTO(buf_done) struct buf text;
    int r;

    buf_init(&text, TASK_TEXT_MAX);
    r = task_read(t, agent, id, &text, e);
    if (r >= 0)
        *ret_text = (struct str){ str_dup(buf_str(&text)), buf_str(&text).n };
    return r;
}

CO int task_await(struct tasks *t, struct str agent, struct str id, uint64_t deadline_ms,
                  struct str *ret_text, struct err *e)
{
    int r;

    for (;;) {
        struct task *task = task_find(t, id);
        bool over = now_ms() >= deadline_ms || t->stopping;

        if (task && agent.n && !str_eq(task->agent->node.key, agent))
            return err_set(e, ERR_NOT_FOUND, "Task not found");
        if (task_known(task) && over)
            return show_open(task, ret_text, e);
        if (task_known(task)) {
            r = wait_in(t, &task->waiters, id, deadline_ms, ret_text, e);
        } else {
            r = look_in_store(t, agent, id, ret_text, e);
            if (r != TASK_OPEN || over)
                return r;
            free((char *)(uintptr_t)ret_text->p);
            r = wait_in(t, &t->outside, id, deadline_min(deadline_ms, deadline_in(LOOK_MS)),
                        ret_text, e);
        }
        if (r <= 0)
            return r;
    }
}

CO int task_get(struct tasks *t, struct str agent, struct str id, uint64_t deadline_ms,
                json_t **ret, struct err *e)
{
    struct str text;
    int r = task_await(t, agent, id, deadline_ms, &text, e);

    if (r < 0)
        return r;
    *ret = json_loadb(text.p, text.n, 0, NULL);
    free((char *)(uintptr_t)text.p);
    return *ret ? 0 : err_set(e, ERR_INTERNAL, "a task's record cannot be read");
}

/* --- all of an agent's --- */

static CO int end_all(struct tasks *t, struct str agent, enum task_state state, bool waiting,
                      const char *reason, struct err *e)
{
    struct task_agent *a = task_agent_find(t, agent);
    uint64_t until_ms = deadline_in(QUIT_MS);
    bool left = a != NULL;
    int r = 0;

    while (r == 0 && left && now_ms() < until_ms) {
        left = false;
        for (struct task *task = a->first, *next; task; task = next) {
            next = task->next;
            if (!task->written || (!waiting && task->state == TASK_QUEUED))
                continue;
            left = true;
            task_end(task, state, reason);
        }
        if (left)
            r = fiber_sleep(1, e);
    }
    return r;
}

CO int task_forget_agent(struct tasks *t, struct str agent, struct err *e)
{
    return end_all(t, agent, TASK_FAILED, true, "the agent was deregistered", e);
}

CO int task_lose_agent(struct tasks *t, struct str agent, const char *reason, struct err *e)
{
    return end_all(t, agent, TASK_LOST, false, reason, e);
}
