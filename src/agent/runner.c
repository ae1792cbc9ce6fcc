/* SPDX-License-Identifier: MIT */
/*
 * agent/runner.c — the tasks that the agent holds: acceptance, order, bounds, duplicates, cancel.
 *
 * What is accepted is on disk before the hub hears of it and before it starts: the keeper, a fiber,
 * writes what has come meanwhile as one batch. A task for which there is a place at once is written
 * as running right away, which saves it a second write.
 */
#include <string.h>

#include "agent/held.h"
#include "base/log.h"
#include "base/offload.h"

#define BATCH  64
#define ID_MAX 256

/* Tasks held, in whatever state: each is a file. */
#define HELD_MAX 20000

/* --- the lists --- */

void held_move(struct held *h, struct held_list *to)
{
    if (h->in)
        TAILQ_REMOVE(h->in, h, link);
    h->in = to;
    if (to)
        TAILQ_INSERT_TAIL(to, h, link);
}

static void held_free(struct held *h)
{
    json_decref(h->payload);
    free(h->response);
    free(h->reason);
    free(h->from);
    free(h->id);
    free(h);
}

static struct held *held_new(struct runner *r, const char *id, const char *from)
{
    struct held *h = xcalloc(1, sizeof(*h));

    h->runner = r;
    h->id = xstrdup(id);
    h->from = xstrdup(from);
    h->seq = ++r->seq;
    strmap_add(&r->by_id, &h->node, str_of(h->id));
    TAILQ_INSERT_TAIL(&r->all, h, all);
    return h;
}

static struct held *find(const struct runner *r, const char *id)
{
    struct strmap_node *node = id ? strmap_find(&r->by_id, str_of(id)) : NULL;

    return node ? container_of(node, struct held, node) : NULL;
}

/* An id is a text; one that was posted as a number may come as it was. NULL: there is none. */
static const char *id_of(const json_t *payload, char number[24])
{
    const json_t *id = json_object_get(payload, "taskId");

    if (!json_is_integer(id))
        return json_string_value(id);
    fmt_z(number, 24, "%lld", (long long)json_integer_value(id));
    return number;
}

static struct held *find_member(const struct runner *r, const json_t *payload)
{
    char number[24];

    return find(r, id_of(payload, number));
}

static void drop_file(struct runner *r, const char *id)
{
    if (r->n_drops == r->drops_cap) {
        r->drops_cap = r->drops_cap ? 2 * r->drops_cap : 16;
        r->drops = xrealloc(r->drops, r->drops_cap * sizeof(*r->drops));
    }
    r->drops[r->n_drops++] = xstrdup(id);
    if (r->keeper)
        fiber_wake(r->keeper);
}

void held_remove(struct held *h)
{
    struct runner *r = h->runner;

    if (h->on_disk)
        drop_file(r, h->id);
    r->disk_bytes -= h->disk_bytes;
    if (r->telling == h)
        r->telling = NULL;
    held_move(h, NULL);
    TAILQ_REMOVE(&r->all, h, all);
    strmap_remove(&r->by_id, &h->node);
    held_free(h);
}

void held_written(struct held *h, size_t bytes)
{
    h->on_disk = true;
    h->runner->disk_bytes += bytes - h->disk_bytes;
    h->disk_bytes = bytes;
}

/* It is to be begun anew, by us after a place is free or by the agent that follows. */
void held_requeue(struct held *h)
{
    struct runner *r = h->runner;

    if (h->state == HELD_RUNNING) {
        r->n_running--;
        r->n_queued++;
    }
    h->state = HELD_NEW;
    held_move(h, &r->fresh);
    fiber_wake(r->keeper);
}

static const char *state_name(const struct held *h)
{
    static const char *const names[] = { "queued", "queued", "running", "done" };

    return names[h->state];
}

void held_say_state(const struct held *h)
{
    struct err e;

    if (agent_say(h->runner->agent, h->from, "status",
                  json_pack("{s:s, s:s}", "taskId", h->id, "state", state_name(h)), &e) < 0)
        log_debug("a state was not told", "error", LOG_ERR(&e)); /* the resync will */
}

/* --- places --- */

static bool has_place(const struct runner *r)
{
    return !r->stopping && r->n_running < r->agent->conf->max_concurrent;
}

static void take_place(struct held *h)
{
    struct runner *r = h->runner;

    if (h->state == HELD_QUEUED)
        r->n_queued--;
    held_move(h, NULL);
    h->state = HELD_RUNNING;
    r->n_running++;
    work_begin(h);
}

