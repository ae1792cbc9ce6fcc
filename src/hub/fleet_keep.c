/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_keep.c — what is done for machines without being asked: those that still run after a
 * crash are adopted, those that died are started again, an operation that hangs past its deadline
 * is given up, what belongs to no machine is ended.
 *
 * A machine that runs has a fiber that waits for its end. It comes back at growing distances; one
 * that dies too often in a row stays failed until somebody starts it.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/offload.h"
#include "hub/audit.h"
#include "hub/fleet_int.h"
#include "hub/link.h"

enum { TICK_MS = 500, POLL_MS = 5000, EXIT_MS = 8000, HUNG_MS = 10000, LOST_MS = 3600 * 1000 };

static CO void save(struct machine *m)
{
    struct err e;

    if (machine_save(m, &e) < 0 && e.code != ERR_CANCELED)
        log_warn("a machine's row is behind", "machine", LOG_STR(m->name), "error", LOG_ERR(&e));
}

/* --- its end --- */

void machine_died(struct machine *m, const char *reason)
{
    char why[REASON_MAX];
    int64_t wait;

    if (m->started_at && hub_now() - m->started_at >= MACHINE_WELL_MS)
        m->deaths = 0;
    wait = machine_backoff_ms(++m->deaths);
    if (!m->wanted_running) {
        machine_move(m, MS_STOPPED, reason);
        return;
    }
    if (wait < 0)
        snprintf(why, sizeof(why), "ended %u times in a row, it is not started again: %.300s",
                 m->deaths, reason);
    else
        snprintf(why, sizeof(why), "ended (starts again in %lld s): %.300s", (long long)wait / 1000,
                 reason);
    m->restart_at = wait < 0 ? 0 : hub_now() + wait;
    machine_move(m, MS_FAILED, why);
}

static CO int wait_end(struct machine *m, struct arena *a, const char **reason, struct err *e)
{
    struct machine_look look;
    struct machine_job job;
    int r;

    if (m->driver->watch) {
        machine_job_make(m, a, NULL, DEADLINE_NONE, &job);
        return m->driver->watch(&job, a, reason, e);
    }
    do {
        r = fiber_sleep(POLL_MS, e);
        if (r == 0)
            r = machine_look_now(m, a, &look, e);
    } while (r == 0 && look.power == MACHINE_ON && m->state == MS_RUNNING);
    *reason = r == 0 ? look.reason : NULL;
    return r;
}

/* It may be on again: then it was restarted, and goes on. */
static CO int note_end(struct machine *m, struct arena *a, const char *reason, struct err *e)
{
    struct machine_look look;
    int r = machine_look_now(m, a, &look, e);

    if (r < 0 || look.power == MACHINE_ON || m->gone || m->state != MS_RUNNING)
        return r;
    machine_egress_close(m);
    if (m->gone || m->state != MS_RUNNING)
        return 0;
    link_drop(m->fleet->h->links, str_of(m->name), LINK_REPLACED, "the machine ended");
    machine_died(m, reason ? reason : look.reason ? look.reason : "it ended");
    audit(m->fleet->h, &(struct audit_line){ .event = "machine.ended",
                                             .agent = str_of(m->name),
                                             .reason = m->reason });
    save(m);
    return 0;
}

static CO int watch(void *arg, struct err *e)
{
    struct machine *m = arg;
    int r = 0;

    while (r != -ERR_CANCELED && !m->gone && !m->fleet->stopping) {
        struct arena arena = { 0 };
        const char *reason = NULL;

        if (m->state == MS_RUNNING) {
            r = wait_end(m, &arena, &reason, e);
            if (r == 0)
                r = note_end(m, &arena, reason, e);
            if (r < 0 && r != -ERR_CANCELED)
                r = fiber_sleep(1000, e);
        } else if (machine_state_transient(m->state)) {
            r = fleet_wait(m->fleet, DEADLINE_NONE, e);
        } else {
            arena_done(&arena);
            break;
        }
        arena_done(&arena);
    }
    m->watched = false;
    machine_unref(m);
    return 0;
}

void machine_runs(struct machine *m, const struct machine_look *look)
{
    struct err e;

    m->started_at = look->started_at ? look->started_at : hub_now();
    fmt_z(m->address, sizeof(m->address), "%s", look->address);
    fmt_z(m->accel, sizeof(m->accel), "%s", look->accel);
    if (m->watched || m->fleet->stopping)
        return;
    m->watched = true;
    machine_ref(m);
    if (fiber_group_spawn(m->fleet->group, "watch machine", watch, m, &e) < 0) {
        log_error("a machine is not watched", "machine", LOG_STR(m->name), "error", LOG_ERR(&e));
        m->watched = false;
        machine_unref(m);
    }
}

/* --- adoption --- */

