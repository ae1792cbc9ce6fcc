/* SPDX-License-Identifier: MIT */
/*
 * bench/messages.c — senders, subscribers and the loop between them; see messages.h.
 *
 *     messages --server chela|redis|nats --port N [--senders N] [--mailboxes N] [--payload BYTES]
 *              [--acks N] [--warmup S] [--seconds S]
 *
 * One thread, epoll. One JSON object on stdout says what was seen: messages done in the window,
 * latencies from the send to the server's answer and to the delivery, and whether anything was
 * missing in the end. --acks: how many a subscriber may put into one acknowledgement.
 */
#include "messages.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { EVENTS = 256, READ_MAX = 256 << 10, PATIENCE_S = 20 };

void conn_hear(struct conn *c, const char *text, const char *bad)
{
    (void)conn_ask(c, text, bad);
    c->in_len = 0;
}

void conn_id(struct conn *c, const char *id, size_t n)
{
    if (c->n_ids == ACKS_MAX || n >= CONN_ID)
        conn_die("too many or too long ids");
    memcpy(c->ids[c->n_ids], id, n);
    c->ids[c->n_ids++][n] = '\0';
}

static void open_conn(struct bench *b, struct conn *c, unsigned index, bool subscriber)
{
    c->index = index;
    c->receiver = subscriber;
    if (subscriber)
        c->ids = calloc(ACKS_MAX, sizeof(*c->ids));
    conn_open(c, b->port, 0);
    if (subscriber && b->dialect->prepare)
        b->dialect->prepare(b, c);
    b->dialect->greet(b, c);
    conn_watch(c, b->epoll);
    conn_write(c, b->epoll); /* what greet() has left: a first request that blocks */
}

/* --- messages --- */

void bench_error(struct bench *b, const char *what, const char *text, size_t n)
{
    if (!b->errors++)
        snprintf(b->first_error, sizeof(b->first_error), "%s: %.*s", what, (int)(n < 200 ? n : 200),
                 text);
}

static bool in_window(const struct bench *b)
{
    return b->now_ns >= b->from_ns && b->now_ns < b->until_ns;
}

/* The content begins with its sender and its number, so that who gets it knows whose it is. */
static void sender_send(struct bench *b, struct sender *s)
{
    char content[PAYLOAD_MAX + 1];
    int n = snprintf(content, sizeof(content), "%08u %016llu ", s->conn.index,
                     (unsigned long long)++s->turn);

    memset(content + n, 'x', b->payload - (size_t)n);
    content[b->payload] = '\0';
    b->dialect->send(b, &s->conn, content);
    s->wants_answer = s->wants_delivery = true;
    b->sent++;
    b->waiting++;
    s->sent_ns = now_ns();
    conn_write(&s->conn, b->epoll);
}

static void sender_step(struct bench *b, struct sender *s)
{
    if (s->wants_answer || s->wants_delivery)
        return;
    if (in_window(b))
        b->window_done++;
    b->waiting--;
    if (!b->stopping)
        sender_send(b, s);
}

void bench_accepted(struct bench *b, struct conn *c)
{
    struct sender *s = &b->senders[c->index];

    if (!s->wants_answer) {
        bench_error(b, "an answer to nothing", "", 0);
        return;
    }
    s->wants_answer = false;
    b->accepted++;
    if (in_window(b))
        histogram_add(&b->accept, b->now_ns - s->sent_ns);
    sender_step(b, s);
}

void bench_delivered(struct bench *b, const char *content, size_t n)
{
    unsigned long from = n > 25 ? strtoul(content, NULL, 10) : b->n_senders;
    struct sender *s;

    if (n != b->payload || from >= b->n_senders) {
        bench_error(b, "a strange message", content, n);
        return;
    }
    s = &b->senders[from];
    if (!s->wants_delivery || strtoull(content + 9, NULL, 10) != s->turn) {
        b->again++;
        return;
    }
    s->wants_delivery = false;
    b->delivered++;
    if (in_window(b))
        histogram_add(&b->deliver, b->now_ns - s->sent_ns);
    sender_step(b, s);
}

void bench_acked(struct bench *b, struct conn *c, uint64_t n)
{
    c->acks_asked -= n < c->acks_asked ? n : c->acks_asked;
    b->acked += n;
    if (in_window(b))
        b->window_acked += n;
}

static void readable(struct bench *b, struct conn *c)
{
    size_t room = c->receiver ? READ_MAX : 4096;
    size_t from = 0, used;

    if (!conn_read(c, room))
        return;
    b->now_ns = now_ns();
    while (from < c->in_len) {
        used = b->dialect->take(b, c, c->in + from, c->in_len - from);
        if (!used)
            break;
        from += used;
        if (c->n_ids == ACKS_MAX)
            b->dialect->settle(b, c);
    }
    conn_taken(c, from);
    if (c->receiver)
        b->dialect->settle(b, c);
    conn_write(c, b->epoll);
}

/* --- the loop --- */

static bool acks_wanted(const struct bench *b)
{
    for (unsigned i = 0; i < b->n_mailboxes; i++) {
        if (b->subscribers[i].acks_asked)
            return true;
    }
    return false;
}

