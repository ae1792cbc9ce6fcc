/* SPDX-License-Identifier: MIT */
/* swarm/beat_int.h — what the files of heartbeats share. */
#pragma once

#include "base/strmap.h"
#include "swarm/life_int.h"

#define BEAT_SILENT \
    "No answer to "        /* "3 heartbeats": how error_message of a silent agent begins \
                            */
#define BEAT_HERE SIZE_MAX /* place of what is not in the heap */

struct pulse { /* an agent that runs */
    struct strmap_node by_id, by_session;
    char *id, *session; /* session NULL: none */
    int64_t base_ms;    /* a slot; 0: it has none */
    int64_t every_ms;   /* 0: no heartbeats */
    int64_t slot_ms;    /* the next one */
    int64_t due_ms;     /* when to look at it: the slot, or the end of the time to answer */
    int64_t alive_ms;   /* it was heard of; 0: never here */
    int64_t stored_ms;  /* last_heartbeat_at as the table has it, as far as we know */
    size_t place;       /* in the heap, or BEAT_HERE */
    unsigned missed;    /* in a row */
    bool checklist;
    bool asked;    /* and has not answered yet */
    bool attached; /* somebody is subscribed */
    bool ours;     /* somebody was: its silence is ours to tell */
    bool silent;
    bool told;  /* what was last written of its silence */
    bool fresh; /* attached anew: its first answer is written at once */
    bool write; /* in the list of those to be written at once */
};

struct beat_heap {
    struct pulse **v;
    size_t n, cap;
};
void beat_heap_put(struct beat_heap *h, struct pulse *p); /* in, or to its new place */
void beat_heap_drop(struct beat_heap *h, struct pulse *p);

struct beat_seat { /* a session that somebody is subscribed to; an agent may come later */
    struct strmap_node by_session;
    char session[];
};

enum { BEAT_JOBS = 4096, BEAT_WORKERS = 8, BEAT_BATCH = 1000 };

struct beat_job { /* a checklist's beat */
    char *agent;
    int64_t slot_ms;
};

struct beat {
    struct life *life;
    struct strmap ids, sessions, seats;
    struct beat_heap heap;
    struct pulse **urgent; /* to be written at once */
    size_t n_urgent, cap_urgent;
    struct fiber *clock, *books; /* that beats; that reads and writes; NULL: not yet */
    struct fiber_group *fibers;
    struct chan *jobs;
    int64_t seen_ms; /* changes of the table up to here are known */
    int64_t n_silent, n_beating;
    bool stopping;
};

/* The first slot after now. */
static inline int64_t beat_next(int64_t base_ms, int64_t every_ms, int64_t now_ms)
{
    if (base_ms > now_ms)
        return base_ms;
    return base_ms + ((now_ms - base_ms) / every_ms + 1) * every_ms;
}

/* What changed of it is to be written at once. */
void beat_urgent(struct beat *b, struct pulse *p);

/* beat_store.c: reading and writing. All wait. */
CO int beat_load(struct beat *b, struct err *e) MUST_CHECK;  /* every agent that runs */
CO int beat_poll(struct beat *b, struct err *e) MUST_CHECK;  /* what others have changed */
CO int beat_write(struct beat *b, struct err *e) MUST_CHECK; /* the urgent ones */
CO int beat_flush(struct beat *b, struct err *e) MUST_CHECK; /* times of the last answers */
CO int beat_worker(void *beat, struct err *e);               /* starts the workflows of jobs */
