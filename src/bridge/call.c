/* SPDX-License-Identifier: MIT */
/*
 * bridge/call.c — the flow of a call.
 *
 *     lane of the key → lane of the session → turn_begin (commit 1: the question)
 *       → chain: agents in their planned order, those known to be unreachable last
 *           → attempts on one agent, with waits between
 *     → turn_end (commit 2: the answer, the recorded result) → the caller is told
 *
 * A call without session and key touches no store. Agents may come and go while we wait, so each
 * is looked up by name when its turn has come, and held by reference while it is asked.
 */
#include "bridge/call.h"

#include <string.h>

#include "base/log.h"
#include "base/rand.h"
#include "bridge/attempt.h"
#include "bridge/backoff.h"
#include "bridge/bridge_int.h"
#include "bridge/metrics.h"
#include "bridge/session.h"

enum { RESULT_DEPTH = 8 };

struct flow {
    struct bridge *b;
    const struct call_request *req;
    struct arena *a;
    struct call_result *ret;
    uint64_t began_us, deadline_ms;
    struct turn turn;
    struct ask ask;
    bool tried;        /* at least one agent was asked */
    bool health_moved; /* the state of an agent changed */
    size_t cap_attempts;
};

static double elapsed_ms(const struct flow *f)
{
    return (double)(now_us() - f->began_us) / 1000;
}

static bool is_late(const struct flow *f)
{
    return f->deadline_ms != DEADLINE_NONE && now_ms() >= f->deadline_ms;
}

/* --- the chain --- */

static bool in_chain(const struct call_result *ret, struct str name)
{
    for (size_t i = 0; i < ret->n_chain; i++)
        if (str_eq(ret->chain[i], name))
            return true;
    return false;
}

/* The requested agent, then its own fallbacks in order, each once. */
static void plan(struct flow *f, const struct agent *agent)
{
    struct call_result *ret = f->ret;

    ret->chain = arena_alloc(f->a, (agent->n_fallbacks + 1) * sizeof(*ret->chain));
    ret->chain[ret->n_chain++] = arena_str(f->a, f->req->agent);
    for (size_t i = 0; i < agent->n_fallbacks; i++) {
        struct str name = str_of(agent->fallbacks[i]);

        if (!in_chain(ret, name))
            ret->chain[ret->n_chain++] = arena_str(f->a, name);
    }
}

/* Does any agent of the chain want earlier messages? */
static bool wants_context(const struct flow *f)
{
    for (size_t i = 0; i < f->ret->n_chain; i++) {
        const struct agent_entry *entry = agents_find(&f->b->agents, f->ret->chain[i]);

        if (entry && entry->agent->context)
            return true;
    }
    return false;
}

/* --- attempts on one agent --- */

static void note_attempt(struct flow *f, struct str name, unsigned number,
                         const struct attempt *attempt)
{
    struct call_result *ret = f->ret;
    struct call_attempt *grown;

    if (ret->n_attempts == f->cap_attempts) {
        f->cap_attempts = f->cap_attempts ? 2 * f->cap_attempts : 4;
        grown = arena_raw(f->a, f->cap_attempts * sizeof(*grown));
        if (ret->n_attempts)
            memcpy(grown, ret->attempts, ret->n_attempts * sizeof(*grown));
        ret->attempts = grown;
    }
    ret->attempts[ret->n_attempts++] = (struct call_attempt){
        .agent = name,
        .number = number,
        .type = attempt->type,
        .status = attempt->status,
        .latency_ms = attempt->latency_ms,
    };
    metric_add(&bridge_m_attempts, attempt->type, 1); /* the label after the classes is "ok" */
}

static uint64_t wait_after(const struct bridge *b, unsigned number, long long retry_after_ms)
{
    const struct backoff backoff = {
        .initial = (double)b->conf->backoff_initial_ms,
        .max = (double)b->conf->backoff_max_ms,
        .multiplier = 2,
        .jitter = 0.1,
    };
    double wait = backoff_delay(&backoff, number, rand_unit());

    if (retry_after_ms > b->conf->backoff_max_ms)
        retry_after_ms = b->conf->backoff_max_ms;
    return (uint64_t)(wait > (double)retry_after_ms ? wait : (double)retry_after_ms);
}

static int body_of(struct flow *f, const struct agent *agent, struct str *ret, struct err *e)
{
    AUTO(out_done) struct out o;
    struct ask ask = f->ask;

    ask.model = str_of(agent->name);
    if (!agent->context)
        ask.n_earlier = 0;
    out_init(&o, SIZE_MAX / 2); /* bounded by the request's body and bridge.context_bytes */
    adapters[agent->api].body(&ask, &o);
    return out_take(&o, f->a, ret, e);
}

