/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_beat.c — AgentLifecycleWorkflow.heartbeatWorkflow: one heartbeat as a record.
 *
 *   0 createHeartbeatExecution    the execution's row; skipped when the agent does not run
 *   1 executeHeartbeatTasks       the checklist goes to the agent's session, as a sure message
 *   2 updateHeartbeatExecution    completed, or failed
 *   3 scheduleNextHeartbeat       last and next, where the agent still runs
 *
 * Input: executionId, agentId, checklist; and of beat.c, slot: the instant it was due at, from
 * which the next one is counted.
 */
#include "swarm/life_int.h"
#include "swarm/mail.h"

/* clang-format off */
static const struct sql sql_begin = {
    "beat begin",
    "INSERT INTO agent_heartbeat_executions (id, agent_id, status, checklist_items, started_at,"
    " workflow_uuid, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, ?5)"
    " ON CONFLICT (id) DO UPDATE SET status = excluded.status, checklist_items = excluded.checklist_items,"
    " started_at = excluded.started_at, workflow_uuid = excluded.workflow_uuid, updated_at = excluded.updated_at,"
    " completed_at = NULL, error_message = NULL",
    "INSERT INTO agent_heartbeat_executions (id, agent_id, status, checklist_items, started_at,"
    " workflow_uuid, created_at, updated_at) VALUES (?1, ?2, ?3::heartbeat_execution_status, ?4, ?5, ?6, ?5, ?5)"
    " ON CONFLICT (id) DO UPDATE SET status = excluded.status, checklist_items = excluded.checklist_items,"
    " started_at = excluded.started_at, workflow_uuid = excluded.workflow_uuid, updated_at = excluded.updated_at,"
    " completed_at = NULL, error_message = NULL",
};
static const struct sql sql_end = {
    "beat end",
    "UPDATE agent_heartbeat_executions SET status = ?2, checklist_results = ?3, error_message = ?4,"
    " completed_at = ?5, duration_seconds = (?5 - started_at) / 1000.0, updated_at = ?5 WHERE id = ?1",
    "UPDATE agent_heartbeat_executions SET status = ?2::heartbeat_execution_status, checklist_results = ?3,"
    " error_message = ?4, completed_at = ?5, duration_seconds = (?5 - started_at) / 1000.0, updated_at = ?5"
    " WHERE id = ?1",
};
/* clang-format on */

struct beating {
    struct workflow *w;
    struct life *life;
    const json_t *in, *list; /* list: the checklist; NULL: none */
    struct str agent, execution;
    struct arena arena;
    struct agent_info row;
    struct str session, name; /* as step 0 has recorded them */
    struct str result;        /* of step 1 */
    char why[sizeof(((struct err *)0)->msg)];
    int64_t started_ms, ended_ms;
    bool begun, skipped;
};

static struct sql_arg list_arg(struct beating *b)
{
    struct str text;
    struct err e;

    if (!b->list || json_text(b->list, LIFE_TEXT, &b->arena, &text, &e) < 0)
        return SQL_NULL;
    return SQL_STR(text);
}

static int begin(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct beating *b = arg;
    int64_t now = swarm_now();
    json_t *json;
    int r;

    if (b->agent.n == 0 || b->execution.n == 0)
        return err_set(e, ERR_INVALID, "Invalid heartbeat request: missing required fields");
    r = life_find_tx(tx, b->agent, &b->arena, &b->row, e);
    if (r <= 0)
        return r < 0 ? r
                     : err_set(e, ERR_NOT_FOUND, "Agent not found: " STR_FMT, STR_ARG(b->agent));
    {
        const bool runs = b->row.status == AGENT_RUNNING;
        const struct sql_arg args[] = {
            SQL_STR(b->execution), SQL_STR(b->agent), SQL_Z(runs ? "running" : "skipped"),
            list_arg(b),           SQL_INT(now),      SQL_Z(workflow_id(b->w)),
        };

        r = store_run(tx, &sql_begin, args, LEN(args), NULL, NULL, e);
        json = json_pack("{s:b, s:I, s:s, s:s%, s:s%}", "skipped", !runs, "at", (json_int_t)now,
                         "state", agent_status_names[b->row.status], "session",
                         b->row.session.p ? b->row.session.p : "", b->row.session.n, "name",
                         b->row.name.p, b->row.name.n);
    }
    if (r >= 0)
        r = json_write(json, out, e);
    json_decref(json);
    return r;
}

