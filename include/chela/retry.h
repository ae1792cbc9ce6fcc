/* SPDX-License-Identifier: MIT */
/*
 * chela/retry.h — trying again: classes of errors, backoff, retry, timeouts, and falling over from
 * one model or one endpoint to the next. Part of libchela.
 *
 * Every function is thread-safe. Those that do work return 0, or a negative enum chela_code with
 * *error filled (error may be NULL). Strings returned as char * are the caller's: free() them.
 */
#ifndef CHELA_RETRY_H
#define CHELA_RETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef CHELA_API
#define CHELA_API __attribute__((visibility("default")))
#endif

enum chela_code {
    CHELA_OK = 0,
    CHELA_E_INVALID = -1,     /* an argument or a file is not acceptable */
    CHELA_E_FORBIDDEN = -3,   /* the session belongs to another user */
    CHELA_E_NOT_FOUND = -4,   /* no such agent or session */
    CHELA_E_CONFLICT = -5,    /* state moved meanwhile; trying again may help */
    CHELA_E_LIMIT = -6,       /* a configured bound was hit */
    CHELA_E_UNAVAILABLE = -7, /* a peer or a resource is away for now */
    CHELA_E_TIMEOUT = -8,     /* not done in time */
    CHELA_E_CANCELED = -9,    /* the caller gave up */
    CHELA_E_INTERNAL = -10,   /* a broken disk, or a bug */
    CHELA_E_FAILED = -11,     /* the work itself failed: see error->type and error->text */
    CHELA_E_PARKED = -12      /* a workflow gives its stack up: return at once (durable.h) */
};

/* --- classes of errors --- */

enum chela_error_type {
    CHELA_ERROR_TIMEOUT,
    CHELA_ERROR_RATE_LIMIT,
    CHELA_ERROR_NETWORK,
    CHELA_ERROR_AUTH,
    CHELA_ERROR_MODEL,
    CHELA_ERROR_INTERNAL,
    CHELA_ERROR_UNKNOWN,
    CHELA_ERROR_TYPES /* how many there are; also "none" */
};

struct chela_error {
    enum chela_error_type type;
    int status;     /* of an HTTP answer, or 0 */
    char text[240]; /* for people */
};

/* "timeout", "rate_limit", "network", "auth", "model_error", "internal", "unknown"; NULL for
 * others. */
CHELA_API const char *chela_error_type_name(enum chela_error_type type);

/* The reverse; CHELA_ERROR_TYPES when there is no such name. */
CHELA_API enum chela_error_type chela_error_type_from_name(const char *name);

/*
 * What class an error belongs to: by its HTTP status when one is given (not 0), else by words in
 * its text and in the name of its class ("ConnectionError"). text and class_name may be NULL.
 */
CHELA_API enum chela_error_type chela_classify(const char *text, const char *class_name,
                                               int http_status);

/* --- backoff --- */

struct chela_retry_config {
    unsigned max_retries;         /* further tries after the first */
    double initial_delay_seconds; /* before the first of them */
    double max_delay_seconds;     /* cap; jitter comes on top of it */
    double backoff_multiplier;
    bool jitter;                 /* up to a tenth more or less, never under 0.1 s */
    double (*random)(void *arg); /* uniform in [0, 1); NULL: the library's own */
    void *random_arg;
};
/* clang-format off */
#define CHELA_RETRY_CONFIG_INIT { 3, 1.0, 8.0, 2.0, true, NULL, NULL }
/* clang-format on */

/* Seconds to wait after n failures: 0 for n <= 0, else initial * multiplier^(n-1) up to the cap.
 * config NULL: the defaults. Never overflows. */
CHELA_API double chela_backoff_delay(long n, const struct chela_retry_config *config);

/* --- giving up early --- */

/* A flag that one thread raises and others look at or sleep on. */
struct chela_cancel;
CHELA_API struct chela_cancel *chela_cancel_new(void);
CHELA_API void chela_cancel_free(
    struct chela_cancel *cancel); /* drops this reference; NULL is fine */
CHELA_API void chela_cancel_fire(struct chela_cancel *cancel);
CHELA_API bool chela_canceled(const struct chela_cancel *cancel); /* NULL: false */

/* Sleep; true when it was cut short because the flag was raised. cancel NULL: just sleep. */
CHELA_API bool chela_cancel_sleep(struct chela_cancel *cancel, double seconds);

/* --- retry --- */

/*
 * A piece of work: 0, or not 0 after filling *error. An error whose type is left at
 * CHELA_ERROR_TYPES is classified by its status and text. cancel (may be NULL) tells that nobody
 * waits for the outcome any more.
 */
typedef int chela_work(void *arg, struct chela_cancel *cancel, struct chela_error *error);

/* Called before each wait: which retry it is (from 1), how long it waits, what went wrong. */
typedef void chela_on_retry(unsigned attempt, double delay_seconds, const struct chela_error *error,
                            void *arg);

/*
 * Do the work, again after every failure up to config->max_retries times, waiting 1, 2, 4 ... s
 * (as configured) in between. 0; CHELA_E_FAILED with the last error; CHELA_E_CANCELED. config NULL:
 * the defaults; it is never changed. on_retry and cancel may be NULL.
 */
CHELA_API int chela_retry(chela_work *work, void *arg, const struct chela_retry_config *config,
                          chela_on_retry *on_retry, void *on_retry_arg, struct chela_cancel *cancel,
                          struct chela_error *error);

/* The same on a thread of its own. Wait for it, or cancel it and then wait; either frees the task.
 */
struct chela_task;
CHELA_API int chela_retry_start(chela_work *work, void *arg,
                                const struct chela_retry_config *config, chela_on_retry *on_retry,
                                void *on_retry_arg, struct chela_task **ret,
                                struct chela_error *error);
