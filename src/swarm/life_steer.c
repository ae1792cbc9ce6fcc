/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_steer.c — AgentLifecycleWorkflow.pauseResumeWorkflow.
 *
 * Pause: captureAgentState, then updatePauseResumeStatus writes the checkpoint and the status in
 * one transaction. Resume: restoreAgentState reads the checkpoint of this pause, then
 * updatePauseResumeStatus writes configuration, heartbeat settings and status, in one transaction
 * too: what was set while it was paused gives way. A checkpoint older than the pause is not one of
 * it: who paused without preserveState keeps the settings as they are.
 */
#include "base/id.h"
#include "swarm/life_int.h"

/* clang-format off */
static const struct sql sql_keep = {
    "checkpoint keep",
    "INSERT INTO agent_state_checkpoints (id, agent_id, state, workflow_uuid, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    NULL,
};
static const struct sql sql_latest = {
    "checkpoint latest",
    "SELECT state FROM agent_state_checkpoints WHERE agent_id = ?1 AND created_at >= ?2"
    " ORDER BY created_at DESC, id DESC LIMIT 1",
    NULL,
};
/* clang-format on */

struct steer {
    struct workflow *w;
    struct life *life;
    const json_t *in;
    struct str agent, action;
    struct arena arena;
    struct agent_info row;
    struct str state; /* JSON; {0}: none */
    const json_t *restored;
    enum err_code code; /* of a failure */
    char why[sizeof(((struct err *)0)->msg)];
    int64_t at_ms;
    bool pause, preserve;
};

static json_t *text_json(struct str s)
{
    return s.p ? json_stringn(s.p, s.n) : json_null();
}

static json_t *time_json(int64_t ms)
{
    char text[TIME_TEXT];

    if (!ms)
        return json_null();
    time_format_z(ms * 1000, text);
    return json_string(text);
}

static int capture_row(const struct agent_info *row, int64_t now, struct arena *a, struct str *ret,
                       struct err *e)
{
    json_t *state;
    int r;

    state = json_pack("{s:o, s:b, s:o, s:o, s:o, s:s, s:o}", "configuration",
                      life_json(row->configuration, json_object()), "heartbeatEnabled",
                      row->heartbeat, "heartbeatInterval", text_json(row->interval),
                      "heartbeatChecklist", life_json(row->checklist, json_null()),
                      "nextHeartbeatAt", time_json(row->next_beat_ms), "previousStatus",
                      agent_status_names[row->status], "capturedAt", time_json(now));
    r = json_text(state, LIFE_PAYLOAD, a, ret, e);
    json_decref(state);
    return r;
}

static int keep(struct store_tx *tx, const struct agent_info *row, struct str state,
                struct str workflow, int64_t now, struct err *e)
{
    char id[UUID_TEXT] = "";
    struct sql_arg args[] = {
        SQL_NULL, SQL_STR(row->id), SQL_STR(state), SQL_STR(workflow), SQL_INT(now),
    };

    uuid_v7(id); /* sorts by time, for two in one millisecond */
    args[0] = SQL_Z(id);
    return store_run(tx, &sql_keep, args, LEN(args), NULL, NULL, e);
}

static int find_agent(struct store_tx *tx, struct steer *p, struct err *e)
{
    int r = life_find_tx(tx, p->agent, &p->arena, &p->row, e);

    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "Agent not found: " STR_FMT, STR_ARG(p->agent));
    return r < 0 ? r : 0;
}

static int capture(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct steer *p = arg;
    struct str state = { 0 };
    int r = find_agent(tx, p, e);

    if (r == 0)
        r = capture_row(&p->row, swarm_now(), &p->arena, &state, e);
    return r < 0 ? r : buf_add_str(out, state, e);
}

static void set_paused(struct agent_info *row, void *arg)
{
    const struct steer *p = arg;

    row->paused_ms = row->updated_ms;
    row->workflow = str_of(workflow_id(p->w));
}

/* The state may have changed since it was captured, so what is kept is the state that the status
 * takes the place of. */
static int to_paused(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct steer *p = arg;
    const struct life_step step = { p->agent, OP_PAUSE, swarm_now(), set_paused, p };
    struct str state = { 0 };
    struct agent_info before;
    int r;

    r = find_agent(tx, p, e);
    before = p->row;
    if (r == 0)
        r = life_move_tx(tx, &step, &p->arena, &p->row, e);
    if (r == 0 && p->row.version != before.version + 1)
        return err_set(e, ERR_CONFLICT, "the agent is being changed");
    if (r == 0 && p->preserve) {
        r = capture_row(&before, step.now_ms, &p->arena, &state, e);
        if (r == 0)
            r = keep(tx, &before, state, str_of(workflow_id(p->w)), step.now_ms, e);
    }
    if (r < 0)
        return r;
    r = buf_printf(out, e, "{\"at\":%lld,\"state\":", (long long)step.now_ms);
    if (r == 0)
        r = buf_add_str(out, state.n ? state : STR("null"), e);
    return r < 0 ? r : buf_add_z(out, "}", e);
}

static int take_state(struct store_row *row, void *arg, struct err *e)
{
    struct steer *p = arg;

    p->state = arena_str(&p->arena, row_str(row, 0));
    return 0;
}

static int restore(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct steer *p = arg;
    int r = find_agent(tx, p, e);

    p->state = (struct str){ 0 };
    if (r == 0) {
        const struct sql_arg args[] = { SQL_STR(p->agent), SQL_INT(p->row.paused_ms) };

        r = store_run(tx, &sql_latest, args, LEN(args), take_state, p, e);
    }
    return r < 0 ? r : buf_add_str(out, p->state.n ? p->state : STR("{}"), e);
}