void runner_next(struct runner *r)
{
    while (has_place(r) && !TAILQ_EMPTY(&r->queue))
        take_place(TAILQ_FIRST(&r->queue));
}

/* --- acceptance --- */

static bool is_full(const struct runner *r)
{
    return r->disk_bytes >= (size_t)r->agent->conf->spool_bytes || r->by_id.n >= HELD_MAX;
}

/* An original hub never acknowledges: what it was told goes first when room is needed. */
static void make_room(struct runner *r)
{
    struct held *h, *next;

    for (h = TAILQ_FIRST(&r->all); h && is_full(r); h = next) {
        next = TAILQ_NEXT(h, all);
        if (h->state == HELD_DONE && h->delivered)
            held_remove(h);
    }
}

/* Why it cannot be taken, or NULL. */
static const char *refusal(struct runner *r, const char *id)
{
    if (strlen(id) > ID_MAX)
        return "the task's id is too long";
    if (r->stopping)
        return "the agent is shutting down";
    if (r->n_queued >=
        r->agent->conf->max_queued + (has_place(r) ? r->agent->conf->max_concurrent : 0))
        return "the agent's queue is full";
    make_room(r);
    if (is_full(r))
        return "the agent's spool is full: results wait for the hub";
    return NULL;
}

/* A task we know: nothing is done twice. */
static void again(struct held *h)
{
    log_info("a task that is known", "task", LOG_STR(h->id), "state", LOG_STR(state_name(h)));
    if (h->state == HELD_DONE) {
        if (h->in != &h->runner->outbox)
            held_move(h, &h->runner->outbox);
        fiber_wake(h->runner->deliverer);
    } else if (h->state != HELD_NEW) {
        held_say_state(h);
    }
}

void runner_task(struct runner *r, const json_t *payload, const char *from)
{
    char number[24];
    const char *id = id_of(payload, number), *why;
    struct held *h;

    if (!id || !*id) {
        log_warn("a task without a taskId", "from", LOG_STR(from));
        return;
    }
    h = find(r, id);
    if (h) {
        again(h);
        return;
    }
    why = refusal(r, id);
    if (why) {
        log_warn("a task is refused", "task", LOG_STR(id), "reason", LOG_STR(why));
        deliver_refusal(r, from, id, why);
        return;
    }
    h = held_new(r, id, strlen(from) <= ID_MAX ? from : "host");
    h->payload = json_incref((json_t *)(uintptr_t)payload);
    h->retry = json_is_true(json_object_get(payload, "retry"));
    r->n_queued++;
    held_move(h, &r->fresh);
    fiber_wake(r->keeper);
}

/* --- the keeper: what is written, in batches --- */

struct batch {
    const struct spool *spool;
    struct held *held[BATCH];
    struct spool_entry entries[BATCH];
    struct buf texts[BATCH];
    size_t bytes[BATCH];
    int results[BATCH];
    struct err errors[BATCH];
    size_t n;
    char **drops;
    size_t n_drops;
};

/* On a thread of its own. */
static int write_batch(void *arg, struct err *e)
{
    struct batch *b = arg;
    struct err lost;
    int r = 0;

    for (size_t i = 0; i < b->n; i++)
        if (b->results[i] == 0)
            b->results[i] = spool_put(b->spool, &b->entries[i], &b->bytes[i], &b->errors[i]);
    if (b->n > 0)
        r = spool_sync(b->spool, &lost);
    for (size_t i = 0; i < b->n && r < 0; i++) {
        b->results[i] = r;
        b->errors[i] = lost;
    }
    for (size_t i = 0; i < b->n_drops; i++)
        spool_drop(b->spool, b->drops[i]);
    return 0;
}

static void add_fresh(struct batch *b, struct held *h, bool running)
{
    size_t i = b->n++;

    held_move(h, NULL);
    h->marked = running;
    b->held[i] = h;
    buf_init(&b->texts[i], AGENT_MESSAGE_MAX);
    if (!h->on_disk)
        b->results[i] = json_write(h->payload, &b->texts[i], &b->errors[i]);
    b->entries[i] = (struct spool_entry){
        .id = h->id,
        .from = h->from,
        .state = running ? SPOOL_RUNNING : SPOOL_QUEUED,
        .retry = h->retry,
        .seq = h->seq,
        .body = buf_str(&b->texts[i]),
        .there = h->on_disk,
    };
}

