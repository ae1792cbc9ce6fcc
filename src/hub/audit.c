/* SPDX-License-Identifier: MIT */
/*
 * hub/audit.c — lines are composed on the loop's thread into a bounded buffer; a thread of the
 * log's own takes all there is, chains, writes, and wakes who waits for that.
 */
#include "hub/audit.h"

#include <string.h>

#include "base/log.h"
#include "hub/audit_int.h"

#define QUEUE_MAX   (16 * MIB)
#define REFUSED_MAX 5 /* lines about strangers in REFUSED_MS, who could else fill the log */
#define REFUSED_MS  5000

struct waiter { /* on the stack of a fiber that waits */
    struct waiter *next;
    struct fiber *fiber;
    uint64_t until;
};

struct audit {
    struct hub *h;
    struct audit_file file;
    pthread_t thread;
    bool started;
    struct waiter *waiting; /* the loop's thread alone */
    uint64_t added;         /* the same, also of what follows */
    struct loop_timer *refused_timer;
    unsigned long long refused; /* since it was set */

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t more;
    struct buf queue;
    size_t n_queued; /* lines in it */
    uint64_t written;
    unsigned long long missed; /* lines that could not be taken or written */
    long long max;             /* hub.audit_max, as it is now */
    bool stop, posted;
};

static void wake(void *arg)
{
    struct audit *a = arg;

    pthread_mutex_lock(&a->lock);
    a->posted = false;
    pthread_mutex_unlock(&a->lock);
    for (struct waiter *w = a->waiting; w; w = w->next)
        fiber_wake(w->fiber);
}

/* Say first what is missing. */
static void write_batch(struct audit *a, struct str lines, size_t n, unsigned long long missed)
{
    AUTO(buf_done) struct buf all = { 0 };
    char extra[64];
    struct err e;
    size_t done = 0;
    int r = 0;

    buf_init(&all, QUEUE_MAX + AUDIT_LINE_MAX);
    fmt_z(extra, sizeof(extra), ",\"count\":%llu", missed);
    if (missed)
        r = audit_line_own("audit.missed", extra, &all, &e);
    if (r == 0)
        r = buf_add_str(&all, lines, &e);
    if (r == 0)
        r = audit_file_write(&a->file, buf_str(&all), &done, &e);
    if (r < 0)
        log_error("the audit log cannot be written", "error", LOG_ERR(&e));
    pthread_mutex_lock(&a->lock);
    if (!done)
        a->missed += missed + n;
    a->written += n;
    if (!a->posted) {
        a->posted = true;
        loop_post(a->h->conf.loop, wake, a);
    }
    pthread_mutex_unlock(&a->lock);
}

static void *work(void *arg)
{
    struct audit *a = arg;

    for (;;) {
        AUTO(buf_done) struct buf lines = { 0 };
        unsigned long long missed;
        size_t n;

        pthread_mutex_lock(&a->lock);
        while (!a->n_queued && !a->stop)
            pthread_cond_wait(&a->more, &a->lock);
        if (!a->n_queued) {
            pthread_mutex_unlock(&a->lock);
            return NULL;
        }
        lines = a->queue;
        buf_init(&a->queue, QUEUE_MAX);
        n = a->n_queued;
        missed = a->missed;
        a->n_queued = 0;
        a->missed = 0;
        a->file.max = a->max;
        pthread_mutex_unlock(&a->lock);
        write_batch(a, buf_str(&lines), n, missed);
    }
}

struct hub *audit_hub(struct audit *a)
{
    return a->h;
}

/* The while is over: say how many more there were. */
static void refused_over(void *arg)
{
    struct audit *a = arg;
    unsigned long long n = a->refused;

    a->refused = 0;
    if (n > REFUSED_MAX)
        audit(a->h, &(struct audit_line){
                        .event = "auth.failed", .reason = "WebSocket", .count = n - REFUSED_MAX });
}

void audit_refused(struct hub *h, struct str agent, const char *peer)
{
    struct audit *a = h->audit;

    if (a->refused++ == 0)
        loop_timer_set(a->refused_timer, now_ms() + REFUSED_MS);
    if (a->refused <= REFUSED_MAX)
        audit(h, &(struct audit_line){
                     .event = "auth.failed", .agent = agent, .peer = peer, .reason = "WebSocket" });
}

int audit_new(struct hub *h, struct audit **ret, struct err *e)
{
    struct audit *a = xcalloc(1, sizeof(*a));

    a->h = h;
    a->file.fd = -1;
    a->file.path = xasprintf("%s/audit.log", h->conf.state_dir);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->more, NULL);
    buf_init(&a->queue, QUEUE_MAX);
    a->refused_timer = loop_timer_new(h->conf.loop, refused_over, a);
    *ret = a;
    return 0;
}

CO int audit_start(struct audit *a, struct err *e)
{
    int r;

    a->max = a->file.max = a->h->settings->audit_max;
    a->file.keep = a->h->settings->audit_keep;
    r = audit_file_open(&a->file, e);
    if (r < 0)
        return err_wrap(e, "audit log");
    r = pthread_create(&a->thread, NULL, work, a);
    if (r)
        return err_sysn(e, r, "audit log: start its thread");
    a->started = true;
    return 0;
}

void audit_free(struct audit *a)
{
    if (!a)
        return;
    loop_timer_free(a->refused_timer);
    audit_file_close(&a->file);
    buf_done(&a->queue);
    pthread_cond_destroy(&a->more);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void audit(struct hub *h, const struct audit_line *line)
{
    AUTO(buf_done) struct buf text = { 0 };
    struct audit *a = h->audit;
    struct err e;
    int r;

    if (!a->started)
        return;
    buf_init(&text, AUDIT_LINE_MAX - AUDIT_TAIL);
    r = audit_line_write(line, &text, &e);
    pthread_mutex_lock(&a->lock);
    a->max = h->settings->audit_max;
    if (r == 0)
        r = buf_add_str(&a->queue, buf_str(&text), &e);
    if (r < 0) {
        a->missed++;
    } else {
        if (!a->n_queued++)
            pthread_cond_signal(&a->more);
        a->added++;
    }
    pthread_mutex_unlock(&a->lock);
}

/* Is it so that `until` lines are written, and, for the end, that no wake is under way? */
static bool is_written(struct audit *a, uint64_t until, bool quiet)
{
    bool yes;

    pthread_mutex_lock(&a->lock);
    yes = a->written >= until && !(quiet && a->posted);
    pthread_mutex_unlock(&a->lock);
    return yes;
}

static CO void wait_written(struct audit *a, bool quiet)
{
    struct waiter self = { a->waiting, fiber_self(), a->added }, **p;

    a->waiting = &self;
    while (!is_written(a, self.until, quiet))
        fiber_park_hard(); /* the disk answers, or its error does: it ends */
    for (p = &a->waiting; *p != &self;)
        p = &(*p)->next;
    *p = self.next;
}

CO void audit_flush(struct hub *h)
{
    if (h->audit->started)
        wait_written(h->audit, false);
}

CO void audit_stop(struct audit *a)
{
    if (!a->started)
        return;
    loop_timer_stop(a->refused_timer);
    refused_over(a);
    wait_written(a, false);
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_signal(&a->more);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL); /* it has nothing left to write */
    a->started = false;
    wait_written(a, true);
    audit_file_close(&a->file);
}
