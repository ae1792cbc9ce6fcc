/* SPDX-License-Identifier: MIT */
/*
 * swarm/mail_int.h — between the files of mail.
 *
 *   mail.c         life, sending, subscribing
 *   mail_room.c    whether there is room in a mailbox
 *   mail_accept.c  a batch of acceptances           mail_end.c    of acknowledgements and replies
 *   mail_box.c     sessions and letters in memory   mail_pump.c  from the table to subscribers
 *   mail_clock.c   redelivery by time, chores       mail_dead.c   what could not be delivered
 *   mail_age.c     what is too old: expired, forgotten
 *   mail_drive.c   drivers                          mail_hear.c  other processes
 *   mail_wait.c    who waits for replies            mail_look.c  lists, replay, drop
 *   mail_flow.c    the workflow                     mail_api.c   routes
 *
 * A box is what this process knows of one session. The table is the truth; a box knows which
 * messages are under way to a subscriber here (its letters) and whether the table may hold others
 * (`behind`). Positions grow in the order in which a process commits, so what is read goes on after
 * the cursor; only what other ways write (other processes, transactions of workflows, replays) may
 * appear below it: then the box is read again from its begin (`rescan`), less its letters.
 */
#pragma once

#include <stdatomic.h>

#include "base/lane.h"
#include "base/strmap.h"
#include "swarm/mail.h"

#define MAIL_BATCH       512       /* entries of a batch; below PLACES */
#define MAIL_FLIGHTS     4         /* batches of each lane on their way on SQLite */
#define MAIL_BATCH_BYTES (4 * MIB) /* of their texts */
#define MAIL_PLACES      4096      /* positions of one batch on PostgreSQL */
#define MAIL_PAGE        256       /* messages read at once for one session */
#define MAIL_PAGE_BYTES  (4 * MIB) /* after which a page ends */
#define MAIL_PUMPS       16        /* sessions read for at once */
#define MAIL_TICK_MS     50        /* of the clock of redeliveries */
#define MAIL_SLOTS       1024      /* of its wheel */
#define MAIL_BOXES       100000    /* idle boxes that are kept */
#define MAIL_IDLE_MS     60000     /* after which one is forgotten */
#define MAIL_CHANNEL     "chela_mail"
#define MAIL_NOTICE      "notice:" /* begins the workflow_uuid of notices, and of nothing else */
#define MAIL_SYSTEM      "chela"   /* their sender */

struct mail_box;

/* A message that was pushed to a subscriber here, or is with a driver, and has not ended. */
struct mail_letter {
    struct strmap_node node;            /* of mail.letters, by workflow_uuid */
    struct mail_letter *prev, *next;    /* of the box, by position */
    struct mail_letter *tnext, **tprev; /* of a slot of the wheel; tprev NULL: not in one */
    struct mail_box *box;
    struct mail_sub *sub; /* who has it; NULL: nobody now */
    int64_t position, accepted_ms;
    uint64_t due_ms;  /* when it is pushed again */
    unsigned attempt; /* pushes, with those of earlier days */
    bool due;         /* is to be pushed again */
    bool dying;       /* is about to be given up: in that list instead of the wheel */
    struct str id;    /* behind the struct, as the node's key */
};

struct mail_sub {
    struct mail_sub *next; /* of the box, in a ring */
    struct mail *m;
    struct mail_box *box;
    const struct mail_sub_ops *ops;
    void *arg;
    bool replies;
};

struct mail_waiter {          /* on the stack of the fiber that waits */
    struct strmap_node node;  /* of mail.waiters, by workflow_uuid: the first of its twins */
    struct mail_waiter *twin; /* waits for the same */
    struct fiber *fiber;
    struct str workflow;
    struct mail_box *box; /* NULL: not known yet */
    struct buf *out;
    bool done;
    int outcome; /* 0: the reply is in out; MAIL_NOTHING; less than 0 with err */
    struct err err;
};

