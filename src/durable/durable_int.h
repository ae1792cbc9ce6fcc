/* SPDX-License-Identifier: MIT */
/*
 * durable/durable_int.h — what the files of the engine share. Who owns what:
 *
 *   engine.c    the life of the engine, its table of types; hear.c hints of other processes
 *   run.c       one execution from claim to finish; replay.c the journal as it is read; journal.c
 *               the batches it is written in; step.c steps; start.c starting and enqueueing
 *   park.c      waiting, parking, waking; sleep.c, mailbox.c, event.c, stream.c, child.c, await.c
 *   queue.c     definitions, claim.c the dispatcher; sweep.c delays, deadlines, cancels noticed
 *   lease.c     executors and their leases; reclaim.c the work of dead ones, dead letters, versions
 *   manage*.c   list to delete, retention; cron.c, zone.c, schedule.c
 *   codec.c     the formats of values
 *
 * One execution is owned by a token in owner_xid. Every write for it checks, in the same
 * transaction, that the row is still PENDING with this token: who lost it writes nothing.
 */
#pragma once

#include "base/arena.h"
#include "base/rand.h"
#include "base/str.h"
#include "base/time.h"
#include "durable/durable.h"

#define TOKEN_TEXT 37 /* a UUID */
#define NAME_MAX_  256
#define CODE_TEXT  64

/* Wall clock in ms since 1970. */
static inline int64_t wall_ms(void)
{
    return wall_us() / 1000;
}

/* PostgreSQL's clock in ms, for the .pg text of a statement; SQLite gets wall_ms() as parameter. */
#define PG_NOW_MS "(extract(epoch from clock_timestamp())*1000)::bigint"

void uuid_new(char out[37]); /* random, version 4 */

/* --- codec.c: the formats of values (spec: serialization of DBOS) --- */

enum wire_format {
    WIRE_PORTABLE,  /* portable_json */
    WIRE_SUPERJSON, /* js_superjson */
    WIRE_UNKNOWN,   /* py_pickle, DBOS_JSON, ...: we cannot read it */
};
enum wire_format wire_format_of(struct str serialization); /* {0} is portable for rows of ours */
const char *wire_format_name(enum wire_format format);

/* The arguments of a row's inputs; both belong to the arena. ERR_INVALID: cannot be read. */
int wire_read_args(enum wire_format format, struct str text, struct arena *a, json_t **ret_args,
                   json_t **ret_named, struct err *e) MUST_CHECK;
/* {"positionalArgs":args,"namedArgs":named}; {0} is [] and {}. Checks both. */
int wire_write_args(struct str args, struct str named, struct buf *out, struct err *e) MUST_CHECK;

/* A value: text of the row to plain JSON, and back. */
int wire_read_value(enum wire_format format, struct str text, struct buf *out, struct err *e)
    MUST_CHECK;
int wire_write_value(enum wire_format format, struct str json, struct buf *out, struct err *e)
    MUST_CHECK;

/* An error as the portable object {"name","message","code"?,"data"?}, and back from either. */
struct wire_error {
    struct str name, message, code, data; /* code and data: JSON, or {0} */
};
int wire_write_error(enum wire_format format, const struct wire_error *error, struct buf *out,
                     struct err *e) MUST_CHECK;
int wire_read_error(enum wire_format format, struct str text, struct arena *a,
                    struct wire_error *ret, struct err *e) MUST_CHECK;

/* *e from such an error ("message", code by its name: see err_name(), else ERR_INTERNAL) and back.
 */
int wire_error_to_err(const struct wire_error *error, struct err *e);

/* Is text one JSON value? ERR_INVALID says where not. */
int wire_check(struct str json, struct err *e) MUST_CHECK;

/* --- journal.c: the writes of all running workflows, batched --- */