static void run(struct bench *b)
{
    struct epoll_event events[EVENTS];

    b->begin_ns = now_ns();
    b->from_ns = b->begin_ns + (uint64_t)(b->warmup_s * 1e9);
    b->until_ns = b->from_ns + (uint64_t)(b->seconds * 1e9);
    for (unsigned i = 0; i < b->n_senders; i++)
        sender_send(b, &b->senders[i]);
    for (;;) {
        int n = epoll_wait(b->epoll, events, EVENTS, 100);

        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;

            if (events[i].events & EPOLLOUT)
                conn_write(c, b->epoll);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                readable(b, c);
        }
        b->now_ns = now_ns();
        b->stopping = b->now_ns >= b->until_ns;
        if (b->stopping && !b->waiting && !acks_wanted(b))
            return;
        if (b->now_ns >= b->until_ns + PATIENCE_S * 1000000000ull)
            return;
    }
}

static void print_latency(const char *name, const struct histogram *h)
{
    printf("\"%s_mean_us\":%.1f,\"%s_p50_us\":%.1f,\"%s_p99_us\":%.1f,\"%s_max_us\":%.1f,", name,
           (double)h->sum_ns / (double)(h->n ? h->n : 1) / 1000.0, name, histogram_us(h, 0.5), name,
           histogram_us(h, 0.99), name, (double)h->max_ns / 1000.0);
}

static void print(const struct bench *b)
{
    uint64_t unacked = 0;
    struct rusage used;

    for (unsigned i = 0; i < b->n_mailboxes; i++)
        unacked += b->subscribers[i].acks_asked;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"server\":\"%s\",\"senders\":%u,\"mailboxes\":%u,\"messages\":%lu,"
           "\"messages_per_s\":%.1f,\"acks_per_s\":%.1f,",
           b->dialect->name, b->n_senders, b->n_mailboxes, (unsigned long)b->window_done,
           (double)b->window_done / b->seconds, (double)b->window_acked / b->seconds);
    print_latency("accept", &b->accept);
    print_latency("deliver", &b->deliver);
    printf("\"sent\":%lu,\"delivered\":%lu,\"delivered_again\":%lu,\"acked\":%lu,\"missing\":%lu,"
           "\"unacked\":%lu,\"own_cpu_s\":%.3f,\"errors\":%lu,\"first_error\":\"",
           (unsigned long)b->sent, (unsigned long)b->delivered, (unsigned long)b->again,
           (unsigned long)b->acked, (unsigned long)b->waiting, (unsigned long)unacked,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6,
           (unsigned long)b->errors);
    for (const char *p = b->first_error; *p; p++)
        putchar(*p < ' ' || *p == '"' || *p == '\\' ? ' ' : *p);
    printf("\"}\n");
}

static const struct dialect *dialect_of(const char *name)
{
    static const struct dialect *const all[] = { &chela_dialect, &redis_dialect, &nats_dialect };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    }
    fprintf(stderr, "messages: no server '%s'\n", name);
    exit(2);
}

static void option(struct bench *b, const char *name, const char *value)
{
    unsigned number = (unsigned)strtoul(value, NULL, 10);

    if (strcmp(name, "--server") == 0)
        b->dialect = dialect_of(value);
    else if (strcmp(name, "--port") == 0)
        b->port = number;
    else if (strcmp(name, "--senders") == 0)
        b->n_senders = number;
    else if (strcmp(name, "--mailboxes") == 0)
        b->n_mailboxes = number;
    else if (strcmp(name, "--payload") == 0)
        b->payload = number;
    else if (strcmp(name, "--acks") == 0)
        b->acks = number;
    else if (strcmp(name, "--warmup") == 0)
        b->warmup_s = strtod(value, NULL);
    else if (strcmp(name, "--seconds") == 0)
        b->seconds = strtod(value, NULL);
    else
        b->port = 0;
}

int main(int argc, char **argv)
{
    struct bench *b = calloc(1, sizeof(*b));

    b->n_senders = b->n_mailboxes = 1;
    b->payload = 200;
    b->acks = ACKS_MAX;
    b->warmup_s = 1;
    b->seconds = 4;
    b->port = 1;
    for (int i = 1; i + 1 < argc && b->port; i += 2)
        option(b, argv[i], argv[i + 1]);
    if (argc % 2 == 0 || !b->dialect || !b->port || !b->n_senders || !b->n_mailboxes ||
        b->payload < PAYLOAD_MIN || b->payload > PAYLOAD_MAX || !b->acks || b->acks > ACKS_MAX) {
        fprintf(stderr, "usage: see the head of bench/messages.c\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    b->epoll = epoll_create1(EPOLL_CLOEXEC);
    b->senders = calloc(b->n_senders, sizeof(*b->senders));
    b->subscribers = calloc(b->n_mailboxes, sizeof(*b->subscribers));
    for (unsigned i = 0; i < b->n_mailboxes; i++)
        open_conn(b, &b->subscribers[i], i, true);
    for (unsigned i = 0; i < b->n_senders; i++)
        open_conn(b, &b->senders[i].conn, i, false);
    run(b);
    print(b);
    return 0; /* memory and sockets end with the process */
}
