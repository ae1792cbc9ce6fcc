/* SPDX-License-Identifier: MIT */
/*
 * bench/conn.h — the connections of the loads hub and messages: buffers that grow, one epoll,
 * WebSocket frames. What fails ends the program and says why.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONN_ID = 160 }; /* of what a subscriber acknowledges */

struct conn {
    int fd;
    unsigned index;           /* of the agent or mailbox, of the caller or sender */
    bool receiver;            /* an agent or subscriber; else a caller or sender */
    bool choked;              /* not all could be written */
    char *in, *out;           /* grow */
    size_t in_len, in_size;   /* bytes read and not taken */
    size_t out_len, out_size; /* bytes to write */
    uint64_t sent_ns;         /* hub: of a caller */
    uint64_t acks_asked;      /* messages: of a subscriber, whose answer has not come */
    char (*ids)[CONN_ID];     /* messages: to be acknowledged by settle() */
    unsigned n_ids;
};

struct frame { /* of a WebSocket: borrowed */
    unsigned opcode;
    char *p;
    size_t n;
};

__attribute__((noreturn)) void conn_die(const char *what); /* and errno */

/* --- setting up: these wait --- */

/* 28,000 ports of one source address are not enough for all: source counts up from 127.0.0.1. */
void conn_open(struct conn *c, unsigned port, unsigned source);
/* Write all, and read until what has come holds text; ends the program when bad (or NULL) comes
 * first. What came behind the text. */
char *conn_ask(struct conn *c, const char *text, const char *bad);
/* Ask to be a WebSocket of that path. */
void conn_put_upgrade(struct conn *c, unsigned port, const char *path);
/* From now on it does not wait, and epoll has it. */
void conn_watch(struct conn *c, int epoll);

/* --- bytes --- */

void conn_put(struct conn *c, const char *p, size_t n);
void conn_putf(struct conn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A frame masked with zeros, which is allowed and costs nothing. */
void conn_put_frame(struct conn *c, unsigned opcode, const char *p, size_t n);
/* How many bytes the frame at p has; 0: it is not whole yet. */
size_t conn_frame(char *p, size_t n, struct frame *ret);

void conn_write(struct conn *c, int epoll); /* what can be written now */
/* Read up to room bytes; a zero stands behind what is there. False: there was nothing. */
bool conn_read(struct conn *c, size_t room);
void conn_taken(struct conn *c, size_t n); /* forget so many bytes of what was read */
