/* SPDX-License-Identifier: MIT */
/*
 * Asking a task to end. What waits ends at once. An agent that deduplicates is told and answers
 * with a result; one of the original protocol cannot be told, so for the hub the task is over, and
 * what it still sends is kept as a late result.
 */
#include <stdlib.h>

#include "hub/audit.h"
#include "hub/task_int.h"

#define REASON  "an operator asked for it"
#define GONE_MS 5000

/* clang-format off */
static const struct sql sql_ask = { /* of a task that another daemon watches over */
    "task cancel",
    "UPDATE hub_tasks SET cancel = ?2 WHERE id = ?1 AND completed_at IS NULL AND cancel IS NULL",
    NULL,
};
/* clang-format on */

void task_cancel_here(struct task *task, const char *reason)
{
    const struct task_agent *a = task->agent;

    if (task->cancel || task->ending)
        return;
    task->cancel = xstrdup(reason);
    task->cancel_ms = task_mono();
    if (task->state == TASK_QUEUED && task->attempts <= (task->marked ? 1u : 0u)) {
        task_end(task, TASK_CANCELED, reason);
        return;
    }
    task->unsaved = true;
    task_due(task);
    task_tell(task->t, a->node.key, "cancel", task->id, reason);
    if (task->state == TASK_QUEUED || (a->connected && !a->dedupes))
        task_end(task, TASK_CANCELED, reason);
}

static int ask_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct str *id = arg;
    const struct sql_arg args[] = { SQL_STR(*id), SQL_Z(REASON) };

    return store_run(tx, &sql_ask, args, LEN(args), NULL, NULL, e);
}

static CO int ask(struct tasks *t, struct str id, struct err *e)
{
    int r = store_do(t->store, ask_body, &id, e);

    if (r >= 0)
        task_say_cancel(t, id);
    return r < 0 ? r : 0;
}

/* Until the end that we have asked for was written, or was found to be somebody else's affair. */
static CO int wait_gone(struct tasks *t, struct str id, struct err *e)
{
    uint64_t until_ms = deadline_in(GONE_MS);
    int r = 0;

    while (r == 0 && task_find(t, id) && now_ms() < until_ms)
        r = fiber_sleep(1, e);
    return r;
}

CO int task_cancel_by(struct tasks *t, struct str agent, struct str id, struct str who,
                      const char *peer, struct err *e)
{
    struct task *task = task_find(t, id);
    struct str text;
    int r;

    audit(t->h, &(struct audit_line){ .event = "task.cancel",
                                      .agent = task ? task->agent->node.key : agent,
                                      .task = id,
                                      .from = who,
                                      .peer = peer });
    if (task && task->written && (!agent.n || str_eq(task->agent->node.key, agent))) {
        bool sure = task_known(task);

        task_cancel_here(task, REASON);
        if (sure && !task->ending)
            return 0;
        r = wait_gone(t, id, e); /* who looks after our answer sees it */
        if (r < 0 || sure)
            return r;
        r = task_await(t, agent, id, 0, &text, e);
        if (r >= 0)
            free((char *)(uintptr_t)text.p);
        return r <= 0 ? r : ask(t, id, e); /* another daemon was faster */
    }
    r = task_await(t, agent, id, 0, &text, e);
    if (r < 0)
        return r;
    free((char *)(uintptr_t)text.p);
    if (r == 0)
        return err_set(e, ERR_CONFLICT, "the task has ended");
    return ask(t, id, e);
}

CO int task_cancel(struct tasks *t, struct str agent, struct str id, struct err *e)
{
    return task_cancel_by(t, agent, id, STR("host"), NULL, e);
}
