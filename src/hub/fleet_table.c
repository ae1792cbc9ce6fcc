/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_table.c — states of machines and operations on them: which is allowed in which state,
 * what it is called meanwhile, how long it may take. Destroying is allowed in every state, and it
 * alone while another operation is under way, which it ends.
 */
#include "hub/fleet_int.h"

const char *const machine_state_names[MS_STATES] = {
    "creating",     "starting",  "running",    "stopping", "stopped",
    "snapshotting", "restoring", "destroying", "failed",
};

/* clang-format off */
const struct machine_rule machine_rules[MO_OPS] = {
    /*                                          creat start  run  stopg stopd  snap  rest  dest  fail */
    [MO_CREATE]   = { "create",   MS_CREATING,     { 1,    0,    0,    0,    0,    0,    0,    0,    0 }, "machine.created",
                      "Make a machine, start it, wait for its agent." },
    [MO_START]    = { "start",    MS_STARTING,     { 0,    0,    0,    0,    1,    0,    0,    0,    1 }, "machine.started",
                      "Start a machine, wait for its agent." },
    [MO_STOP]     = { "stop",     MS_STOPPING,     { 0,    0,    1,    0,    1,    0,    0,    0,    1 }, "machine.stopped",
                      "Stop a machine." },
    [MO_RESTART]  = { "restart",  MS_STOPPING,     { 0,    0,    1,    0,    1,    0,    0,    0,    1 }, "machine.restarted",
                      "Stop a machine and start it." },
    [MO_SNAPSHOT] = { "snapshot", MS_SNAPSHOTTING, { 0,    0,    1,    0,    1,    0,    0,    0,    0 }, "machine.snapshot",
                      "Keep a machine as it is." },
    [MO_RESTORE]  = { "restore",  MS_RESTORING,    { 0,    0,    1,    0,    1,    0,    0,    0,    1 }, "machine.restored",
                      "Go back to a snapshot." },
    [MO_DESTROY]  = { "destroy",  MS_DESTROYING,   { 1,    1,    1,    1,    1,    1,    1,    1,    1 }, "machine.destroyed",
                      "Destroy a machine with all it holds." },
};
/* clang-format on */

bool machine_state_transient(enum machine_state s)
{
    return s != MS_RUNNING && s != MS_STOPPED && s != MS_FAILED;
}

int machine_state_parse(struct str name, enum machine_state *ret)
{
    for (int i = 0; i < MS_STATES; i++)
        if (str_eq_z(name, machine_state_names[i])) {
            *ret = (enum machine_state)i;
            return 0;
        }
    return -1;
}

int machine_op_judge(enum machine_op op, enum machine_state state, bool busy, struct err *e)
{
    const struct machine_rule *rule = &machine_rules[op];

    if (op == MO_DESTROY && state == MS_DESTROYING && busy)
        return err_set(e, ERR_CONFLICT, "the machine is being destroyed");
    if (op != MO_DESTROY && op != MO_CREATE && (busy || machine_state_transient(state)))
        return err_set(e, ERR_CONFLICT, "the machine is %s: wait for that, or destroy it",
                       machine_state_names[state]);
    if (!rule->from[state])
        return err_set(e, ERR_CONFLICT, "cannot %s a machine that is %s", rule->name,
                       machine_state_names[state]);
    return 0;
}

int64_t machine_op_ms(const struct hub_settings *s, enum machine_op op)
{
    switch (op) {
    case MO_CREATE:
        return s->create_ms;
    case MO_START:
        return s->start_ms;
    case MO_STOP:
        return s->stop_ms;
    case MO_RESTART:
        return s->stop_ms + s->start_ms;
    case MO_SNAPSHOT:
    case MO_RESTORE:
        return s->snapshot_ms + s->stop_ms + s->start_ms;
    default:
        return s->destroy_ms;
    }
}

int64_t machine_backoff_ms(unsigned deaths)
{
    if (deaths >= MACHINE_DEATHS_MAX)
        return -1;
    return deaths ? 1000LL << (deaths - 1) : 0;
}