/*
 * A lane gathers the entries of one kind that wait while the batch before is on its way, and sends
 * them as one multi-row statement (PostgreSQL: arrays, store_once) or one body (SQLite). At most
 * LANE_BATCH entries and LANE_BYTES bytes go together; two batches of a lane may be under way.
 * While the database is away an entry waits (it holds its fiber, so the number is bounded); the
 * caller's fiber is parked hard: what it lent stays valid.
 */
#define LANE_BATCH 512
#define LANE_BYTES (4 * MIB)

struct journal;
struct journal *journal_new(struct durable *d);
void journal_free(struct journal *j);

/* What is recorded under a function id. */
struct record {
    unsigned id;
    const char *name;
    struct str output, error; /* in the format said; {0} is NULL. Lent */
    enum wire_format format;
    struct str child;                 /* {0} is NULL */
    int64_t started_ms, completed_ms; /* 0 is NULL */
};

/* Outcomes of a journal write. */
enum {
    JOURNAL_OK = 0,
    JOURNAL_LOST = 1 /* not ours any more, or cancelled */,
    JOURNAL_TAKEN = 2 /* another record is there */
};

/* Lane STEP: the record, if the run still owns its workflow. JOURNAL_*, or < 0 (it waits for the
 * database until the engine stops, then ERR_CANCELED; UNAVAILABLE only with too many fibers). */
CO int journal_step(struct workflow *w, const struct record *record, struct err *e) MUST_CHECK;

/* Lane START: a row and its input. JOURNAL_OK, JOURNAL_TAKEN: the id is there already (the caller
 * looks at whose it is), or START_DEDUP. ERR_UNAVAILABLE is passed on here. */
struct start_row; /* start.c */
CO int journal_start(struct durable *d, const struct start_row *row, struct err *e) MUST_CHECK;

/* Lane FINISH: status, output or error into both places, owner and dedup id cleared; wakes parked
 * waiters for the result. JOURNAL_OK or JOURNAL_LOST. */
CO int journal_finish(struct workflow *w, enum durable_status status, struct str output,
                      struct str error, struct err *e) MUST_CHECK;

/* The same checks as parts of a transaction of one's own (store thread; see store_body). */
int own_lock_tx(struct store_tx *tx, struct str workflow, struct str token, struct err *e)
    MUST_CHECK; /* JOURNAL_OK with the row locked until commit, or JOURNAL_LOST */
int record_tx(struct store_tx *tx, struct str workflow, const struct record *record,
              const char *app_name, struct err *e) MUST_CHECK; /* JOURNAL_OK or JOURNAL_TAKEN */

/* --- run.c: one execution --- */

enum run_end {
    RUN_GOES,
    RUN_PARKED,
    RUN_CANCELLED, /* by a user or its deadline: noticed */
    RUN_LOST,      /* somebody else owns it now */
    RUN_DIVERGED,  /* finishes with ERROR code 26 */
    RUN_STOPPING,  /* the engine stops: goes back to its queue */
};

struct recorded { /* a row of the journal as it was read; belongs to the run's page */
    unsigned id;
    struct str name, output, error, child;
    bool has_output, has_error;
    enum wire_format format;
    int64_t started_ms, completed_ms;
};

#define RUN_PAGE 256 /* records read ahead */

struct workflow {
    struct durable *d;
    struct workflow *next, **link; /* among the running */
    struct workflow *next_id;      /* in the bucket of its id */
    char id[DURABLE_ID], token[TOKEN_TEXT];
    const struct durable_type *type;
    char *queue;     /* NULL: none */
    char *partition; /* NULL: none */
    bool hold_slot;
    struct fiber *fiber;
    struct arena arena; /* as long as the run */
    json_t *args, *named;
    enum wire_format format; /* of the outcome */
    unsigned attempt;
    int64_t deadline_ms;    /* wall; 0: none */
    uint64_t deadline_mono; /* the same as now_ms() when it was read; DEADLINE_NONE */
    int64_t timeout_ms, created_ms;
    /* the journal */
    unsigned next_function; /* the id that the next recorded call gets */
    struct recorded *page;
    unsigned n_page, page_at; /* rows, and the next to be looked at */
    bool more;                /* rows beyond the page */
    bool fresh;               /* nothing was recorded when it began: no look-ups */
    struct arena page_arena;
    /* how it goes on */
    enum run_end end;
    char ended[200]; /* text for RUN_DIVERGED */
    struct buf result;
    bool has_result;
    struct arena thrown_arena;
    struct wire_error *thrown; /* durable_throw() or a failed step, in that arena; NULL */
    enum err_code thrown_code; /* and of the err it was returned as: to know it again */
    char thrown_msg[240];
    bool in_step;
    bool has_inputs; /* until the function is called: as stored, malloc'ed */
    struct str inputs;
};

