/* SPDX-License-Identifier: MIT */
/*
 * hub/link_int.h — what the files of the links share.
 *
 *   link.c          sockets: their list, their ends, sending, silence
 *   link_open.c     the upgrade: who it is; what waited is sent first
 *   link_route.c    what comes from an agent, and where it goes
 *   link_store.c    what waits in the store, and dead letters: written in batches by one fiber
 *   link_kept.c     what waits in the store: read, forgotten, too old
 */
#pragma once

#include "base/fiber.h"
#include "hub/frame.h"
#include "hub/link.h"
#include "net/ws.h"

enum {
    LINK_QUEUE = 64 * 1024 * 1024, /* bytes unsent to a socket; then it is closed */
    LINK_FULL = 1024 * 1024,       /* ... from here on who sends more to it is not read from */
    LINK_PROGRESS =
        16 * 1024, /* ... and if it takes less than this in a second for too long, it is closed */
    LINK_HISTORY = 1000,
    LINK_STORE_MAX = 32 * 1024 * 1024, /* bytes on their way to the store; more is dropped */
    LINK_DEAD_MAX = 64 * 1024,         /* bytes of a dead letter; longer ones are cut */
    LINK_DEAD_SHOWN = 4 * 1024 * 1024, /* bytes of dead letters in one answer, the newest */
};

struct link {
    struct links *l;
    struct ws *ws;           /* NULL: closed() has come */
    struct hub_agent *agent; /* NULL: an observer, or no longer this agent's socket */
    struct link *next, **at; /* of links.all */
    uint64_t serial;         /* tells it from an earlier socket of the agent */
    uint64_t health_ms;      /* now_ms() of the last report, or of the beginning */
    bool observer, flushing, welcomed;
    struct fiber *flusher; /* waits for what was sent to be written */

    int64_t tokens; /* of the rate, in thousandths of a message */
    uint64_t tokens_ms;
    bool throttled;

    /* A sender is not read from while one recipient is full. */
    struct link *blocked_by, *next_blocked;
    struct link *blocked; /* those who wait for this one */
    uint64_t full_ms;     /* since when it is full and takes nothing; 0: it is not full */
    size_t full_left;     /* bytes unsent when last looked at */
};

struct store_item;

struct links {
    struct hub *h;
    struct link *all;
    unsigned n, n_observers;
    uint64_t serial;
    size_t history;
    struct loop_timer *throttle;
    struct fiber *stopper;

    struct store_item *first, **end; /* for the store's fiber */
    size_t items_bytes, n_dead_items;
    bool writing;     /* the fiber has a batch on its way */
    uint64_t n_batch; /* batches so far */
    struct fiber *writer;
    size_t dead;               /* rows of hub_dead */
    struct fiber_lane replays; /* of dead letters, one after the other */
};

/* link.c */
struct link *link_new(struct links *l);
void link_add(struct link *link); /* ws is set */
void link_free(struct link *link);
void link_closed(struct ws *ws, unsigned code, struct str reason, void *arg);
void link_drained(struct ws *ws, void *arg);
struct link *link_of(struct links *l, struct str agent);
/* The agent's socket is this one from now on / is no more: state, events, tasks. */
void link_attach(struct link *link, struct hub_agent *agent);
void link_detach(struct link *link);
/* Text to a socket; false: it is full or closing, and is closed then. */
bool link_write(struct link *link, struct str text);
void link_count(enum frame_type type, enum link_outcome outcome);
/* It has too much unsent: do not read from the sender until it has less. */
void link_block(struct link *sender, struct link *by);
void link_remember(struct links *l); /* one more of the history */

/* link_route.c */
void link_message(struct ws *ws, enum ws_kind kind, struct str data, void *arg);
void link_unthrottle(void *arg); /* of the timer */

/* What of a waiting message goes to hub_dead: one that was longer is no JSON then, but a text. A
 * character has up to four bytes. */
#define LINK_DEAD_TEXT " CASE WHEN bytes > 65536 THEN SUBSTR(message, 1, 16384) ELSE message END"
_Static_assert(LINK_DEAD_MAX == 65536, "as in LINK_DEAD_TEXT");

/* link_store.c */
extern const struct sql link_sql_trim; /* of hub_dead: ?1 stay */
CO int link_store_start(struct links *l, struct err *e) MUST_CHECK;
CO void link_store_stop(struct links *l);
void link_store_free(struct links *l);
/* Those dead letters that are not written yet are forgotten; what is being written is waited for.
 */
CO int link_store_drop_dead(struct links *l, struct err *e) MUST_CHECK;
/* Keep a message for an agent that is away. False: dropped, and said so to the log. */
bool link_hold(struct links *l, struct hub_agent *agent, struct str text);

/* A dead letter becomes a message that waits for an agent, in one commit: 1, or 0: there is no such
 * letter any more. ERR_CONFLICT: the agent is not registered. ERR_LIMIT: its queue is full. */
CO int link_revive(struct links *l, struct str agent, int64_t dead, struct str text, struct err *e)
    MUST_CHECK;

/* So many messages, of so many bytes, are no longer in the store. */
void link_unkept(struct hub_agent *agent, int64_t n, int64_t bytes);

/* link_kept.c */
CO int link_expire(struct links *l, struct err *e) MUST_CHECK; /* by hub.queue_max_age */
struct kept {
    int64_t position;
    struct str text;
};
/* The next of the kept messages behind a position, at least one if there is any. */
CO int link_load(struct links *l, struct str agent, int64_t after, struct arena *a,
                 struct kept **ret, size_t *ret_n, struct err *e) MUST_CHECK;
/* They have been written to the socket: forget those up to a position. */
CO int link_forget(struct links *l, struct str agent, int64_t upto, struct err *e) MUST_CHECK;