static void gather(struct runner *r, struct batch *b)
{
    long long places = TAILQ_EMPTY(&r->queue) && has_place(r)
                           ? r->agent->conf->max_concurrent - (long long)r->n_running
                           : 0;

    while (b->n < BATCH && !TAILQ_EMPTY(&r->fresh))
        add_fresh(b, TAILQ_FIRST(&r->fresh), (long long)b->n < places);
    b->drops = TAKE(r->drops);
    b->n_drops = r->n_drops;
    r->n_drops = r->drops_cap = 0;
}

/* It is on disk, or cannot be: then it is refused and forgotten. */
static void accepted(struct batch *b, size_t i)
{
    struct held *h = b->held[i];
    struct runner *r = h->runner;

    buf_done(&b->texts[i]);
    if (b->results[i] < 0) {
        AUTO(free) char *why = xasprintf("the agent cannot keep the task: %s", b->errors[i].msg);

        log_error("a task cannot be kept", "task", LOG_STR(h->id), "error", LOG_ERR(&b->errors[i]));
        deliver_refusal(r, h->from, h->id, why);
        r->n_queued--;
        held_remove(h);
        return;
    }
    held_written(h, b->bytes[i]);
    h->state = HELD_QUEUED;
    if (h->canceled) {
        take_place(h);
        return;
    }
    held_move(h, &r->queue);
    runner_next(r);
    if (h->state == HELD_QUEUED)
        held_say_state(h);
}

static CO int keep(void *arg, struct err *e)
{
    struct runner *r = arg;
    struct batch *b;
    int result = 0;

    while (result == 0) {
        if (TAILQ_EMPTY(&r->fresh) && r->n_drops == 0) {
            result = fiber_park(DEADLINE_NONE, e);
            continue;
        }
        b = xcalloc(1, sizeof(*b));
        b->spool = r->spool;
        gather(r, b);
        r->writing = true;
        result = offload(write_batch, b, e);
        r->writing = false;
        for (size_t i = 0; i < b->n; i++)
            accepted(b, i);
        for (size_t i = 0; i < b->n_drops; i++)
            free(b->drops[i]);
        free(b->drops);
        free(b);
    }
    return result == -ERR_CANCELED ? 0 : result;
}

/* --- what the hub says of them --- */

void runner_ack(struct runner *r, const json_t *payload)
{
    struct held *h = find_member(r, payload);

    if (h && h->state == HELD_DONE)
        held_remove(h);
}

static void cancel(struct held *h, const char *reason)
{
    if (h->state == HELD_DONE || h->canceled)
        return;
    h->canceled = true;
    h->reason = xstrdup(reason ? reason : "");
    if (h->state == HELD_QUEUED)
        take_place(h);
    else if (h->work)
        fiber_cancel(h->work);
}

void runner_cancel(struct runner *r, const json_t *payload)
{
    const char *reason = json_string_value(json_object_get(payload, "reason"));
    struct held *h = find_member(r, payload);

    if (!h) {
        log_info("a cancel of a task that is not here");
        return;
    }
    log_info("a task is canceled", "task", LOG_STR(h->id), "reason", LOG_STR(reason));
    cancel(h, reason);
}

static long long count_of(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);

    return json_is_integer(v) ? json_integer_value(v) : -1;
}

static void resync_one(struct held *h, const json_t *said)
{
    if (!json_is_true(json_object_get(said, "ended"))) {
        live_seek(h->live, count_of(said, "stdout"), count_of(said, "stderr"));
    } else if (h->state == HELD_DONE) {
        held_remove(h);
    } else {
        h->forget = true;
        cancel(h, "the hub has ended it");
    }
}

void runner_resync(struct runner *r, const json_t *payload)
{
    const json_t *tasks = json_object_get(payload, "tasks"), *one;
    size_t i;

    json_array_foreach(tasks, i, one)
    {
        struct held *h = find_member(r, one);

        if (h)
            resync_one(h, one);
    }
    live_pump_resynced(r->pump);
}

json_t *runner_held(const struct runner *r)
{
    json_t *tasks = json_array();
    const struct held *h;

    TAILQ_FOREACH(h, &r->all, all)
    {
        if (!h->delivered)
            json_array_append_new(tasks,
                                  json_pack("{s:s, s:s}", "taskId", h->id, "state", state_name(h)));
    }
    return tasks;
}

unsigned runner_active(const struct runner *r)
{
    return r->n_running + r->n_queued;
}

void runner_connected(struct runner *r)
{
    deliver_connected(r);
    live_pump_connected(r->pump);
}

void runner_lost(struct runner *r, unsigned code)
{
    deliver_lost(r, code);
    live_pump_wake(r->pump);
}

