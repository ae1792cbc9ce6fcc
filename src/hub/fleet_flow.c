/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_flow.c — MachineWorkflow: each operation on a machine is a workflow of a few steps, and
 * the last one, settle, decides by what is found which state the machine ends in. A workflow whose
 * machine has been given to another operation (a destroy) does nothing more.
 */
#include <string.h>

#include "base/log.h"
#include "hub/audit.h"
#include "hub/fleet_int.h"

static CO int step(struct operation *p, const char *name, CO durable_step_fn *body, struct err *e)
{
    return durable_step(p->w, name, NULL, body, p, NULL, e);
}

static CO int run_create(struct operation *p, struct err *e)
{
    int r = step(p, "create", step_create, e);

    return r < 0 ? r : step(p, "start", step_bring_up, e);
}

static CO int run_start(struct operation *p, struct err *e)
{
    return step(p, "start", step_bring_up, e);
}

static CO int run_stop(struct operation *p, struct err *e)
{
    return step(p, "stop", step_stop, e);
}

static CO int run_restart(struct operation *p, struct err *e)
{
    int r = step(p, "stop", step_stop, e);

    return r < 0 ? r : step(p, "start", step_bring_up, e);
}

static CO int run_snapshot(struct operation *p, struct err *e)
{
    bool off = p->m->driver->needs_stop && p->was_running;
    int r = off ? step(p, "stop", step_stop, e) : 0;

    if (r == 0)
        r = step(p, "snapshot", step_snapshot, e);
    if (!off || r == -ERR_CANCELED)
        return r;
    if (r == 0)
        return step(p, "start", step_bring_up, e);
    p->why = *e; /* it shall run again, but the failure is the snapshot's */
    if (step(p, "start", step_bring_up, e) == -ERR_CANCELED)
        return -ERR_CANCELED;
    *e = p->why;
    return r;
}

static CO int run_restore(struct operation *p, struct err *e)
{
    int r = 0;

    p->force = true;
    if (p->was_running)
        r = step(p, "stop", step_stop, e);
    if (r == 0)
        r = step(p, "restore", step_restore, e);
    if (r == 0 && p->was_running)
        r = step(p, "start", step_bring_up, e);
    return r;
}

static CO int run_destroy(struct operation *p, struct err *e)
{
    return step(p, "destroy", step_destroy, e);
}

/* Over for this process: not a failure of the operation. */
static bool left(int r)
{
    return r == -ERR_PARKED || r == -ERR_CANCELED;
}

CO void operation_audit(const struct operation *p)
{
    audit(p->f->h, &(struct audit_line){
                       .event = p->failed ? "machine.failed" : machine_rules[p->op].done,
                       .agent = str_of(p->m->name),
                       .type = str_of(machine_rules[p->op].name),
                       .reason = p->failed ? p->why.msg : NULL,
                   });
    audit_flush(p->f->h);
}

static CO int run(struct operation *p, struct err *e)
{
    static CO int (*const runs[MO_OPS])(struct operation *, struct err *) = {
        [MO_CREATE] = run_create,   [MO_START] = run_start,       [MO_STOP] = run_stop,
        [MO_RESTART] = run_restart, [MO_SNAPSHOT] = run_snapshot, [MO_RESTORE] = run_restore,
        [MO_DESTROY] = run_destroy,
    };
    int r = runs[p->op](p, e);

    if (r < 0 && left(r))
        return r;
    p->failed = r < 0;
    if (p->failed)
        p->why = *e;
    if (p->failed && p->op == MO_CREATE) {
        r = step(p, "undo", step_undo, e);
        if (r < 0 && left(r))
            return r;
        if (r < 0)
            log_warn("what is left of a machine could not be removed", "machine",
                     LOG_STR(p->m->name), "error", LOG_ERR(e));
    }
    if (p->op != MO_DESTROY || p->failed)
        operation_audit(p); /* before anybody sees that it is over */
    if (p->op != MO_DESTROY || p->failed) {
        r = step(p, "settle", step_settle, e);
        if (r < 0)
            return r;
    }
    if (!p->failed)
        return 0;
    *e = p->why;
    return -(int)e->code;
}

static int op_parse(const json_t *in, enum machine_op *ret)
{
    struct str name = json_member_str(in, "op");

    for (int i = 0; i < MO_OPS; i++)
        if (str_eq_z(name, machine_rules[i].name)) {
            *ret = (enum machine_op)i;
            return 0;
        }
    return -1;
}

/* Adoption comes first: it looks at machines whose operation was cut off. */
static CO int wait_ready(struct fleet *f, struct err *e)
{
    int r = 0;

    while (r == 0 && !f->ready)
        r = fleet_wait(f, DEADLINE_NONE, e);
    return r;
}

static uint64_t deadline_of(const struct machine *m)
{
    int64_t rest = m->deadline - hub_now();

    return now_ms() + (uint64_t)(rest > 0 ? rest : 0);
}

CO int machine_flow(struct workflow *w, void *ctx, struct err *e)
{
    struct operation p = { .w = w, .f = ctx };
    const json_t *in = workflow_arg(w, 0);
    struct machine *m;
    int r = wait_ready(p.f, e);

    if (r < 0)
        return r;
    m = machine_find(p.f, json_member_str(in, "machine"));
    if (!m || strcmp(m->operation, workflow_id(w)) != 0 || op_parse(in, &p.op) < 0)
        return durable_return(w, STR("{\"status\":\"superseded\"}"), e);
    p.m = machine_ref(m);
    p.was_running = json_is_true(json_object_get(in, "running"));
    p.force = json_is_true(json_object_get(in, "force"));
    p.snapshot = json_string_value(json_object_get(in, "snapshot"));
    p.deadline_ms = deadline_of(m);
    r = run(&p, e);
    machine_unref(p.m);
    return r < 0 ? r : durable_return(w, STR("{\"status\":\"done\"}"), e);
}
