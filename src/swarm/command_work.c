/* SPDX-License-Identifier: MIT */
/*
 * swarm/command_work.c — work on an issue: its tracker, its agent, what is said about it; and the
 * end of that. The tracker belongs to the workflow that began it: who finds that it was stopped, or
 * begun again by another command, takes its own agent away and leaves the tracker alone.
 */
#include <inttypes.h>

#include "swarm/command_int.h"

/* --- trackers --- */

static void set_text(json_t *j, const char *key, struct str s)
{
    json_object_set_new(j, key, s.p ? json_stringn(s.p, s.n) : json_null());
}

/* {"moved":bool,"state":…,"agent_id":…}; without a row the state is null. */
static int move_body(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct flow *f = arg;
    AUTO(json_decref) json_t *j = json_object();
    struct tracker_change change = f->change;
    struct arena a = { 0 };
    struct tracker t = { 0 };
    int r;

    change.issue = f->issue;
    change.now_ms = swarm_now();
    r = tracker_move_tx(tx, &change, &a, &t, e);
    if (r >= 0) {
        json_object_set_new(j, "moved", json_boolean(r == 0));
        set_text(j, "state",
                 r == TRACKER_NONE ? (struct str){ 0 } : str_of(tracker_state_names[t.state]));
        set_text(j, "agent_id", t.agent);
        r = json_write(j, out, e);
    }
    arena_done(&a);
    return r;
}

static CO int move(struct flow *f, const char *step, const struct tracker_change *change,
                   json_t **ret, struct err *e)
{
    f->change = *change;
    return flow_step_tx(f, step, move_body, ret, e);
}

static bool moved(const json_t *outcome)
{
    return json_is_true(json_object_get(outcome, "moved"));
}

/* --- agents --- */

/* agent:issue-<N>:main; when an earlier agent of this issue has that key, one with a number. */
static CO int create(struct flow *f, struct agent_info *agent, struct err *e)
{
    const struct swarm_settings *settings = f->c->s->settings;
    struct str key = str_of(workflow_id(f->w));
    struct agent_new in = {
        .name = str_of(arena_printf(&f->a, "issue-%" PRId64, f->issue)),
        .model = str_of(arena_strdup(&f->a, settings->agent_model)),
        .persona =
            str_of(arena_printf(&f->a, "Works on issue #%" PRId64 "%s%s.", f->issue,
                                *settings->default_repo ? " of " : "", settings->default_repo)),
        .session = str_of(arena_printf(&f->a, "agent:issue-%" PRId64 ":main", f->issue)),
    };
    int r;

    r = life_create(f->c->s->life, &in, key, deadline_in(SPAWN_MS), &f->a, agent, e);
    if (r != -ERR_CONFLICT)
        return r;
    in.session = (struct str){ 0 };
    return life_create(f->c->s->life, &in, key, deadline_in(SPAWN_MS), &f->a, agent, e);
}

/* The key makes a repeat, after a failure or a crash, find the agent that was made. */
static CO int spawn_body(void *arg, struct buf *out, struct err *e)
{
    struct flow *f = arg;
    AUTO(json_decref) json_t *j = json_object();
    struct agent_info agent = { 0 };
    int r;

    r = create(f, &agent, e);
    if (r == 0 && agent.status == AGENT_FAILED && f->tries)
        r = life_provision(f->c->s->life, agent.id, deadline_in(SPAWN_MS), &f->a, &agent, e);
    f->tries++;
    if (r < 0)
        return r;
    if (agent.status == AGENT_FAILED && f->tries < SPAWN_TRIES)
        return err_set(e, ERR_UNAVAILABLE, STR_FMT, STR_ARG(agent.error));
    set_text(j, "agent_id", agent.id);
    if (agent.status != AGENT_RUNNING)
        set_text(j, "error",
                 agent.status == AGENT_FAILED && agent.error.n ? agent.error
                                                               : STR("the agent does not run"));
    return json_write(j, out, e);
}

/* 0 with f->agent; 1 with f->error, and f->agent if one was made. */
static CO int spawn(struct flow *f, struct err *e)
{
    const struct durable_retry retry = { .tries = SPAWN_TRIES, .jitter = 0.1 };
    json_t *j;
    int r = flow_step(f, "spawnAgent", &retry, spawn_body, &j, e);

    if (flow_left(r))
        return r;
    if (r < 0) {
        f->error = str_of(arena_strdup(&f->a, e->msg));
        return 1;
    }
    f->agent = json_member_str(j, "agent_id");
    f->error = json_member_str(j, "error");
    return f->error.p ? 1 : 0;
}

