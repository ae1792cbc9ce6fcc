/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_step.c — what steps of operations do: one driver call each, within the machine's lane,
 * and what belongs to it on the hub's side (token, way out, socket, tasks).
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "hub/agents.h"
#include "hub/fleet_int.h"
#include "hub/link.h"
#include "hub/task.h"

enum { FORCE_MS = 20000, LOOK_MS = 1000 };

/* --- pieces --- */

static void on_progress(const char *text, void *arg)
{
    const struct operation *p = arg;

    if (!p->m->gone && strcmp(p->m->operation, workflow_id(p->w)) == 0)
        machine_progress_set(p->m, text);
}

static void make_job(struct operation *p, struct arena *a, const char *token,
                     struct machine_job *ret)
{
    machine_job_make(p->m, a, token, p->deadline_ms, ret);
    ret->progress = on_progress;
    ret->arg = p;
}

int machine_egress_open(struct machine *m, struct err *e)
{
    struct arena arena = { 0 };
    struct machine_job job;
    unsigned port;
    int r = 0;

    if (m->egress)
        return 0;
    machine_job_make(m, &arena, NULL, DEADLINE_NONE, &job);
    if (mkdir(machine_path(&job, &arena, "run"), 0700) < 0 && errno != EEXIST)
        r = err_sys(e, "mkdir '%s'", machine_path(&job, &arena, "run"));
    if (r == 0)
        r = egress_new(m->fleet->host.loop, machine_path(&job, &arena, "run/egress.sock"),
                       job.spec->allow, job.spec->n_allow, &port, &m->egress, e);
    arena_done(&arena);
    return r;
}

CO void machine_egress_close(struct machine *m)
{
    egress_free(TAKE(m->egress));
}

CO int machine_look_now(struct machine *m, struct arena *a, struct machine_look *ret, struct err *e)
{
    struct machine_job job;

    machine_job_make(m, a, NULL, now_ms() + FORCE_MS, &job);
    *ret = (struct machine_look){ .cpu = -1, .memory = -1 };
    return m->driver->look(&job, a, ret, e);
}

CO int machine_halt(struct machine *m, bool force, uint64_t deadline_ms, struct err *e)
{
    struct arena arena = { 0 };
    struct machine_job job;
    int r;

    machine_job_make(m, &arena, NULL, deadline_ms, &job);
    r = m->driver->stop(&job, force, e);
    if (r < 0 && r != -ERR_CANCELED && !force) {
        log_warn("a machine is stopped by force", "machine", LOG_STR(m->name), "error", LOG_ERR(e));
        job.deadline_ms = now_ms() + FORCE_MS;
        r = m->driver->stop(&job, true, e);
    }
    if (r == 0) {
        machine_egress_close(m);
        link_drop(m->fleet->h->links, str_of(m->name), LINK_REPLACED, "the machine was stopped");
    }
    arena_done(&arena);
    return r;
}

/* --- create --- */

static CO int make(struct operation *p, struct arena *a, struct err *e)
{
    struct hub *h = p->f->h;
    struct hub_agent *agent = hub_agents_find(h->agents, str_of(p->m->name));
    AUTO(json_decref) json_t *metadata = machine_metadata(p->m);
    char token[AGENT_TOKEN_TEXT];
    struct machine_job job;
    int r;

    if (agent && !agent->machine)
        return err_set(e, ERR_CONFLICT, "an agent '%s' is registered that is no machine",
                       p->m->name);
    r = hub_agents_register(h->agents, str_of(p->m->name), metadata, true, token, e);
    if (r == 0) {
        make_job(p, a, token, &job);
        r = p->m->driver->create(&job, e);
    }
    secret_wipe(token, sizeof(token));
    return r;
}

CO int step_create(void *arg, struct buf *out, struct err *e)
{
    struct operation *p = arg;
    struct arena arena = { 0 };
    int r = fiber_lane_enter(&p->m->lane, p->deadline_ms, e);

    if (r < 0)
        return r;
    r = make(p, &arena, e);
    fiber_lane_leave(&p->m->lane);
    arena_done(&arena);
    return r;
}

/* --- start --- */

static struct str last_line(struct str text)
{
    const char *nl;

    text = str_trim(text);
    nl = text.n ? memrchr(text.p, '\n', text.n) : NULL;
    return nl ? (struct str){ nl + 1, text.n - (size_t)(nl + 1 - text.p) } : text;
}