/* A member of the checkpoint as text of the row; `otherwise` where the checkpoint has none. */
static struct str kept(struct steer *p, const char *name, struct str otherwise)
{
    const json_t *value = json_object_get(p->restored, name);
    struct str text = { 0 };
    struct err e;

    if (!value)
        return otherwise;
    if (json_is_null(value))
        return (struct str){ 0 };
    if (json_is_string(value))
        return json_member_str(p->restored, name);
    return json_text(value, LIFE_PAYLOAD, &p->arena, &text, &e) < 0 ? otherwise : text;
}

static int64_t kept_next(const struct steer *p)
{
    struct str text = json_member_str(p->restored, "nextHeartbeatAt");
    int64_t us = 0;
    struct err e;

    return text.n && time_parse(text, &us, &e) == 0 ? us / 1000 : 0;
}

static void set_running(struct agent_info *row, void *arg)
{
    struct steer *p = arg;
    const json_t *enabled = json_object_get(p->restored, "heartbeatEnabled");
    int64_t saved = kept_next(p), every;

    row->configuration = kept(p, "configuration", row->configuration);
    row->interval = kept(p, "heartbeatInterval", row->interval);
    row->checklist = kept(p, "heartbeatChecklist", row->checklist);
    if (enabled)
        row->heartbeat = json_is_true(enabled);
    every = life_interval_ms(row->interval);
    row->next_beat_ms = !row->heartbeat || !every ? 0 : row->updated_ms + every;
    if (row->next_beat_ms && saved > row->next_beat_ms)
        row->next_beat_ms = saved;
    row->paused_ms = 0;
    row->workflow = str_of(workflow_id(p->w));
}

static int to_running(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct steer *p = arg;
    const struct life_step step = { p->agent, OP_RESUME, swarm_now(), set_running, p };
    int r = find_agent(tx, p, e);

    if (r == 0)
        r = life_move_tx(tx, &step, &p->arena, &p->row, e);
    return r < 0 ? r : buf_printf(out, e, "{\"at\":%lld}", (long long)step.now_ms);
}

static CO int pause_steps(struct steer *p, struct buf *out, struct err *e)
{
    int r = 0;

    if (p->preserve)
        r = durable_step_tx(p->w, "captureAgentState", capture, p, NULL, e);
    return r < 0 ? r : durable_step_tx(p->w, "updatePauseResumeStatus", to_paused, p, out, e);
}

static CO int resume_steps(struct steer *p, struct buf *out, struct err *e)
{
    json_t *state = NULL;
    int r;

    r = durable_step_tx(p->w, "restoreAgentState", restore, p, out, e);
    if (r == 0)
        r = json_parse(buf_str(out), 64, &p->arena, &state, NULL, e);
    if (r < 0)
        return r;
    p->restored = state;
    p->state = json_object_size(state) ? arena_str(&p->arena, buf_str(out)) : (struct str){ 0 };
    buf_clear(out);
    return durable_step_tx(p->w, "updatePauseResumeStatus", to_running, p, out, e);
}

static int take_end(struct steer *p, struct str text, struct err *e)
{
    json_t *done;
    int r = json_parse(text, 64, &p->arena, &done, NULL, e);

    if (r < 0)
        return r;
    p->at_ms = json_integer_value(json_object_get(done, "at"));
    if (p->pause && json_is_object(json_object_get(done, "state")))
        r = json_text(json_object_get(done, "state"), LIFE_PAYLOAD, &p->arena, &p->state, e);
    return r;
}

/* The code is for the routes over it: they answer 404 and 409 by it. */
static int note_failure(void *arg, struct buf *out, struct err *e)
{
    return buf_printf(out, e, "{\"at\":%lld}", (long long)swarm_now());
}

static CO int answer(struct steer *p, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    json_t *result;
    int r;

    result =
        json_pack("{s:s%, s:s, s:s}", "agentId", p->agent.p ? p->agent.p : "", p->agent.n, "action",
                  p->pause ? "pause" : "resume", "status", *p->why ? "failed" : "success");
    if (*p->why) {
        json_object_set_new(result, "error", json_string(p->why));
        json_object_set_new(result, "code", json_string(err_name(p->code)));
    } else if (p->preserve) {
        json_object_set_new(result, "state", life_json(p->state, json_object()));
    }
    json_object_set_new(result, "timestamp", json_integer(p->at_ms));
    buf_init(&out, LIFE_PAYLOAD);
    r = json_write(result, &out, e);
    json_decref(result);
    return r < 0 ? r : durable_return(p->w, buf_str(&out), e);
}

static CO int steer(struct steer *p, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    int r;

    buf_init(&out, LIFE_PAYLOAD);
    r = p->pause ? pause_steps(p, &out, e) : resume_steps(p, &out, e);
    if (r < 0 && life_left(r))
        return r;
    if (r < 0) {
        p->code = e->code;
        fmt_z(p->why, sizeof(p->why), "%s", e->msg);
        buf_clear(&out);
        r = durable_step(p->w, "recordFailure", NULL, note_failure, p, &out, e);
    }
    if (r == 0)
        r = take_end(p, buf_str(&out), e);
    if (r < 0)
        return r;
    if (!*p->why)
        life_touch(p->life, p->agent);
    return answer(p, e);
}

CO int life_steer_flow(struct workflow *w, void *ctx, struct err *e)
{
    struct steer p = { .w = w, .life = ctx, .in = workflow_arg(w, 0) };
    const json_t *preserve = json_object_get(p.in, "preserveState");
    int r;

    p.agent = json_member_str(p.in, "agentId");
    p.pause = str_eq(json_member_str(p.in, "action"), STR("pause"));
    p.preserve = json_is_true(preserve);
    r = steer(&p, e);
    arena_done(&p.arena);
    return r;
}