/* Is the operation of the row over, or was it never begun? Errors: it may go on. */
static CO bool is_over(struct machine *m)
{
    struct arena arena = { 0 };
    struct durable_info info;
    struct err e;
    bool over;
    int r;

    r = durable_get(m->fleet->h->conf.engine, str_of(m->operation), &arena, &info, &e);
    over = r == -ERR_NOT_FOUND || (r == 0 && !durable_status_active(info.status));
    arena_done(&arena);
    return over;
}

static void adopt_off(struct machine *m, const struct machine_look *look)
{
    const char *reason = look->reason ? look->reason : "it ended while the daemon was away";

    if (look->power == MACHINE_ABSENT) {
        if (m->state != MS_FAILED) /* which says why */
            machine_move(m, MS_FAILED, "nothing is left of it");
        return;
    }
    if (m->wanted_running)
        m->restart_at = hub_now();
    if (m->state == MS_RUNNING || machine_state_transient(m->state))
        machine_move(m, m->wanted_running ? MS_FAILED : MS_STOPPED,
                     m->wanted_running ? reason : NULL);
}

static CO void adopt(struct machine *m)
{
    enum machine_state before = m->state;
    struct machine_look look;
    struct arena arena = { 0 };
    struct err e;
    int r;

    if (machine_state_transient(m->state) && *m->operation && !is_over(m))
        return; /* its workflow goes on once we are ready */
    r = machine_look_now(m, &arena, &look, &e);
    if (before == MS_DESTROYING) {
        machine_move(m, MS_FAILED, "it was being destroyed when the daemon ended");
    } else if (r < 0) {
        if (before != MS_STOPPED)
            machine_move(m, MS_FAILED, e.msg);
    } else if (look.power == MACHINE_ON && before != MS_STOPPED) {
        if (machine_egress_open(m, &e) < 0)
            log_warn("a machine has no way out", "machine", LOG_STR(m->name), "error", LOG_ERR(&e));
        machine_move(m, MS_RUNNING, NULL);
        machine_runs(m, &look);
        log_info("adopted", "machine", LOG_STR(m->name));
    } else {
        adopt_off(m, &look);
    }
    if (m->state != before)
        save(m);
    arena_done(&arena);
}

/* All machines, held: the list may change while we wait. */
static struct machine **hold_all(struct fleet *f, size_t *ret_n)
{
    struct machine **all = xcalloc(f->n + 1, sizeof(struct machine *));

    for (size_t i = 0; i < f->n; i++)
        all[i] = machine_ref(f->list[i]);
    *ret_n = f->n;
    return all;
}

static void release_all(struct machine **all, size_t n)
{
    for (size_t i = 0; i < n; i++)
        machine_unref(all[i]);
    free(all);
}

static CO void adopt_all(struct fleet *f)
{
    size_t n;
    struct machine **all = hold_all(f, &n);

    for (size_t i = 0; i < n && !fiber_canceled(); i++)
        adopt(all[i]);
    release_all(all, n);
}

/* --- what belongs to no machine --- */

static int move_aside(void *arg, struct err *e)
{
    const char *const *paths = arg; /* what, the directory of the lost, where to */

    if (mkdir(paths[1], 0700) < 0 && errno != EEXIST)
        return err_sys(e, "mkdir '%s'", paths[1]);
    if (rename(paths[0], paths[2]) < 0)
        return err_sys(e, "rename '%s'", paths[0]);
    return 0;
}

/* Its processes are ended; what it held is moved aside, not deleted: it may be the database that is
 * the wrong one. */
static CO void sweep_one(struct fleet *f, const struct machine_driver *driver, const char *name)
{
    const struct machine_spec spec = { .name = name, .agent_id = name, .image = "", .type = "" };
    const struct machine_job job = { .host = &f->host,
                                     .spec = &spec,
                                     .deadline_ms = now_ms() + EXIT_MS };
    struct arena arena = { 0 };
    const char *paths[3];
    struct err e;
    int r = driver->stop(&job, true, &e);

    paths[0] = machine_path(&job, &arena, NULL);
    paths[1] = arena_printf(&arena, "%s/.lost", f->dir);
    paths[2] = arena_printf(&arena, "%s/%s.%lld", paths[1], name, (long long)hub_now());
    if (r == 0)
        r = offload(move_aside, paths, &e);
    if (r < 0)
        log_warn("what belongs to no machine could not be swept", "name", LOG_STR(name), "error",
                 LOG_ERR(&e));
    else
        log_warn("a directory that belongs to no machine was moved aside", "name", LOG_STR(name),
                 "to", LOG_STR(paths[2]));
    arena_done(&arena);
}