void runner_drained(struct runner *r)
{
    live_pump_wake(r->pump);
}

/* --- start and stop --- */

/* A task that ran when the agent died: its outcome is not known. */
static void interrupted(struct held *h)
{
    h->response = work_failure(
        h->id, "interrupted: the agent ended while the task ran, so it may be done in part",
        &h->response_n);
    h->state = HELD_DONE;
}

static int take_up(const struct spool_entry *entry, size_t bytes, void *arg, struct err *e)
{
    struct runner *r = arg;
    struct held *h = held_new(r, entry->id, entry->from);
    struct arena a = { 0 };
    json_t *payload = NULL;
    int result = 0;

    if (entry->seq > r->seq)
        r->seq = entry->seq;
    h->seq = entry->seq;
    h->retry = entry->retry;
    h->on_disk = true;
    h->disk_bytes = bytes;
    r->disk_bytes += bytes;
    if (entry->state == SPOOL_RUNNING)
        leftover_end(r->agent->conf, entry->id);
    if (entry->state == SPOOL_DONE) {
        h->state = HELD_DONE;
    } else if (entry->state == SPOOL_RUNNING && !entry->retry) {
        interrupted(h);
    } else {
        result = json_parse(entry->body, 512, &a, &payload, NULL, e);
        h->payload = json_incref(payload);
        h->state = HELD_QUEUED;
        r->n_queued++;
        held_move(h, &r->queue);
    }
    arena_done(&a);
    return result;
}

int runner_new(struct agent *a, struct runner **ret, struct err *e)
{
    struct runner *r = xcalloc(1, sizeof(*r));
    int result;

    r->agent = a;
    TAILQ_INIT(&r->all);
    TAILQ_INIT(&r->fresh);
    TAILQ_INIT(&r->queue);
    TAILQ_INIT(&r->outbox);
    result = spool_open(a->conf->state_dir, &r->spool, e);
    if (result == 0)
        result = spool_load(r->spool, take_up, r, e);
    if (result < 0) {
        runner_free(r);
        return result;
    }
    *ret = r;
    return 0;
}

int runner_start(struct runner *r, struct err *e)
{
    int result;

    r->group = fiber_group_new(r->agent->loop);
    result = live_pump_new(r->agent, &r->pump, e);
    if (result == 0)
        result = fiber_spawn(r->agent->loop, "spool", keep, r, &r->keeper, e);
    if (result == 0)
        result = fiber_spawn(r->agent->loop, "deliver", deliver, r, &r->deliverer, e);
    if (result == 0)
        runner_next(r);
    return result;
}

static bool is_quiet(const struct runner *r)
{
    return fiber_group_size(r->group) == 0 && TAILQ_EMPTY(&r->fresh) && !r->writing;
}

/* Results that can be told still, and files that go. */
static bool is_told(const struct runner *r)
{
    return r->n_drops == 0 && (!agent_connected(r->agent) || TAILQ_EMPTY(&r->outbox));
}

static CO void join(struct fiber *f)
{
    struct err e;

    if (!f)
        return;
    fiber_cancel(f);
    if (fiber_join(f, &e) < 0)
        log_error("at the end", "error", LOG_ERR(&e));
}

CO void runner_stop(struct runner *r, uint64_t deadline_ms)
{
    struct held *h;
    struct err e;

    r->stopping = true;
    if (!r->keeper)
        return; /* it was never started */
    TAILQ_FOREACH(h, &r->all, all)
    {
        if (h->work)
            fiber_cancel(h->work);
        else if (h->state == HELD_QUEUED && h->marked)
            held_requeue(h);
    }
    while (!is_quiet(r) || (!is_told(r) && now_ms() < deadline_ms))
        if (fiber_sleep(10, &e) < 0)
            break;
    join(TAKE(r->deliverer));
    if (fiber_group_join(r->group, &e) < 0)
        log_error("at the end", "error", LOG_ERR(&e));
    join(TAKE(r->keeper));
    live_pump_free(TAKE(r->pump));
}

void runner_free(struct runner *r)
{
    struct held *h;

    if (!r)
        return;
    while ((h = TAILQ_FIRST(&r->all)) != NULL) {
        TAILQ_REMOVE(&r->all, h, all);
        held_free(h);
    }
    for (size_t i = 0; i < r->n_drops; i++)
        free(r->drops[i]);
    free(r->drops);
    strmap_done(&r->by_id);
    fiber_group_free(r->group);
    spool_close(r->spool);
    free(r);
}