CHELA_API void chela_task_cancel(struct chela_task *task);
CHELA_API int chela_task_wait(struct chela_task *task, struct chela_error *error);

/* --- timeout guard --- */

struct chela_guard {
    double timeout_seconds;        /* 0: 30 */
    void (*on_timeout)(void *arg); /* in the waiting thread, before the return; may be NULL */
    void *on_timeout_arg;
    void (*release)(void *work_arg); /* called once when the work has really ended; may be NULL */
};

/*
 * Do the work, but wait no longer than the limit: to the millisecond, on any thread, without
 * signals. 0; CHELA_E_FAILED; CHELA_E_TIMEOUT with error->text "Function timed out after <T>s". A
 * thread cannot be ended from outside, so after a timeout the work goes on until it looks at its
 * cancel flag or returns by itself: its arg must live until then, which guard->release tells.
 */
CHELA_API int chela_with_timeout(chela_work *work, void *arg, const struct chela_guard *guard,
                                 struct chela_error *error);

/* --- one model after the other --- */

#define CHELA_MODEL_DEEPSEEK_CHAT     "deepseek-chat"
#define CHELA_MODEL_DEEPSEEK_REASONER "deepseek-reasoner"
#define CHELA_MODEL_CLAUDE_OPUS       "claude-opus-4-6"
#define CHELA_MODEL_CLAUDE_SONNET     "claude-sonnet-4-20250514"
#define CHELA_MODEL_CLAUDE_HAIKU      "claude-haiku-4-5-20251001"

/* The default chain: the first four above, in that order. */
CHELA_API const char *const *chela_model_chain(size_t *ret_n);

/* Ask a model. 0 with *ret_code from malloc(), or not 0 with *error filled. */
typedef int chela_generate(void *client, const char *prompt, struct chela_cancel *cancel,
                           char **ret_code, struct chela_error *error);

struct chela_model_client {
    const char *model;
    chela_generate *generate;
    void *client; /* must outlive a generate that was timed out: it may still be running */
};

struct chela_codegen_config {
    double timeout_seconds;                 /* of one try; 0: 30 */
    const struct chela_retry_config *retry; /* per model; NULL: the defaults with 2 retries */
    const char *const *chain;               /* NULL: chela_model_chain() */
    size_t n_chain;
};

struct chela_codegen_error {
    char *model, *error;
    unsigned attempt; /* the model's place in the chain, from 1 */
    enum chela_error_type type;
    int64_t at_us; /* since 1970, UTC */
};

struct chela_codegen_result {
    bool success;
    char *code;       /* or a report whose first line begins with "ERROR:" */
    char *model_used; /* "none" when all failed */
    unsigned attempt_number, total_attempts;
    struct chela_codegen_error *errors; /* of the models before the one that answered */
    size_t n_errors;
    double duration_ms;
};

/*
 * Ask the models of the chain one after the other, each with retries and a limit of time, until
 * one answers. A model without a client fails at once. Always gives a result, to be freed by
 * chela_codegen_result_free(). config NULL: the defaults.
 */
CHELA_API struct chela_codegen_result *chela_codegen(const struct chela_model_client *clients,
                                                     size_t n, const char *prompt,
                                                     const struct chela_codegen_config *config);
CHELA_API void chela_codegen_result_free(struct chela_codegen_result *result);

/* {"code","model_used","attempt_number","total_attempts","errors_encountered": how many,
 *  "duration_ms","success"} */
CHELA_API char *chela_codegen_result_json(const struct chela_codegen_result *result);

/* --- one endpoint after the other --- */

struct chela_tracker; /* chela/bridge.h */

struct chela_failover_config {
    const char *vps_endpoint;        /* NULL: http://localhost:8000 */
    const char *cloudflare_endpoint; /* NULL: http://localhost:18789 */
    double health_check_timeout;     /* seconds; 0: 5 */
    double call_timeout;             /* of one function call; 0: 30 */
    double recheck_seconds;          /* how long a verdict on the first endpoint holds; 0: 60 */
    bool no_fallback;                /* fail instead of asking the second endpoint */
    struct chela_tracker *tracker;   /* where outcomes are counted; NULL: the global one */
};

/* Ask one endpoint. 0 with *ret_answer from malloc(), or not 0 with *error filled. */
typedef int chela_endpoint_call(const char *endpoint, void *arg, struct chela_cancel *cancel,
                                char **ret_answer, struct chela_error *error);

struct chela_failover;
CHELA_API int chela_failover_new(const struct chela_failover_config *config,
                                 struct chela_failover **ret, struct chela_error *error);
CHELA_API void chela_failover_free(struct chela_failover *failover); /* NULL is fine */

/* GET <vps_endpoint>/health: true when the answer is exactly 200. Remembered as the verdict. */
CHELA_API bool chela_failover_check(struct chela_failover *failover);

/*
 * Call fn with the first endpoint while it is healthy, and with the second when that fails or is
 * known to be down; after recheck_seconds the first is probed again. One success or failure is
 * counted per try, under agent_id (NULL: "vps_agent") and agent_id + ":cloudflare". CHELA_E_FAILED
 * with the text "Both VPS and Cloudflare unavailable for <id>" when neither answered. arg must
 * outlive a call that was timed out, as in chela_with_timeout().
 */
CHELA_API int chela_failover_run(struct chela_failover *failover, chela_endpoint_call *fn,
                                 void *arg, const char *agent_id, char **ret_answer,
                                 struct chela_error *error);

/* {"vps_healthy","last_vps_check","fallback_enabled","vps_endpoint","cloudflare_endpoint"} */
CHELA_API char *chela_failover_status_json(struct chela_failover *failover);

#ifdef __cplusplus
}
#endif

#endif