/* A row that was claimed, or started here; strings lent for the call. */
struct claimed {
    struct str id, name, class_name, queue, partition, inputs, serialization, token;
    bool has_inputs, has_journal; /* false: known to have no records */
    int64_t attempts, timeout_ms, deadline_ms, created_ms;
};

/*
 * Run it: a fiber of its own. Counts against durable_conf.running, which the caller has made sure
 * of (run_room), and as a run of its queue: queue_joined() now, queue_left() at its end. On an
 * error (no fiber to be had) nothing runs and nothing is written: the caller
 * releases the row, or the sweep does when it finds that it does not run.
 */
int run_begin(struct durable *d, const struct claimed *c, struct err *e) MUST_CHECK;

/* How many more may run; 0 unless the engine runs, does not stop and holds its lease. */
unsigned run_room(const struct durable *d);
/* Running here, or NULL; the newest, when one that has ended still unwinds beside it. */
struct workflow *run_find(struct durable *d, struct str id);

/* End it from outside: its waits fail, it unwinds. No effect on one that is ending. */
void run_end_now(struct workflow *w, enum run_end why);

/* The error every durable_ call returns once w->end is set. */
int run_ended(const struct workflow *w, struct err *e);

/*
 * The beginning of every recorded call: takes the next function id and looks whether it is
 * recorded. 1: *ret is its record (valid until the next call), 0: it is to be done. Less than 0:
 * the run has ended or diverges (another name is recorded: sets RUN_DIVERGED).
 */
CO int run_recorded(struct workflow *w, const char *name, unsigned *ret_id, struct recorded *ret,
                    struct err *e) MUST_CHECK;

/*
 * What is recorded under the next id, without taking it: 1 *ret, 0 nothing there or later,
 * RUN_BEYOND: later ones are there, of which *ret is the first.
 */
enum { RUN_BEYOND = 2 };
CO int run_peek(struct workflow *w, struct recorded *ret, struct err *e) MUST_CHECK;

/*
 * Turn a journal outcome into what the call returns: 0, or the end of the run. TAKEN ends it too
 * (RUN_LOST): the sweep finds that it does not run, and it replays with the record that is there.
 */
int run_wrote(struct workflow *w, int journal_outcome, struct err *e) MUST_CHECK;

/* journal_step() and run_wrote() in one. An outcome that cannot be written at all ends the run as
 * TAKEN does (run_unrecorded() logs why): the next execution does the call again. */
CO int run_record(struct workflow *w, const struct record *record, struct err *e) MUST_CHECK;
int run_unrecorded(struct workflow *w, struct err *e) MUST_CHECK;

/* A recorded output into out, or a recorded error into *e (returns < 0). */
int run_replay(struct workflow *w, const struct recorded *rec, struct buf *out, struct err *e)
    MUST_CHECK;

/*
 * An error that keeps its name, code and data when it comes back from the function, or from a step:
 * run_thrown() copies it to w->thrown (what was there is gone, and run_error_of() may have lent
 * it), *e is what it is returned as; run_error_of() is the error to write for
 * *e: the one kept if *e is it (perhaps with context before it), else *e's own name and words.
 */
void run_thrown(struct workflow *w, const struct wire_error *error, const struct err *e);
struct wire_error run_error_of(const struct workflow *w, const struct err *e);

