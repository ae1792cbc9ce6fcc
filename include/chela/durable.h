/* SPDX-License-Identifier: MIT */
/*
 * chela/durable.h — workflows that survive crashes, in the tables and by the rules of DBOS, on a
 * file (SQLite) or on PostgreSQL. Part of libchela; the engine that chelad runs.
 *
 * A workflow is an ordinary C function. What it does to the world it does in steps: a step's result
 * is on the disk before chela_step() returns. When the process dies and is started again, the
 * function is run again from its beginning, and steps that have a record return it without running.
 * So the code between steps must take the same way each time: it reads its arguments and what steps
 * gave it, and nothing else (chela_now() and chela_uuid() are clock and chance).
 *
 * A struct chela_durable has a thread of its own; workflow functions run on it, each on a stack of
 * 256 KiB, one at a time: they may not block except in the functions below. Bodies of steps run on
 * other threads and may block. Functions named chela_durable_ may be called from any thread but
 * that one; those that take a struct chela_workflow, only from its function.
 *
 * All return 0, or a negative enum chela_code with *error filled (error may be NULL), or a positive
 * outcome where they say so. Values are JSON texts. Strings given away are from malloc(): free();
 * strings taken are copied. Where a char **ret_json is NULL, the value is not wanted. Seconds that
 * are negative or no number are CHELA_E_INVALID, never "none": what a program has computed may be.
 *
 * CHELA_E_PARKED and CHELA_E_CANCELED from a function inside a workflow mean that this run of it is
 * over: it waits for long and gave its stack up (it will be run again from its records), or was
 * cancelled, or the process stops. Return at once then, by ordinary returns, undoing nothing: every
 * further call fails in the same way, and what the function returns no longer matters.
 */
#ifndef CHELA_DURABLE_H
#define CHELA_DURABLE_H

#include <chela/retry.h>

