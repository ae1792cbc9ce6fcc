/* SPDX-License-Identifier: MIT */
/* swarm/beat.c — see beat.h: slots, who answers, who is silent. */
#include "swarm/beat.h"

#include <string.h>

#include "base/log.h"
#include "swarm/beat_int.h"

enum {
    TURN = 256, /* beats before others get their turn */
    TICK_MS = 1000,
};

int beat_new(struct life *l, struct beat **ret, struct err *e)
{
    struct beat *b = xcalloc(1, sizeof(*b));

    b->life = l;
    b->fibers = fiber_group_new(l->s->conf.loop);
    b->jobs = chan_new(BEAT_JOBS);
    *ret = b;
    return 0;
}

/* --- agents --- */

static struct pulse *pulse_of(const struct beat *b, struct str id)
{
    struct strmap_node *node = strmap_find(&b->ids, id);

    return node ? container_of(node, struct pulse, by_id) : NULL;
}

static struct pulse *pulse_of_session(const struct beat *b, struct str session)
{
    struct strmap_node *node = strmap_find(&b->sessions, session);

    return node ? container_of(node, struct pulse, by_session) : NULL;
}

static void count(struct beat *b, const struct pulse *p, int sign)
{
    b->n_beating += p->every_ms ? sign : 0;
    b->n_silent += p->silent ? sign : 0;
    metric_set(&swarm_m_agents, 0, b->n_beating);
    metric_set(&swarm_m_silent, 0, b->n_silent);
}

void beat_urgent(struct beat *b, struct pulse *p)
{
    if (p->write)
        return;
    if (b->n_urgent == b->cap_urgent) {
        b->cap_urgent = b->cap_urgent ? b->cap_urgent * 2 : 64;
        b->urgent = xrealloc(b->urgent, b->cap_urgent * sizeof(struct pulse *));
    }
    b->urgent[b->n_urgent++] = p;
    p->write = true;
    if (b->books)
        fiber_wake(b->books);
}

static void pulse_free(struct beat *b, struct pulse *p)
{
    count(b, p, -1);
    beat_heap_drop(&b->heap, p);
    for (size_t i = 0; p->write && i < b->n_urgent; i++)
        if (b->urgent[i] == p)
            b->urgent[i--] = b->urgent[--b->n_urgent];
    strmap_remove(&b->ids, &p->by_id);
    if (p->session)
        strmap_remove(&b->sessions, &p->by_session);
    free(p->session);
    free(p->id);
    free(p);
}

static struct pulse *pulse_new(struct beat *b, const struct agent_info *row)
{
    struct pulse *p = xcalloc(1, sizeof(*p));

    p->place = BEAT_HERE;
    p->id = str_dup(row->id);
    strmap_add(&b->ids, &p->by_id, str_of(p->id));
    p->told = row->error.n && row->last_error_ms > row->last_beat_ms &&
              str_starts(row->error, STR(BEAT_SILENT));
    if (row->session.n && !pulse_of_session(b, row->session)) {
        p->session = str_dup(row->session);
        strmap_add(&b->sessions, &p->by_session, str_of(p->session));
        p->attached = p->ours = p->fresh = strmap_find(&b->seats, row->session) != NULL;
    }
    return p;
}

/* When it is to be looked at next. */
static void place(struct beat *b, struct pulse *p)
{
    int64_t grace_ms = b->life->s->settings->beat_grace_ms, ends_ms;

    if (!p->every_ms) {
        beat_heap_drop(&b->heap, p);
        return;
    }
    ends_ms = p->slot_ms - p->every_ms + grace_ms;
    p->due_ms = p->asked && ends_ms < p->slot_ms ? ends_ms : p->slot_ms;
    beat_heap_put(&b->heap, p);
    if (b->clock && b->heap.v[0] == p)
        fiber_wake(b->clock);
}

void beat_changed(struct beat *b, const struct agent_info *row)
{
    struct pulse *p = pulse_of(b, row->id);
    int64_t every_ms = row->heartbeat ? life_interval_ms(row->interval) : 0;

    if (row->status != AGENT_RUNNING) {
        if (p)
            pulse_free(b, p);
        return;
    }
    if (!p)
        p = pulse_new(b, row);
    else
        count(b, p, -1);
    if (!row->next_beat_ms)
        every_ms = 0;
    p->checklist = row->checklist.n > 2; /* more than "[]" */
    if (row->last_beat_ms > p->stored_ms)
        p->stored_ms = row->last_beat_ms;
    if (p->base_ms != row->next_beat_ms || p->every_ms != every_ms) {
        p->base_ms = row->next_beat_ms;
        p->every_ms = every_ms;
        p->asked = false;
        if (every_ms)
            p->slot_ms = beat_next(p->base_ms, every_ms, swarm_now());
    }
    count(b, p, 1);
    place(b, p);
}

