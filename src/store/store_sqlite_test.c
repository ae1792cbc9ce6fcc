/* SPDX-License-Identifier: MIT */
/*
 * store/store_sqlite_test.c — what can happen to an SQLite file: kill -9, a full disk, another
 * program's lock, damage. Each misfortune happens in a child process.
 */
#include "store/store.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/rand.h"
#include "store/store_fixture.h"

#define CHILD_WRITERS 8
#define KILLS         20

static const struct store_migration schema[] = {
    { 1, "t", "CREATE TABLE t (n INTEGER NOT NULL PRIMARY KEY, b BLOB) STRICT;", NULL },
};

static const struct sql sql_put = { "put", "INSERT INTO t (n, b) VALUES (?1, ?2)", NULL };
static const struct sql sql_max = { "max", "SELECT coalesce(max(n), 0) FROM t", NULL };
static const struct sql sql_has = { "has", "SELECT count(*) FROM t WHERE n = ?1", NULL };

static struct store_conf conf_of(const char *url)
{
    return (struct store_conf){ .url = url, .migrations = schema, .n_migrations = LEN(schema) };
}

struct put {
    int64_t n;
    size_t size;
};

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    static char zeros[1024 * 1024];
    const struct put *put = arg;
    const struct sql_arg args[] = { SQL_INT(put->n), SQL_BLOB(((struct str){ zeros, put->size })) };

    return store_run(tx, &sql_put, args, LEN(args), NULL, NULL, e);
}

static int take_int(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int max_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_run(tx, &sql_max, NULL, 0, take_int, arg, e);
}

/* Killing */

static struct {
    struct store *s;
    int out;
    int64_t next;
} child;

static int write_and_tell(void *arg, struct err *e)
{
    for (;;) {
        struct put put = { ++child.next, 100 };

        if (store_do(child.s, put_body, &put, e) < 0 ||
            write(child.out, &put.n, sizeof(put.n)) != (ssize_t)sizeof(put.n))
            _exit(3);
    }
    return 0;
}

/* Write rows and tell the number of each that was acknowledged, until killed. */
static _Noreturn void run_child(const char *url, int out)
{
    struct store_conf conf = conf_of(url);
    struct loop *loop;
    struct err e;

    child.out = out;
    if (loop_new(&loop, &e) < 0 || store_open(loop, &conf, &child.s, &e) < 0 ||
        store_do_now(child.s, max_body, &child.next, &e) < 0)
        _exit(2);
    for (int i = 0; i < CHILD_WRITERS; i++) {
        if (fiber_spawn(loop, "writer", write_and_tell, NULL, NULL, &e) < 0)
            _exit(2);
    }
    loop_run(loop);
    _exit(4);
}

struct acknowledged {
    int64_t *v;
    size_t n, missing;
};

static int has_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct acknowledged *a = arg;

    a->missing = 0;
    for (size_t i = 0; i < a->n; i++) {
        const struct sql_arg args[] = { SQL_INT(a->v[i]) };
        int64_t n = 0;
        int r = store_run(tx, &sql_has, args, LEN(args), take_int, &n, e);

        if (r < 0)
            return r;
        a->missing += n != 1;
    }
    return 0;
}