static bool has_directory(const struct fleet *f, const char *name)
{
    AUTO(free) char *path = xasprintf("%s/%s", f->dir, name);
    struct stat st;

    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static CO void sweep(struct fleet *f)
{
    for (const struct machine_driver *const *d = machine_drivers; *d; d++) {
        struct arena arena = { 0 };
        const char **names;
        struct err e;
        size_t n = 0;

        if (!(*d)->list || (*d)->list(&f->host, &arena, &names, &n, &e) < 0)
            n = 0; /* its program is not here: it has nothing running either */
        for (size_t i = 0; i < n && !fiber_canceled(); i++)
            if (!machine_find(f, str_of(names[i])) && has_directory(f, names[i]))
                sweep_one(f, *d, names[i]);
        arena_done(&arena);
    }
}

/* --- deadlines and restarts --- */

/* A driver ends by its deadline; what has not long after it hangs. */
static CO void give_up(struct machine *m)
{
    const struct str id = str_of(m->operation);
    AUTO(free) char *operation = str_dup(id);
    const struct str copy = str_of(operation);
    struct err e;
    int64_t n;

    if (durable_cancel(m->fleet->h->conf.engine, &copy, 1, false, &n, &e) < 0)
        log_warn("an operation that hangs could not be cancelled", "machine", LOG_STR(m->name),
                 "error", LOG_ERR(&e));
    if (m->gone || strcmp(m->operation, operation) != 0)
        return;
    machine_move(m, MS_FAILED,
                 "the operation did not end in its time; destroy the machine or "
                 "start it again");
    save(m);
}

static CO void look_after(struct machine *m)
{
    int64_t grace = m->fleet->h->settings->destroy_ms + HUNG_MS, now = hub_now();
    struct err e;

    if (m->gone)
        return;
    if (machine_state_transient(m->state) && now > m->deadline + grace) {
        give_up(m);
        return;
    }
    if (!m->restart_at || now < m->restart_at || machine_state_transient(m->state))
        return;
    m->restart_at = 0;
    if (m->state != MS_RUNNING && m->wanted_running && machine_begin(m, MO_START, NULL, &e) < 0) {
        log_warn("a machine could not be started again", "machine", LOG_STR(m->name), "error",
                 LOG_ERR(&e));
        m->restart_at = now + POLL_MS;
    }
}

static bool needs_care(const struct machine *m)
{
    return m->restart_at || machine_state_transient(m->state);
}

static CO void tick(struct fleet *f)
{
    size_t n, care = 0;
    struct machine **all;

    for (size_t i = 0; i < f->n; i++)
        care += needs_care(f->list[i]);
    if (!care)
        return;
    all = hold_all(f, &n);
    for (size_t i = 0; i < n && !fiber_canceled(); i++)
        look_after(all[i]);
    release_all(all, n);
}

CO int fleet_keep(void *arg, struct err *e)
{
    struct fleet *f = arg;
    uint64_t lost_ms = 0;
    int r = 0;

    if (mkdir(f->dir, 0700) < 0 && errno != EEXIST)
        log_warn("no machines can be made", "error", LOG_STR(strerror(errno)));
    adopt_all(f);
    f->ready = true;
    fleet_wake(f);
    sweep(f);
    while (r == 0 && !f->stopping) {
        if (now_ms() >= lost_ms) {
            fleet_lost_trim(f);
            lost_ms = now_ms() + LOST_MS;
        }
        tick(f);
        r = fiber_sleep(TICK_MS, e);
    }
    return 0;
}

/* --- the end --- */

static CO int end_one(void *arg, struct err *e)
{
    struct machine *m = arg;
    int r = fiber_lane_enter(&m->lane, now_ms() + EXIT_MS, e);

    if (r == 0) {
        r = machine_halt(m, false, now_ms() + EXIT_MS, e);
        fiber_lane_leave(&m->lane);
    }
    if (r == 0 && m->state == MS_RUNNING) /* else its operation goes on with the next start */
        machine_move(m, MS_STOPPED, NULL);
    if (r < 0)
        log_warn("a machine still runs", "machine", LOG_STR(m->name), "error", LOG_ERR(e));
    save(m);
    machine_unref(m);
    return 0;
}

static CO void end_all(struct fleet *f)
{
    struct fiber_group *group = fiber_group_new(f->h->conf.loop);
    size_t n;
    struct machine **all = hold_all(f, &n);
    struct err e;

    for (size_t i = 0; i < n; i++)
        if (all[i]->state != MS_STOPPED && all[i]->state != MS_FAILED &&
            fiber_group_spawn(group, "stop machine", end_one, machine_ref(all[i]), &e) < 0)
            machine_unref(all[i]);
    (void)fiber_group_join(group, &e); /* each has logged what failed */
    fiber_group_free(group);
    release_all(all, n);
}

CO void fleet_end_machines(struct fleet *f)
{
    size_t n;
    struct machine **all;

    if (f->ready && strcmp(f->h->settings->on_exit, "stop") == 0)
        end_all(f);
    all = hold_all(f, &n);
    for (size_t i = 0; i < n; i++)
        machine_egress_close(all[i]);
    release_all(all, n);
}