/* The end of what it printed, for who asks why it did not come. */
static CO void add_last_words(struct operation *p, struct arena *a, struct err *e)
{
    AUTO(buf_done) struct buf log = { 0 };
    struct machine_job job;
    struct str words;
    struct err ignored;

    buf_init(&log, 4 * KIB);
    make_job(p, a, NULL, &job);
    job.deadline_ms = now_ms() + FORCE_MS;
    if (!p->m->driver->logs || p->m->driver->logs(&job, 1 * KIB, &log, &ignored) < 0)
        return;
    words = last_line(buf_str(&log));
    if (words.n) {
        struct err first = *e;

        (void)err_set(e, first.code, "%.120s: %.*s", first.msg,
                      (int)(words.n < 110 ? words.n : 110), words.p);
    }
}

/* Its agent connects, or it ends before. */
static CO int wait_agent(struct operation *p, struct arena *a, struct err *e)
{
    struct links *links = p->f->h->links;
    struct machine_look look;
    struct err ignored;

    on_progress("waiting for its agent", p);
    while (!link_online(links, str_of(p->m->name))) {
        int r = fleet_wait(p->f, deadline_min(p->deadline_ms, now_ms() + LOOK_MS), e);

        if (r == -ERR_CANCELED)
            return r;
        if (p->f->stopping) /* it is stopped for the time being: the engine ends us soon */
            continue;
        if (r == 0 || link_online(links, str_of(p->m->name)))
            continue;
        if (machine_look_now(p->m, a, &look, &ignored) == 0 && look.power != MACHINE_ON) {
            r = err_set(e, ERR_INTERNAL, "it ended before its agent had connected%s%s",
                        look.reason ? ": " : "", look.reason ? look.reason : "");
            add_last_words(p, a, e);
            return r;
        }
        if (now_ms() >= p->deadline_ms) {
            r = err_set(e, ERR_TIMEOUT, "its agent has not connected in time");
            add_last_words(p, a, e);
            return r;
        }
    }
    return 0;
}

static CO int bring_up(struct operation *p, struct arena *a, struct err *e)
{
    struct machine_look look;
    struct machine_job job;
    int r = machine_look_now(p->m, a, &look, e);

    if (r == 0 && look.power == MACHINE_ABSENT)
        return err_set(e, ERR_NOT_FOUND, "nothing is left of it: destroy it and make it anew");
    if (r == 0 && look.power == MACHINE_OFF)
        link_drop(p->f->h->links, str_of(p->m->name), LINK_REPLACED, "the machine starts anew");
    if (r == 0)
        r = machine_egress_open(p->m, e);
    if (r == 0) {
        make_job(p, a, NULL, &job);
        r = p->m->driver->start(&job, e);
    }
    return r;
}

CO int step_bring_up(void *arg, struct buf *out, struct err *e)
{
    struct operation *p = arg;
    struct arena arena = { 0 };
    int r = fiber_lane_enter(&p->m->lane, p->deadline_ms, e);

    if (r < 0)
        return r;
    r = bring_up(p, &arena, e);
    fiber_lane_leave(&p->m->lane);
    if (r == 0)
        r = wait_agent(p, &arena, e);
    arena_done(&arena);
    return r;
}

/* --- stop, snapshot, restore --- */

CO int step_stop(void *arg, struct buf *out, struct err *e)
{
    struct operation *p = arg;
    uint64_t limit = deadline_in(p->f->h->settings->stop_ms);
    int r = fiber_lane_enter(&p->m->lane, p->deadline_ms, e);

    if (r < 0)
        return r;
    r = machine_halt(p->m, p->force, deadline_min(limit, p->deadline_ms), e);
    fiber_lane_leave(&p->m->lane);
    return r;
}

CO int step_snapshot(void *arg, struct buf *out, struct err *e)
{
    struct operation *p = arg;
    struct arena arena = { 0 };
    struct machine_job job;
    int r = fiber_lane_enter(&p->m->lane, p->deadline_ms, e);

    if (r < 0)
        return r;
    make_job(p, &arena, NULL, &job);
    r = p->m->driver->snapshot(&job, p->snapshot, e);
    fiber_lane_leave(&p->m->lane);
    arena_done(&arena);
    return r;
}

/* What was at work in the machine is not in the snapshot: nobody will ever hear of it. The token
 * that is in the snapshot may be an old one, so it gets a new one. */
static CO int go_back(struct operation *p, struct arena *a, struct err *e)
{
    struct hub *h = p->f->h;
    char token[AGENT_TOKEN_TEXT];
    struct machine_job job;
    struct err ignored;
    int r = task_lose_agent(h->tasks, str_of(p->m->name), "the machine went back to a snapshot", e);

    if (r == 0)
        r = hub_agents_rotate(h->agents, str_of(p->m->name), token, e);
    if (r < 0)
        return r;
    make_job(p, a, token, &job);
    r = p->m->driver->restore(&job, p->snapshot, e);
    if (r < 0 && r != -ERR_CANCELED && p->m->driver->create(&job, &ignored) < 0)
        log_warn("a machine has an old token", "machine", LOG_STR(p->m->name), "error",
                 LOG_ERR(&ignored));
    secret_wipe(token, sizeof(token));
    return r;
}

