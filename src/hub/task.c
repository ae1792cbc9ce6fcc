/* SPDX-License-Identifier: MIT */
/*
 * hub/task.c — tasks in memory: by id, and by agent in the order of their positions. What happens
 * to them is in the files that task_int.h names.
 */
#include "base/log.h"
#include "hub/task_int.h"

#define CLOCK_MS  250
#define FINISH_MS 8000 /* for writes, when we stop */

const char *task_state_name(enum task_state s)
{
    static const char *const names[] = { "queued", "sent",    "running",  "completed",
                                         "failed", "timeout", "canceled", "lost" };

    return names[s];
}

/* --- agents --- */

struct task_agent *task_agent_find(const struct tasks *t, struct str id)
{
    struct strmap_node *node = strmap_find(&t->agents, id);

    return node ? container_of(node, struct task_agent, node) : NULL;
}

struct task_agent *task_agent_get(struct tasks *t, struct str id)
{
    struct task_agent *a = task_agent_find(t, id);

    if (a)
        return a;
    a = xcalloc(1, sizeof(*a) + id.n + 1);
    memcpy(a->id, id.p, id.n);
    a->gone_ms = task_mono();
    a->due_ms = INT64_MAX;
    strmap_add(&t->agents, &a->node, (struct str){ a->id, id.n });
    return a;
}

static void activate(struct tasks *t, struct task_agent *a)
{
    a->aprev = NULL;
    a->anext = t->active;
    if (t->active)
        t->active->aprev = a;
    t->active = a;
}

static void deactivate(struct tasks *t, struct task_agent *a)
{
    if (a->anext)
        a->anext->aprev = a->aprev;
    if (a->aprev)
        a->aprev->anext = a->anext;
    else
        t->active = a->anext;
    a->anext = a->aprev = NULL;
    a->due_ms = INT64_MAX;
}

/* --- tasks --- */

struct task *task_find(const struct tasks *t, struct str id)
{
    struct strmap_node *node = strmap_find(&t->open, id);

    return node ? container_of(node, struct task, node) : NULL;
}

bool task_known(const struct task *task)
{
    return task && task->written &&
           !(task->t->pg && task->state == TASK_QUEUED && !task->agent->connected);
}

static struct str keep(char **at, struct str s)
{
    struct str kept = { *at, s.n };

    if (!s.p)
        return s;
    memcpy(*at, s.p, s.n);
    (*at)[s.n] = '\0';
    *at += s.n + 1;
    return kept;
}

/* Nearly always at the end. */
static void link_in(struct task_agent *a, struct task *task)
{
    struct task *before = a->last;

    while (before && before->position > task->position)
        before = before->prev;
    task->prev = before;
    task->next = before ? before->next : a->first;
    if (task->next)
        task->next->prev = task;
    else
        a->last = task;
    if (before)
        before->next = task;
    else
        a->first = task;
}

struct task *task_add(struct tasks *t, struct task_agent *a, int64_t position,
                      const struct task_texts *x)
{
    size_t n = x->id.n + x->sender.n + x->type.n + x->body.n + 4;
    struct task *task = xmalloc(sizeof(*task) + n);
    char *at = task->text;

    memset(task, 0, sizeof(*task));
    task->t = t;
    task->agent = a;
    task->position = position;
    task->id = keep(&at, x->id);
    task->sender = keep(&at, x->sender);
    task->type = keep(&at, x->type);
    task->body = keep(&at, x->body);
    strmap_add(&t->open, &task->node, task->id);
    link_in(a, task);
    if (a->n_open++ == 0)
        activate(t, a);
    a->n_waiting++;
    t->n_open++;
    t->bytes += task->body.n;
    return task;
}

void task_mark(struct task *task, bool marked)
{
    struct task_agent *a = task->agent;

    if (task->marked == marked)
        return;
    task->marked = marked;
    a->n_held += marked ? 1 : -1;
    a->n_waiting += marked ? -1 : 1;
}

static void link_out(struct task *task)
{
    struct task_agent *a = task->agent;

    if (task->next)
        task->next->prev = task->prev;
    else
        a->last = task->prev;
    if (task->prev)
        task->prev->next = task->next;
    else
        a->first = task->next;
    task->prev = task->next = NULL;
}

void task_drop(struct task *task)
{
    struct tasks *t = task->t;
    struct task_agent *a = task->agent;

    if (task->gone)
        return;
    task->gone = true;
    task_mark(task, false);
    link_out(task);
    a->n_waiting--;
    if (--a->n_open == 0)
        deactivate(t, a);
    t->n_open--;
    t->bytes -= task->body.n;
    strmap_remove(&t->open, &task->node);
    task_wake(t, &task->waiters, task->id, NULL, NULL);
    task_output_end(task, NULL, 0);
    if (task->rides == 0) {
        task->rides++;
        task_release(task);
    }
}

