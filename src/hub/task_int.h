/* SPDX-License-Identifier: MIT */
/*
 * hub/task_int.h — between the files of tasks.
 *
 *   task.c         what is in memory: tasks and their agents; start, stop
 *   task_accept.c  from a request to a row             task_write.c  the lanes: rows in batches
 *   task_send.c    from a row to a socket, in order    task_hear.c   what agents say of tasks
 *   task_end.c     how tasks end, who waits for it     task_clock.c  time-outs, leases, expiry
 *   task_output.c  live output                         task_age.c    ended rows that go
 *   task_look.c    records and lists                   task_wide.c   other daemons on the database
 *   task_cancel.c  asking a task to end              task_api.c    routes
 *
 * A task is in memory from before its row is written until after its end is, if this daemon has
 * accepted it, or watches over it (owner). Its body is kept as compact text and bounded over all
 * (hub.tasks_memory). Rows are only ever changed by statements that say in which state they must
 * be, so two daemons that both want to send or to end a task do it once.
 */
#pragma once

#include "base/lane.h"
#include "base/strmap.h"
#include "hub/agents.h"
#include "hub/task.h"

#define TASK_DEPTH     256 /* nesting of a task's JSON */
#define TASK_BATCH     256
#define TASK_BYTES     (4 * MIB) /* of a batch */
#define TASK_MARK_MAX  256       /* marks of one agent under way */
#define TASK_CHANNEL   "chela_hub"
#define TASK_REASON    240
#define TASK_TEXT_MAX  (256 * MIB) /* of a record or frame: above any body and response */
#define TASK_ROW_BYTES 256         /* of a row besides its texts, about */

struct task_output;
struct task_news;

/* What is known of an agent's tasks; there is one as soon as it has connected or has a task. */
struct task_agent {
    struct strmap_node node;          /* of tasks.agents */
    struct task_agent *anext, *aprev; /* of those that have tasks */
    struct task *first, *last;        /* that have not ended, by position */
    unsigned n_open, n_waiting;       /* waiting: not marked as sent */
    unsigned n_held;                  /* marked: it has them, or is to have them at once */
    unsigned n_marking;               /* marks under way */
    unsigned epoch;                   /* connections so far */
    bool connected, ready;            /* ready: what waited at its connect has been sent */
    bool dedupes;                     /* said so on this connection */
    bool looking, look_again;         /* a fiber looks for rows that other daemons wrote */
    int64_t gone_ms;                  /* mono: when its socket went, or when we started */
    int64_t due_ms;                   /* mono: not before this has the clock anything to do here */
    int64_t n_ended;                  /* rows that ended, about: see task_age.c */
    char id[];
};

struct task_waiter { /* on the stack of a fiber */
    struct task_waiter *next;
    struct fiber *fiber;
    struct str id;
    bool done;  /* look: it has ended, or is not ours any more */
    char *text; /* its record if it was at hand, to be freed */
    size_t len;
};

struct task {
    struct strmap_node node; /* of tasks.open */
    struct tasks *t;
    struct task_agent *agent;
    struct task *prev, *next; /* of the agent */
    struct lane_ride ride;    /* acceptance */
    struct fiber *fiber;      /* that waits for it */
    struct err *why;          /* its, when it fails */
    struct task_output *output;
    struct task_waiter *waiters;
    int64_t position, created, sent, started; /* ms since 1970; 0: not yet */
    int64_t sent_ms, started_ms, cancel_ms;   /* mono; sent_ms also of earlier lives */
    int64_t not_before_ms; /* mono: after a restart agents get time to come back */
    long long timeout_ms;
    int outcome; /* of the acceptance, as the store's thread and then task_accepted() say */
    unsigned attempts, epoch; /* epoch: of the connection it was sent on */
    unsigned round;           /* in which its row was looked at, see task_wide.c */
    unsigned rides;           /* writes under way that name it */
    enum task_state state;
    bool written, marked; /* the row is there; it says that it may have been sent */
    bool marking, ending; /* such a write is under way */
    bool retry, here;     /* accepted by this process: others may wait for what is not */
    bool queued_there;    /* the agent says that it waits with it */
    bool unsaved;         /* the row does not say `running` or `cancel` yet */
    bool settled;         /* outcome is final */
    bool gone;            /* not in the maps any more */
    char *cancel;         /* reason; NULL: nobody asked */
    const char *dead;     /* when its end is written it becomes a dead letter; constant */
    struct str id, sender, type, body; /* type {NULL, 0}: none; terminated, behind the struct */
    char text[];
};

struct tasks {
    struct hub *h;
    struct loop *loop;
    struct store *store;
    const struct hub_settings *set;
    const char *self; /* this process, as owner */
    bool pg, stopping;
    struct strmap open, agents;
    struct task_agent *active; /* with tasks */
    size_t n_open, bytes;      /* bytes: of bodies */
    size_t n_output;           /* bytes of live output */
    struct lane accepts, marks, ends, lates, graves, news;
    size_t late_bytes;           /* of what rides in lates */
    struct task_waiter *outside; /* who waits for tasks that are not in memory */
    struct fiber_group *chores;
    bool look_all;         /* news may have been missed */
    unsigned looks, round; /* round: of checks whether what waits still does */
};

static inline int64_t task_mono(void)
{
    return (int64_t)now_ms();
}

/* --- task.c --- */
/* Does the memory know what has become of it? Not of what waits for an agent that may be connected
 * to another daemon. */
bool task_known(const struct task *task);
struct task *task_find(const struct tasks *t, struct str id);
struct task_agent *task_agent_find(const struct tasks *t, struct str id);
struct task_agent *task_agent_get(struct tasks *t, struct str id); /* made when there is none */
struct task_texts {
    struct str id, sender, type, body;
};
/* In memory, unwritten, at the place its position gives it; texts are copied. */
struct task *task_add(struct tasks *t, struct task_agent *a, int64_t position,
                      const struct task_texts *texts);