CO int step_restore(void *arg, struct buf *out, struct err *e)
{
    struct operation *p = arg;
    struct arena arena = { 0 };
    int r = fiber_lane_enter(&p->m->lane, p->deadline_ms, e);

    if (r < 0)
        return r;
    r = machine_egress_open(p->m, e);
    if (r == 0)
        r = go_back(p, &arena, e);
    fiber_lane_leave(&p->m->lane);
    arena_done(&arena);
    return r;
}

/* --- undo, destroy --- */

/* What there is of it, here and on the hub's side; the row stays. */
static CO int unmake(struct operation *p, struct err *e)
{
    struct hub *h = p->f->h;
    struct arena arena = { 0 };
    struct machine_job job;
    struct hub_agent *agent;
    int r;

    make_job(p, &arena, NULL, &job);
    job.deadline_ms = deadline_in(h->settings->destroy_ms);
    r = p->m->driver->destroy(&job, e);
    arena_done(&arena);
    if (r < 0)
        return r;
    machine_egress_close(p->m);
    agent = hub_agents_find(h->agents, str_of(p->m->name));
    if (!agent || !agent->machine)
        return 0;
    r = hub_agents_deregister(h->agents, str_of(p->m->name), e);
    return r == -ERR_NOT_FOUND ? 0 : r;
}

CO int step_undo(void *arg, struct buf *out, struct err *e)
{
    struct operation *p = arg;
    int r = fiber_lane_enter(&p->m->lane, deadline_in(p->f->h->settings->destroy_ms), e);

    if (r < 0)
        return r;
    r = unmake(p, e);
    fiber_lane_leave(&p->m->lane);
    return r;
}

/* An operation that was under way has been cancelled: the lane is left when it has gone. */
CO int step_destroy(void *arg, struct buf *out, struct err *e)
{
    struct operation *p = arg;
    int r = step_undo(p, out, e);

    if (r == 0)
        r = machine_delete(p->m, e);
    if (r == 0)
        operation_audit(p);
    if (r == 0 && !p->m->gone)
        machine_remove(p->m);
    return r;
}

/* --- settle --- */

/* Where it ends, of an operation that failed. */
static void settle_failed(struct operation *p, const struct machine_look *look, const char *why)
{
    struct machine *m = p->m;

    if (p->op == MO_CREATE || p->op == MO_DESTROY || look->power == MACHINE_ABSENT)
        machine_move(m, MS_FAILED, why);
    else if (p->op == MO_STOP || p->op == MO_SNAPSHOT) {
        if (look->power == MACHINE_ON) {
            machine_move(m, MS_RUNNING, why);
            machine_runs(m, look);
        } else {
            machine_move(m, p->was_running && p->op == MO_SNAPSHOT ? MS_FAILED : MS_STOPPED, why);
        }
    } else if (m->deaths && p->op == MO_START) {
        machine_died(m, why);
    } else {
        machine_move(m, MS_FAILED, why);
    }
}

static void settle_done(struct operation *p, const struct machine_look *look)
{
    struct machine *m = p->m;

    if (p->op == MO_RESTORE)
        m->wanted_running = look->power == MACHINE_ON;
    if (look->power == MACHINE_ON) {
        machine_move(m, MS_RUNNING, NULL);
        machine_runs(m, look);
        if (m->begun_ms && (p->op == MO_CREATE || p->op == MO_START))
            metric_observe(&hub_m_machine_ms, 0, (int64_t)(now_ms() - m->begun_ms) * 1000);
    } else if (m->wanted_running && p->op != MO_STOP) {
        machine_died(m, look->reason ? look->reason : "it ended");
    } else {
        machine_move(m, MS_STOPPED, NULL);
    }
}

CO int step_settle(void *arg, struct buf *out, struct err *e)
{
    struct operation *p = arg;
    struct arena arena = { 0 };
    struct machine_look look = { 0 };
    struct err why;
    int r = 0;

    if (p->failed && (p->op == MO_START || p->op == MO_RESTART || p->op == MO_RESTORE))
        r = machine_halt(p->m, true, now_ms() + FORCE_MS, &why);
    if (r == 0)
        r = machine_look_now(p->m, &arena, &look, &why);
    if (r == -ERR_CANCELED) {
        *e = why;
    } else if (!p->m->gone && strcmp(p->m->operation, workflow_id(p->w)) == 0) {
        if (r < 0)
            machine_move(p->m, MS_FAILED, p->failed ? p->why.msg : why.msg);
        else if (p->failed)
            settle_failed(p, &look, p->why.msg);
        else
            settle_done(p, &look);
        r = machine_save(p->m, e);
    }
    arena_done(&arena);
    return r;
}