/* Ask one agent up to n times. *ret is the last attempt; *ret_n says how many there were. */
CO static int ask_agent(struct flow *f, const struct agent *agent, struct str name, unsigned n,
                        struct attempt *ret, unsigned *ret_n, struct err *e)
{
    struct str body;
    uint64_t wait;
    int r;

    r = body_of(f, agent, &body, e);
    if (r < 0)
        return r;
    for (unsigned number = 1;; number++) {
        r = attempt_make(f->b, agent, body, f->deadline_ms, f->req->sink, f->a, ret, e);
        if (r < 0)
            return r;
        note_attempt(f, name, number, ret);
        *ret_n = number;
        if (ret->type == ERROR_NONE || ret->begun || !ret->retriable || number >= n)
            return 0;
        wait = wait_after(f->b, number, ret->retry_after_ms);
        if (f->deadline_ms != DEADLINE_NONE && now_ms() + wait >= f->deadline_ms)
            return 0;
        r = fiber_sleep(wait, e);
        if (r < 0)
            return r;
    }
}

static void note_outcome(struct flow *f, struct str name, const struct attempt *last,
                         double spent_ms, unsigned n_attempts)
{
    struct bridge *b = f->b;
    struct agent_entry *entry = agents_find(&b->agents, name);
    struct tracked *one;
    bool moved;

    if (!entry)
        return; /* removed while it was asked */
    one = entry->tracked;
    b->tracker.recover_after = b->conf->recover_after;
    if (last->type == ERROR_NONE) {
        moved = tracker_success(&b->tracker, one, last->latency_ms);
    } else {
        moved =
            tracker_failure(&b->tracker, one, last->type, last->error, spent_ms, n_attempts - 1);
        if (one->health.status == HEALTH_UNREACHABLE)
            one->trial_ms = now_ms() + (uint64_t)b->conf->half_open_ms;
    }
    if (moved)
        log_info("agent changed state", "agent", LOG_STR(one->id), "status",
                 LOG_STR(health_status_name(one->health.status)), "error",
                 LOG_STR(error_type_name(last->type)));
    f->health_moved |= moved;
    health_touch(b);
}

/* Take what the agent's last attempt gave into the result. */
static void take_outcome(struct flow *f, size_t i, const struct attempt *last)
{
    struct call_result *ret = f->ret;

    ret->retried |= f->tried;
    f->tried = true;
    ret->retry_count = i;
    ret->type = last->type;
    if (last->type == ERROR_NONE) {
        ret->success = true;
        ret->agent_name = ret->chain[i];
        ret->response = last->text;
        ret->error = (struct str){ 0 };
        return;
    }
    ret->error =
        str_of(arena_printf(f->a, "All agents failed. Last error: " STR_FMT, STR_ARG(last->error)));
}

/* Ask the i-th of the chain. *ret_stop: no other agent is to be asked. */
CO static int try_agent(struct flow *f, size_t i, unsigned n, bool *ret_stop, struct err *e)
{
    struct str name = f->ret->chain[i];
    const struct agent_entry *entry = agents_find(&f->b->agents, name);
    AUTO(agent_unref) struct agent *agent = agent_ref(entry->agent);
    uint64_t began_us = now_us();
    struct attempt last;
    unsigned made = 0;
    int r;

    r = ask_agent(f, agent, name, n ? n : (unsigned)agent->max_retries, &last, &made, e);
    if (r < 0)
        return r;
    if (!last.hurried || made > 1)
        note_outcome(f, name, &last, (double)(now_us() - began_us) / 1000, made);
    take_outcome(f, i, &last);
    *ret_stop = f->ret->success || last.begun || is_late(f);
    return 0;
}

/*
 * Is the agent at its own place to be left for later, because it is known to be unreachable? When
 * its time has come one call makes the trial, with one attempt.
 */
static bool is_open_circuit(struct flow *f, struct tracked *one, unsigned *ret_n)
{
    *ret_n = 0;
    if (one->health.status != HEALTH_UNREACHABLE)
        return false;
    if (now_ms() < one->trial_ms)
        return true;
    one->trial_ms = now_ms() + (uint64_t)f->b->conf->half_open_ms;
    if (f->ret->n_chain > 1)
        *ret_n = 1;
    return false;
}

