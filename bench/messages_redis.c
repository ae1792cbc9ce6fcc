/* SPDX-License-Identifier: MIT */
/*
 * bench/messages_redis.c — Redis Streams: XADD by senders; a group of one consumer per stream,
 * XREADGROUP BLOCK, and one XACK for all that a read has brought, sent together with the next read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "messages.h"

static void prepare(struct bench *b, struct conn *c)
{
    conn_putf(c, "XGROUP CREATE stream:%u group $ MKSTREAM\r\n", c->index);
    conn_hear(c, "\r\n", "-");
    (void)b; /* one server, one set of names */
}

static void read_more(struct conn *c)
{
    char stream[32];
    int n = snprintf(stream, sizeof(stream), "stream:%u", c->index);

    conn_putf(c,
              "*11\r\n$10\r\nXREADGROUP\r\n$5\r\nGROUP\r\n$5\r\ngroup\r\n$3\r\none\r\n"
              "$5\r\nCOUNT\r\n$3\r\n%d\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n$7\r\nSTREAMS\r\n"
              "$%d\r\n%s\r\n$1\r\n>\r\n",
              ACKS_MAX, n, stream);
}

static void greet(struct bench *b, struct conn *c)
{
    conn_putf(c, "PING\r\n");
    conn_hear(c, "+PONG\r\n", "-");
    if (c->receiver)
        read_more(c);
    (void)b;
}

static void send_one(struct bench *b, struct conn *c, const char *content)
{
    char stream[32], from[32];
    int n = snprintf(stream, sizeof(stream), "stream:%u", c->index % b->n_mailboxes);
    int m = snprintf(from, sizeof(from), "agent:%u", c->index);

    conn_putf(c,
              "*7\r\n$4\r\nXADD\r\n$%d\r\n%s\r\n$1\r\n*\r\n$4\r\nfrom\r\n$%d\r\n%s\r\n"
              "$7\r\ncontent\r\n$%u\r\n%s\r\n",
              n, stream, m, from, b->payload, content);
}

/* A line "<type><number>\r\n": its end, or NULL. */
static char *line(char *p, char *end, long *ret)
{
    char *at = p ? memchr(p, '\n', (size_t)(end - p)) : NULL;

    *ret = at ? strtol(p + 1, NULL, 10) : 0;
    return at ? at + 1 : NULL;
}

/* A "$n" text: its end, or NULL. */
static char *text(char *p, char *end, char **ret, size_t *ret_n)
{
    long n;
    char *at = line(p, end, &n);

    *ret = at;
    *ret_n = (size_t)n;
    return !at || end - at < n + 2 ? NULL : at + n + 2;
}

/* The end of a value of any kind, or NULL when it is not whole. */
static char *skip(char *p, char *end)
{
    long n;
    char *at = p < end ? line(p, end, &n) : NULL;

    if (!at)
        return NULL;
    if (*p == '$' && n >= 0)
        return end - at < n + 2 ? NULL : at + n + 2;
    if (*p == '*') {
        while (at && n-- > 0)
            at = skip(at, end);
    }
    return at;
}

/* *1 *2 $stream *n of *2 $id *4 $from $.. $content $.. */
static void take_entries(struct bench *b, struct conn *c, char *p, char *end)
{
    char *id, *value;
    size_t id_n, value_n;
    long n, fields;

    p = line(p, end, &n);
    p = line(p, end, &n);
    p = text(p, end, &value, &value_n);
    for (p = line(p, end, &n); n > 0; n--) {
        p = line(p, end, &fields);
        p = text(p, end, &id, &id_n);
        for (p = line(p, end, &fields); fields > 0; fields--)
            p = text(p, end, &value, &value_n);
        conn_id(c, id, id_n);
        bench_delivered(b, value, value_n);
    }
}

static size_t take(struct bench *b, struct conn *c, char *p, size_t n)
{
    char *end = skip(p, p + n);
    long number;

    if (!end)
        return 0;
    if (*p == '-')
        bench_error(b, "Redis", p, (size_t)(end - p));
    else if (!c->receiver)
        bench_accepted(b, c);
    else if (*p == '*')
        take_entries(b, c, p, end);
    else if (*p == ':' && line(p, end, &number))
        bench_acked(b, c, (uint64_t)number);
    return (size_t)(end - p);
}

static void settle(struct bench *b, struct conn *c)
{
    char stream[32];
    int n = snprintf(stream, sizeof(stream), "stream:%u", c->index);

    if (!c->n_ids)
        return;
    for (unsigned i = 0; i < c->n_ids; i++) {
        if (i % b->acks == 0)
            conn_putf(c, "*%u\r\n$4\r\nXACK\r\n$%d\r\n%s\r\n$5\r\ngroup\r\n",
                      3 + (c->n_ids - i < b->acks ? c->n_ids - i : b->acks), n, stream);
        conn_putf(c, "$%zu\r\n%s\r\n", strlen(c->ids[i]), c->ids[i]);
    }
    c->acks_asked += c->n_ids;
    c->n_ids = 0;
    read_more(c);
}

const struct dialect redis_dialect = { "redis", prepare, greet, send_one, take, settle };
