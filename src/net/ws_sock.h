/* SPDX-License-Identifier: MIT */
/*
 * net/ws_sock.h — the socket's struct, shared by ws.c (its life), ws_out.c (sending) and
 * ws_inbox.c (receiving in a fiber). For ws*.c only.
 */
#pragma once

#include "base/fiber.h"
#include "net/ws_int.h"

enum ws_state {
    WS_OPEN,
    WS_HEARD,   /* the peer's close came behind messages that ws_recv() has yet to take */
    WS_CLOSING, /* our close went first; waiting for the peer's until due_ms */
    WS_LINGER,  /* all is said; the rest is written, then bytes are dropped until the peer hangs up
                 */
    WS_GONE,    /* no stream any more */
};

struct ws_message {
    struct ws_message *next;
    enum ws_kind kind;
    size_t n;
    char data[];
};

/* A fiber in ws_send_wait(); the struct is on its stack. */
struct ws_waiter {
    struct ws_waiter *next;
    struct fiber *fiber;
    bool gone; /* the socket may be freed: do not look at it again */
};

struct ws {
    struct loop *loop;
    struct stream *stream;
    struct http_seat *seat; /* NULL on the client side */
    struct loop_timer *timer;
    const struct ws_ops *ops;
    void *arg;
    enum ws_state state;
    bool client;
    bool kept;                /* read by ws_recv(): lives until ws_free() */
    bool let_go;              /* ws_free() was called */
    bool told;                /* the user knows that it is closed */
    bool broken;              /* the stream failed or was aborted: the timer will tell the user */
    bool paused;              /* not reading, because the inbox is full */
    bool stir;                /* the receiver holds bytes to be taken up from the loop */
    bool pinged;              /* and nothing heard since */
    bool ended;               /* we have shut our side down */
    bool flush_due;           /* limits.gather: written at the end of this turn */
    unsigned short code;      /* once told */
    unsigned short peer_code; /* of WS_HEARD */
    char *peer_reason;
    unsigned char n_pong;
    struct ws_limits limits;
    uint64_t heard_ms, due_ms;

    struct ws_rx rx;
    char *rest; /* bytes read and not yet taken by rx */

    struct buf out;
    char *pong; /* the answer to the latest ping, while out is not empty */
    struct ws_waiter *waiters;

    struct ws_message *inbox, **inbox_end;
    size_t inbox_n, inbox_bytes;
    struct fiber *reader;
};

/* ws.c */
void ws_settle(struct ws *ws);     /* watch what is to be watched, set the timer */
void ws_resume(struct ws *ws);     /* read again; ws_settle() must follow */
void ws_hear_out(struct ws *ws);   /* HEARD: all is received, the peer's close may be answered */
void ws_drain(struct ws *ws);      /* take events from rx as long as it may */
void ws_fail_later(struct ws *ws); /* the stream is lost; tell from the loop */

/* ws_out.c */
void ws_out_frame(struct ws *ws, enum ws_opcode opcode, struct str data);
void ws_out_close(struct ws *ws, unsigned code, struct str reason);
void ws_out_pong(struct ws *ws, struct str data);
void ws_out_flush(struct ws *ws);   /* write what waits, as far as it goes */
void ws_out_release(struct ws *ws); /* wake all waiters: the socket is closed */
void ws_out_done(struct ws *ws);

/* ws_inbox.c */
void ws_inbox_put(struct ws *ws, enum ws_kind kind, struct str data); /* may pause */
void ws_inbox_wake(struct ws *ws);
void ws_inbox_done(struct ws *ws);
