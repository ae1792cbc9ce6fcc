/* SPDX-License-Identifier: MIT */
/*
 * chela/bridge.h — the bridge as a library: registered HTTP agents, called with timeouts, retries
 * and fallback chains; sessions; health. Part of libchela. It is the code that chelad runs.
 *
 * A struct chela_bridge has a thread of its own that does the network and the storage. All
 * functions may be called from any thread but from that one (a done or delta callback runs there:
 * it must be quick and may not call back in). They return 0, or a negative enum chela_code with
 * *error filled (error may be NULL). Strings and structs that a function gives away are from
 * malloc() and have a _free function of their own, or free().
 */
#ifndef CHELA_BRIDGE_H
#define CHELA_BRIDGE_H

#include <chela/retry.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- the bridge --- */

struct chela_bridge_config {
    const char *state_dir;    /* holds chela.db and master.key, made when absent; NULL: in memory */
    double default_timeout;   /* seconds of one attempt, for agents without one; 0: 30 */
    unsigned default_retries; /* attempts in all on one agent, likewise; 0: 3 */
    double backoff_initial;   /* seconds before the second attempt; 0: 1 */
    double backoff_max;       /* cap, also of Retry-After; 0: 4 */
    double call_deadline;     /* of a call as a whole; 0: none */
    double half_open;         /* an unreachable agent is tried at its own place after this; 0: 60 */
    unsigned recover_after;   /* successes in a row that make an agent healthy; 0: 5 */
    unsigned context_messages; /* earlier messages sent to agents with context "session"; 0: 50 */
    size_t response_max;       /* bytes of an agent's answer; 0: 16 MiB */
    unsigned sessions_max;     /* past it those idle longest are dropped; 0: 100000 */
    unsigned messages_max;     /* of one session; past it its oldest are dropped; 0: 1000 */
    double session_max_age;    /* seconds after which idle sessions are swept; 0: never */
    const char *ca_file;       /* certificate authorities; NULL: the system's */
    const char *proxy;         /* NULL: none, whatever the environment says */
    const char *allow, *deny;  /* address ranges agents may, or may not, be at ("10.0.0.0/8, ...");
                                * link-local and metadata addresses are refused unless allowed */
};

struct chela_bridge;

/* Open; config NULL: in memory, with the defaults. Agents, health and sessions of the state
 * directory are there at once. */
CHELA_API int chela_bridge_new(const struct chela_bridge_config *config, struct chela_bridge **ret,
                               struct chela_error *error);

/* Cancel what is running, write what is not yet written, end the thread. NULL is fine. */
CHELA_API void chela_bridge_free(struct chela_bridge *bridge);

/* --- agents --- */

struct chela_agent_config {
    const char *name, *host; /* host: name, IPv4, or IPv6 with or without brackets */
    int port;
    const char *protocol;               /* "http" (also NULL) or "https" */
    const char *auth_token;             /* sent as a bearer token; NULL: none */
    int timeout_seconds;                /* of one attempt; 0: the bridge's default */
    int max_retries;                    /* attempts in all; 0: the bridge's default */
    const char *const *fallback_agents; /* names, ended by NULL; NULL: none */
    const char *api;                    /* "messages" (also NULL), "openai" or "responses" */
    const char *context;                /* "none" (also NULL) or "session" */
};

/* "http://host:port" and endpoint behind it (NULL: ""); NULL when the protocol is unknown. */
CHELA_API char *chela_agent_url(const struct chela_agent_config *agent, const char *endpoint);

/* The headers of a call, one per line: Content-Type, and Authorization when there is a token. */
CHELA_API char *chela_agent_headers(const struct chela_agent_config *agent);

/* Register, or replace whoever has the name. Strings are copied; the agent is not contacted. */
CHELA_API int chela_bridge_register(struct chela_bridge *bridge,
                                    const struct chela_agent_config *agent,
                                    struct chela_error *error);
CHELA_API int chela_bridge_unregister(struct chela_bridge *bridge, const char *name,
                                      struct chela_error *error);

/* A copy of a registration with all defaults filled in. CHELA_E_NOT_FOUND. */
CHELA_API int chela_bridge_agent(struct chela_bridge *bridge, const char *name,
                                 struct chela_agent_config **ret, struct chela_error *error);
CHELA_API void chela_agent_config_free(struct chela_agent_config *agent); /* such a copy */
CHELA_API size_t chela_bridge_agent_count(struct chela_bridge *bridge);

/* --- calls --- */