void task_release(struct task *task)
{
    if (--task->rides > 0 || !task->gone)
        return;
    free(task->cancel);
    free(task);
}

void task_due(struct task *task)
{
    task->agent->due_ms = 0; /* the next look finds out */
}

/* --- for others --- */

static json_t *current(const struct task *task)
{
    int64_t since = task->started ? task->started : task->sent ? task->sent : task->created;
    json_t *payload = json_loadb(task->body.p, task->body.n, 0, NULL);
    json_t *one = json_pack("{s:s%}", "id", task->id.p, task->id.n);

    if (task->type.p)
        json_object_set_new(one, "type", json_stringn(task->type.p, task->type.n));
    json_object_set_new(one, "startedAt", json_integer(since));
    json_object_set_new(one, "payload", payload ? payload : json_null());
    return one;
}

json_t *task_current(struct tasks *t, struct str agent)
{
    struct task_agent *a = task_agent_find(t, agent);
    json_t *list = json_array();

    for (struct task *task = a ? a->first : NULL; task; task = task->next) {
        if (task->written)
            json_array_append_new(list, current(task));
    }
    return list;
}

size_t task_current_count(struct tasks *t, struct str agent)
{
    struct task_agent *a = task_agent_find(t, agent);

    return a ? a->n_open : 0;
}

size_t tasks_active(const struct tasks *t)
{
    return t->n_open;
}

/* --- life --- */

int tasks_new(struct hub *h, struct tasks **ret, struct err *e)
{
    struct tasks *t = xcalloc(1, sizeof(*t));
    int r;

    t->h = h;
    t->loop = h->conf.loop;
    t->store = h->conf.store;
    t->set = h->settings;
    t->pg = h->pg;
    t->round = 1; /* 0: never */
    task_lanes(t);
    r = task_wide_new(t, e);
    if (r < 0) {
        free(t);
        return err_wrap(e, "tasks");
    }
    *ret = t;
    return 0;
}

static CO int clock_chore(void *arg, struct err *e)
{
    struct tasks *t = arg;
    int r = 0;

    while (r == 0) {
        task_clock(t);
        r = fiber_sleep(CLOCK_MS, e);
    }
    return r == -ERR_CANCELED ? 0 : r;
}

CO int tasks_start(struct tasks *t, struct err *e)
{
    int r;

    t->self = durable_executor(t->h->conf.engine);
    t->chores = fiber_group_new(t->loop);
    r = task_load(t, e);
    if (r == 0)
        r = fiber_group_spawn(t->chores, "task clock", clock_chore, t, e);
    if (r == 0)
        r = fiber_group_spawn(t->chores, "task age", task_age_chore, t, e);
    if (r == 0 && t->pg)
        r = fiber_group_spawn(t->chores, "task wide", task_wide_chore, t, e);
    return r < 0 ? err_wrap(e, "tasks") : 0;
}

static void wake_everybody(struct tasks *t)
{
    for (struct task_agent *a = t->active; a; a = a->anext) {
        for (struct task *task = a->first; task; task = task->next) {
            task_wake(t, &task->waiters, task->id, NULL, NULL);
            task_output_end(task, NULL, 0);
        }
    }
    task_wake(t, &t->outside, (struct str){ 0 }, NULL, NULL);
}

CO void tasks_stop(struct tasks *t)
{
    uint64_t deadline_ms = deadline_in(FINISH_MS);
    struct lane *lanes[] = { &t->accepts, &t->marks, &t->ends, &t->lates, &t->graves, &t->news };
    struct err e;

    t->stopping = true;
    wake_everybody(t);
    if (!t->chores)
        return;
    fiber_group_cancel(t->chores);
    (void)fiber_group_join(t->chores, &e); /* they end by being cancelled */
    for (size_t i = 0; i < LEN(lanes); i++)
        lane_finish(lanes[i], deadline_ms);
}

void tasks_free(struct tasks *t)
{
    if (!t)
        return;
    while (t->active)
        task_drop(t->active->first);
    for (size_t i = 0; i < t->agents.n_slots; i++) {
        struct strmap_node *next;

        for (struct strmap_node *node = t->agents.slots[i]; node; node = next) {
            next = node->next;
            free(container_of(node, struct task_agent, node));
        }
    }
    strmap_done(&t->agents);
    strmap_done(&t->open);
    fiber_group_free(t->chores);
    free(t);
}