void beat_fill(const struct beat *b, struct agent_info *row)
{
    const struct pulse *p = pulse_of(b, row->id);
    int64_t every_ms = life_interval_ms(row->interval);

    if (p && p->alive_ms > row->last_beat_ms)
        row->last_beat_ms = p->alive_ms;
    row->silent = p ? p->silent : false;
    if (row->status == AGENT_RUNNING && row->heartbeat && every_ms && row->next_beat_ms)
        row->next_beat_ms = beat_next(row->next_beat_ms, every_ms, swarm_now());
}

/* --- who lives --- */

int beat_alive(struct beat *b, struct str session, struct err *e)
{
    struct pulse *p = pulse_of_session(b, session);
    bool written;

    if (!p)
        return err_set(e, ERR_NOT_FOUND, "No running agent has the session " STR_FMT,
                       STR_ARG(session));
    count(b, p, -1);
    p->alive_ms = swarm_now();
    p->missed = 0;
    p->asked = p->silent = false;
    p->ours = true;
    written = p->fresh || p->told;
    p->fresh = false;
    count(b, p, 1);
    place(b, p);
    if (written)
        beat_urgent(b, p);
    return 0;
}

void beat_attached(struct beat *b, struct str session, bool attached)
{
    struct strmap_node *node = strmap_find(&b->seats, session);
    struct pulse *p = pulse_of_session(b, session);

    if (attached && !node) {
        struct beat_seat *seat = xcalloc(1, sizeof(*seat) + session.n + 1);

        memcpy(seat->session, session.p, session.n);
        strmap_add(&b->seats, &seat->by_session, str_of(seat->session));
    } else if (!attached && node) {
        strmap_remove(&b->seats, node);
        free(container_of(node, struct beat_seat, by_session));
    }
    if (!p)
        return;
    p->attached = attached;
    p->ours = p->ours || attached;
    p->fresh = p->fresh || attached;
}

void beat_counts(const struct beat *b, int64_t *ret_beating, int64_t *ret_silent)
{
    *ret_beating = b->n_beating;
    *ret_silent = b->n_silent;
}

/* --- beating --- */

static void push(struct beat *b, const struct pulse *p, int64_t slot_ms)
{
    AUTO(free) char *execution = xasprintf("hb_%s_%lld", p->id, (long long)slot_ms);
    json_t *payload;

    if (!p->attached || !life_push)
        return;
    payload = json_pack("{s:s, s:s, s:s, s:I, s:I}", "agentId", p->id, "sessionKey", p->session,
                        "executionId", execution, "interval", (json_int_t)p->every_ms, "timestamp",
                        (json_int_t)slot_ms);
    life_push(b->life->s, str_of(p->session), "agent.heartbeat", payload);
    json_decref(payload);
}

static void order_workflow(struct beat *b, const struct pulse *p, int64_t slot_ms)
{
    struct beat_job *job = xcalloc(1, sizeof(*job));

    job->agent = xstrdup(p->id);
    job->slot_ms = slot_ms;
    if (chan_try_send(b->jobs, job) == 0)
        return;
    log_warn("too many heartbeats are due at once: one is left out", "agent", LOG_STR(p->id));
    free(job->agent);
    free(job);
}

/* The time to answer is over. */
static void missed(struct beat *b, struct pulse *p)
{
    p->asked = false;
    p->missed++;
    if (p->silent || p->missed < (unsigned)b->life->s->settings->beat_missed)
        return;
    count(b, p, -1);
    p->silent = true;
    count(b, p, 1);
    beat_urgent(b, p);
}

static void beat(struct beat *b, struct pulse *p, int64_t now_ms)
{
    int64_t slot_ms = p->slot_ms;

    if (p->asked)
        missed(b, p);
    if (now_ms >= slot_ms) {
        metric_add(&swarm_m_beats, 0, 1);
        p->slot_ms = beat_next(slot_ms, p->every_ms, now_ms);
        p->asked = p->ours && p->session;
        push(b, p, slot_ms);
        if (p->checklist)
            order_workflow(b, p, slot_ms);
    }
    place(b, p);
}