static CO int cleanup_body(void *arg, struct buf *out, struct err *e)
{
    const struct flow *f = arg;
    int r = life_delete(f->c->s->life, f->agent, e);

    return r < 0 && r != -ERR_NOT_FOUND ? r : buf_add_z(out, "{\"removed\":true}", e);
}

/* Its failure is not the command's. */
static CO int cleanup(struct flow *f, struct err *e)
{
    const struct durable_retry retry = { .tries = 3, .jitter = 0.1 };
    json_t *ignored;
    int r;

    if (!f->agent.n)
        return 0;
    r = flow_step(f, "cleanupAgent", &retry, cleanup_body, &ignored, e);
    return flow_left(r) ? r : 0;
}

/* --- what is said --- */

static CO int tell(struct flow *f, enum notify_event event, struct err *e)
{
    const struct notification n = {
        .event = event, .issue = f->issue, .agent = f->agent, .error = f->error
    };
    AUTO(buf_done) struct buf text = { 0 };
    int r;

    buf_init(&text, 4 * KIB);
    r = notify_text(&n, &text, e);
    return r < 0 ? r
                 : flow_notify(f, notify_event_names[event], arena_str(&f->a, buf_str(&text)), e);
}

/* --- work --- */

static CO int already(struct flow *f, const json_t *outcome)
{
    f->result = flow_result(true, f->issue);
    json_object_set(f->result, "agent_id", json_object_get(outcome, "agent_id"));
    json_object_set(f->result, "state", json_object_get(outcome, "state"));
    json_object_set_new(f->result, "existing", json_true());
    return 0;
}

static CO int failed(struct flow *f, struct err *e)
{
    const struct tracker_change change = {
        .to = TRACKER_FAILED,
        .only = str_of(workflow_id(f->w)),
        .agent = f->agent,
        .error = f->error,
    };
    json_t *outcome;
    int r;

    f->result = flow_result(false, f->issue);
    set_text(f->result, "error", f->error);
    json_object_set_new(f->result, "state", json_string("failed"));
    r = move(f, "workFailed", &change, &outcome, e);
    if (r == 0)
        r = cleanup(f, e);
    if (r == 0 && moved(outcome))
        r = tell(f, NOTIFY_ERROR, e);
    return r;
}

/* Somebody has stopped it while its agent was made. */
static CO int stopped(struct flow *f, const json_t *outcome, struct err *e)
{
    int r = cleanup(f, e);

    f->result = flow_result(false, f->issue);
    set_text(f->result, "error",
             str_of(arena_printf(&f->a, "Work on issue #%" PRId64 " was stopped", f->issue)));
    json_object_set_new(f->result, "state", json_string("stopped"));
    (void)outcome; /* by now it may be another command's work */
    return r;
}

static CO int ready(struct flow *f, struct err *e)
{
    const struct tracker_change change = {
        .to = TRACKER_READY,
        .only = str_of(workflow_id(f->w)),
        .agent = f->agent,
    };
    json_t *outcome;
    int r = move(f, "agentReady", &change, &outcome, e);

    if (r < 0)
        return r;
    if (!moved(outcome))
        return stopped(f, outcome, e);
    f->result = flow_result(true, f->issue);
    set_text(f->result, "agent_id", f->agent);
    json_object_set_new(f->result, "state", json_string("agent_ready"));
    return tell(f, NOTIFY_AGENT_SPAWNED, e);
}

CO int flow_work(struct flow *f, struct err *e)
{
    const struct tracker_change change = {
        .to = TRACKER_SPAWNING,
        .repository = str_of(f->c->s->settings->default_repo),
        .requested_by = f->from,
        .workflow = str_of(workflow_id(f->w)),
    };
    json_t *outcome;
    int r = move(f, "beginWork", &change, &outcome, e);

    if (r < 0)
        return r;
    if (!moved(outcome))
        return already(f, outcome);
    r = spawn(f, e);
    if (r < 0)
        return r;
    return r ? failed(f, e) : ready(f, e);
}

/* --- stop --- */

CO int flow_stop(struct flow *f, struct err *e)
{
    const struct tracker_change change = { .to = TRACKER_STOPPED };
    json_t *outcome;
    bool known;
    int r = move(f, "stopWork", &change, &outcome, e);

    if (r < 0)
        return r;
    known = moved(outcome);
    if (known) {
        f->agent = json_member_str(outcome, "agent_id");
        r = cleanup(f, e);
    }
    f->result = flow_result(true, f->issue);
    set_text(f->result, "message",
             known ? str_of(arena_printf(&f->a, "Stopped work on issue #%" PRId64, f->issue))
                   : STR("No active work found for this issue"));
    return r;
}
