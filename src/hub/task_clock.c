/* SPDX-License-Identifier: MIT */
/*
 * Time-outs, leases, expiry. Each agent has a moment before which nothing is due, so a look costs
 * only where something may be.
 *
 * A time-out counts from the delivery, or, with an agent that says so, from when it began; while it
 * says that a task waits with it, none counts. A lease begins when the agent's socket goes.
 */
#include "base/log.h"
#include "hub/task_int.h"

#define SAVE_MS 1000 /* a state that was not written for so long is written */

static bool has_it(const struct task *task)
{
    return task->state == TASK_SENT || task->state == TASK_RUNNING;
}

static int64_t timeout_at(const struct task *task)
{
    int64_t since = task->state == TASK_RUNNING ? task->started_ms : task->sent_ms;
    int64_t at = since + task->timeout_ms + task->t->set->task_grace_ms;

    if (task->queued_there && task->agent->connected)
        return INT64_MAX;
    return at > task->not_before_ms ? at : task->not_before_ms;
}

static int64_t expiry_at(const struct task *task)
{
    int64_t age_ms = task->t->set->queue_max_age_ms;

    return age_ms ? task_mono() + task->created + age_ms - hub_now() : INT64_MAX;
}

static int64_t lease_at(const struct task *task)
{
    return task->agent->connected ? INT64_MAX : task->agent->gone_ms + task->t->set->lease_ms;
}

static int64_t cancel_at(const struct task *task)
{
    return task->cancel ? task->cancel_ms + task->t->set->task_grace_ms : INT64_MAX;
}

void task_requeue(struct task *task)
{
    if (task->rides > 0)
        return; /* the next look is soon */
    log_info("a task is handed out again", "task", LOG_SLICE(task->id), "agent",
             LOG_STR(task->agent->id), "attempts", LOG_INT(task->attempts));
    task->state = TASK_QUEUED;
    task->sent = task->started = 0;
    task->queued_there = false;
    task_mark(task, false);
    task_output_end(task, NULL, 0);
    task_write_mark(task);
    task_pump(task->t, task->agent);
}

static void expire(struct task *task)
{
    task->dead = "expired";
    task_end(task, TASK_FAILED, "expired: nobody came for it in time");
}

static void time_out(struct task *task)
{
    task_tell(task->t, task->agent->node.key, "cancel", task->id, "timeout");
    task_end(task, TASK_TIMEOUT, "no result within its time-out and grace");
}

static int64_t min_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Do what is due now; when the next is. */
static int64_t look_at(struct task *task, int64_t now)
{
    int64_t lease = lease_at(task), timeout = timeout_at(task), cancel = cancel_at(task), save;

    if (!task->written || task->ending)
        return INT64_MAX;
    if (!has_it(task)) {
        int64_t expiry = task->marking ? now + SAVE_MS : expiry_at(task);

        if (!task->marking && expiry <= now)
            expire(task);
        return expiry;
    }
    if (cancel <= now)
        task_end(task, TASK_CANCELED, task->cancel);
    else if (timeout <= now)
        time_out(task);
    else if (lease <= now)
        task_lost(task, "the agent was away for longer than hub.lease");
    save = task->unsaved ? task->started_ms + SAVE_MS : INT64_MAX;
    if (save <= now && !task->ending && task->rides == 0)
        task_write_mark(task);
    return min_of(min_of(lease, timeout), min_of(cancel, save));
}

static void look_at_agent(struct task_agent *a, int64_t now)
{
    int64_t due = INT64_MAX;

    a->due_ms = INT64_MAX;
    for (struct task *task = a->first, *next; task; task = next) {
        next = task->next;
        due = min_of(due, look_at(task, now));
    }
    a->due_ms = min_of(a->due_ms, due);
}

void task_clock(struct tasks *t)
{
    struct lane *lanes[] = { &t->accepts, &t->marks, &t->ends, &t->lates, &t->graves, &t->news };
    int64_t now = task_mono();

    for (size_t i = 0; i < LEN(lanes); i++)
        lane_poke(lanes[i]);
    for (struct task_agent *a = t->active, *next; a; a = next) {
        next = a->anext;
        if (a->due_ms <= now)
            look_at_agent(a, now);
    }
}
