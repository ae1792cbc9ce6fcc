/* SPDX-License-Identifier: MIT */
/*
 * bench/messages_chela.c — chela's gateway over WebSocket: agent.send by senders, agent.subscribe
 * and agent.ack by subscribers.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "messages.h"

static void greet(struct bench *b, struct conn *c)
{
    char text[256];
    int n;

    conn_put_upgrade(c, b->port, "/ws");
    conn_hear(c, "\r\n\r\n", "HTTP/1.1 4");
    if (!c->receiver)
        return;
    n = snprintf(text, sizeof(text),
                 "{\"type\":\"req\",\"id\":\"0\",\"method\":\"agent.subscribe\",\"params\":"
                 "{\"sessionKey\":\"bench:%u\"}}",
                 c->index);
    conn_put_frame(c, 1, text, (size_t)n);
    conn_hear(c, "\"ok\":true", "\"ok\":false");
}

static void send_one(struct bench *b, struct conn *c, const char *content)
{
    char text[PAYLOAD_MAX + 256];
    int n = snprintf(text, sizeof(text),
                     "{\"type\":\"req\",\"id\":\"1\",\"method\":\"agent.send\",\"params\":"
                     "{\"sessionKey\":\"bench:%u\",\"message\":\"%s\"}}",
                     c->index % b->n_mailboxes, content);

    conn_put_frame(c, 1, text, (size_t)n);
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

    if (c->receiver && memmem(p, n, "\"agent.message\"", 15)) {
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
    } else if (c->receiver) {
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
    struct frame f;
    size_t len = conn_frame(p, n, &f);

    if (!len)
        return 0;
    if (f.opcode == 1)
        take_text(b, c, f.p, f.n);
    else if (f.opcode == 9)
        conn_put_frame(c, 10, f.p, f.n);
    else if (f.opcode == 8)
        bench_error(b, "closed by chela", f.p + 2, f.n > 2 ? f.n - 2 : 0);
    return len;
}

/* One acknowledgement for up to b->acks messages. */
static void settle(struct bench *b, struct conn *c)
{
    static char text[ACKS_MAX * (CONN_ID + 3) + 256];

    for (unsigned i = 0; i < c->n_ids;) {
        size_t n = (size_t)snprintf(text, sizeof(text),
                                    "{\"type\":\"req\",\"id\":\"2\",\"method\":\"agent.ack\","
                                    "\"params\":{\"sessionKey\":\"bench:%u\",\"messageIds\":[",
                                    c->index);
        unsigned end = c->n_ids - i < b->acks ? c->n_ids : i + b->acks;

        for (; i < end; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "\"%s\",", c->ids[i]);
        n += (size_t)snprintf(text + n - 1, sizeof(text) - n, "]}}") - 1;
        conn_put_frame(c, 1, text, n);
    }
    c->acks_asked += c->n_ids;
    c->n_ids = 0;
}

const struct dialect chela_dialect = { "chela", NULL, greet, send_one, take, settle };
