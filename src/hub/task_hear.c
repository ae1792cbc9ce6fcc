/* SPDX-License-Identifier: MIT */
/*
 * What agents say of tasks. Only what is open counts, and only from the agent whose task it is; a
 * result that comes for anything else is acknowledged, so that the agent may forget it, and kept
 * where the task had been given up.
 */
#include "base/id.h"
#include "base/log.h"
#include "hub/audit.h"
#include "hub/event.h"
#include "hub/link.h"
#include "hub/task_int.h"

#define RESYNC_MAX 100000 /* tasks named at once */

/* Ids are texts; those that were posted as numbers may come back as numbers. */
static struct str id_of(const json_t *payload, char text[24])
{
    const json_t *id = json_object_get(payload, "taskId");

    if (!json_is_integer(id))
        return json_member_str(payload, "taskId");
    fmt_z(text, 24, "%lld", (long long)json_integer_value(id));
    return str_of(text);
}

static struct task *task_of(const struct tasks *t, struct str agent, struct str id)
{
    struct task *task = id.p ? task_find(t, id) : NULL;

    return task && task->written && str_eq(task->agent->node.key, agent) ? task : NULL;
}

/* --- results --- */

static enum task_state state_of(const struct task *task, const json_t *payload)
{
    const json_t *result = json_object_get(payload, "result");

    if (!json_is_false(json_object_get(payload, "success")))
        return TASK_COMPLETED;
    if (task->cancel)
        return TASK_CANCELED;
    return json_is_true(json_object_get(result, "timedOut")) ? TASK_TIMEOUT : TASK_FAILED;
}

/* Agents of the original protocol do not say when they began, but how long it took. */
static void guess_started(struct task *task, const json_t *payload)
{
    int64_t now = hub_now();
    double took = json_number_value(json_object_get(payload, "duration"));

    if (task->started)
        return;
    task->started =
        took > 0 && took < (double)(now - task->sent) ? now - (int64_t)took : task->sent;
}

static char *text_of(const json_t *payload)
{
    AUTO(buf_done) struct buf b;
    struct err e;

    buf_init(&b, TASK_TEXT_MAX);
    if (json_write(payload, &b, &e) < 0)
        return NULL;
    return str_dup(buf_str(&b));
}

void task_response(struct tasks *t, struct str agent, const json_t *payload)
{
    char number[24];
    struct str id = id_of(payload, number);
    struct task *task = task_of(t, agent, id);
    char *text;

    if (!id.p || id.n > TASK_ID_MAX || (task && task->ending))
        return; /* what is ending is acknowledged when it has ended */
    text = text_of(payload);
    if (!text)
        return;
    if (!task || task->attempts == 0) { /* never sent, so not its answer */
        task_late(t, agent, id, text);
        return;
    }
    guess_started(task, payload);
    audit(t->h, &(struct audit_line){
                    .event = "task.finished",
                    .agent = agent,
                    .task = task->id,
                    .type = task->type,
                    .from = agent,
                    .response = payload,
                });
    task_end_by(task, state_of(task, payload), text, task->cancel);
}

/* --- states --- */

static void now_running(struct task *task)
{
    struct hub *h = task->t->h;

    task->queued_there = false;
    if (task->state == TASK_RUNNING)
        return;
    task->state = TASK_RUNNING;
    if (!task->started)
        task->started = hub_now();
    task->started_ms = task_mono();
    task->unsaved = true; /* the clock writes it, if it runs for long enough to be worth it */
    task_due(task);
    if (event_wanted(h))
        event(
            h, "task.running",
            json_pack("{s:s%,s:s}", "taskId", task->id.p, task->id.n, "agentId", task->agent->id));
}

static void heard_state(struct task *task, struct str state)
{
    if (task->ending)
        return;
    if (task->state == TASK_QUEUED) { /* taken back after its lease, but the agent has it */
        if (task->attempts == 0)
            return;
        task_mark(task, true);
        task->state = TASK_SENT;
        task->sent = task->sent ? task->sent : hub_now();
        task->sent_ms = task->started_ms = task_mono();
        task->unsaved = true;
        task_due(task);
    }
    if (str_eq_z(state, "running")) {
        now_running(task);
    } else if (str_eq_z(state, "queued") || str_eq_z(state, "accepted")) {
        task->queued_there = true;
        task_due(task);
    }
}

/* --- resync --- */

static json_t *answer(const struct task *task, struct str id)
{
    return json_pack("{s:s%,s:b,s:b,s:I,s:I}", "taskId", id.p, id.n, "known", task != NULL, "ended",
                     !task || task->ending, "stdout",
                     (json_int_t)(task ? task_output_have(task, false) : 0), "stderr",
                     (json_int_t)(task ? task_output_have(task, true) : 0));
}

static void heard_of(struct tasks *t, struct task_agent *a, const json_t *named, json_t *answers)
{
    char number[24];
    struct str id = id_of(named, number);
    struct task *task = task_of(t, a->node.key, id);
    bool done = str_eq_z(json_member_str(named, "state"), "done");

    if (!id.p || id.n > TASK_ID_MAX)
        return;
    if (task) {
        task->epoch = a->epoch; /* it has it: it need not be sent again */
        if (!done)
            heard_state(task, json_member_str(named, "state"));
        if (task->cancel && !done && !task->ending)
            task_tell(t, a->node.key, "cancel", task->id, task->cancel);
    }
    if (!done) /* of the others the result comes, and its acknowledgement ends it */
        json_array_append_new(answers, answer(task, id));
}

/* What we think it has, and it has not. */
static void not_named(struct tasks *t, struct task_agent *a)
{
    for (struct task *task = a->first, *next; task; task = next) {
        next = task->next;
        if (task->epoch == a->epoch || task->ending || !task->written)
            continue;
        if (task->state == TASK_RUNNING || (task->state == TASK_SENT && task->queued_there))
            task_lost(task, "the agent knows nothing of it any more");
        else if (task->state == TASK_SENT && task->cancel)
            task_end(task, TASK_CANCELED, task->cancel);
        else if (task->state == TASK_SENT)
            task_send_again(task);
    }
}

static void resync(struct tasks *t, struct str agent, const json_t *payload)
{
    struct task_agent *a = task_agent_get(t, agent);
    const json_t *named = json_object_get(payload, "tasks");
    json_t *answers = json_array();
    struct err e;
    size_t i;
    json_t *one;

    task_connected(a);
    a->dedupes = json_is_true(json_object_get(payload, "dedupe"));
    json_array_foreach(named, i, one)
    {
        if (i < RESYNC_MAX)
            heard_of(t, a, one, answers);
    }
    if (link_say(t->h->links, agent, "resync", json_pack("{s:o}", "tasks", answers), &e) < 0)
        log_debug("a resync was not answered", "agent", LOG_SLICE(agent), "error", LOG_ERR(&e));
    if (a->dedupes)
        not_named(t, a);
    task_pump(t, a);
}

bool task_status(struct tasks *t, struct str agent, const json_t *payload)
{
    char number[24];
    struct str state = json_member_str(payload, "state"), id;
    struct task *task;

    if (str_eq_z(state, "resync")) {
        resync(t, agent, payload);
        return true;
    }
    id = id_of(payload, number);
    if (!id.p)
        return false;
    task = task_of(t, agent, id);
    if (task)
        heard_state(task, state);
    return true;
}
