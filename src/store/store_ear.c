/* SPDX-License-Identifier: MIT */
/*
 * LISTEN: a thread with a connection of its own, which hands what it hears to the loop.
 *
 * A connection is only believed once a message has come over it that was sent over another one,
 * to the store's own URL: behind a pooler that lends connections for one transaction LISTEN
 * succeeds and nothing ever arrives. (Over the same connection the message would come back at once
 * and prove nothing.) The channels themselves are listened to only after that, so that no
 * connection of a pooler is left with them.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/rand.h"
#include "store/pg_db_int.h"
#include "store/store_int.h"

#define QUEUE_MAX        4096 /* notices on their way to the loop; past it: "look again" */
#define CONNECT_MS       5000
#define TEST_MS          3000
#define AGAIN_FIRST_MS   100 /* pause after a lost connection; doubles */
#define AGAIN_LONGEST_MS 10000
#define DEAF_MS          60000 /* pause after a connection that works but does not hear */

struct notice {
    const char *channel; /* the ear's */
    char *payload;
};

struct store_ear {
    struct loop *loop;
    char *url, *test_url; /* NULL: SQLite */
    char **channels;
    size_t n_channels;
    void (*heard)(const char *channel, struct str payload, void *arg);
    void *arg;
    bool dead;   /* the loop's: freed while notices were on their way */
    int stop_fd; /* readable: end */
    pthread_t thread;
    atomic_bool hears;

    pthread_mutex_t lock; /* of all below */
    unsigned refs;        /* the owner, and the post under way */
    bool posted, missed;
    struct notice *queue;
    size_t n;
};

/* The thread waits by the real clock, whatever tests do to now_ms(). */
static int64_t clock_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* To the loop */

static void forget_queue(struct store_ear *ear)
{
    for (size_t i = 0; i < ear->n; i++)
        free(ear->queue[i].payload);
    free(ear->queue);
    ear->queue = NULL;
    ear->n = 0;
}

static void unref(struct store_ear *ear)
{
    bool last;

    pthread_mutex_lock(&ear->lock);
    last = --ear->refs == 0;
    pthread_mutex_unlock(&ear->lock);
    if (!last)
        return;
    forget_queue(ear);
    for (size_t i = 0; i < ear->n_channels; i++)
        free(ear->channels[i]);
    free(ear->channels);
    free(ear->url);
    free(ear->test_url);
    if (ear->stop_fd >= 0)
        (void)close(ear->stop_fd); /* holds nothing */
    pthread_mutex_destroy(&ear->lock);
    free(ear);
}

static void deliver(void *arg)
{
    struct store_ear *ear = arg;
    struct notice *queue;
    bool missed;
    size_t n;

    pthread_mutex_lock(&ear->lock);
    queue = TAKE(ear->queue);
    n = ear->n;
    missed = ear->missed;
    ear->n = 0;
    ear->missed = ear->posted = false;
    pthread_mutex_unlock(&ear->lock);

    if (missed && !ear->dead)
        ear->heard("", (struct str){ NULL, 0 }, ear->arg);
    for (size_t i = 0; i < n; i++) {
        if (!ear->dead)
            ear->heard(queue[i].channel, str_of(queue[i].payload), ear->arg);
        free(queue[i].payload);
    }
    free(queue);
    unref(ear);
}

/* channel NULL: something may have been missed. */
static void tell(struct store_ear *ear, const char *channel, const char *payload)
{
    bool post;

    pthread_mutex_lock(&ear->lock);
    if (!channel || ear->n >= QUEUE_MAX) {
        forget_queue(ear); /* what is looked at again need not be told */
        ear->missed = true;
    } else {
        if (!ear->queue)
            ear->queue = xcalloc(QUEUE_MAX, sizeof(*ear->queue));
        ear->queue[ear->n++] = (struct notice){ channel, xstrdup(payload) };
    }
    post = !ear->posted;
    ear->posted = true;
    ear->refs += post ? 1 : 0;
    pthread_mutex_unlock(&ear->lock);
    if (post)
        loop_post(ear->loop, deliver, ear);
}

/* The connection */

/* Wait for fd (-1: for nothing). 1: readable; 0: time is over; -ERR_CANCELED: it is to end. */
static int wait_for(const struct store_ear *ear, int fd, int64_t until_ms)
{
    struct pollfd fds[] = { { ear->stop_fd, POLLIN, 0 }, { fd, POLLIN, 0 } };

    for (;;) {
        int64_t left = until_ms - clock_ms();
        int n = poll(fds, fd < 0 ? 1 : 2, left > 60000 ? 60000 : left > 0 ? (int)left : 0);

        if (n > 0 && fds[0].revents)
            return -ERR_CANCELED;
        if (n > 0)
            return 1;
        if (n == 0 && clock_ms() >= until_ms)
            return 0;
        if (n < 0 && errno != EINTR)
            return 1; /* the connection will say what is wrong */
    }
}

static int listen_to(struct pg_db *db, const char *verb, const char *channel, struct err *e)
{
    char *name = db->pg->escapeIdentifier(db->conn, channel, strlen(channel));
    AUTO(free) char *text = xasprintf("%s %s", verb, name ? name : "");

    db->pg->freemem(name);
    return pg_simple(db, verb, text, e);
}

/* Hand on what has come. want (may be NULL) is the channel of the test: was it among them? */
static bool take_notices(struct store_ear *ear, struct pg_db *db, const char *want)
{
    bool found = false;
    PGnotify *notice;

    while ((notice = db->pg->notifies(db->conn))) {
        if (want && strcmp(notice->relname, want) == 0)
            found = true;
        for (size_t i = 0; i < ear->n_channels; i++) {
            if (strcmp(notice->relname, ear->channels[i]) == 0)
                tell(ear, ear->channels[i], notice->extra);
        }
        db->pg->freemem(notice);
    }
    return found;
}

