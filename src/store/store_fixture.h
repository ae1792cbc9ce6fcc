/* SPDX-License-Identifier: MIT */
/*
 * store/store_fixture.h — for the tests of the store: fresh databases of each backend, and fibers
 * to use them from. When CHELA_TEST_PG names a database (tests/pg_run.sh), it is PostgreSQL's turn;
 * otherwise SQLite's. Tests that run side by side have a database each.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/pg_db.h"
#include "store/store.h"
#include "test.h"

/* A directory of this process; removed by fixture_clean(). */
static inline const char *fixture_dir(void)
{
    static char path[64];

    if (!path[0]) {
        fmt_z(path, sizeof(path), "/tmp/chela-store-%d", (int)getpid());
        (void)mkdir(path, 0700);
    }
    return path;
}

/* Run a program to its end; its exit status. */
static inline int fixture_program(const char *const *argv)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        if (freopen("/dev/null", "w", stdout))
            (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    (void)waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static inline void fixture_clean(void)
{
    const char *const argv[] = { "rm", "-rf", fixture_dir(), NULL };

    if (fixture_program(argv) != 0)
        printf("# cannot remove %s\n", fixture_dir());
    (void)mkdir(fixture_dir(), 0700);
}

/* At the end of a test's work: nothing of it is left. */
static inline void fixture_leave(void)
{
    fixture_clean();
    (void)rmdir(fixture_dir());
}

static inline const char *fixture_path(const char *name)
{
    static char path[128];

    fmt_z(path, sizeof(path), "%s/%s", fixture_dir(), name);
    return path;
}

/* sqlite:<a file that is not there> */
static inline const char *fixture_file(void)
{
    static char url[128];

    fixture_clean();
    fmt_z(url, sizeof(url), "sqlite:%s", fixture_path("test.db"));
    return url;
}

/* Run SQL texts on PostgreSQL beside any store; each in a transaction of its own. */
static inline int fixture_sql(const char *url, const char *text, struct err *e)
{
    struct pg_db *db;
    int r = pg_db_open(url, deadline_in(10000), &db, e);

    if (r < 0)
        return r;
    r = pg_db_begin(db, STORE_WRITE, e);
    if (r == 0)
        r = pg_db_tx(db)->script(pg_db_tx(db), text, e);
    if (r == 0)
        r = pg_db_commit(db, e);
    pg_db_close(db);
    return r;
}

/* Of tests that run side by side, each slot has a database: CHELA_TEST_PG becomes its URL. */
static inline void fixture_pg_slot(void)
{
    const char *const given = getenv("CHELA_TEST_PG"), *name = strstr(given, "/chela_test?");
    const char *argv[] = { "psql", "-qX", getenv("CHELA_TEST_PG_ADMIN"), "-c", NULL, NULL };
    static char url[512], make[64];
    struct err e;

    if (test_slot == 0 || url[0])
        return;
    fmt_z(make, sizeof(make), "CREATE DATABASE chela_test_%d", test_slot);
    fmt_z(url, sizeof(url), "%.*s/chela_test_%d?%s", name ? (int)(name - given) : 0, given,
          test_slot, name ? name + strlen("/chela_test?") : "");
    argv[4] = make;
    if (!name || (fixture_sql(url, "SELECT 1", &e) < 0 && fixture_program(argv) != 0)) {
        printf("Bail out! no database for a test: %s\n", make);
        exit(1);
    }
    (void)setenv("CHELA_TEST_PG", url, 1);
}

/* The database of CHELA_TEST_PG, emptied; NULL when there is none. */
static inline const char *fixture_pg(void)
{
    const char *url = getenv("CHELA_TEST_PG");
    struct err e;

    if (url) {
        fixture_pg_slot();
        url = getenv("CHELA_TEST_PG");
    }

    if (url && fixture_sql(url,
                           "DROP SCHEMA IF EXISTS dbos CASCADE;"
                           "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
                           &e) < 0) {
        printf("Bail out! %s\n", e.msg);
        exit(1);
    }
    return url;
}

struct fixture {
    const char *url;
    struct store *s;
    struct loop *loop;
    bool sqlite, memory;
    int (*fn)(struct fixture *f, struct err *e);
    void *arg;
    int r;
    struct err *e;
};

static inline int fixture_main(void *arg, struct err *e)
{
    struct fixture *f = arg;

    f->r = f->fn(f, f->e);
    return 0;
}

/* Run fn in a fiber beside a store of conf; its result, or that of opening. */
static inline int fixture_run(const struct store_conf *conf,
                              int (*fn)(struct fixture *f, struct err *e), void *arg, struct err *e)
{
    struct fixture f = { .url = conf->url, .fn = fn, .arg = arg, .e = e, .r = -ERR_INTERNAL };
    int r;

    *e = (struct err){ 0 };
    f.sqlite = strncmp(conf->url, "sqlite:", 7) == 0;
    f.memory = strcmp(conf->url, "sqlite::memory:") == 0;
    if (loop_new(&f.loop, e) < 0)
        abort();
    r = store_open(f.loop, conf, &f.s, e);
    if (r == 0 && fiber_spawn(f.loop, "test", fixture_main, &f, NULL, e) < 0)
        abort();
    if (r == 0) {
        loop_run(f.loop);
        r = f.r;
        store_close(f.s);
    }
    loop_free(f.loop);
    return r;
}

static inline bool fixture_on(const char *url, const struct store_conf *given,
                              int (*fn)(struct fixture *f, struct err *e))
{
    struct store_conf conf = *given;
    struct err e;

    conf.url = url;
    if (fixture_run(&conf, fn, NULL, &e) >= 0)
        return true;
    printf("# on %s: %s\n", url, e.msg);
    return false;
}

/* On PostgreSQL where there is one, else on SQLite in both forms; each time an empty database. The
 * build's tests run every program that uses this in both ways. */
static inline bool fixture_everywhere(const struct store_conf *given,
                                      int (*fn)(struct fixture *f, struct err *e))
{
    bool good;

    if (getenv("CHELA_TEST_PG"))
        good = fixture_on(fixture_pg(), given, fn);
    else
        good = fixture_on(fixture_file(), given, fn) && fixture_on("sqlite::memory:", given, fn);
    if (good)
        fixture_leave();
    return good;
}
