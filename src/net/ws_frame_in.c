/* SPDX-License-Identifier: MIT */
/*
 * net/ws_frame_in.c — the three functions of wslay that ws_rx.c calls, for programs that are linked
 * statically: Debian's wslay has no archive. They keep to wslay.h; ws_rx_test and fuzz_ws run over
 * them as well as over wslay, so the two cannot drift apart.
 */
#include <string.h>
#include <wslay/wslay.h>

#include "base/err.h"

#define HEAD_MAX 14

struct wslay_frame_context {
    wslay_frame_recv_callback feed;
    void *arg;
    unsigned char head[HEAD_MAX];
    size_t n_head, need; /* bytes of the head that are there; that there must be */
    struct wslay_frame_iocb frame;
    unsigned char mask[4];
    uint64_t got; /* of the payload */
    uint8_t data[4096];
};

int wslay_frame_context_init(wslay_frame_context_ptr *ctx,
                             const struct wslay_frame_callbacks *callbacks, void *user_data)
{
    struct wslay_frame_context *c = xcalloc(1, sizeof(*c));

    c->feed = callbacks->recv_callback;
    c->arg = user_data;
    c->need = 2;
    *ctx = c;
    return 0;
}

void wslay_frame_context_free(wslay_frame_context_ptr ctx)
{
    free(ctx);
}

/* Length of the head, by its first two bytes. */
static size_t head_size(const unsigned char head[2])
{
    unsigned n = head[1] & 0x7f;

    return 2 + (n == 126 ? 2u : n == 127 ? 8u : 0) + (head[1] & 0x80 ? 4u : 0);
}

/* A length must be written in the shortest form, and have no sign bit. */
static int parse_length(struct wslay_frame_context *c)
{
    unsigned small = c->head[1] & 0x7f, size = small == 126 ? 2 : small == 127 ? 8 : 0;
    uint64_t n = size ? 0 : small;

    for (unsigned i = 0; i < size; i++)
        n = n << 8 | c->head[2 + i];
    if ((size == 2 && n < 126) || (size == 8 && (n <= UINT16_MAX || n >> 63)))
        return WSLAY_ERR_PROTO;
    c->frame.payload_length = n;
    return 0;
}

static int parse_head(struct wslay_frame_context *c)
{
    struct wslay_frame_iocb *f = &c->frame;
    int r;

    *f = (struct wslay_frame_iocb){
        .fin = c->head[0] >> 7,
        .rsv = c->head[0] >> 4 & 7,
        .opcode = c->head[0] & 0xf,
        .mask = c->head[1] >> 7,
    };
    r = parse_length(c);
    if (r < 0)
        return r;
    if (f->opcode & 8 && (!f->fin || f->payload_length > 125))
        return WSLAY_ERR_PROTO;
    if (f->mask)
        memcpy(c->mask, c->head + c->need - 4, 4);
    return 0;
}

/* 0 once the head is there. */
static int take_head(struct wslay_frame_context *c)
{
    ssize_t n;

    while (c->n_head < c->need) {
        n = c->feed(c->head + c->n_head, c->need - c->n_head, 0, c->arg);
        if (n <= 0)
            return WSLAY_ERR_WANT_READ;
        c->n_head += (size_t)n;
        if (c->n_head == 2 && c->need == 2)
            c->need = head_size(c->head);
        if (c->n_head == c->need)
            return parse_head(c);
    }
    return 0;
}

ssize_t wslay_frame_recv(wslay_frame_context_ptr ctx, struct wslay_frame_iocb *iocb)
{
    struct wslay_frame_context *c = ctx;
    uint64_t left;
    ssize_t n = 0;
    int r;

    r = take_head(c);
    if (r < 0)
        return r;
    left = c->frame.payload_length - c->got;
    if (left > 0) {
        n = c->feed(c->data, left < sizeof(c->data) ? (size_t)left : sizeof(c->data), 0, c->arg);
        if (n <= 0)
            return WSLAY_ERR_WANT_READ;
    }
    for (ssize_t i = 0; c->frame.mask && i < n; i++)
        c->data[i] ^= c->mask[(c->got + (uint64_t)i) % 4];
    c->got += (uint64_t)n;
    *iocb = c->frame;
    iocb->data = c->data;
    iocb->data_length = (size_t)n;
    if (c->got == c->frame.payload_length) {
        c->got = c->n_head = 0;
        c->need = 2;
    }
    return n;
}
