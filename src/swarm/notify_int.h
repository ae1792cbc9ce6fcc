/* SPDX-License-Identifier: MIT */
/*
 * swarm/notify_int.h — what the files of the notifier share.
 */
#pragma once

#include "base/strmap.h"
#include "openclaw/openclaw.h"
#include "swarm/mail.h"
#include "swarm/notify.h"

#define NOTIFY_FROM    "chela"          /* the sender of notifications */
#define NOTIFY_CHARS   4000             /* of notifications in one text */
#define NOTIFY_JOINED  100              /* notifications in one text */
#define NOTIFY_OUTLETS 4096             /* sessions whose rate is remembered */
#define NOTIFY_FIBERS  64               /* sessions that are delivered to at once */
#define NOTIFY_ECHOES  64               /* texts of ours that are known again */
#define MISSED_MS      (60 * 60 * 1000) /* what is older is not obeyed any more */
#define UNHEARD_MS     (2 * 60 * 1000)  /* a loss may be found out so late */
#define TURN_MS        (10 * 60 * 1000)
#define POST_MS        (60 * 1000)

/* --- pure: notify_rate.c --- */

struct bucket { /* all zero is a full one */
    double spent;
    uint64_t at_ms;
};
/* Take a token of `rate` a minute. false: none is there; *ret_wait_ms says for how long. */
bool bucket_take(struct bucket *b, long long rate, uint64_t now, uint64_t *ret_wait_ms);
void bucket_give(struct bucket *b); /* it was not used */
bool bucket_full(const struct bucket *b, long long rate, uint64_t now);

/* Add a text behind a blank line. false: it does not fit any more (then out is as it was). */
bool notify_join(struct buf *out, struct str text);

/* "telegram:12345": a post to a peer of a channel; anything of agents is none. */
bool notify_peer(struct str session, struct str *ret_channel, struct str *ret_to);

/* Does this URL lead back to a gateway on loopback at this port? */
bool notify_is_self(const char *url, unsigned port);

/* --- pure: notify_hear.c --- */

/*
 * What a session.message event tells, if a person has written it: 0, or NOTIFY_NOT_HEARD. Texts
 * point into the payload or the arena. session is where an answer goes: "<channel>:<peer>" when the
 * event names them. in_group: many read it; mentioned: it is for us.
 */
enum { NOTIFY_NOT_HEARD = 1 };
struct heard {
    struct inbound in;
    struct str key; /* the session's key at the peer */
    bool in_group, mentioned;
};
int notify_hear(const json_t *payload, struct arena *a, struct heard *ret);

/* --- */

struct outlet { /* one session that is delivered to */
    struct strmap_node node;
    struct bucket bucket;
    unsigned busy;
    struct batch *batch; /* a text that was tried and must be tried again as it was */
    char session[];
};

struct notify {
    struct swarm *s;
    struct oc_client *client;
    struct mail_driver driver; /* lent to mail */
    bool self, stopping;
    uint64_t started_ms;
    int64_t started_at; /* the same in the tables' time */
    struct fiber_group *chores;
    int64_t lost_at; /* in the tables' time; 0: connected, or not for the first time yet */
    bool met;        /* it was connected once */
    struct strmap outlets;
    uint64_t echoes[NOTIFY_ECHOES]; /* hashes of (session, text) */
    unsigned n_echoes;
};

/* notify_drive.c */
int notify_drive(struct notify *n, struct err *e) MUST_CHECK;
void notify_drive_done(struct notify *n);
uint64_t notify_echo_of(struct str session, struct str text);
void notify_echo_add(struct notify *n, uint64_t echo);
bool notify_echo_known(const struct notify *n, uint64_t echo);