/* Before trying again, when the database is away: waits longer each time (*wait_ms begins at 0).
 * Less than 0 when the run has ended meanwhile. */
CO int run_retry(struct workflow *w, uint64_t *wait_ms, struct err *e) MUST_CHECK;

/*
 * A transaction of a running workflow: retried while the database is away, as lanes are.
 * ERR_CANCELED when the run ended meanwhile. Other errors are the body's.
 *
 * body may run again after a commit whose answer was lost: so own_lock_tx() comes first, then
 * record_tx(), then the effects; when record_tx() finds its row there, return JOURNAL_TAKEN before
 * any effect (a positive return commits).
 */
CO int run_store(struct workflow *w, store_body *body, void *arg, struct err *e) MUST_CHECK;

/* --- start.c --- */

struct start_row { /* all strings lent; {0} is NULL */
    struct str id, name, class_name, config_name, queue, inputs, token, executor, app_version,
        app_name;
    struct str dedup_id, partition, user, roles, attributes, parent, schedule;
    enum durable_status status; /* PENDING, ENQUEUED or DELAYED */
    int64_t priority, timeout_ms, deadline_ms, delay_until_ms,
        created_ms;   /* 0: NULL, but created */
    int64_t attempts; /* 1 when PENDING, else 0 */
};

/* Insert row and input in tx: JOURNAL_OK, or JOURNAL_TAKEN (id). A dedup collision is START_DEDUP.
 */
enum { START_DEDUP = 3 };
int start_tx(struct store_tx *tx, const struct start_row *row, struct err *e) MUST_CHECK;

/* Check a request and fill in what it leaves open; inputs are written to a buffer of the caller.
 * For durable_start and durable_child. */
int start_prepare(struct durable *d, const struct durable_start *start, struct buf *inputs,
                  struct arena *a, struct start_row *ret, struct durable_started *ret_started,
                  struct err *e) MUST_CHECK;

/* After START_DEDUP or JOURNAL_TAKEN: compare with who is there. 0 with ret->existed, or
 * ERR_CONFLICT with ret->code; START_AGAIN: it has vanished, insert again. */
enum { START_AGAIN = 4 };
CO int start_settle(struct durable *d, const struct start_row *row,
                    const struct durable_start *start, int outcome, struct durable_started *ret,
                    struct err *e) MUST_CHECK;

/* A row of ours is committed: run it here (PENDING), or hint its queue. It waits only when the row
 * cannot run here after all: then it goes back to a queue. */
CO void start_done(struct durable *d, const struct start_row *row);

/* --- park.c, unpark.c, clock.c: waiting and waking --- */

/* What a wait is for; as stored in durable_parked.kind: sleep, recv, event, result, stream. */
enum wait_kind { WAIT_SLEEP, WAIT_RECV, WAIT_EVENT, WAIT_RESULT, WAIT_STREAM, WAIT_KINDS };

/*
 * Everybody who waits here for (kind, workflow, topic) looks again at the database. topic is
 * compared only for RECV, EVENT and STREAM; who waits for a stream is woken by RESULT too. How many
 * there were.
 */
unsigned wake_waiters(struct durable *d, enum wait_kind kind, struct str workflow,
                      struct str topic);
void wake_all_waiters(struct durable *d); /* something may have been missed, or we stop */

/* A NOTIFY told of something that was written for (kind, workflow, topic) by others: wakes who
 * waits here, and has those who are parked for it looked at. Never waits. */
void wake_heard(struct durable *d, enum wait_kind kind, struct str workflow, struct str topic);

void waiters_free(struct durable *d); /* when nobody waits any more */

/* How a run ended, as it is stored: output or error, each {0} for NULL. Lent for the call. */
struct run_outcome {
    enum durable_status status;
    enum wire_format format;
    struct str output, error;
};

/* The workflow's end is committed: hands it to those who wait for it here (wait.ended). They are
 * not woken by this. Never waits. */
void wait_told(struct durable *d, struct str workflow, const struct run_outcome *outcome);