struct mail_box {
    struct strmap_node node; /* of mail.boxes, by session */
    struct mail_box *qnext;  /* of a queue: to be pumped, or of a driver */
    struct mail_box *cnext;  /* of those that are choked */
    struct mail_box *dnext;  /* of those that wait for a driver's next try */
    struct mail_sub *turn;   /* whose turn it is; NULL: no subscribers */
    struct mail_letter *first, *last;
    unsigned n_subs, n_replying, n_letters;
    bool queued, pumping; /* waits for a pump; one is at it */
    bool behind;          /* the table may hold what is above the cursor */
    bool rescan;          /* or what is below */
    bool choked;          /* no subscriber takes more just now */
    bool chokes;          /* it is in the list of those */
    unsigned sending;     /* messages that are being written */
    unsigned holds;       /* by fibers that are in the middle of something */
    bool driving, drive_queued, drive_more, drive_waits; /* see mail_drive.c */
    bool counted, asked; /* `pending` was counted in the table; is being counted */
    int64_t pending;     /* due messages, as far as this process knows */
    int64_t cursor;
    int64_t delivering; /* position that a driver has */
    uint64_t used_ms, counted_ms, drive_at_ms;
    uint64_t choke_ms, choke_at_ms; /* how long it is left alone, until when */
    unsigned drive_fails;
    int64_t *ended; /* what ended while a page was read */
    size_t n_ended, cap_ended;
    char session[]; /* key */
};

/* --- what is written in batches --- */

struct mail_row { /* texts lent, or in a page's arena */
    int64_t position;
    struct str workflow, id, from, to, content, metadata;
    int64_t created_ms, expires_ms, attempts;
};
struct mail_accept {
    struct lane_ride ride; /* first */
    struct mail_row row;
    bool keyed; /* a sender that tries again says the same key */
    bool wrote, existed, conflict, pending;
    bool stays;           /* no room: it is not written */
    bool goes;            /* it counts as `sending` */
    int refused;          /* then, unless it had been accepted before: less than 0, with */
    struct err why;       /* ... the reason */
    struct mail_box *box; /* held */
    char id[MAIL_ID];     /* of the one that existed */
    /* Of a message that was posted: r as it is after a wait in the lane. */
    void (*told)(struct mail_accept *a, int r, const struct err *e);
};
CO int mail_accept_send(void *mail, struct lane_ride *first, size_t n, struct err *e);
void mail_accept_told(void *mail, struct lane_ride *ride, int r, const struct err *e);
/* One in a transaction. */
int mail_accept_tx(struct store_tx *tx, const struct mail *m, struct mail_accept *a, struct err *e)
    MUST_CHECK;
/* What there is of its key: sets existed, conflict, pending. */
int mail_accept_twin_tx(struct store_tx *tx, struct mail_accept *a, struct err *e) MUST_CHECK;
/* Count what is due in a session, up to max. */
int mail_accept_count_tx(struct store_tx *tx, struct str session, int64_t max, int64_t *ret,
                         struct err *e) MUST_CHECK;

/* mail_room.c: sets `stays` and `refused` where there is no room, and how many are left. */
CO int mail_room(struct mail *m, struct lane_ride *first, size_t *ret_goes, struct err *e)
    MUST_CHECK;
void mail_room_leave(struct mail_accept *a);
int mail_refuse_full(struct str session, struct err *e);

struct mail_ending {
    struct lane_ride ride;
    int64_t position;
    struct str response; /* {0}: a mere acknowledgement */
    bool changed;
};
CO int mail_end_send(void *mail, struct lane_ride *first, size_t n, struct err *e);
/* Acknowledge what is known; then the box is told. */
CO int mail_end(struct mail *m, struct str session, struct str workflow, int64_t position,
                struct str response, struct err *e) MUST_CHECK;

/* --- the whole --- */

struct mail_driver_state {
    struct mail *m;
    const struct mail_driver *driver;
    struct mail_box *first, **last;
    unsigned running;
};

struct mail {
    struct swarm *s;
    struct loop *loop;
    struct store *store;
    const struct swarm_settings *set;
    bool pg, running;
    unsigned drive_waits; /* boxes that wait for a driver's next try */
    char self[17];        /* tells our own news from those of others */
    _Atomic int64_t *seq; /* SQLite: the last position that was given */
    struct strmap boxes, letters, waiters;
    struct lane accepts, ends;
    struct fiber_lane door; /* batches of acceptances go through it in their order */
    struct mail_box *pump_first, **pump_last, *choked;
    unsigned pumps, n_subs, n_letters, n_timed;
    struct mail_letter *slots[MAIL_SLOTS];
    uint64_t tick; /* of the wheel */
    struct fiber *clock, *sweeper;
    struct mail_driver_state drivers[MAIL_DRIVERS];
    size_t n_drivers;
    bool new_drivers;         /* the table was not looked at for them */
    struct mail_box *waiting; /* for a driver's next try, by dnext */
    struct fiber_group *chores;
    struct durable_type type;  /* of the workflow */
    struct mail_letter *dying; /* pushed too often; by tnext */
    unsigned collects, polls;
    struct { /* where the next look goes on: see mail_age.c */
        char session[MAIL_SESSION];
        int64_t position;
    } expiry;
    int64_t collected, below;
    bool collect_more;
    bool orphans; /* some box may have letters and no subscribers */
};

