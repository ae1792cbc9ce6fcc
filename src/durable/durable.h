/* SPDX-License-Identifier: MIT */
/*
 * durable/durable.h — workflows that survive crashes, in the tables and by the rules of DBOS.
 *
 * A workflow is an ordinary C function that runs in a fiber. What it does to the world it does in
 * steps: a step's result is on the disk before durable_step() returns, and when the function is
 * run again after a crash, steps that have a record return it without running. So the code between
 * steps must take the same way each time: it reads its arguments and what steps gave it, and
 * nothing else (clocks and chance have steps of their own, below).
 *
 * Every call that is recorded takes the next function id, counted from 0 in program order. A
 * record under the same id with another name means that the code has changed under a running
 * workflow: it stops with an error (DBOS code 26) and its history is left as it is.
 *
 * Once a workflow is over for this process, every durable_ call in it fails at once:
 *   ERR_PARKED    it waits for long and gives its stack up; it will be run again from its records
 *   ERR_CANCELED  it was cancelled, timed out, or now belongs to another process; or we stop
 * Return at once then, by ordinary returns; compensation is for other errors. What the function
 * returns no longer matters.
 *
 * Values are JSON texts. Out-parameters of that kind are buffers the caller owns (NULL: not
 * wanted); what is recorded is bounded by durable_conf.payload_max (ERR_LIMIT).
 *
 * All functions are of the loop's thread. CO functions of struct workflow may be called by the
 * fiber of that workflow alone: no two at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/conf.h"
#include "base/fiber.h"
#include "base/json.h"
#include "base/metric.h"
#include "store/store.h"

struct durable;  /* the engine of a process */
struct workflow; /* one execution, as its function sees it; gone when the function returns */

#define DURABLE_INTERNAL_QUEUE "_dbos_internal_queue"
#define DURABLE_NO_TOPIC       "__null__topic__"
#define DURABLE_ATTEMPTS       100 /* restarts after which a workflow is dead: DBOS's default */
#define DURABLE_DAY_MS         (24 * 3600 * 1000ull)

/* Codes of DBOS for what went wrong, as its clients know them (0: none fits). */
enum durable_code {
    DURABLE_E_GENERIC = 1,
    DURABLE_E_LOST = 5,
    DURABLE_E_UNREGISTERED = 6,
    DURABLE_E_UNKNOWN_WORKFLOW = 16,
    DURABLE_E_DEAD = 18,
    DURABLE_E_OTHER_WORKFLOW = 22, /* the id belongs to a workflow of another name */
    DURABLE_E_RETRIES = 23,
    DURABLE_E_CANCELLED = 24,
    DURABLE_E_DIVERGED = 26, /* another step is recorded here */
    DURABLE_E_AWAITED_CANCELLED = 27,
    DURABLE_E_DEDUPLICATED = 28,
    DURABLE_E_PRIORITY = 29,
    DURABLE_E_AWAITED_DEAD = 30,
    DURABLE_E_STEP_TIMEOUT = 31,
    DURABLE_E_ID_IN_USE = 36,
};

/* --- what a program offers --- */

/*
 * 0 after durable_return() (without it the result is null), or less than 0: the workflow failed
 * with *e, or with what durable_throw() said.
 */
typedef int durable_fn(struct workflow *w, void *ctx, struct err *e);

struct durable_type { /* a row of the table of workflows */
    const char *name;
    const char *class_name; /* NULL: none. Clients in TypeScript address class and method */
    CO durable_fn *fn;
    void *ctx;
    unsigned max_attempts; /* restarts after which it is given up as dead; 0: 100 */
    uint64_t timeout_ms;   /* of a run that was started without one; 0: none */
    const char *doc;       /* one line */
};

struct durable_queue { /* a row of the table of queues; 0 means no limit */
    const char *name;
    unsigned concurrency;        /* running at once, in all processes */
    unsigned worker_concurrency; /* running at once, here */
    unsigned rate_max;           /* starts in each period of */
    uint64_t rate_period_ms;
    unsigned partition_concurrency; /* the same per partition key; any of these makes the queue */
    unsigned partition_worker_concurrency; /* partitioned: then each enqueue needs a key */
    unsigned partition_rate_max;
    uint64_t partition_rate_period_ms;
    uint64_t polling_ms; /* how often it is looked at without a hint; 0: 1000 */
    bool hold_slot;      /* a workflow that waits for long keeps its slot, and its stack */
    const char *doc;
};