static int take_begun(struct beating *b, struct str text, struct err *e)
{
    json_t *done;
    int r = json_parse(text, 4, &b->arena, &done, NULL, e);

    if (r < 0)
        return r;
    b->begun = true;
    b->skipped = json_is_true(json_object_get(done, "skipped"));
    b->started_ms = json_integer_value(json_object_get(done, "at"));
    b->session = json_member_str(done, "session");
    b->name = json_member_str(done, "name");
    if (b->skipped)
        fmt_z(b->why, sizeof(b->why), "Agent is %.32s",
              json_string_value(json_object_get(done, "state")));
    return 0;
}

static CO int say(struct beating *b, struct err *e)
{
    AUTO(buf_done) struct buf text = { 0 }, meta = { 0 };
    struct mail_in in = { .from = STR("backend-api"), .to = b->session };
    struct mail_out sent;
    int r;

    buf_init(&text, LIFE_TEXT);
    buf_init(&meta, 4 * KIB);
    r = life_text_beat(b->name.p, b->list, &text, e);
    if (r == 0)
        r = buf_add_z(&meta, "{\"kind\":\"heartbeat\",\"agentId\":", e);
    if (r == 0)
        r = json_write_str(&meta, b->agent, e);
    if (r == 0)
        r = buf_add_z(&meta, ",\"executionId\":", e);
    if (r == 0)
        r = json_write_str(&meta, b->execution, e);
    if (r == 0)
        r = buf_add_z(&meta, "}", e);
    in.content = buf_str(&text);
    in.metadata = buf_str(&meta);
    in.workflow = in.id = str_of(arena_printf(&b->arena, "msg:%.240s", workflow_id(b->w)));
    return r < 0 ? r : mail_send(b->life->s->mail, &in, &sent, e);
}

static CO int tasks(void *arg, struct buf *out, struct err *e)
{
    struct beating *b = arg;
    uint64_t since = now_ms();
    json_t *json;
    int r = 0;

    if (json_array_size(b->list) && b->session.n)
        r = say(b, e);
    if (r < 0)
        return r;
    json = json_pack("{s:I, s:o, s:I}", "tasksCompleted", (json_int_t)json_array_size(b->list),
                     "checklist", b->list ? json_deep_copy(b->list) : json_array(), "executionTime",
                     (json_int_t)(now_ms() - since));
    r = json_write(json, out, e);
    json_decref(json);
    return r;
}

static int end_execution(struct store_tx *tx, struct beating *b, const char *status,
                         struct buf *out, struct err *e)
{
    int64_t now = swarm_now();
    const struct sql_arg args[] = {
        SQL_STR(b->execution),
        SQL_Z(status),
        b->result.n ? SQL_STR(b->result) : SQL_NULL,
        *b->why ? SQL_Z(b->why) : SQL_NULL,
        SQL_INT(now),
    };
    int r = store_run(tx, &sql_end, args, LEN(args), NULL, NULL, e);

    return r < 0 ? r : buf_printf(out, e, "{\"at\":%lld}", (long long)now);
}

static int complete(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    return end_execution(tx, arg, "completed", out, e);
}

static void count_error(struct agent_info *row, void *arg)
{
    const struct beating *b = arg;

    row->error = str_of(b->why);
    row->error_count++;
    row->last_error_ms = row->updated_ms;
}

/* The agent goes on running. */
static int fail(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct beating *b = arg;
    const struct life_step step = { b->agent, OP_SETTINGS, swarm_now(), count_error, b };
    int r = 0;

    if (b->begun) {
        r = life_move_tx(tx, &step, &b->arena, &b->row, e);
        if (r == -ERR_NOT_FOUND)
            r = 0;
    }
    return r < 0 ? r : end_execution(tx, b, "failed", out, e);
}

/* From the slot it was due at, or from now when it was asked for. */
static void next_slot(struct agent_info *row, void *arg)
{
    const struct beating *b = arg;
    int64_t every = life_interval_ms(row->interval);
    int64_t slot = json_integer_value(json_object_get(b->in, "slot"));

    row->last_beat_ms = row->updated_ms;
    if (!row->heartbeat || !every)
        return;
    if (slot <= 0 || slot > row->updated_ms)
        slot = row->updated_ms;
    row->next_beat_ms = slot + ((row->updated_ms - slot) / every + 1) * every;
}

