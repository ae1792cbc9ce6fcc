/* SPDX-License-Identifier: MIT */
/*
 * bench/messages_nats.c — NATS JetStream: a stream in files per mailbox, publishing with an answer,
 * a durable push consumer with explicit acknowledgements. Those are not answered by NATS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "messages.h"

static void request(struct conn *c, const char *subject, const char *body)
{
    conn_putf(c, "PUB %s _INBOX.prepare %zu\r\n%s\r\n", subject, strlen(body), body);
    conn_hear(c, "\"created\"", "\"error\"");
}

static void greet(struct bench *b, struct conn *c)
{
    if (c->receiver) /* prepare() has said hello */
        conn_putf(c, "SUB deliver.%u 1\r\nPING\r\n", c->index);
    else
        conn_putf(c,
                  "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false}\r\n"
                  "SUB _INBOX.%u 1\r\nPING\r\n",
                  c->index);
    conn_hear(c, "PONG\r\n", "-ERR");
    (void)b;
}

static void prepare(struct bench *b, struct conn *c)
{
    char subject[128], body[512];

    conn_putf(c, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false}\r\n"
                 "SUB _INBOX.prepare 9\r\nPING\r\n");
    conn_hear(c, "PONG\r\n", "-ERR");
    snprintf(subject, sizeof(subject), "$JS.API.STREAM.CREATE.BOX%u", c->index);
    snprintf(body, sizeof(body),
             "{\"name\":\"BOX%u\",\"subjects\":[\"box.%u\"],\"storage\":\"file\"}", c->index,
             c->index);
    request(c, subject, body);
    snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.DURABLE.CREATE.BOX%u.one", c->index);
    snprintf(body, sizeof(body),
             "{\"stream_name\":\"BOX%u\",\"config\":{\"durable_name\":\"one\",\"deliver_subject\":"
             "\"deliver.%u\",\"deliver_policy\":\"all\",\"ack_policy\":\"explicit\","
             "\"max_ack_pending\":20000}}",
             c->index, c->index);
    request(c, subject, body);
    conn_putf(c, "UNSUB 9\r\n");
    (void)b;
}

static void send_one(struct bench *b, struct conn *c, const char *content)
{
    conn_putf(c, "PUB box.%u _INBOX.%u %u\r\n", c->index % b->n_mailboxes, c->index, b->payload);
    conn_put(c, content, b->payload);
    conn_put(c, "\r\n", 2);
}

/* MSG <subject> <sid> [reply] <bytes> */
static size_t take_message(struct bench *b, struct conn *c, char *p, char *end, size_t n)
{
    char *at = p, *reply = NULL, *size;
    size_t reply_n = 0, len;

    for (unsigned fields = 0; fields < 2; fields++)
        at = (char *)memchr(at, ' ', (size_t)(end - at)) + 1;
    at = (char *)memchr(at, ' ', (size_t)(end - at)) + 1;
    size = memrchr(at, ' ', (size_t)(end - at));
    if (size) {
        reply = at;
        reply_n = (size_t)(size - at);
        at = size + 1;
    }
    len = strtoul(at, NULL, 10);
    if (n < (size_t)(end - p) + 1 + len + 2)
        return 0;
    if (!c->receiver) {
        if (memmem(end + 1, len, "\"seq\"", 5))
            bench_accepted(b, c);
        else
            bench_error(b, "NATS", end + 1, len);
    } else if (reply) {
        conn_id(c, reply, reply_n);
        bench_delivered(b, end + 1, len);
    }
    return (size_t)(end - p) + 1 + len + 2;
}

static size_t take(struct bench *b, struct conn *c, char *p, size_t n)
{
    char *end = memchr(p, '\n', n);

    if (!end)
        return 0;
    if (*p == 'M')
        return take_message(b, c, p, end, n);
    if (strncmp(p, "PING", 4) == 0)
        conn_put(c, "PONG\r\n", 6);
    else if (*p == '-')
        bench_error(b, "NATS", p, (size_t)(end - p));
    return (size_t)(end - p) + 1;
}

static void settle(struct bench *b, struct conn *c)
{
    for (unsigned i = 0; i < c->n_ids; i++)
        conn_putf(c, "PUB %s 4\r\n+ACK\r\n", c->ids[i]);
    c->acks_asked += c->n_ids;
    bench_acked(b, c, c->n_ids);
    c->n_ids = 0;
}

const struct dialect nats_dialect = { "nats", prepare, greet, send_one, take, settle };