struct chela_call {
    const char *agent_name, *prompt;
    const char *session_id; /* NULL or "": none */
    const char *user_id;    /* NULL or "": the session's, or "anonymous" for a new one */
    const char *metadata;   /* a JSON object to merge into the session's; NULL: none */
    /* Pieces of the answer as they come; NULL: not streamed. On the bridge's thread. */
    void (*on_delta)(const char *agent_name, const char *text, size_t n, void *arg);
    void *on_delta_arg;
};

struct chela_result {
    bool success, retried;
    char *agent_name;                 /* who answered; after a failure, who was asked for */
    char *response;                   /* NULL after a failure */
    char *error;                      /* NULL after a success */
    enum chela_error_type error_type; /* CHELA_ERROR_TYPES after a success */
    char **fallback_chain;            /* as planned */
    size_t n_chain;
    double latency_ms;
    unsigned retry_count; /* place in the chain of the agent that gave the result */
};
CHELA_API void chela_result_free(struct chela_result *result); /* NULL is fine */

/* {"success","agent_name","response","error","error_type","fallback_chain","latency_ms",
 *  "retried","retry_count"} */
CHELA_API char *chela_result_json(const struct chela_result *result);

/*
 * Call an agent and wait for the result. 0 whether the agent succeeded or not: see *ret. With a
 * session the question is stored before the agent is asked and the answer before this returns.
 * CHELA_E_FORBIDDEN: the session is another user's.
 */
CHELA_API int chela_bridge_call(struct chela_bridge *bridge, const struct chela_call *call,
                                struct chela_result **ret, struct chela_error *error);

/*
 * The same without waiting: done is called once, on the bridge's thread, with a result it owns
 * (NULL and an error when there is none). The strings of call are copied. *ret (may be NULL) names
 * the call for chela_bridge_cancel() until done has been called.
 */
typedef void chela_done(struct chela_result *result, const struct chela_error *error, void *arg);
CHELA_API int chela_bridge_submit(struct chela_bridge *bridge, const struct chela_call *call,
                                  chela_done *done, void *arg, uint64_t *ret,
                                  struct chela_error *error);

/* Break the call off: its done gets no result and an error whose text is "canceled". */
CHELA_API void chela_bridge_cancel(struct chela_bridge *bridge, uint64_t call);

/* --- sessions --- */

struct chela_message {
    char *role, *content, *agent;
    int64_t at_us;    /* since 1970, UTC */
    bool interrupted; /* a question whose turn never ended */
};

/* A session as it was when it was read; changing it changes nothing stored. */
struct chela_session {
    char *session_id, *user_id;
    int64_t created_us, last_activity_us;
    struct chela_message *messages;
    size_t n_messages;
    char *metadata; /* a JSON object */
};

CHELA_API struct chela_session *chela_session_new(const char *session_id, const char *user_id);
CHELA_API void chela_session_free(struct chela_session *session); /* NULL is fine */
CHELA_API void chela_session_add_message(struct chela_session *session, const char *role,
                                         const char *content, const char *agent /* NULL: "" */);

/* {"session_id","user_id","created_at","last_activity","messages","metadata"} */
CHELA_API char *chela_session_json(const struct chela_session *session);

/* The session of that id, made for user_id when there is none. */
CHELA_API int chela_bridge_session_register(struct chela_bridge *bridge, const char *session_id,
                                            const char *user_id, struct chela_session **ret,
                                            struct chela_error *error);
CHELA_API int chela_bridge_session(struct chela_bridge *bridge, const char *session_id,
                                   struct chela_session **ret, struct chela_error *error);
CHELA_API int chela_bridge_session_delete(struct chela_bridge *bridge, const char *session_id,
                                          struct chela_error *error);

/* Append a message to a stored session. */
CHELA_API int chela_bridge_session_add_message(struct chela_bridge *bridge, const char *session_id,
                                               const char *role, const char *content,
                                               const char *agent, struct chela_error *error);
CHELA_API long long chela_bridge_session_count(struct chela_bridge *bridge);

/* Remove sessions idle for more than so many hours (24 in the original); 0: all. */
CHELA_API int chela_bridge_cleanup(struct chela_bridge *bridge, double max_age_hours,
                                   long long *ret_removed, struct chela_error *error);

/* All sessions to a file (0600, replaced in one step) and back (all or nothing; sessions of the
 * same ids are replaced). ret_n (may be NULL) tells how many. */
CHELA_API int chela_bridge_export(struct chela_bridge *bridge, const char *path, long long *ret_n,
                                  struct chela_error *error);