/* 1: something came; 0: time is over; negative: the connection or the ear is at its end. */
static int receive(struct store_ear *ear, struct pg_db *db, int64_t until_ms)
{
    int r = wait_for(ear, db->pg->socket(db->conn), until_ms);

    if (r <= 0)
        return r;
    if (!db->pg->consumeInput(db->conn) || db->pg->status(db->conn) != CONNECTION_OK)
        return -ERR_UNAVAILABLE;
    return 1;
}

static int send_test(const struct store_ear *ear, const char *channel, struct err *e)
{
    static const struct sql notify = { "test", "SELECT pg_notify(?1, '')", NULL };
    const struct sql_arg args[] = { SQL_Z(channel) };
    struct pg_db *db;
    int r = pg_db_open_unless(ear->test_url, deadline_in(CONNECT_MS), ear->stop_fd, &db, e);

    if (r < 0)
        return r;
    db->own_unprepared = true; /* behind a pooler nothing can be prepared */
    pg_db_single(db);
    r = store_run(pg_db_tx(db), &notify, args, LEN(args), NULL, NULL, e);
    pg_db_close(db);
    return r;
}

/* 1: it hears; 0: it does not. */
static int test(struct store_ear *ear, struct pg_db *db, struct err *e)
{
    int64_t until;
    char channel[40];
    uint64_t id;
    int r;

    rand_bytes(&id, sizeof(id));
    fmt_z(channel, sizeof(channel), "chela_test_%016llx", (unsigned long long)id);
    r = listen_to(db, "LISTEN", channel, e);
    if (r == 0)
        r = send_test(ear, channel, e);
    until = clock_ms() + TEST_MS;
    while (r >= 0) {
        r = receive(ear, db, until);
        if (r <= 0)
            return r;
        if (take_notices(ear, db, channel))
            break;
    }
    if (r >= 0)
        r = listen_to(db, "UNLISTEN", channel, e);
    return r < 0 ? r : 1;
}

/* One connection's life. How long to wait before the next; 0: it was a good one. */
static int64_t session(struct store_ear *ear, struct pg_db *db)
{
    struct err e;
    int r = test(ear, db, &e);

    if (r == 0) {
        tell(ear, NULL, NULL);
        return DEAF_MS;
    }
    for (size_t i = 0; r > 0 && i < ear->n_channels; i++)
        r = listen_to(db, "LISTEN", ear->channels[i], &e) < 0 ? -1 : 1;
    if (r < 0)
        return AGAIN_FIRST_MS;
    atomic_store(&ear->hears, true);
    tell(ear, NULL, NULL);
    do {
        (void)take_notices(ear, db, NULL); /* no test is under way */
        r = receive(ear, db, INT64_MAX);
    } while (r >= 0);
    (void)take_notices(ear, db, NULL); /* what came before the end */
    atomic_store(&ear->hears, false);
    return 0;
}

static void *listen_thread(void *arg)
{
    struct store_ear *ear = arg;
    int64_t wait = AGAIN_FIRST_MS;

    do {
        int64_t pause = wait;
        struct pg_db *db = NULL;
        struct err e;

        if (pg_db_open_unless(ear->url, deadline_in(CONNECT_MS), ear->stop_fd, &db, &e) == 0) {
            pause = session(ear, db);
            pg_db_close(db);
            if (pause == 0)
                wait = pause = AGAIN_FIRST_MS;
        }
        if (pause == wait)
            wait = 2 * wait < AGAIN_LONGEST_MS ? 2 * wait : AGAIN_LONGEST_MS;
        pause = (int64_t)((double)pause * (0.5 + rand_unit() / 2)); /* not all at once */
        if (wait_for(ear, -1, clock_ms() + pause) < 0)
            break;
    } while (wait_for(ear, -1, 0) == 0);
    return NULL;
}

/* The door */

int store_listen(struct store *s, const char *url, const char *const *channels, size_t n,
                 void (*heard)(const char *channel, struct str payload, void *arg), void *arg,
                 struct store_ear **ret, struct err *e)
{
    struct store_ear *ear = xcalloc(1, sizeof(*ear));

    ear->loop = s->loop;
    ear->heard = heard;
    ear->arg = arg;
    ear->refs = 1;
    ear->stop_fd = -1;
    (void)pthread_mutex_init(&ear->lock, NULL);
    if (s->ops == &store_pg_ops) {
        ear->stop_fd = eventfd(0, EFD_CLOEXEC);
        if (ear->stop_fd < 0) {
            int r = err_sys(e, "make an eventfd");

            unref(ear);
            return r;
        }
        ear->url = xstrdup(url ? url : s->url);
        ear->test_url = xstrdup(s->url);
        ear->channels = xcalloc(n + 1, sizeof(*ear->channels));
        for (size_t i = 0; i < n; i++)
            ear->channels[i] = xstrdup(channels[i]);
        ear->n_channels = n;
        ear->thread = store_thread("store-ear", listen_thread, ear);
    }
    *ret = ear;
    return 0;
}

bool store_hears(const struct store_ear *ear)
{
    return atomic_load(&ear->hears);
}

void store_ear_free(struct store_ear *ear)
{
    if (!ear)
        return;
    ear->dead = true;
    if (ear->url) {
        (void)eventfd_write(ear->stop_fd, 1); /* the counter is far from full */
        (void)pthread_join(ear->thread, NULL);
    }
    unref(ear);
}