struct durable_conf {
    const char *app_version; /* the configured name of the version; NULL: "1" */
    const char *app_name;    /* application_name of DBOS; NULL: none */
    const char *instance;    /* one per state directory: a start declares earlier ones dead */
    const char *listen_url;  /* PostgreSQL without a pooler, for LISTEN; NULL: the store's */
    unsigned running;        /* workflows with a stack at once; the rest are queued; 0: 2048 */
    uint64_t park_ms;        /* a wait that takes longer gives the stack up; 0: 5 s */
    uint64_t lease_ms;       /* a process that is silent for so long is dead; 0: 30 s */
    uint64_t sweep_ms;       /* how often delays, deadlines and queues are looked at; 0: 1 s */
    size_t payload_max;      /* bytes of one value; 0: 16 MiB */
    unsigned steps_max;      /* recorded calls of one workflow (ERR_LIMIT past it); 0: 100000 */
    uint64_t retain_ms;      /* finished workflows older than this are deleted; 0: never */
    unsigned retain_rows;    /* of the finished the newest so many are kept; 0: all */
};

/* The engine's rows of [durable] in the settings file, offset from a struct durable_settings. */
struct durable_settings {
    char *app_version, *app_name, *listen_url;
    long long running, park_ms, lease_ms, sweep_ms, payload_max, steps_max, retain_ms, retain_rows;
    long long admin_port; /* of the DBOS admin routes; -1: off */
};

/*
 * conf is copied, its strings are borrowed; so is the store. Types and queues are registered before
 * durable_start_engine(); their rows must stay. Two types of one (name, class) are ERR_CONFLICT.
 */
struct durable *durable_new(struct loop *loop, struct store *store,
                            const struct durable_conf *conf);
int durable_register(struct durable *d, const struct durable_type *types, size_t n, struct err *e)
    MUST_CHECK;
int durable_register_queues(struct durable *d, const struct durable_queue *queues, size_t n,
                            struct err *e) MUST_CHECK;

/*
 * Hear a channel of the caller's own on the engine's one connection for that (see store_listen();
 * on SQLite nothing is ever heard). Before durable_run(); the channel's name must stay. payload
 * {NULL, 0}: something may have been missed. heard() must not wait.
 */
#define DURABLE_EARS 4
int durable_hear(struct durable *d, const char *channel,
                 void (*heard)(struct str payload, void *arg), void *arg, struct err *e) MUST_CHECK;
bool durable_hears(const struct durable *d); /* does news arrive at all? */

/*
 * Announce ourselves, declare earlier processes of this instance dead, begin to claim, recover and
 * sweep in the background. Serving need not wait for recovery. ERR_UNAVAILABLE: no database.
 */
CO int durable_run(struct durable *d, struct err *e) MUST_CHECK;

/*
 * Claim no more, give running workflows up to grace_ms to finish, then unwind them: they go back to
 * their queues, which is not counted as an attempt. After it the engine only reads and enqueues.
 */
CO void durable_stop(struct durable *d, uint64_t grace_ms);
void durable_free(struct durable *d); /* NULL is fine; only when stopped or never run */

const char *durable_executor(const struct durable *d); /* this process's id, new at each start */
extern struct metric *const durable_metrics[];
extern const size_t durable_metrics_len;

/* --- starting --- */

struct durable_start {
    const char *name, *class_name; /* who runs it need not be us, when it is enqueued */
    struct str args;               /* JSON array of positional arguments; {0}: [] */
    struct str named;              /* JSON object; {0}: {} */
    struct str id;                 /* {0}: a random UUID. A repeat with one id is one workflow */
    struct str queue;              /* {0}: run at once, here; then name must be registered */
    struct str app_version;        /* {0}: ours when run here, any when enqueued */
    struct str dedup_id;           /* with a queue: one unfinished workflow of each such id */
    bool dedup_join;               /* a duplicate gives the holder's id instead of an error */
    bool id_must_be_new;
    int64_t priority; /* 0 .. 2^31-1, lower first */
    struct str partition_key;
    uint64_t delay_ms;      /* with a queue */
    uint64_t timeout_ms;    /* from when it starts to run; 0: the type's */
    int64_t deadline_ms;    /* absolute, ms since 1970; 0: none */
    struct str user, roles; /* of the caller: name, and a JSON array of strings; {0}: none */
    struct str attributes;  /* JSON object; {0}: none */
    const char *schedule;   /* NULL: none */
};