/* What the child tells, into a, until it is killed after about ms. */
static void kill_after(pid_t pid, int in, int ms, struct acknowledged *a)
{
    struct pollfd fd = { .fd = in, .events = POLLIN };
    int64_t n;
    int status;

    if (poll(&fd, 1, 10000) == 1) /* the first row is there: from now on it is under load */
        (void)poll(NULL, 0, ms);
    (void)kill(pid, SIGKILL);
    while (read(in, &n, sizeof(n)) == (ssize_t)sizeof(n)) {
        a->v = xrealloc(a->v, (a->n + 1) * sizeof(*a->v));
        a->v[a->n++] = n;
    }
    (void)waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(no_acknowledged_row_is_lost_when_the_program_is_killed)
{
    const char *url = fixture_file();
    struct store_conf conf = conf_of(url);
    struct acknowledged a = { 0 };
    struct store *s;
    struct err e;

    for (int round = 0; round < KILLS; round++) {
        size_t before = a.n;
        int pipes[2];
        pid_t pid;

        CHECK(pipe2(pipes, O_CLOEXEC) == 0);
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            run_child(url, pipes[1]);
        close(pipes[1]);
        kill_after(pid, pipes[0], (int)(rand_unit() * 60), &a);
        close(pipes[0]);
        CHECK(a.n > before);
        CHECK_INT(store_open(NULL, &conf, &s, &e), 0);
        CHECK_INT(store_do_now(s, has_body, &a, &e), 0);
        CHECK_INT(a.missing, 0);
        store_close(s);
    }
    printf("# %zu rows acknowledged over %d kills, none missing\n", a.n, KILLS);
    free(a.v);
    fixture_leave();
}

/* A full disk */

static void limit_files(rlim_t bytes)
{
    struct rlimit limit = { bytes, RLIM_INFINITY };

    (void)setrlimit(RLIMIT_FSIZE, &limit);
}

#define CHILD_CHECK(cond) \
    do { \
        if (!(cond)) { \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #cond); \
            return -1; \
        } \
    } while (0)

static int fill(struct fixture *f, struct err *e)
{
    struct put big = { 0, 512 * KIB }, small = { 1000, 10 };
    int64_t last = 0;
    int r = 0;

    limit_files(16 * MIB);
    for (big.n = 1; r == 0 && big.n < 200; big.n++)
        r = store_do(f->s, put_body, &big, e);
    CHILD_CHECK(r == -ERR_UNAVAILABLE);
    CHILD_CHECK(strstr(e->msg, "nothing was written") || strstr(e->msg, "disk"));
    CHILD_CHECK(!store_ok(f->s));
    CHILD_CHECK(store_read(f->s, max_body, &last, e) == 0); /* reading goes on */
    CHILD_CHECK(last == big.n - 2 && last > 10); /* what failed is not there, what did not is */
    limit_files(RLIM_INFINITY);
    CHILD_CHECK(store_ping(f->s, e) == 0);
    CHILD_CHECK(store_ok(f->s));
    CHILD_CHECK(store_do(f->s, put_body, &small, e) == 0);
    CHILD_CHECK(store_read(f->s, max_body, &last, e) == 0 && last == 1000);
    return 0;
}

static int in_child(int (*fn)(struct fixture *f, struct err *e), const struct store_conf *conf)
{
    pid_t pid = fork();
    struct err e;
    int status = 0;

    if (pid == 0) {
        status = fixture_run(conf, fn, NULL, &e);
        if (status < 0)
            printf("# %s\n", e.msg);
        (void)fflush(stdout);
        _exit(status < 0 ? 1 : 0);
    }
    (void)waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

TEST(a_full_disk_refuses_writes_keeps_what_was_acknowledged_and_passes)
{
    struct store_conf conf = conf_of(fixture_file());

    (void)fflush(stdout);
    CHECK_INT(in_child(fill, &conf), 0);
    fixture_leave();
}

struct crowd {
    struct store *s;
    struct put put;
    int r;
};

static int put_fiber(void *arg, struct err *e)
{
    struct crowd *c = arg;

    c->r = store_do(c->s, put_body, &c->put, e);
    return 0;
}

#define CROWD 64

static int fill_together(struct fixture *f, struct err *e)
{
    static struct crowd crowd[CROWD];
    struct fiber_group *group = fiber_group_new(f->loop);
    int64_t last = -1;
    int good = 0;

    limit_files(9 * MIB); /* the log fits; what all of them add to it does not */
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = (struct crowd){ f->s, { i + 1, 400 * KIB }, 1 };
        CHILD_CHECK(fiber_group_spawn(group, "put", put_fiber, &crowd[i], e) == 0);
    }
    CHILD_CHECK(fiber_group_join(group, e) == 0);
    limit_files(RLIM_INFINITY);
    for (int i = 0; i < CROWD; i++) {
        struct acknowledged a = { &crowd[i].put.n, 1, 0 };

        CHILD_CHECK(crowd[i].r == 0 || crowd[i].r == -ERR_UNAVAILABLE);
        CHILD_CHECK(store_read(f->s, has_body, &a, e) == 0);
        CHILD_CHECK((crowd[i].r == 0) == (a.missing == 0)); /* told as it is */
        good += crowd[i].r == 0;
    }
    CHILD_CHECK(good < CROWD);
    CHILD_CHECK(store_read(f->s, max_body, &last, e) == 0);
    fiber_group_free(group);
    return 0;
}

TEST(all_of_a_batch_whose_commit_fails_are_told_so)
{
    struct store_conf conf = conf_of(fixture_file());

    (void)fflush(stdout);
    CHECK_INT(in_child(fill_together, &conf), 0);
    fixture_leave();
}

/* Another program */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool inside, go;
} gate = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false };

