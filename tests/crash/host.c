/* SPDX-License-Identifier: MIT */
/*
 * The program that the crash tests kill: an engine with workflows whose every effect can be seen.
 *
 *   crash-host --database URL --ledger FILE [--instance NAME] [--kill-at N] [--park MS]
 *
 * It obeys lines on its standard input and answers on its standard output, a line each:
 *   start NAME ID SEED QUEUE    "accepted ID" once durable_start() has said so (QUEUE "-": none)
 *   idle                        "idle" when no workflow is active any more
 *   clock SECONDS               steps the wall clock
 *   writes                      "writes N": how often a write began or was committed so far
 *   stop                        an orderly end
 * --kill-at N sends it SIGKILL at the Nth of those moments. Each run of a step's body appends a
 * line "WORKFLOW STEP PID" to the ledger, with "RECORDED" when the step had a record by then, which
 * must never be. Transactional steps insert into crash_effects, which has no key on purpose.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/offload.h"
#include "base/time.h"
#include "crash/flows.h"

static struct {
    const char *database, *instance;
    long long kill_at, park_ms;
    atomic_llong writes;
    atomic_llong clock_us; /* added to the wall clock */
    struct loop *loop;
    struct store *store;
    struct durable *d;
    int result;
} host = { .instance = "host", .park_ms = 5000 };

static void probe(bool committed)
{
    if (atomic_fetch_add(&host.writes, 1) + 1 == host.kill_at)
        kill(getpid(), SIGKILL);
}

static uint64_t real_now_us(void *arg)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int64_t stepped_wall_us(void *arg)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 + atomic_load(&host.clock_us);
}

static void say(const char *text)
{
    if (printf("%s\n", text) < 0 || fflush(stdout) != 0)
        exit(3); /* whoever drives us is gone */
}

static CO int do_start(char *line, struct err *e)
{
    char name[64], id[128], seed[32], queue[64], args[64], text[160];
    struct durable_start start = { .name = name };
    struct durable_started started;
    int r;

    if (sscanf(line, "start %63s %127s %31s %63s", name, id, seed, queue) != 4)
        return err_set(e, ERR_INVALID, "start NAME ID SEED QUEUE, not '%s'", line);
    fmt_z(args, sizeof(args), "[%s]", seed);
    start.id = str_of(id);
    start.args = str_of(args);
    if (strcmp(queue, "-") != 0)
        start.queue = str_of(queue);
    do {
        r = durable_start(host.d, &start, &started, e);
        if (r == -ERR_UNAVAILABLE && fiber_sleep(100, e) < 0)
            return -(int)e->code;
    } while (r == -ERR_UNAVAILABLE);
    if (r < 0)
        return err_wrap(e, "start %s", id);
    fmt_z(text, sizeof(text), "accepted %s", id);
    say(text);
    return 0;
}

static int note_active(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int count_active(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql sql = {
        "crash_active",
        "SELECT count(*) FROM dbos.workflow_status"
        " WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')",
        NULL,
    };

    return store_run(tx, &sql, NULL, 0, note_active, arg, e);
}

static CO int do_idle(struct err *e)
{
    int64_t active = 1;

    while (active) {
        int r = store_read(host.store, count_active, &active, e);

        if (r < 0 && r != -ERR_UNAVAILABLE)
            return r;
        if (r < 0)
            active = 1;
        if (active && fiber_sleep(20, e) < 0)
            return -(int)e->code;
    }
    say("idle");
    return 0;
}

/* 1: the line asked for the end. */
static CO int obey(char *line, struct err *e)
{
    char text[64];
    long long seconds;

    if (strncmp(line, "start ", 6) == 0)
        return do_start(line, e);
    if (strcmp(line, "idle") == 0)
        return do_idle(e);
    if (sscanf(line, "clock %lld", &seconds) == 1) {
        atomic_fetch_add(&host.clock_us, seconds * 1000000);
        say("stepped");
        return 0;
    }
    if (strcmp(line, "writes") == 0) {
        fmt_z(text, sizeof(text), "writes %lld", (long long)atomic_load(&host.writes));
        say(text);
        return 0;
    }
    if (strcmp(line, "stop") == 0)
        return 1;
    return err_set(e, ERR_INVALID, "unknown command '%s'", line);
}

static CO int serve(struct err *e)
{
    char line[512], *end;
    size_t n = 0;
    int r = 0;

    while (r == 0) {
        ssize_t got = fiber_read(STDIN_FILENO, line + n, sizeof(line) - 1 - n, DEADLINE_NONE, e);

        if (got <= 0)
            return (int)got;
        n += (size_t)got;
        line[n] = '\0';
        while (r == 0 && (end = strchr(line, '\n'))) {
            *end = '\0';
            r = obey(line, e);
            n -= (size_t)(end + 1 - line);
            memmove(line, end + 1, n + 1);
        }
        if (n == sizeof(line) - 1)
            return err_set(e, ERR_INVALID, "line too long");
    }
    return r < 0 ? r : 0;
}

static CO int run(struct err *e)
{
    const struct durable_conf conf = {
        .instance = host.instance,
        .park_ms = (uint64_t)host.park_ms,
        .lease_ms = 3000,
        .sweep_ms = 100,
    };
    const struct store_conf store = {
        .url = host.database,
        .migrations = store_migrations,
        .n_migrations = store_migrations_len,
    };
    int r;

    r = store_open(host.loop, &store, &host.store, e);
    if (r == 0)
        r = flows_prepare(host.store, e);
    if (r < 0)
        return r;
    host.d = durable_new(host.loop, host.store, &conf);
    r = durable_register(host.d, flow_types, flow_types_len, e);
    if (r == 0)
        r = durable_register_queues(host.d, flow_queues, flow_queues_len, e);
    store_probe = probe;
    if (r == 0)
        r = durable_run(host.d, e);
    if (r == 0) {
        say("ready");
        r = serve(e);
    }
    durable_stop(host.d, 0);
    return r;
}

static CO int live(void *arg, struct err *e)
{
    struct err why;

    host.result = run(&why);
    if (host.result < 0)
        fprintf(stderr, "crash-host: %s\n", why.msg);
    loop_stop(host.loop);
    return 0;
}

static int options(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--database") == 0)
            host.database = argv[i + 1];
        else if (strcmp(argv[i], "--instance") == 0)
            host.instance = argv[i + 1];
        else if (strcmp(argv[i], "--kill-at") == 0)
            host.kill_at = atoll(argv[i + 1]);
        else if (strcmp(argv[i], "--park") == 0)
            host.park_ms = atoll(argv[i + 1]);
        else if (strcmp(argv[i], "--ledger") == 0)
            flow_ledger = open(argv[i + 1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        else
            return -1;
    }
    return host.database && flow_ledger >= 0 && argc % 2 == 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
    static const struct time_source source = { real_now_us, stepped_wall_us, NULL };
    struct err e;

    if (options(argc, argv) < 0) {
        fprintf(stderr, "usage: crash-host --database URL --ledger FILE [--instance NAME]"
                        " [--kill-at N] [--park MS]\n");
        return 2;
    }
    time_set_source(&source);
    log_setup(LOG_WARN, LOG_TEXT);
    if (fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) < 0 || loop_new(&host.loop, &e) < 0 ||
        fiber_spawn(host.loop, "host", live, NULL, NULL, &e) < 0)
        return 1;
    loop_run(host.loop);
    store_close(host.store);
    durable_free(host.d);
    offload_shutdown();
    loop_free(host.loop);
    return host.result < 0;
}