CO static int run_chain(struct flow *f, struct err *e)
{
    size_t n = f->ret->n_chain;
    bool *later = arena_alloc(f->a, n * sizeof(*later)), stop = false;
    int r;

    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n && !stop; i++) {
            const struct agent_entry *entry = agents_find(&f->b->agents, f->ret->chain[i]);
            unsigned attempts = 0;

            if (!entry || (pass == 1 && !later[i]))
                continue;
            if (pass == 0)
                later[i] = is_open_circuit(f, entry->tracked, &attempts);
            if (pass == 0 && later[i])
                continue;
            r = try_agent(f, i, attempts, &stop, e);
            if (r < 0)
                return r;
        }
    }
    f->ret->latency_ms = elapsed_ms(f);
    if (!f->tried) {
        f->ret->latency_ms = 0;
        f->ret->error = STR("No valid agents in fallback chain");
        f->ret->type = ERROR_UNKNOWN;
    }
    return 0;
}

/* --- the turn around it --- */

int64_t bridge_sids(struct bridge *b, int64_t n)
{
    int64_t sid = (int64_t)((uint64_t)wall_us() << 12 | b->sid_salt);

    if (sid <= b->last_sid)
        sid = b->last_sid + 1;
    b->last_sid = sid + n - 1;
    return sid;
}

static void prepare_turn(struct flow *f)
{
    const struct bridge_conf *conf = f->b->conf;
    const struct call_request *req = f->req;

    f->turn = (struct turn){
        .session_id = req->session_id,
        .user_id = req->user_id,
        .prompt = req->prompt,
        .metadata = req->metadata,
        .key = req->key,
        .hash = req->hash,
        .now_us = wall_us(),
        .messages_max = conf->messages_max,
        .arena = f->a,
    };
    if (!req->session_id.n)
        return;
    f->turn.new_sid = bridge_sids(f->b, 1);
    if (wants_context(f)) {
        f->turn.context_messages = conf->context_messages;
        f->turn.context_bytes = conf->context_bytes;
    }
}

CO static int end_turn(struct flow *f, struct err *e)
{
    bool keep = f->ret->success || !f->req->forget_failure;
    const struct turn_end end = {
        .session_id = f->req->session_id,
        .sid = f->turn.sid,
        .success = f->ret->success,
        .reply = f->ret->response,
        .agent = f->ret->agent_name,
        .messages_max = f->b->conf->messages_max,
        .now_us = wall_us(),
        .key = keep ? f->req->key : STR(""),
        .hash = f->req->hash,
        .result = f->ret->text,
    };

    if (!end.session_id.n && !end.key.n)
        return 0;
    return turn_end(f->b->store, &end, e);
}

/* A change of health is durable before anybody hears of the call that caused it. */
CO static int flush_health(struct flow *f, struct err *e)
{
    struct err ignored;

    if (!f->health_moved || !store_ok(f->b->store))
        return 0;
    if (health_flush(f->b, &ignored) == -ERR_CANCELED) {
        *e = ignored;
        return -ERR_CANCELED;
    }
    return 0; /* else the flusher tries again */
}

/*
 * The key has a result: it is the answer, to the letter. Who listens to a stream gets its text as
 * one piece. Of another outcome there is nothing to take.
 */
CO static int take_recorded(struct flow *f, struct err *e)
{
    const struct call_sink *sink = f->req->sink;
    struct str text, agent;
    json_t *result;
    int r;

    if (f->turn.outcome != TURN_RECORDED)
        return 0;
    f->ret->text = f->turn.recorded;
    r = json_parse(f->turn.recorded, RESULT_DEPTH, f->a, &result, NULL, e);
    if (r < 0)
        return err_wrap(e, "recorded result");
    text = json_member_str(result, "response");
    agent = json_member_str(result, "agent_name");
    f->ret->success = json_is_true(json_object_get(result, "success"));
    if (!sink || !text.n)
        return 0;
    r = sink->begin ? sink->begin(sink->arg, e) : 0;
    return r < 0 ? r : sink->delta(sink->arg, agent, text, e);
}

/* Commit 1. *ret_go: there is something to ask. */
CO static int begin_turn(struct flow *f, struct lane *lane, bool *ret_go, struct err *e)
{
    struct bridge *b = f->b;
    int r = 0;

    *ret_go = true;
    prepare_turn(f);
    if (f->turn.session_id.n || f->turn.key.n)
        r = turn_begin(b->store, &f->turn, e);
    if (r < 0)
        return r;
    if (f->turn.outcome != TURN_BEGUN) {
        *ret_go = false;
        return take_recorded(f, e);
    }
    if (lane) {
        lane->sid = f->turn.sid;
        lane->seq = f->turn.seq;
    }
    b->n_sessions += f->turn.created;
    if (!f->turn.created || b->n_sessions <= b->conf->sessions_max)
        return 0;
    r = sessions_drop_surplus(b, e);
    if (r < 0 && r != -ERR_CANCELED) {
        log_warn("sessions over the bound are not dropped", "error", LOG_ERR(e));
        return 0; /* the question is stored: the call goes on, the next one tries again */
    }
    return r;
}