static int schedule(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct beating *b = arg;
    const struct life_step step = { b->agent, OP_HEARTBEAT, swarm_now(), next_slot, b };
    int r = life_move_tx(tx, &step, &b->arena, &b->row, e);

    if (r == -ERR_CONFLICT || r == -ERR_NOT_FOUND)
        return buf_add_z(out, "null", e); /* stopped or paused meanwhile: no next one */
    return r < 0 ? r
                 : buf_printf(out, e, "{\"nextHeartbeatAt\":%lld}", (long long)b->row.next_beat_ms);
}

static int64_t time_in(struct beating *b, struct str text)
{
    json_t *done;
    struct err e;

    if (json_parse(text, 4, &b->arena, &done, NULL, &e) < 0)
        return 0;
    return json_integer_value(json_object_get(done, "at"));
}

static CO int steps(struct beating *b, struct err *e)
{
    const struct durable_retry retry = { .tries = 3 };
    AUTO(buf_done) struct buf out = { 0 };
    int r;

    buf_init(&out, LIFE_PAYLOAD);
    r = durable_step_tx(b->w, "createHeartbeatExecution", begin, b, &out, e);
    if (r == 0)
        r = take_begun(b, buf_str(&out), e);
    if (r < 0 || b->skipped)
        return r;
    buf_clear(&out);
    r = durable_step(b->w, "executeHeartbeatTasks", &retry, tasks, b, &out, e);
    if (r < 0)
        return r;
    b->result = arena_str(&b->arena, buf_str(&out));
    buf_clear(&out);
    r = durable_step_tx(b->w, "updateHeartbeatExecution", complete, b, &out, e);
    if (r < 0)
        return r;
    b->ended_ms = time_in(b, buf_str(&out));
    return durable_step_tx(b->w, "scheduleNextHeartbeat", schedule, b, NULL, e);
}

static CO int answer(struct beating *b, const char *status, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    json_t *result;
    int r;

    result = json_pack("{s:s%, s:s%, s:s, s:I, s:o, s:I}", "executionId",
                       b->execution.p ? b->execution.p : "", b->execution.n, "agentId",
                       b->agent.p ? b->agent.p : "", b->agent.n, "status", status, "duration",
                       (json_int_t)(b->ended_ms - b->started_ms), "result",
                       life_json(b->result, json_null()), "timestamp", (json_int_t)b->ended_ms);
    if (*b->why)
        json_object_set_new(result, "error", json_string(b->why));
    buf_init(&out, LIFE_PAYLOAD);
    r = json_write(result, &out, e);
    json_decref(result);
    return r < 0 ? r : durable_return(b->w, buf_str(&out), e);
}

static CO int beating(struct beating *b, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    const char *status = "completed";
    int r = steps(b, e);

    if (r < 0 && life_left(r))
        return r;
    if (r < 0) {
        buf_init(&out, LIFE_TEXT);
        status = "failed";
        fmt_z(b->why, sizeof(b->why), "%s", e->msg);
        r = durable_step_tx(b->w, "updateHeartbeatExecution", fail, b, &out, e);
        b->ended_ms = r < 0 ? 0 : time_in(b, buf_str(&out));
    } else if (b->skipped) {
        status = "skipped";
        b->ended_ms = b->started_ms;
    }
    if (r < 0)
        return r;
    if (!b->begun)
        b->started_ms = b->ended_ms;
    if (b->begun)
        life_touch(b->life, b->agent);
    return answer(b, status, e);
}

CO int life_beat_flow(struct workflow *w, void *ctx, struct err *e)
{
    struct beating b = { .w = w, .life = ctx, .in = workflow_arg(w, 0) };
    int r;

    b.agent = json_member_str(b.in, "agentId");
    b.execution = json_member_str(b.in, "executionId");
    b.list = json_object_get(b.in, "checklist");
    if (!json_is_array(b.list))
        b.list = NULL;
    r = beating(&b, e);
    arena_done(&b.arena);
    return r;
}