#define DURABLE_ID 256 /* with the terminator; ids of clients may not be longer with us */

struct durable_started {
    char id[DURABLE_ID];
    bool existed;           /* the id, or the holder of the dedup_id, was there before */
    enum durable_code code; /* of a refusal: 22, 28, 29, 36 or 6; 0 otherwise */
};

/*
 * When this returns 0 the workflow is on the disk and will run. ERR_CONFLICT: see ret->code;
 * ERR_INVALID: arguments, priority, unknown name; ERR_LIMIT: too large; ERR_UNAVAILABLE.
 */
CO int durable_start(struct durable *d, const struct durable_start *start,
                     struct durable_started *ret, struct err *e) MUST_CHECK;

enum durable_status {
    DURABLE_ENQUEUED,
    DURABLE_DELAYED, /* delayed by its starter, or parked */
    DURABLE_PENDING, /* running, or claimed */
    DURABLE_SUCCESS,
    DURABLE_ERROR,
    DURABLE_CANCELLED,
    DURABLE_DEAD, /* MAX_RECOVERY_ATTEMPTS_EXCEEDED */
    DURABLE_STATUSES,
};
const char *durable_status_name(enum durable_status status); /* as in the tables */
int durable_status_parse(struct str name, enum durable_status *ret, struct err *e) MUST_CHECK;
static inline bool durable_status_active(enum durable_status s)
{
    return s <= DURABLE_PENDING;
}

/*
 * Wait until the workflow has ended, as somebody outside. *out gets the output's JSON, or after
 * DURABLE_ERROR the error as {"name","message","code"?,"data"?}. ERR_NOT_FOUND, ERR_TIMEOUT.
 */
CO int durable_await(struct durable *d, struct str id, uint64_t deadline_ms,
                     enum durable_status *ret, struct buf *out, struct err *e) MUST_CHECK;

/*
 * A message into a workflow's mailbox, from outside. topic {0}: none. key {0}: none; with one a
 * repeat is one message. ERR_NOT_FOUND: no such workflow.
 */
CO int durable_post(struct durable *d, struct str to, struct str topic, struct str json,
                    struct str key, struct err *e) MUST_CHECK;

/* The latest value of an event from outside; waits until there is one. 0, ERR_TIMEOUT (also when
 * the workflow does not exist: it may yet). */
CO int durable_peek_event(struct durable *d, struct str id, struct str key, uint64_t deadline_ms,
                          struct buf *out, struct err *e) MUST_CHECK;

/* Stream values from `offset` on, as many as there are, at most max: each(offset, json). Waits for
 * the first. 0, or DURABLE_STREAM_END when the stream is closed or its workflow is over. */
enum { DURABLE_STREAM_END = 1 };
CO int durable_read_stream(struct durable *d, struct str id, struct str key, int64_t offset,
                           unsigned max, uint64_t deadline_ms,
                           int (*each)(int64_t offset, struct str json, void *arg, struct err *e),
                           void *arg, struct err *e) MUST_CHECK;

/* --- inside a workflow --- */

const char *workflow_id(const struct workflow *w);
void *workflow_ctx(const struct workflow *w);
struct durable *workflow_engine(const struct workflow *w);
const json_t *workflow_args(const struct workflow *w);          /* array; lives as long as w */
const json_t *workflow_named(const struct workflow *w);         /* object */
const json_t *workflow_arg(const struct workflow *w, size_t i); /* NULL when there are fewer */
unsigned workflow_attempt(const struct workflow *w);            /* 1 on the first start */