static int gate_body(struct store_tx *tx, void *arg, struct err *e)
{
    pthread_mutex_lock(&gate.lock);
    gate.inside = true;
    pthread_cond_broadcast(&gate.change);
    while (!gate.go)
        pthread_cond_wait(&gate.change, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    return 0;
}

static void *hold(void *arg)
{
    struct err e;

    return store_do_now(arg, gate_body, NULL, &e) == 0 ? arg : NULL;
}

TEST(another_programs_lock_is_waited_for_and_then_refused)
{
    struct store_conf conf = conf_of(fixture_file());
    struct put put = { 1, 1 };
    struct store *other, *s;
    pthread_t thread;
    struct err e;

    conf.wait_ms = 50;
    CHECK_INT(store_open(NULL, &conf, &other, &e), 0);
    CHECK_INT(store_open(NULL, &conf, &s, &e), 0);
    CHECK(pthread_create(&thread, NULL, hold, other) == 0);
    pthread_mutex_lock(&gate.lock);
    while (!gate.inside)
        pthread_cond_wait(&gate.change, &gate.lock);
    pthread_mutex_unlock(&gate.lock);

    CHECK_INT(store_do_now(s, put_body, &put, &e), -ERR_UNAVAILABLE);
    CHECK(!store_ok(s));
    pthread_mutex_lock(&gate.lock);
    gate.go = true;
    pthread_cond_broadcast(&gate.change);
    pthread_mutex_unlock(&gate.lock);
    pthread_join(thread, NULL);
    CHECK_INT(store_do_now(s, put_body, &put, &e), 0);
    CHECK(store_ok(s));
    store_close(s);
    store_close(other);
    fixture_leave();
}

/* Damage */

static void scribble(long from, size_t n)
{
    FILE *file = fopen(fixture_path("test.db"), "r+");

    CHECK(file);
    CHECK(fseek(file, from, SEEK_SET) == 0);
    for (size_t i = 0; i < n; i++)
        CHECK(fputc((int)(i * 37 % 251), file) != EOF);
    CHECK(fclose(file) == 0);
}

static void fill_file(const struct store_conf *conf)
{
    struct store *s;
    struct err e;

    CHECK_INT(store_open(NULL, conf, &s, &e), 0);
    for (int64_t n = 1; n <= 200; n++) {
        struct put put = { n, 1000 };

        CHECK_INT(store_do_now(s, put_body, &put, &e), 0);
    }
    store_close(s);
}

TEST(a_file_that_is_no_database_is_refused)
{
    struct store_conf conf = conf_of(fixture_file());
    struct store *s;
    struct err e;

    fill_file(&conf);
    scribble(0, 100);
    CHECK_INT(store_open(NULL, &conf, &s, &e), -ERR_INTERNAL);
    CHECK(strstr(e.msg, "test.db' is damaged"));
    CHECK(strstr(e.msg, "restore a backup"));
    fixture_leave();
}

TEST(a_damaged_page_is_found_at_the_start)
{
    struct store_conf conf = conf_of(fixture_file());
    struct store *s;
    struct err e;

    fill_file(&conf);
    scribble(4096L * 10, 4096);
    CHECK_INT(store_open(NULL, &conf, &s, &e), -ERR_INTERNAL);
    CHECK(strstr(e.msg, "test.db' is damaged"));
    fixture_leave();
}

static int put_many_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r = 0;

    for (int64_t n = 1; r == 0 && n <= 10000; n++) {
        struct put put = { n, 1000 };

        r = put_body(tx, &put, e);
    }
    return r;
}

static int scan_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql scan = { "scan", "SELECT sum(length(b)) FROM t", NULL };

    return store_exec(tx, &scan, e);
}

static int meet_damage(struct fixture *f, struct err *e)
{
    struct put put = { 20000, 1 };

    CHILD_CHECK(store_read(f->s, scan_body, NULL, e) == -ERR_UNAVAILABLE);
    CHILD_CHECK(strstr(e->msg, "test.db' is damaged"));
    CHILD_CHECK(store_do(f->s, put_body, &put, e) == -ERR_UNAVAILABLE); /* not a byte more */
    CHILD_CHECK(strstr(e->msg, "restore a backup"));
    CHILD_CHECK(store_ping(f->s, e) < 0);
    CHILD_CHECK(!store_ok(f->s));
    return 0;
}

TEST(damage_found_later_ends_all_work)
{
    struct store_conf conf = conf_of(fixture_file());
    struct store *s;
    struct err e;

    CHECK_INT(store_open(NULL, &conf, &s, &e), 0);
    CHECK_INT(store_do_now(s, put_many_body, NULL, &e), 0);
    store_close(s);
    scribble(4096L * 1500, 4096); /* the file is too long to be read whole at the start */
    if (fixture_run(&conf, meet_damage, NULL, &e) < 0)
        CHECK_STR(e.msg, "");
    fixture_leave();
}

TEST(a_directory_that_is_not_there_is_an_error_that_names_it)
{
    struct store_conf conf = conf_of("sqlite:/nowhere/at/all.db");
    struct store *s;
    struct err e;

    CHECK(store_open(NULL, &conf, &s, &e) < 0);
    CHECK(strstr(e.msg, "/nowhere/at/all.db"));
}

TEST(a_new_file_is_for_its_owner_alone)
{
    struct store_conf conf = conf_of(fixture_file());
    struct store *s;
    struct stat st;
    struct err e;

    CHECK_INT(store_open(NULL, &conf, &s, &e), 0);
    CHECK_INT(stat(fixture_path("test.db"), &st), 0);
    CHECK_INT(st.st_mode & 0777, 0600);
    CHECK_INT(stat(fixture_path("test.db-wal"), &st), 0);
    CHECK_INT(st.st_mode & 0777, 0600);
    store_close(s);
    fixture_leave();
}