/* mail_box.c */
struct mail_box *mail_box_find(struct mail *m, struct str session);
struct mail_box *mail_box_get(struct mail *m, struct str session); /* made when there is none */
struct mail_letter *mail_letter_new(struct mail *m, struct mail_box *box,
                                    const struct mail_row *row);
struct mail_letter *mail_letter_find(struct mail *m, struct str workflow);
struct mail_letter *mail_letter_find_id(struct mail_box *box, struct str id);
void mail_letter_free(struct mail *m, struct mail_letter *l);
/* A message has ended: no letter, and no page that is being read, brings it back. */
void mail_box_ended(struct mail *m, struct str session, struct str workflow, int64_t position,
                    bool was_due);
void mail_box_more(struct mail *m, struct mail_box *box, bool rescan); /* the table may hold more */
void mail_box_kick(struct mail *m, struct mail_box *box);              /* have it pumped */
void mail_box_forget_idle(struct mail *m);
void mail_boxes_free(struct mail *m);
/* Push to the next subscriber that takes it; false: choked, or none. Then the letter waits. */
bool mail_box_push(struct mail *m, struct mail_box *box, struct mail_letter *l,
                   const struct mail_row *row);

/* mail_clock.c */
void mail_clock_set(struct mail *m, struct mail_letter *l, uint64_t due_ms);
void mail_clock_unset(struct mail *m, struct mail_letter *l);
uint64_t mail_clock_backoff(const struct mail *m, unsigned attempt);
void mail_clock_wake(struct mail *m);
void mail_sweep_wake(struct mail *m);
CO int mail_clock_chore(void *arg, struct err *e);
CO int mail_sweep_chore(void *arg, struct err *e);
void mail_dying_add(struct mail *m, struct mail_letter *l);

/* mail_pump.c */
void mail_pump_call(struct mail *m); /* have a fiber see to the queue */
int mail_row_take(struct store_row *row, struct arena *a, struct mail_row *ret);
/* Deliveries that were made again; the letters know already. */
CO int mail_attempts_write(struct mail *m, const int64_t *positions, size_t n, struct err *e)
    MUST_CHECK;

/* mail_dead.c */
struct mail_death {
    enum mail_status status; /* FAILED, EXPIRED */
    const char *why;
};
CO int mail_dead_kill(struct mail *m, const int64_t *positions, size_t n,
                      const struct mail_death *death, struct err *e) MUST_CHECK;

/* mail_age.c */
CO int mail_age_expire(struct mail *m, struct err *e) MUST_CHECK;
CO int mail_age_collect(struct mail *m, struct err *e) MUST_CHECK;

/* mail_drive.c */
void mail_drive_hint(struct mail *m, struct mail_box *box);
struct mail_driver_state *mail_drive_of(struct mail *m, struct mail_box *box);
bool mail_drive_replies(struct mail *m, struct mail_box *box);
void mail_drive_tick(struct mail *m);
CO int mail_drive_scan(struct mail *m, struct err *e) MUST_CHECK;

/* mail_hear.c */
int mail_hear_register(struct mail *m, struct err *e) MUST_CHECK;
CO int mail_hear_poll(struct mail *m, struct err *e) MUST_CHECK;
/* The payload that names the sessions of a batch to others. */
void mail_hear_payload(const struct mail *m, struct lane_ride *first, struct buf *out);

/* mail_wait.c */
void mail_wait_replied(struct mail *m, struct str workflow, struct str response);
void mail_wait_nobody(struct mail *m, struct mail_box *box,
                      struct str workflow); /* {0}: all of it */
void mail_wait_all_nobody(struct mail *m);
CO int mail_wait_poll(struct mail *m, struct err *e) MUST_CHECK;

/* mail_look.c */
CO int mail_look_gauge(struct mail *m, struct err *e) MUST_CHECK;

/* mail_flow.c */
int mail_flow_register(struct mail *m, struct err *e) MUST_CHECK;