static CO int beat_due(struct beat *b, struct err *e)
{
    unsigned n = 0;
    int r = 0;

    while (r == 0 && b->heap.n && b->heap.v[0]->due_ms <= swarm_now()) {
        beat(b, b->heap.v[0], swarm_now());
        if (++n % TURN == 0)
            r = fiber_yield(e);
    }
    return r;
}

/* Until the next beat is due, or somebody says that there is one. */
static CO int clock_main(void *arg, struct err *e)
{
    struct beat *b = arg;
    int64_t wait_ms;
    int r;

    b->clock = fiber_self();
    for (;;) {
        r = beat_due(b, e);
        wait_ms = b->heap.n ? b->heap.v[0]->due_ms - swarm_now() : TICK_MS;
        if (r < 0 || wait_ms > TICK_MS)
            wait_ms = TICK_MS;
        if (r == -ERR_CANCELED ||
            (wait_ms > 0 && fiber_park(now_ms() + (uint64_t)wait_ms, e) == -ERR_CANCELED))
            break;
    }
    b->clock = NULL;
    return 0;
}

static CO int keep_books(struct beat *b, uint64_t *poll_ms, uint64_t *flush_ms, struct err *e)
{
    uint64_t now = now_ms();
    int r = 0;

    if (b->n_urgent)
        r = beat_write(b, e);
    if (r == 0 && b->life->s->pg && now >= *poll_ms) {
        r = beat_poll(b, e);
        *poll_ms = now + BEAT_POLL_MS;
    }
    if (r == 0 && now >= *flush_ms) {
        r = beat_flush(b, e);
        *flush_ms = now + (uint64_t)b->life->s->settings->beat_flush_ms;
    }
    return r;
}

/* Reads and writes beside the beats, which do not wait for a database that is away. */
static CO int books_main(void *arg, struct err *e)
{
    struct beat *b = arg;
    uint64_t poll_ms = now_ms() + BEAT_POLL_MS;
    uint64_t flush_ms = now_ms() + (uint64_t)b->life->s->settings->beat_flush_ms;
    bool failing = false;
    int r;

    b->books = fiber_self();
    for (;;) {
        r = keep_books(b, &poll_ms, &flush_ms, e);
        if (r == -ERR_CANCELED)
            break;
        if (r < 0 && !failing)
            log_warn("times of heartbeats cannot be kept", "error", LOG_ERR(e));
        failing = r < 0;
        if (r == 0 && b->n_urgent)
            continue;
        r = r < 0 ? fiber_sleep(TICK_MS, e) : fiber_park(now_ms() + TICK_MS, e);
        if (r == -ERR_CANCELED)
            break;
    }
    b->books = NULL;
    return 0;
}

CO int beat_start(struct beat *b, struct err *e)
{
    int r = beat_load(b, e);

    for (int i = 0; r == 0 && i < BEAT_WORKERS; i++)
        r = fiber_group_spawn(b->fibers, "heartbeat workflows", beat_worker, b, e);
    if (r == 0)
        r = fiber_group_spawn(b->fibers, "heartbeats", clock_main, b, e);
    if (r == 0)
        r = fiber_group_spawn(b->fibers, "heartbeats' books", books_main, b, e);
    return r < 0 ? err_wrap(e, "heartbeats") : 0;
}

CO void beat_stop(struct beat *b)
{
    struct err e;

    b->stopping = true;
    fiber_group_cancel(b->fibers);
    (void)fiber_group_join(b->fibers, &e); /* they end by being cancelled */
    if (b->n_urgent && beat_write(b, &e) < 0)
        log_warn("what changed of agents at last was not written", "error", LOG_ERR(&e));
    if (beat_flush(b, &e) < 0)
        log_warn("times of the last heartbeats were not written", "error", LOG_ERR(&e));
}

void beat_free(struct beat *b)
{
    void *item;

    if (!b)
        return;
    while (chan_try_recv(b->jobs, &item) == 0) {
        struct beat_job *job = item;

        free(job->agent);
        free(job);
    }
    for (size_t i = 0; i < b->ids.n_slots; i++)
        while (b->ids.slots[i])
            pulse_free(b, container_of(b->ids.slots[i], struct pulse, by_id));
    for (size_t i = 0; i < b->seats.n_slots; i++)
        while (b->seats.slots[i]) {
            struct strmap_node *node = b->seats.slots[i];

            strmap_remove(&b->seats, node);
            free(container_of(node, struct beat_seat, by_session));
        }
    strmap_done(&b->ids);
    strmap_done(&b->sessions);
    strmap_done(&b->seats);
    fiber_group_free(b->fibers);
    chan_free(b->jobs);
    free(b->heap.v);
    free(b->urgent);
    free(b);
}