/* The result; copied. json must be one JSON value (ERR_INVALID, ERR_LIMIT). */
int durable_return(struct workflow *w, struct str json, struct err *e) MUST_CHECK;

/* Fail with a name, code and data of one's own (code and data: JSON or {0}). Returns -ERR_INTERNAL
 * with *e filled, for `return durable_throw(...)`, from the workflow or from a step's body. */
int durable_throw(struct workflow *w, const char *name, const char *message, struct str code,
                  struct str data, struct err *e) MUST_CHECK;

struct durable_retry {
    unsigned tries;      /* in all; 0 or 1: once */
    uint64_t first_ms;   /* before the second; 0: 1 s */
    uint64_t longest_ms; /* cap; 0: one hour */
    double factor;       /* 0: 2 */
    double jitter;       /* each wait is shortened by up to this share; 0: none, 1: all */
    uint64_t timeout_ms; /* of one try (DBOS code 31); 0: none. Its fiber is cancelled */
    bool (*again)(const struct err *e, void *arg); /* NULL: every error but ERR_INVALID */
};

/*
 * The body of a step: writes its result as JSON into out (nothing: null). It is run at least once,
 * and again after a crash before its record was on the disk.
 */
typedef int durable_step_fn(void *arg, struct buf *out, struct err *e);

/*
 * Run a step, or take its record. name is a constant and belongs to the stored format. An error
 * that is left after the tries is recorded and returned on every replay too.
 */
CO int durable_step(struct workflow *w, const char *name, const struct durable_retry *retry,
                    CO durable_step_fn *body, void *arg, struct buf *out, struct err *e) MUST_CHECK;

/*
 * A step whose writes and whose record are one transaction: exactly once for what is in this
 * database. body runs on a store thread (see store_body); an error undoes its writes, and is
 * recorded unless it is the database's own.
 */
typedef int durable_tx_fn(struct store_tx *tx, void *arg, struct buf *out, struct err *e);
CO int durable_step_tx(struct workflow *w, const char *name, durable_tx_fn *body, void *arg,
                       struct buf *out, struct err *e) MUST_CHECK;

CO int durable_sleep(struct workflow *w, uint64_t ms, struct err *e) MUST_CHECK;
CO int durable_now(struct workflow *w, int64_t *ret_ms, struct err *e) MUST_CHECK;
CO int durable_uuid(struct workflow *w, char out[37], struct err *e) MUST_CHECK;

/* May code that was changed be run? true for workflows that come here for the first time after the
 * change, false for those that had passed here before it: DBOS.patch. */
CO int durable_patch(struct workflow *w, const char *name, bool *ret, struct err *e) MUST_CHECK;

/* As durable_post(), once for all replays. */
CO int durable_send(struct workflow *w, struct str to, struct str topic, struct str json,
                    struct str key, struct err *e) MUST_CHECK;

/* The oldest message of the topic. 0, or DURABLE_NOTHING after timeout_ms (0: 60 s). */
enum { DURABLE_NOTHING = 1 };
CO int durable_recv(struct workflow *w, struct str topic, uint64_t timeout_ms, struct buf *out,
                    struct err *e) MUST_CHECK;

CO int durable_set_event(struct workflow *w, struct str key, struct str json, struct err *e)
    MUST_CHECK;
CO int durable_get_event(struct workflow *w, struct str id, struct str key, uint64_t timeout_ms,
                         struct buf *out, struct err *e) MUST_CHECK; /* as durable_recv */
CO int durable_write_stream(struct workflow *w, struct str key, struct str json, struct err *e)
    MUST_CHECK;
CO int durable_close_stream(struct workflow *w, struct str key, struct err *e) MUST_CHECK;

/* A child: its id is "<parent>-<function id>" unless given. It inherits the deadline. */
CO int durable_child(struct workflow *w, const struct durable_start *start,
                     struct durable_started *ret, struct err *e) MUST_CHECK;

/* Wait for another workflow's result. An error of it is an error here (with its name and message;
 * codes 27, 30 when it was cancelled or is dead). timeout_ms 0: none; ERR_TIMEOUT. */
CO int durable_result(struct workflow *w, struct str id, uint64_t timeout_ms, struct buf *out,
                      struct err *e) MUST_CHECK;