/* 0 with the result, or with the outcome of the turn's beginning. */
CO static int run_turn(struct flow *f, struct lane *lane, struct err *e)
{
    const struct call_sink *sink = f->req->sink;
    bool go;
    int r;

    r = begin_turn(f, lane, &go, e);
    if (r < 0 || !go)
        return r;
    if (sink && sink->begin) {
        r = sink->begin(sink->arg, e);
        if (r < 0)
            return r;
    }
    f->ask = (struct ask){
        .prompt = f->req->prompt,
        .session_id = f->req->session_id,
        .earlier = f->turn.earlier,
        .n_earlier = f->turn.n_earlier,
        .stream = sink != NULL,
    };
    r = run_chain(f, e);
    if (r == 0)
        r = call_result_write(f->ret, f->a, e);
    if (r == 0)
        r = flush_health(f, e);
    return r < 0 ? r : end_turn(f, e);
}

/* Its turn did not come within the deadline of calls: nothing is stored, and nobody was asked. */
static int late_result(struct flow *f, struct err *e)
{
    f->ret->latency_ms = elapsed_ms(f);
    f->ret->type = ERROR_TIMEOUT;
    f->ret->error =
        str_of(arena_printf(f->a, "Request timeout after %gs: an earlier call is still running",
                            (double)f->b->conf->call_deadline_ms / 1000));
    return call_result_write(f->ret, f->a, e);
}

CO static int run_in_lanes(struct flow *f, struct err *e)
{
    struct bridge *b = f->b;
    struct lane *key = NULL, *session = NULL;
    int r = 0;

    if (f->req->key.n)
        r = lane_enter(&b->keys, f->req->key, f->deadline_ms, &key, e);
    if (r == 0 && f->req->session_id.n)
        r = lane_enter(&b->sessions, f->req->session_id, f->deadline_ms, &session, e);
    if (r == 0)
        r = run_turn(f, session, e);
    else if (r == -ERR_TIMEOUT && f->deadline_ms != f->req->deadline_ms)
        r = late_result(f, e);
    lane_leave(&b->sessions, session);
    lane_leave(&b->keys, key);
    return r;
}

/* --- the call --- */

/* A result of an agent nobody registered; the key, if any, may still have its own. */
CO static int unknown_agent(struct flow *f, struct err *e)
{
    int r;

    if (f->req->key.n) {
        prepare_turn(f);
        f->turn.session_id = STR("");
        r = turn_begin(f->b->store, &f->turn, e);
        if (r < 0)
            return r;
        if (f->turn.outcome != TURN_BEGUN)
            return take_recorded(f, e);
    }
    f->ret->error =
        str_of(arena_printf(f->a, "Agent '" STR_FMT "' not registered", STR_ARG(f->req->agent)));
    f->ret->type = ERROR_UNKNOWN;
    return call_result_write(f->ret, f->a, e);
}

static void count(const struct flow *f, int r)
{
    unsigned label = r < 0             ? METRIC_CALL_ABORTED
                     : f->ret->success ? METRIC_CALL_SUCCESS
                                       : METRIC_CALL_FAILURE;

    metric_add(&bridge_m_calls, label, 1);
    metric_observe(&bridge_m_call_time, 0, (int64_t)(now_us() - f->began_us));
}

CO int bridge_call(struct bridge *b, const struct call_request *req, struct arena *a,
                   struct call_result *ret, struct err *e)
{
    const struct agent_entry *entry = agents_find(&b->agents, req->agent);
    struct flow f = {
        .b = b,
        .req = req,
        .a = a,
        .ret = ret,
        .began_us = now_us(),
        .deadline_ms = deadline_min(deadline_in(b->conf->call_deadline_ms), req->deadline_ms),
    };
    int r;

    *ret = (struct call_result){
        .agent_name = arena_str(a, req->agent),
        .type = ERROR_NONE,
    };
    b->n_calls++;
    if (entry) {
        plan(&f, entry->agent);
        r = run_in_lanes(&f, e);
    } else {
        r = unknown_agent(&f, e);
    }
    b->n_calls--;
    count(&f, r);
    if (r < 0)
        return r;
    if (f.turn.outcome == TURN_FOREIGN)
        return CALL_FOREIGN;
    return f.turn.outcome == TURN_MISMATCH ? CALL_MISMATCH : 0;
}
