/* SPDX-License-Identifier: MIT */
/*
 * agent/agent.c — the agent's life: its parts are made, the link is kept, and at a signal or when
 * the link is given up they are ended in an order that loses nothing: what runs, what it left, the
 * connection.
 */
#include <signal.h>
#include <string.h>

#include "agent/agent_int.h"
#include "base/log.h"
#include "base/offload.h"

#define STOP_MS 8000 /* in all */

struct life {
    struct agent agent;
    struct fiber *main, *link;
    int r;
    struct err e;
    bool link_ended;
};

const struct agent_conf *agent_conf(const struct agent *a)
{
    return a->conf;
}

struct loop *agent_loop(const struct agent *a)
{
    return a->loop;
}

struct audit_log *agent_audit(const struct agent *a)
{
    return a->audit;
}

static void on_signal(void *arg)
{
    struct life *life = arg;

    life->agent.stopping = true;
    fiber_wake(life->main);
}

static CO int keep_link(void *arg, struct err *e)
{
    struct life *life = arg;
    int r = link_keep(life->agent.link, e);

    life->link_ended = true;
    fiber_wake(life->main);
    return r;
}

/* The audit log is worth less than the work: without it the agent goes on, and says so. */
static void open_audit(struct agent *a)
{
    const char *given = a->conf->audit_path, *logs = getenv("LOGS_DIRECTORY");
    const char *dir = logs && *logs == '/' && !strchr(logs, ':') ? logs : a->conf->state_dir;
    AUTO(free) char *path = given ? xstrdup(given) : xasprintf("%s/audit.log", dir);
    struct err e;

    if (audit_log_open(path, &a->audit, &e) < 0)
        log_error("there is no audit log", "path", LOG_STR(path), "error", LOG_ERR(&e));
}

static int begin(struct life *life, struct err *e)
{
    struct agent *a = &life->agent;
    int r;

    r = runner_new(a, &a->runner, e);
    if (r < 0)
        return err_wrap(e, "state directory '%s'", a->conf->state_dir);
    open_audit(a);
    a->health = health_new();
    a->link = link_new(a);
    a->shells = shells_new(a);
    r = relays_new(a->loop, a->conf, &a->relays, e);
    if (r == 0)
        r = runner_start(a->runner, e);
    if (r == 0)
        r = fiber_spawn(a->loop, "link", keep_link, life, &life->link, e);
    return r;
}

static CO void finish(struct life *life)
{
    struct agent *a = &life->agent;

    if (a->link)
        link_stop(a->link);
    if (life->link && !life->link_ended)
        fiber_cancel(life->link);
    if (life->link)
        life->r = fiber_join(TAKE(life->link), &life->e);
    if (a->runner)
        runner_stop(a->runner, now_ms() + STOP_MS);
    a->deaf = true;
    if (a->shells)
        shells_free(TAKE(a->shells));
    if (a->link)
        link_close(a->link);
    relays_free(TAKE(a->relays));
}

static CO int live(void *arg, struct err *unused)
{
    struct life *life = arg;
    struct err e;

    life->main = fiber_self();
    life->r = begin(life, &life->e);
    while (life->r == 0 && !life->agent.stopping && !life->link_ended)
        if (fiber_park(DEADLINE_NONE, &e) < 0)
            break;
    if (life->r == 0)
        log_info("stopping", "signal", LOG_BOOL(life->agent.stopping));
    finish(life);
    loop_stop(life->agent.loop);
    return 0;
}

static void let_go(struct agent *a)
{
    runner_free(a->runner);
    link_free(a->link);
    health_free(a->health);
    audit_log_close(a->audit);
}

int agent_run(const struct agent_conf *conf, struct err *e)
{
    struct life life = { .agent = { .conf = conf } };
    struct loop_signal *term, *interrupt;
    struct loop *loop;
    int r;

    r = loop_new(&loop, e);
    if (r < 0)
        return r;
    life.agent.loop = loop;
    r = fiber_spawn(loop, "agent", live, &life, NULL, e);
    if (r < 0) {
        loop_free(loop);
        return r;
    }
    term = loop_signal_new(loop, SIGTERM, on_signal, &life);
    interrupt = loop_signal_new(loop, SIGINT, on_signal, &life);
    loop_run(loop);
    loop_signal_free(term);
    loop_signal_free(interrupt);
    let_go(&life.agent);
    offload_shutdown();
    loop_free(loop);
    if (life.r < 0)
        *e = life.e;
    return life.r;
}