#ifdef __cplusplus
extern "C" {
#endif

struct chela_durable;  /* the engine */
struct chela_workflow; /* one run of one workflow, as its function sees it */
struct chela_tx;       /* a transaction, as its body sees it */
struct chela_row;

/* --- the engine --- */

struct chela_durable_config {
    const char *state_dir;    /* holds chela.db, made when absent; one process at a time */
    const char *database_url; /* "postgresql://..." instead of the file; many processes */
    const char *listen_url;   /* the same without a pooler, for LISTEN; NULL: database_url */
    const char *app_version;  /* name of the version of the workflows' code; NULL: "1" */
    const char *app_name;     /* owner of the rows, where applications share a database; NULL */
    unsigned running;         /* workflows with a stack at once; the rest are queued; 0: 2048 */
    unsigned step_threads;    /* bodies of steps at once; the rest wait; 0: 16 */
    unsigned connections;     /* to PostgreSQL; 0: 20 */
    double park_after;        /* seconds of waiting after which a stack is given up; 0: 5 */
    double lease;             /* seconds of silence after which a process is dead; 0: 30 */
    double sweep;             /* seconds between looks at delays and deadlines; 0: 1 */
    size_t payload_max;       /* bytes of one value; 0: 16 MiB */
    unsigned steps_max;       /* recorded calls of one workflow; 0: 100000 */
    double retain_age;        /* seconds after which ended workflows are deleted; 0: never */
    unsigned retain_rows;     /* of the ended, the newest so many are kept; 0: all */
};

/*
 * Open the database and bring its schema up to date; nothing runs yet. With neither state_dir nor
 * database_url everything is in memory and gone at the end. CHELA_E_CONFLICT: the directory is in
 * use by another process, or the schema is newer than the library.
 */
CHELA_API int chela_durable_new(const struct chela_durable_config *config,
                                struct chela_durable **ret, struct chela_error *error);

/* The function of a workflow. args_json is the array of its arguments, good until it returns. 0:
 * done (see chela_return()); not 0, after filling *error: failed. */
typedef int chela_workflow_fn(struct chela_workflow *w, const char *args_json, void *ctx,
                              struct chela_error *error);

struct chela_workflow_type {
    const char *name;
    chela_workflow_fn *fn;
    void *ctx;
    const char *class_name; /* clients in TypeScript address class and method; NULL: none */
    unsigned max_attempts;  /* restarts after which it is given up as dead; 0: 100 */
    double timeout;         /* seconds a run may take that was started without one; 0: none */
};

/* Before chela_durable_run(); the rows are copied. CHELA_E_CONFLICT: registered already. */
CHELA_API int chela_durable_register(struct chela_durable *durable,
                                     const struct chela_workflow_type *types, size_t n,
                                     struct chela_error *error);

struct chela_queue { /* 0: no limit */
    const char *name;
    unsigned concurrency;           /* running at once, in all processes */
    unsigned worker_concurrency;    /* running at once, here */
    unsigned rate_max;              /* starts in each ... */
    double rate_period;             /* ... so many seconds */
    unsigned partition_concurrency; /* the same per partition key; any of these makes the queue */
    unsigned partition_worker_concurrency; /* partitioned: each start then needs a key */
    unsigned partition_rate_max;
    double partition_rate_period;
    double polling; /* seconds between looks without a hint; 0: 1 */
    bool hold_slot; /* a workflow that waits for long keeps its place, and its stack */
};
CHELA_API int chela_durable_register_queues(struct chela_durable *durable,
                                            const struct chela_queue *queues, size_t n,
                                            struct chela_error *error);

/* Begin: what an earlier process left unfinished is taken up in the background. */
CHELA_API int chela_durable_run(struct chela_durable *durable, struct chela_error *error);

/* Start no more, give what runs so many seconds to end, then break it off: it will be taken up by
 * the next process. */
CHELA_API void chela_durable_stop(struct chela_durable *durable, double grace_seconds);

/* Stop without grace if need be, end the thread. A body of a step is waited for. NULL is fine. */
CHELA_API void chela_durable_free(struct chela_durable *durable);

/* --- starting and steering, from any thread --- */

struct chela_start {
    const char *name;          /* of the workflow; who runs it need not be us, with a queue */
    const char *args_json;     /* array of arguments; NULL: [] */
    const char *id;            /* a repeat with one id is one workflow; NULL: a random UUID */
    const char *queue;         /* NULL: run at once, here */
    const char *class_name;    /* NULL: none */
    const char *named_json;    /* object of named arguments; NULL: {} */
    const char *app_version;   /* NULL: ours when run here, any when queued */
    const char *dedup_id;      /* with a queue: one unfinished workflow of each; NULL: none */
    bool dedup_join;           /* a duplicate gives the holder's id instead of CHELA_E_CONFLICT */
    bool id_must_be_new;       /* CHELA_E_CONFLICT when it is not */
    int priority;              /* lower first, from 0 */
    const char *partition_key; /* of a partitioned queue */
    double delay;              /* seconds, with a queue */
    double timeout;            /* seconds from its first step to being cancelled; 0: the type's */
    const char *attributes;    /* a JSON object kept with it; NULL: none */
};

/*
 * When this returns 0 the workflow is on the disk and will run: in a queue, by whichever process
 * has a workflow of that name. *ret_id (may be NULL): its id. CHELA_E_INVALID: the arguments are no
 * array, or the workflow is unknown here and no queue is named; CHELA_E_CONFLICT: the id belongs to
 * another workflow, or see dedup_join and id_must_be_new; CHELA_E_LIMIT: too large.
 */
CHELA_API int chela_durable_start(struct chela_durable *durable, const struct chela_start *start,
                                  char **ret_id, struct chela_error *error);

enum chela_workflow_status {
    CHELA_WF_ENQUEUED,
    CHELA_WF_DELAYED, /* by its starter, or parked */
    CHELA_WF_PENDING, /* running, or claimed */
    CHELA_WF_SUCCESS,
    CHELA_WF_ERROR,
    CHELA_WF_CANCELLED,
    CHELA_WF_DEAD /* started too often without coming to an end */
};
CHELA_API const char *chela_workflow_status_name(enum chela_workflow_status status);

/*
 * Wait until a workflow has ended. *ret_json is the result, or after CHELA_WF_ERROR
 * {"name","message","code"?,"data"?}. timeout 0: none. CHELA_E_NOT_FOUND, CHELA_E_TIMEOUT.
 */
CHELA_API int chela_durable_await(struct chela_durable *durable, const char *id, double timeout,
                                  enum chela_workflow_status *ret, char **ret_json,
                                  struct chela_error *error);

struct chela_workflow_info {
    char *id, *name, *queue, *app_version, *executor, *parent; /* NULL: none */
    char *error_json;                                          /* as it is stored; NULL: none */
    enum chela_workflow_status status;
    bool parked;
    bool blocked_version; /* unfinished, and no live process runs its version */
    long long attempts;   /* starts so far */
    int64_t created_ms, started_ms, completed_ms; /* since 1970; 0: not yet */
};
CHELA_API int chela_durable_info(struct chela_durable *durable, const char *id,
                                 struct chela_workflow_info **ret, struct chela_error *error);
CHELA_API void chela_workflow_info_free(struct chela_workflow_info *info); /* NULL is fine */

/* A message into the mailbox of a workflow. topic NULL: none. With a key (NULL: none) a repeat is
 * one message. CHELA_E_NOT_FOUND. */
CHELA_API int chela_durable_send(struct chela_durable *durable, const char *id, const char *topic,
                                 const char *json, const char *key, struct chela_error *error);

/* The latest value of an event of a workflow; waits until there is one. timeout 0: none.
 * CHELA_E_TIMEOUT. */
CHELA_API int chela_durable_get_event(struct chela_durable *durable, const char *id,
                                      const char *key, double timeout, char **ret_json,
                                      struct chela_error *error);

/* One value of a stream, counted from 0; waits for it. CHELA_END: the stream ends before it. */
enum { CHELA_NOTHING = 1, CHELA_END = 1 };
CHELA_API int chela_durable_read_stream(struct chela_durable *durable, const char *id,
                                        const char *key, int64_t offset, double timeout,
                                        char **ret_json, struct chela_error *error);

/* End it (and its descendants); an ended one stays as it is. Unknown ids are ignored. */
CHELA_API int chela_durable_cancel(struct chela_durable *durable, const char *id, bool children,
                                   struct chela_error *error);

/* Go on with one that was cancelled or is dead. CHELA_E_CONFLICT: it has ended by itself. */
CHELA_API int chela_durable_resume(struct chela_durable *durable, const char *id,
                                   struct chela_error *error);

/* A new workflow with the records of an old one before that step. */
CHELA_API int chela_durable_fork(struct chela_durable *durable, const char *id, int64_t step,
                                 char **ret_id, struct chela_error *error);

enum chela_misfire { CHELA_MISFIRE_SKIP, CHELA_MISFIRE_ONCE, CHELA_MISFIRE_ALL };
enum chela_overlap { CHELA_OVERLAP_ALLOW, CHELA_OVERLAP_SKIP, CHELA_OVERLAP_REPLACE };

struct chela_schedule {
    const char *name, *workflow; /* its arguments are [the time it was due, context] */
    const char *class_name;      /* NULL: none */
    const char *cron;            /* 5 fields, or 6 with seconds first; day AND weekday must match */
    const char *zone;            /* "Europe/Berlin"; NULL: UTC */
    const char *queue;           /* NULL: none */
    const char *context_json;    /* NULL: null */
    bool paused;
    enum chela_misfire misfire; /* times that passed while nobody ran */
    enum chela_overlap overlap; /* what if the one before still runs */
};

/* Make or replace it. CHELA_E_INVALID says what of the expression or the zone is wrong. */
CHELA_API int chela_durable_schedule(struct chela_durable *durable,
                                     const struct chela_schedule *schedule,
                                     struct chela_error *error);
CHELA_API int chela_durable_unschedule(struct chela_durable *durable, const char *name,
                                       struct chela_error *error);

/* --- inside a workflow --- */

CHELA_API const char *chela_workflow_id(const struct chela_workflow *w);
CHELA_API const char *chela_workflow_named(const struct chela_workflow *w); /* named arguments */
CHELA_API unsigned chela_workflow_attempt(const struct chela_workflow *w);  /* from 1 */

/* The result of the workflow: one JSON value. */
CHELA_API int chela_return(struct chela_workflow *w, const char *json, struct chela_error *error);

/*
 * Fail with a name and data of one's own, as clients see them; for `return chela_fail(...)`, from a
 * workflow and from the body of one of its steps. data_json may be NULL. Returns CHELA_E_FAILED.
 */
CHELA_API int chela_fail(struct chela_workflow *w, const char *name, const char *message,
                         const char *data_json, struct chela_error *error);

struct chela_step_retry {
    unsigned tries; /* in all; 0 or 1: once */
    double first;   /* seconds before the second; 0: 1 */
    double longest; /* cap; 0: an hour */
    double factor;  /* 0: 2 */
    double jitter;  /* each wait is shortened by up to this share of it; 0: none */
    double timeout; /* seconds of one try; 0: none. Past it the body's cancel flag is raised */
    unsigned flags; /* CHELA_STEP_ */
    bool (*again)(const struct chela_error *error, void *arg); /* NULL: all but CHELA_E_INVALID */
};
enum {
    CHELA_STEP_INLINE = 1 /* on the engine's thread: for bodies that never block */
};

/*
 * The body of a step: 0 with *ret_json from malloc() (left alone: null), or not 0 after filling
 * *error. cancel is raised when nobody waits for the outcome any more. It runs at least once, and
 * again when the process died before its record was on the disk. It may call chela_fail(), and no
 * other function of the workflow.
 */
typedef int chela_step_fn(void *arg, struct chela_cancel *cancel, char **ret_json,
                          struct chela_error *error);

/*
 * Run a step, or take its record. The name belongs to what is stored: another name at this place
 * of a history stops the workflow (the code has changed under it). An error that is left after the
 * tries is recorded too, and returned by every replay: CHELA_E_FAILED, or the code that the body
 * returned. retry may be NULL.
 */
CHELA_API int chela_step(struct chela_workflow *w, const char *name,
                         const struct chela_step_retry *retry, chela_step_fn *body, void *arg,
                         char **ret_json, struct chela_error *error);

/* --- SQL in the same transaction --- */

struct chela_sql_arg {
    int kind; /* 0 NULL, 1 integer, 2 real, 3 text */
    int64_t i;
    double r;
    const char *s;
};
/* clang-format off */
#define CHELA_SQL_NULL    ((struct chela_sql_arg){ 0, 0, 0, NULL })
#define CHELA_SQL_INT(v)  ((struct chela_sql_arg){ 1, (v), 0, NULL })
#define CHELA_SQL_REAL(v) ((struct chela_sql_arg){ 2, 0, (v), NULL })
#define CHELA_SQL_TEXT(z) ((struct chela_sql_arg){ 3, 0, 0, (z) }) /* NULL gives NULL */
/* clang-format on */

/*
 * The body of a transaction: runs on a thread of the database, touches nothing but tx and arg, and
 * may run again, so it begins by resetting what it collects. 0 commits; not 0 undoes all.
 */
typedef int chela_tx_fn(struct chela_tx *tx, void *arg, char **ret_json, struct chela_error *error);

/*
 * One statement, parameters ?1 ?2 ... for both databases; values only by parameters: each distinct
 * text is kept for the life of the process, at most 1024 of them (CHELA_E_LIMIT). each (may be
 * NULL) is called per row. *ret_changed (may be NULL): rows inserted, updated or deleted.
 */
CHELA_API int chela_tx_run(struct chela_tx *tx, const char *sql, const struct chela_sql_arg *args,
                           size_t n_args, void (*each)(const struct chela_row *row, void *arg),
                           void *arg, int64_t *ret_changed, struct chela_error *error);

/* Columns count from 0. A text is good inside each() only; NULL when the value is. */
CHELA_API int64_t chela_row_int(const struct chela_row *row, int column);
CHELA_API double chela_row_real(const struct chela_row *row, int column);
CHELA_API const char *chela_row_text(const struct chela_row *row, int column);

/* A step whose writes and whose record are one transaction: exactly once for what is in this
 * database. */
CHELA_API int chela_step_tx(struct chela_workflow *w, const char *name, chela_tx_fn *body,
                            void *arg, char **ret_json, struct chela_error *error);

/* A transaction outside workflows, from any thread: to make the tables, to look at them. */
CHELA_API int chela_durable_tx(struct chela_durable *durable, chela_tx_fn *body, void *arg,
                               char **ret_json, struct chela_error *error);

/* --- waiting, messages, events, streams, children --- */

/* 0 or less is over at once. */
CHELA_API int chela_sleep(struct chela_workflow *w, double seconds, struct chela_error *error);
CHELA_API int chela_now(struct chela_workflow *w, int64_t *ret_ms, struct chela_error *error);
CHELA_API int chela_uuid(struct chela_workflow *w, char ret[37], struct chela_error *error);

/* *ret: may code that was added later be run? Not in workflows that had passed here before it. */
CHELA_API int chela_patch(struct chela_workflow *w, const char *name, bool *ret,
                          struct chela_error *error);

/* A message to another workflow, sent once. CHELA_E_NOT_FOUND: there is none of that id. */
CHELA_API int chela_send(struct chela_workflow *w, const char *id, const char *topic,
                         const char *json, struct chela_error *error);

/* The oldest message of the topic (NULL: without one). CHELA_NOTHING after the timeout (0: 60). */
CHELA_API int chela_recv(struct chela_workflow *w, const char *topic, double timeout,
                         char **ret_json, struct chela_error *error);

/* An event has one value at a time, the latest; a stream keeps all, until it is closed or its
 * workflow is over. Both may be read from everywhere, also afterwards. */
CHELA_API int chela_set_event(struct chela_workflow *w, const char *key, const char *json,
                              struct chela_error *error);
CHELA_API int chela_get_event(struct chela_workflow *w, const char *id, const char *key,
                              double timeout, char **ret_json,
                              struct chela_error *error); /* as chela_recv() */
CHELA_API int chela_write_stream(struct chela_workflow *w, const char *key, const char *json,
                                 struct chela_error *error);
CHELA_API int chela_close_stream(struct chela_workflow *w, const char *key,
                                 struct chela_error *error);

/*
 * Start a child: once, whatever happens to this process. *ret_id (may be NULL): its id, which is
 * "<parent>-<number of the call>" unless one is given. Several may be started before the first is
 * waited for; then they run side by side. A child that is not waited for outlives its parent.
 */
CHELA_API int chela_child(struct chela_workflow *w, const struct chela_start *start, char **ret_id,
                          struct chela_error *error);

/*
 * Wait for another workflow's result, a child's or not. Its failure is CHELA_E_FAILED here, with
 * its message in *error; it is recorded like a result, so the way taken after it is taken again by
 * replays. timeout 0: none. CHELA_E_NOT_FOUND, CHELA_E_TIMEOUT.
 */
CHELA_API int chela_result_of(struct chela_workflow *w, const char *id, double timeout,
                              char **ret_json, struct chela_error *error);

#ifdef __cplusplus
}
#endif

#endif