CHELA_API int chela_bridge_import(struct chela_bridge *bridge, const char *path, long long *ret_n,
                                  struct chela_error *error);

/* --- health --- */

enum chela_health_status { CHELA_HEALTHY, CHELA_DEGRADED, CHELA_UNHEALTHY, CHELA_UNREACHABLE };
CHELA_API const char *chela_health_status_name(enum chela_health_status status);

struct chela_health {
    enum chela_health_status status;
    int64_t last_check_us, last_success_us; /* since 1970, UTC; 0: never */
    long long consecutive_failures, total_failures, total_requests;
    double success_rate; /* per cent, over the whole life */
    bool is_unhealthy;   /* three failures in a row, or a rate under 50 */
    double avg_response_time_ms;
    char last_error[160];
};

struct chela_health_summary {
    long long total_agents, healthy_agents, degraded_agents, unhealthy_agents, unreachable_agents;
    long long total_requests, total_failures;
    double error_rate; /* per cent */
    long long errors[CHELA_ERROR_TYPES];
    const char *status; /* "operational" when an agent is healthy, else "degraded" */
};

CHELA_API int chela_bridge_health(struct chela_bridge *bridge, const char *agent_name,
                                  struct chela_health *ret, struct chela_error *error);
CHELA_API int chela_bridge_health_summary(struct chela_bridge *bridge,
                                          struct chela_health_summary *ret,
                                          struct chela_error *error);
CHELA_API int chela_bridge_health_reset(struct chela_bridge *bridge, const char *agent_name,
                                        struct chela_error *error);

/* {"health_summary","agent_statuses","error_metrics","timestamp"} */
CHELA_API char *chela_bridge_error_summary_json(struct chela_bridge *bridge);

/* --- the default bridge --- */

/* One bridge of the program, in memory, made on first use and never freed. NULL: it cannot be. */
CHELA_API struct chela_bridge *chela_default_bridge(void);

/* Register agents with it. */
CHELA_API int chela_setup_default_bridge(const struct chela_agent_config *agents, size_t n,
                                         struct chela_error *error);

/* --- a tracker of its own --- */

struct chela_error_metric {
    long long count;
    int64_t first_us, last_us; /* since 1970, UTC; 0: never */
    double total_duration_ms, avg_retry_count;
};

/* Health of anything that has an id, by the same rule as the bridge's. In memory. */
struct chela_tracker;
CHELA_API struct chela_tracker *chela_tracker_new(unsigned recover_after /* 0: 5 */);
CHELA_API void chela_tracker_free(struct chela_tracker *tracker); /* NULL is fine */
CHELA_API struct chela_tracker *chela_global_tracker(void);       /* never freed */

/* Ids are registered on first mention; this only mentions one. */
CHELA_API void chela_tracker_register(struct chela_tracker *tracker, const char *id);
CHELA_API void chela_tracker_success(struct chela_tracker *tracker, const char *id,
                                     double duration_ms);
CHELA_API void chela_tracker_failure(struct chela_tracker *tracker, const char *id,
                                     const struct chela_error *error, double duration_ms,
                                     unsigned retries);
CHELA_API void chela_tracker_reset(struct chela_tracker *tracker, const char *id);

CHELA_API bool chela_tracker_status(struct chela_tracker *tracker, const char *id,
                                    struct chela_health *ret); /* false: unknown id */
CHELA_API bool chela_tracker_is_healthy(struct chela_tracker *tracker,
                                        const char *id); /* unknown ids are */
CHELA_API bool chela_tracker_is_unreachable(struct chela_tracker *tracker, const char *id);

/* Keep, in order, those of ids that are healthy or unknown; how many are left. */
CHELA_API size_t chela_tracker_filter(struct chela_tracker *tracker, const char **ids, size_t n);
CHELA_API void chela_tracker_metric(struct chela_tracker *tracker, enum chela_error_type type,
                                    struct chela_error_metric *ret);
CHELA_API void chela_tracker_summary(struct chela_tracker *tracker,
                                     struct chela_health_summary *ret);

/* The record of an id (nine keys), and all of it; NULL for an unknown id. */
CHELA_API char *chela_tracker_status_json(struct chela_tracker *tracker, const char *id);
CHELA_API char *chela_tracker_json(struct chela_tracker *tracker);

/* The global tracker, in short. */
CHELA_API void chela_track_success(const char *id);
CHELA_API void chela_track_error(const char *id, const struct chela_error *error);

#ifdef __cplusplus
}
#endif

#endif
