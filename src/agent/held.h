/* SPDX-License-Identifier: MIT */
/*
 * agent/held.h — a task that the agent holds, from its acceptance until the hub has said ack, and
 * what the files of the runner share.
 *
 *   NEW ──written──▶ QUEUED ──a place is free──▶ RUNNING ──result written──▶ DONE ──ack──▶ gone
 *
 * runner.c moves them; work.c does one; deliver.c brings the results to the hub.
 */
#pragma once

#include <sys/queue.h>

#include "agent/agent_int.h"
#include "agent/live.h"
#include "agent/spool.h"
#include "base/strmap.h"

#define RESPONSE_MAX  (30 * MIB) /* the hub takes 32 MiB by default */
#define RESPONSE_KEPT (64 * KIB) /* longer ones are read from disk when they are sent */

enum held_state { HELD_NEW, HELD_QUEUED, HELD_RUNNING, HELD_DONE };

TAILQ_HEAD(held_list, held);

struct held {
    struct strmap_node node;
    TAILQ_ENTRY(held) all;  /* of runner.all, in order of acceptance */
    TAILQ_ENTRY(held) link; /* of the list `in` */
    struct held_list *in;   /* fresh, queue or outbox; NULL: none */
    struct runner *runner;
    char *id, *from;
    json_t *payload; /* the task; NULL once it is done */
    enum held_state state;
    long long seq;
    bool retry;
    bool marked; /* on disk as running */
    bool on_disk;
    size_t disk_bytes;

    struct fiber *work; /* the type's work, while it runs */
    struct live *live;
    bool canceled, forget; /* forget: nobody wants the result */
    char *reason;          /* of the cancel */

    char *response; /* JSON text; NULL: on disk */
    size_t response_n;
    unsigned long told_on; /* the connection its response was sent on */
    uint64_t told_ms;
    bool delivered; /* to a hub that never acknowledges: kept only to know it again */
};

struct runner {
    struct agent *agent;
    struct spool *spool;
    struct live_pump *pump;
    struct strmap by_id;
    struct held_list all;
    struct held_list fresh;  /* to be written to disk */
    struct held_list queue;  /* wait for a place */
    struct held_list outbox; /* done, to be told on this connection */
    char **drops;            /* ids whose files go */
    size_t n_drops, drops_cap;
    long long seq;
    unsigned n_queued, n_running;
    size_t disk_bytes;
    bool stopping;
    bool writing;              /* the keeper, a batch */
    struct fiber_group *group; /* a fiber for each task that runs */
    struct fiber *keeper, *deliverer;
    struct held *telling; /* the deliverer's, while it waits */
};

/* --- runner.c --- */

void held_move(struct held *h, struct held_list *to); /* NULL: into none */
void held_remove(struct held *h);                     /* it is forgotten; its file goes */
void held_written(struct held *h, size_t bytes);      /* it takes so many bytes on disk */
void held_requeue(struct held *h);
void runner_next(struct runner *r); /* a place may be free */
void held_say_state(const struct held *h);

/* --- work.c --- */

/* Do it in a fiber of its own: mark, run, write the result. It has a place (RUNNING), or is
 * canceled and needs none. */
void work_begin(struct held *h);

/* A failed response as JSON text, for the caller to free. */
char *work_failure(const char *id, const char *error, size_t *ret_n);

/* --- leftover.c --- */

/* End what a task of an agent that died has left running. Blocking, some seconds at most. */
void leftover_end(const struct agent_conf *conf, const char *task_id);

/* --- deliver.c --- */

CO int deliver(void *runner, struct err *e); /* the fiber */
void deliver_connected(struct runner *r);
void deliver_lost(struct runner *r, unsigned code);
/* Tell of it now, without the spool. */
void deliver_refusal(struct runner *r, const char *to, const char *id, const char *error);
