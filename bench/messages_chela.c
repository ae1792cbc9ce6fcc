/* SPDX-License-Identifier: MIT */
/*
 * bench/messages_chela.c — chela's gateway over WebSocket: agent.send by senders, agent.subscribe
 * and agent.ack by subscribers. Frames are masked with zeros, which is allowed and costs nothing.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "messages.h"

static void put_frame(struct conn *c, unsigned opcode, const char *p, size_t n)
{
    unsigned char head[14] = { (unsigned char)(0x80 | opcode) };
    size_t len = 2;

    if (n < 126) {
        head[1] = (unsigned char)(0x80 | n);
    } else if (n < 65536) {
        head[1] = 0x80 | 126;
        head[2] = (unsigned char)(n >> 8);
        head[3] = (unsigned char)n;
        len = 4;
    } else {
        head[1] = 0x80 | 127;
        for (unsigned i = 0; i < 8; i++)
            head[2 + i] = (unsigned char)(n >> (56 - 8 * i));
        len = 10;
    }
    conn_put(c, (const char *)head, len + 4);
    conn_put(c, p, n);
}

static void greet(struct bench *b, struct conn *c)
{
    char text[256];
    int n;

    conn_putf(c,
              "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
              "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
              "Sec-WebSocket-Version: 13\r\n\r\n",
              b->port);
    conn_ask(c, "\r\n\r\n", "HTTP/1.1 4");
    if (!c->subscriber)
        return;
    n = snprintf(text, sizeof(text),
                 "{\"type\":\"req\",\"id\":\"0\",\"method\":\"agent.subscribe\",\"params\":"
                 "{\"sessionKey\":\"bench:%u\"}}",
                 c->index);
    put_frame(c, 1, text, (size_t)n);
    conn_ask(c, "\"ok\":true", "\"ok\":false");
}

static void send_one(struct bench *b, struct conn *c, const char *content)
{
    char text[PAYLOAD_MAX + 256];
    int n = snprintf(text, sizeof(text),
                     "{\"type\":\"req\",\"id\":\"1\",\"method\":\"agent.send\",\"params\":"
                     "{\"sessionKey\":\"bench:%u\",\"message\":\"%s\"}}",
                     c->index % b->n_mailboxes, content);

    put_frame(c, 1, text, (size_t)n);
}

/* The text that a member has; the bench's own contain nothing that JSON would escape. */
static char *member(char *p, size_t n, const char *name, size_t *ret_n)
{
    char *at = memmem(p, n, name, strlen(name)), *end;

    if (!at)
        return NULL;
    at += strlen(name);
    end = memchr(at, '"', n - (size_t)(at - p));
    *ret_n = end ? (size_t)(end - at) : 0;
    return end ? at : NULL;
}

static void take_text(struct bench *b, struct conn *c, char *p, size_t n)
{
    size_t id_n, content_n;
    char *id, *content;

    if (c->subscriber && memmem(p, n, "\"agent.message\"", 15)) {
        id = member(p, n, "\"messageId\":\"", &id_n);
        content = member(p, n, "\"content\":\"", &content_n);
        if (!id || !content) {
            bench_error(b, "an event without an id", p, n);
            return;
        }
        conn_id(c, id, id_n);
        bench_delivered(b, content, content_n);
    } else if (!memmem(p, n, "\"ok\":true", 9)) {
        bench_error(b, "chela", p, n);
    } else if (c->subscriber) {
        id = memmem(p, n, "\"acknowledged\":", 15);
        while (id && !isdigit((unsigned char)*id))
            id++;
        bench_acked(b, c, id ? strtoull(id, NULL, 10) : 0);
    } else {
        bench_accepted(b, c);
    }
}

static size_t take(struct bench *b, struct conn *c, char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t head = 2, len;

    if (n < 2)
        return 0;
    len = u[1] & 0x7f;
    if (len == 126)
        head = 4;
    else if (len == 127)
        head = 10;
    if (n < head)
        return 0;
    if (head > 2)
        len = 0;
    for (size_t i = 2; i < head; i++)
        len = len << 8 | u[i];
    if (n - head < len)
        return 0;
    if ((u[0] & 0x0f) == 1)
        take_text(b, c, p + head, len);
    else if ((u[0] & 0x0f) == 9)
        put_frame(c, 10, p + head, len);
    else if ((u[0] & 0x0f) == 8)
        bench_error(b, "closed by chela", p + head + 2, len > 2 ? len - 2 : 0);
    return head + len;
}

/* One acknowledgement for up to b->acks messages. */
static void settle(struct bench *b, struct conn *c)
{
    static char text[ACKS_MAX * (ID_MAX + 3) + 256];

    for (unsigned i = 0; i < c->n_ids;) {
        size_t n = (size_t)snprintf(text, sizeof(text),
                                    "{\"type\":\"req\",\"id\":\"2\",\"method\":\"agent.ack\","
                                    "\"params\":{\"sessionKey\":\"bench:%u\",\"messageIds\":[",
                                    c->index);
        unsigned end = c->n_ids - i < b->acks ? c->n_ids : i + b->acks;

        for (; i < end; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "\"%s\",", c->ids[i]);
        n += (size_t)snprintf(text + n - 1, sizeof(text) - n, "]}}") - 1;
        put_frame(c, 1, text, n);
    }
    c->acks_asked += c->n_ids;
    c->n_ids = 0;
}

const struct dialect chela_dialect = { "chela", NULL, greet, send_one, take, settle };