/*
 * A wait: begun before the first look at the database, so that nothing written after the look is
 * missed, then wait_round() and a look in turns. Lives on the waiting fiber's stack.
 */
struct wait {
    enum wait_kind kind;
    struct str workflow, topic; /* lent while waiting */
    uint64_t deadline;          /* mono */
    int64_t until_ms;           /* as it is recorded; 0: it is not, or there is none */
    unsigned marker;            /* the function id it is recorded under */
    /* of park.c */
    struct wait *next, **link;
    struct fiber *fiber;
    uint64_t since; /* mono: of the first round */
    bool woken, parked;
    /* RESULT: takes an end that a run of this process has committed, right before its wake, so that
     * nobody asks the database for what was just written there; NULL. */
    void (*ended)(struct wait *wait, const struct run_outcome *outcome);
};
void wait_begin(struct durable *d, struct wait *wait);
void wait_done(struct wait *wait); /* also when it was not begun */
static inline void wait_done_auto(struct wait *wait)
{
    wait_done(wait);
}

/*
 * Wait as anybody (w NULL) or as a workflow until woken, or until it is time to look anyway: 0 look
 * again, or WAIT_TIMEOUT. A workflow that has waited for longer than park_ms is parked instead:
 * -ERR_PARKED. Anybody's wait ends with ERR_UNAVAILABLE when the engine stops.
 */
enum { WAIT_TIMEOUT = 1 };
CO int wait_round(struct durable *d, struct workflow *w, struct wait *wait, struct err *e)
    MUST_CHECK;

/*
 * The clock that recorded times are compared with: the process's wall clock on SQLite, the server's
 * on PostgreSQL (measured now and then, carried on by the monotonic clock).
 */
CO int64_t clock_ms(struct durable *d);

/* What is left of a wait that began at started and was to end at until, at most its whole length
 * (a clock that stepped back prolongs nothing). */
uint64_t wait_left_ms(int64_t now_ms, int64_t started_ms, int64_t until_ms);

/* In a transaction that makes `workflow` something to look at for: those parked for it go back to
 * their queues. *ret_n gets how many (poke the dispatchers then). After the writes it is for. */
int unpark_tx(struct store_tx *tx, enum wait_kind kind, struct str workflow, struct str topic,
              int *ret_n, struct err *e) MUST_CHECK;

/* Those parked for something that came by another door (npm clients, other processes), and the
 * steps of the clock: every sweep. Poked dispatchers run them. */
CO int unpark_sweep(struct durable *d, struct err *e) MUST_CHECK;

/* --- queue.c, claim.c --- */

struct queue; /* a definition with its dispatcher */
int queues_start(struct durable *d, struct err *e) MUST_CHECK; /* spawns into d->chores */
void queues_free(struct durable *d);
/* Work may be there: look now. name {0}: all of them. Never waits. */
void queue_poke(struct durable *d, struct str name);
/* A run of this queue has ended or parked: its slot is free. queue NULL: none. */
void queue_left(struct durable *d, const char *queue, const char *partition);
void queue_joined(struct durable *d, const char *queue, const char *partition);
bool queue_holds_slot(struct durable *d, struct str name);
bool queue_is_partitioned(struct durable *d, struct str name);
int queues_register_rows(struct durable *d, struct err *e) MUST_CHECK; /* CO: upsert of ours */

/* --- sweep.c --- */
/* A row is delayed until then (wall): the sweep comes in time for it. Never waits. */
void sweep_due(struct durable *d, int64_t wall);
CO int sweep_chore(void *d, struct err *e); /* a fiber of d->chores */

