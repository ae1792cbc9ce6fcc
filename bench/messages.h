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

#include "conn.h"
#include "histogram.h"

enum {
    PAYLOAD_MIN = 32,
    PAYLOAD_MAX = 4096,
    ACKS_MAX = 512, /* that one frame or command may carry */
};

struct bench;

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

/* conn_ask(), and forget all that came. */
void conn_hear(struct conn *c, const char *text, const char *bad);
void conn_id(struct conn *c, const char *id, size_t n); /* one more for settle() */
