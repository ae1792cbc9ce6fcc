/* SPDX-License-Identifier: MIT */
/*
 * bench/messages.h — the load of the message bench, which speaks to chela, Redis or NATS.
 *
 * N senders have one message in flight each: the next goes out when the server has said that it
 * keeps this one and the subscriber of the mailbox has it. Every mailbox has one subscriber on a
 * connection of its own, which acknowledges all it gets. What differs between the servers is a
 * struct dialect; buffers, clocks and counts are the same for all.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"

enum {
    PAYLOAD_MIN = 32,
    PAYLOAD_MAX = 4096,
    ACKS_MAX = 512, /* that one frame or command may carry */
    ID_MAX = 160,
};

struct bench;

struct conn {
    int fd;
    unsigned index; /* of the sender, or of the mailbox */
    bool subscriber, choked;
    uint64_t acks_asked;      /* whose answer has not come */
    char *in, *out;           /* grow */
    size_t in_len, in_size;   /* bytes read and not taken */
    size_t out_len, out_size; /* bytes to write */
    char (*ids)[ID_MAX];      /* to be acknowledged by settle() */
    unsigned n_ids;
};

struct dialect {
    const char *name;
    /* Before anything is measured; these wait. prepare: mailbox's conn, before it is greeted. */
    void (*prepare)(struct bench *b, struct conn *c);
    void (*greet)(struct bench *b, struct conn *c);
    /* Write a message to c->out. */
    void (*send)(struct bench *b, struct conn *c, const char *content);
    /* Take one answer or delivery from p; how many bytes it had, 0: it is not whole yet. */
    size_t (*take)(struct bench *b, struct conn *c, char *p, size_t n);
    /* All that came has been taken: acknowledge it. */
    void (*settle)(struct bench *b, struct conn *c);
};
extern const struct dialect chela_dialect, redis_dialect, nats_dialect;

struct sender {
    struct conn conn;
    uint64_t turn, sent_ns;
    bool wants_answer, wants_delivery;
};

struct bench {
    const struct dialect *dialect;
    unsigned port, n_senders, n_mailboxes, payload, acks;
    double warmup_s, seconds;
    int epoll;
    bool stopping;
    uint64_t begin_ns, from_ns, until_ns, now_ns;
    uint64_t sent, accepted, delivered, again, acked, waiting;
    uint64_t window_done, window_acked;
    struct histogram accept, deliver;
    struct sender *senders;
    struct conn *subscribers;
    uint64_t errors;
    char first_error[256];
};

/* --- what dialects tell --- */

void bench_accepted(struct bench *b, struct conn *c);
void bench_delivered(struct bench *b, const char *content, size_t n);
void bench_acked(struct bench *b, struct conn *c, uint64_t n);
void bench_error(struct bench *b, const char *what, const char *text, size_t n);

/* --- bytes --- */

void conn_put(struct conn *c, const char *p, size_t n);
void conn_putf(struct conn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* While the connection is being set up: write all, and read until what has come holds text (a
 * line's end, say); then forget it. Fails the program when bad comes first. */
void conn_ask(struct conn *c, const char *text, const char *bad);
void conn_id(struct conn *c, const char *id, size_t n); /* one more for settle() */