void task_mark(struct task *task, bool marked); /* keeps the agent's counts */
void task_drop(struct task *task);              /* out of the maps; who waits looks again */
void task_release(struct task *task); /* a write of it is over: freed if it was the last */
void task_due(struct task *task);     /* its times have changed: the clock looks */

/* --- task_write.c --- */
void task_lanes(struct tasks *t);
void task_write_new(struct task *task);  /* then task_accepted() */
void task_write_mark(struct task *task); /* what it is now; then task_marked() if it was to be */
struct task_ending {
    struct lane_ride ride;
    struct task *task; /* NULL: of one that is not in memory */
    enum task_state state;
    int64_t position, sent, started, completed;
    unsigned attempts;
    bool changed;
    char *response;       /* JSON; NULL: none */
    char *reason;         /* NULL: none */
    struct str id, agent; /* of a late one, behind the struct */
    char text[];
};
void task_write_end(struct task_ending *end); /* then task_ended() */
/* A result of what is not in memory: kept if the task was given up; then the agent is told. Takes
 * response. */
void task_late(struct tasks *t, struct str agent, struct str id, char *response);
void task_bury(struct tasks *t, const struct task *task, const char *why); /* a dead letter */

/* --- task_accept.c --- */
void task_accepted(struct task *task, int r, const struct err *e);
/* As task_submit(); who: for the audit log. */
CO int task_accept(struct tasks *t, struct str agent, const json_t *body, struct str from,
                   struct str who, const char *peer, char id[TASK_ID_MAX + 1], struct err *e)
    MUST_CHECK;

/* --- task_send.c --- */
void task_pump(struct tasks *t, struct task_agent *a);
void task_connected(struct task_agent *a);      /* it may speak before what waits has been sent */
void task_marked(struct task *task, bool ours); /* ours: the row was as we thought */
bool task_may_send(const struct tasks *t,
                   const struct task_agent *a); /* at once, if it comes now */
/* {"taskId":…} of this type; tells the agent if it is connected. more: further members, or "". */
void task_tell(struct tasks *t, struct str agent, const char *type, struct str id,
               const char *reason);
int task_frame(const struct task *task, struct buf *b, struct err *e) MUST_CHECK;
void task_send_again(struct task *task);

/* --- task_end.c --- */
/* By us: no response. */
void task_end(struct task *task, enum task_state state, const char *reason);
/* Takes response. */
void task_end_by(struct task *task, enum task_state state, char *response, const char *reason);
void task_ended(struct task_ending *end, int r, const struct err *e);
void task_lost(struct task *task, const char *reason); /* or once more, if it may be */
void task_wake(struct tasks *t, struct task_waiter **list, struct str id, const struct task *task,
               const struct task_ending *end);
/* Wait for the end; *ret_text (may be NULL) gets its record, to be freed. TASK_OPEN: not yet, at
 * the deadline. */
enum { TASK_OPEN = 1 };
CO int task_await(struct tasks *t, struct str agent, struct str id, uint64_t deadline_ms,
                  struct str *ret_text, struct err *e) MUST_CHECK;

/* --- task_cancel.c --- */
void task_cancel_here(struct task *task, const char *reason);
/* As task_cancel(); who, peer: for the audit log. */
CO int task_cancel_by(struct tasks *t, struct str agent, struct str id, struct str who,
                      const char *peer, struct err *e) MUST_CHECK;

/* --- task_clock.c --- */
void task_clock(struct tasks *t); /* every quarter of a second */
void task_requeue(struct task *task);

/* --- task_output.c --- */
int64_t task_output_have(const struct task *task, bool is_err); /* bytes of the stream */
/* Nothing more comes; those who read get the record, or look for the task again (NULL). */
void task_output_end(struct task *task, const char *record, size_t len);
CO int task_output_stream(struct tasks *t, struct http_req *req, struct str id, struct err *e)
    MUST_CHECK;

/* --- task_look.c --- */
/* What a record is made of, from memory or from a row. */
struct task_view {
    int64_t position, created, sent, started, completed, attempts;
    struct str id, agent, type, sender, body, state, response, reason, cancel; /* {NULL,0}: none */
};
void task_view_of(const struct task *task, const struct task_ending *end, struct task_view *ret);
int task_record(const struct task_view *v, struct buf *b, struct err *e) MUST_CHECK;
/* From the store. TASK_OPEN when it has not ended; ERR_NOT_FOUND. */
CO int task_read(struct tasks *t, struct str agent, struct str id, struct buf *b, struct err *e)
    MUST_CHECK;
CO int task_list_text(struct tasks *t, struct str agent, const char *state, int64_t before,
                      size_t max, struct buf *b, struct err *e) MUST_CHECK;

/* --- task_age.c --- */
CO int task_age_chore(void *arg, struct err *e);

/* --- task_wide.c --- */
int task_wide_new(struct tasks *t, struct err *e) MUST_CHECK;
CO int task_load(struct tasks *t, struct err *e) MUST_CHECK; /* at the start: all that is ours */
/* Rows of this agent that are not in memory; it is connected here, so they become ours. */
CO int task_load_agent(struct tasks *t, struct str agent, struct err *e) MUST_CHECK;
CO int task_wide_chore(void *arg, struct err *e);
void task_say_waiting(struct tasks *t, struct str agent); /* something waits for this agent */
void task_say_ended(struct tasks *t, struct str id);
void task_say_cancel(struct tasks *t, struct str id);
void task_news_told(void *arg, struct lane_ride *ride, int r, const struct err *e);
CO int task_news_send(void *arg, struct lane_ride *first, size_t n, struct err *e);
