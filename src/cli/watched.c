/* SPDX-License-Identifier: MIT */
/*
 * cli/watched.c — waiting for what the hub does, in a fiber of its own, so that Ctrl-C can end the
 * waiting. What the hub was asked for goes on: so that nothing stays half-made without a word, the
 * user is told how it is and what removes it.
 */
#include <signal.h>
#include <stdio.h>

#include "base/loop.h"
#include "cli/hub.h"

struct watched {
    struct cli *cli;
    CO watched_fn *fn;
    void *arg;
    struct fiber *waiter;
    bool done, interrupted;
    int r;
    struct err e;
};

static CO int work(void *arg, struct err *e)
{
    struct watched *w = arg;

    w->r = w->fn(w->cli, w->arg, &w->e);
    w->done = true;
    fiber_wake(w->waiter);
    return 0;
}

static void on_signal(void *arg)
{
    struct watched *w = arg;

    w->interrupted = true;
    fiber_wake(w->waiter);
}

CO int watched(struct cli *cli, CO watched_fn *fn, void *arg, struct err *e)
{
    struct watched w = { .cli = cli, .fn = fn, .arg = arg, .waiter = fiber_self() };
    struct loop_signal *signals[2];
    struct fiber *fiber;
    struct err ignored;
    int r = fiber_spawn(cli->loop, "watched", work, &w, &fiber, e);

    if (r < 0)
        return r;
    signals[0] = loop_signal_new(cli->loop, SIGINT, on_signal, &w);
    signals[1] = loop_signal_new(cli->loop, SIGTERM, on_signal, &w);
    while (r == 0 && !w.done && !w.interrupted)
        r = fiber_park(DEADLINE_NONE, &ignored);
    if (!w.done)
        fiber_cancel(fiber);
    (void)fiber_join(fiber, &ignored); /* its outcome is in w */
    /* From here on a second Ctrl-C ends the program. */
    loop_signal_free(signals[0]);
    loop_signal_free(signals[1]);
    if (w.interrupted && w.r == -ERR_CANCELED)
        cli->interrupted = true;
    if (w.r < 0)
        *e = w.e;
    return w.r;
}

/* What the machine is doing, in words that end a sentence. NULL: it could not be asked. */
static CO const char *doing(struct cli *cli, const char *name, bool *ret_there)
{
    json_t *machine;
    struct err e;
    int r;

    cli->refused = cli->no_daemon = false;
    r = machine_ask(cli, name, &machine, &e);
    cli->refused = cli->no_daemon = false; /* it is the interrupt that is told of */
    *ret_there = r == 0 && machine;
    if (!*ret_there)
        return NULL;
    return arena_printf(&cli->arena,
                        machine_busy(machine) ? "%s, and the hub goes on with it" : "%s",
                        member_text(cli, machine, "state"));
}

CO int machine_interrupted(struct cli *cli, const char *name, struct err *e)
{
    const char *program = cli->vm ? "vm-agent" : "chela machine";
    bool there;
    const char *state = doing(cli, name, &there);

    if (there)
        return err_set(e, ERR_CANCELED,
                       "interrupted: machine '%s' is %s ('%s %s %s' tells how it is, "
                       "'%s destroy %s' removes it)",
                       name, state, program, cli->vm ? "status" : "show", name, program, name);
    return err_set(e, ERR_CANCELED, "interrupted: the hub shows no machine '%s'", name);
}
