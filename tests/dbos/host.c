/* SPDX-License-Identifier: MIT */
/*
 * An engine with workflows for the clients of DBOS to start, and nothing else.
 *
 *   dbos-host --database URL --ledger FILE --gates DIR [--listen URL] [--instance NAME]
 *             [--app-version V] [--app-name NAME] [--ready-fd N]
 *
 * It writes a line to the ready fd once it serves, and ends in good order on SIGTERM or SIGINT. It
 * leaves with status 1 and a line on standard error when it cannot begin.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/offload.h"
#include "flows.h"

#define GRACE_MS 1000

static struct {
    const char *database, *ledger, *ready_fd;
    struct durable_conf conf;
    struct loop *loop;
    struct store *store;
    struct durable *d;
    struct fiber *life;
    bool asked_to_stop;
    int result;
} host = {
    .conf = { .instance = "host", .lease_ms = 5000 },
};

static void on_signal(void *arg)
{
    host.asked_to_stop = true;
    fiber_wake(host.life);
}

static int say_ready(struct err *e)
{
    int fd = host.ready_fd ? (int)strtol(host.ready_fd, NULL, 10) : STDOUT_FILENO;

    return write(fd, "ready\n", 6) == 6 ? 0 : err_sys(e, "say that it is ready");
}

static CO int run(struct err *e)
{
    const struct store_conf store = {
        .url = host.database,
        .migrations = store_migrations,
        .n_migrations = store_migrations_len,
    };
    int r;

    r = store_open(host.loop, &store, &host.store, e);
    if (r < 0)
        return err_wrap(e, "open the database");
    host.d = durable_new(host.loop, host.store, &host.conf);
    r = durable_register(host.d, flow_types, flow_types_len, e);
    if (r == 0)
        r = durable_register_queues(host.d, flow_queues, flow_queues_len, e);
    if (r == 0)
        r = durable_run(host.d, e);
    if (r == 0)
        r = say_ready(e);
    while (r == 0 && !host.asked_to_stop)
        r = fiber_park(DEADLINE_NONE, e);
    durable_stop(host.d, GRACE_MS);
    return r;
}

static CO int live(void *arg, struct err *e)
{
    struct err why;

    host.life = fiber_self();
    host.result = run(&why);
    if (host.result < 0)
        fprintf(stderr, "dbos-host: %s\n", why.msg);
    loop_stop(host.loop);
    return 0;
}

static int options(int argc, char **argv)
{
    const struct {
        const char *name, **to;
    } known[] = {
        { "--database", &host.database },
        { "--ledger", &host.ledger },
        { "--gates", &flow_gates },
        { "--listen", &host.conf.listen_url },
        { "--instance", &host.conf.instance },
        { "--app-version", &host.conf.app_version },
        { "--app-name", &host.conf.app_name },
        { "--ready-fd", &host.ready_fd },
    };

    for (int i = 1; i < argc; i += 2) {
        size_t k = 0;

        while (k < sizeof(known) / sizeof(known[0]) && strcmp(argv[i], known[k].name) != 0)
            k++;
        if (k == sizeof(known) / sizeof(known[0]) || i + 1 == argc)
            return -1;
        *known[k].to = argv[i + 1];
    }
    if (!host.database || !host.ledger)
        return -1;
    flow_ledger = open(host.ledger, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return flow_ledger < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct loop_signal *term, *interrupt;
    struct err e;

    if (options(argc, argv) < 0) {
        fprintf(stderr, "usage: dbos-host --database URL --ledger FILE --gates DIR [--listen URL]"
                        " [--instance NAME] [--app-version V] [--app-name NAME] [--ready-fd N]\n");
        return 2;
    }
    log_setup(LOG_INFO, LOG_TEXT);
    if (loop_new(&host.loop, &e) < 0)
        return 1;
    term = loop_signal_new(host.loop, SIGTERM, on_signal, NULL);
    interrupt = loop_signal_new(host.loop, SIGINT, on_signal, NULL);
    if (fiber_spawn(host.loop, "host", live, NULL, NULL, &e) < 0)
        return 1;
    loop_run(host.loop);
    loop_signal_free(term);
    loop_signal_free(interrupt);
    store_close(host.store);
    durable_free(host.d);
    offload_shutdown();
    loop_free(host.loop);
    return host.result < 0;
}