/* --- lease.c, reclaim.c --- */
CO int lease_announce(struct durable *d, struct err *e) MUST_CHECK; /* at start */
CO int lease_chore(void *d, struct err *e);
CO void lease_end(struct durable *d); /* at stop: after the runs are gone */
/* Did we renew in time, by the monotonic clock? If not we start nothing new. */
bool lease_held(const struct durable *d);
CO int reclaim_chore(void *d, struct err *e);
/* Release rows of ours that do not run here; give back what a stop unwound. ids borrowed. */
CO int release_run(struct workflow *w, struct err *e) MUST_CHECK;
/* Claimed more often than allowed: to the dead letters. */
CO int dead_letter(struct durable *d, struct str id, struct str token, struct err *e) MUST_CHECK;

/* --- notify.c: telling other processes (PostgreSQL): coalesced, after the commit --- */
void notify_others(struct durable *d, const char *channel, struct str payload);
#define NOTIFY_QUEUE    "chela_queue"
#define NOTIFY_CANCEL   "chela_cancel"
#define NOTIFY_RESULTS  "chela_results" /* the id of a workflow that has ended */
#define NOTIFY_EVENTS   "dbos_workflow_events_channel"
#define NOTIFY_STREAMS  "dbos_streams_channel"
#define NOTIFY_MESSAGES "dbos_notifications_channel"

/* --- hear.c: what other processes tell us (PostgreSQL), turned into wakes --- */
int hear_start(struct durable *d, struct err *e) MUST_CHECK; /* spawns into d->chores */
void hear_stop(struct durable *d);

/* --- schedule.c, manage --- */
CO int schedule_chore(void *d, struct err *e);
CO int retain_chore(void *d, struct err *e);

/* --- the engine --- */

/*
 * A write that makes rows ours, whose answer has yet to come: such a row is PENDING under us and
 * does not run, and nobody may conclude anything from it. On its fiber's stack.
 */
struct flight {
    struct flight *next, **link;
    uint64_t since_ms;
};
void flight_begin(struct durable *d, struct flight *flight);
void flight_done(struct flight *flight);
bool flight_since(const struct durable *d, uint64_t ms); /* is one as old as that on its way? */

struct durable {
    struct loop *loop;
    struct store *store;
    bool pg;
    struct durable_conf conf; /* with defaults filled in; its strings copied */
    char executor[64];
    const struct durable_type **types;
    size_t n_types;
    struct str *addresses; /* "class\x1fname" of each type (class may be empty): for claims */
    const struct durable_queue **queue_rows;
    size_t n_queue_rows;
    struct fiber_group *chores, *runs;
    bool running, stopping; /* stopping: claim nothing more */
    bool deactivated;       /* by the admin routes: schedules start nothing here */
    bool newest;            /* our version is the latest registered: rows without one are ours */
    struct journal *journal;
    struct workflow *live;
    unsigned n_live, n_starting; /* runs, and direct starts on their way to be one */
    struct flight *flights;
    struct workflow **by_id; /* buckets */
    size_t n_buckets;
    struct fiber *drain;       /* who waits for n_live to be 0 */
    struct waiters *waiters;   /* park.c */
    struct queues *queues;     /* queue.c */
    struct sweeper *sweeper;   /* sweep.c */
    struct lease *lease;       /* lease.c */
    struct notifier *notifier; /* notify.c */
    struct schedules *schedules;
    struct store_ear *ear;
    struct {
        const char *channel;
        void (*heard)(struct str payload, void *arg);
        void *arg;
    } ears[DURABLE_EARS]; /* of others; see durable_hear() */
    size_t n_ears;
    uint64_t hint_ms; /* polls of waits: 10 s when LISTEN works, else sweep_ms */
};

const struct durable_type *type_find(const struct durable *d, struct str name,
                                     struct str class_name);
struct str type_address(struct str name, struct str class_name, struct arena *a);

/* metrics.c */
extern struct metric durable_m_runs, durable_m_running, durable_m_steps, durable_m_step_seconds,
    durable_m_batch, durable_m_recovered, durable_m_dead, durable_m_parked, durable_m_lost,
    durable_m_diverged, durable_m_queue_depth, durable_m_queue_age, durable_m_blocked_version,
    durable_m_stuck, durable_m_hears, durable_m_chore_failures;
