/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_provision.c — AgentLifecycleWorkflow.provisionAgentWorkflow, in the original's steps:
 *
 *   0 validateProvisionRequest    pure
 *   1 storeAgentMetadata          the row, in the transaction of its record
 *   2 connectAgentChannels        says hello to the agent's session, by a sure message of this id
 *   3 startHeartbeatMonitoring    first slot
 *   4 updateAgentStatus           running, or failed
 *
 * A failure is a result ({"status":"failed"}), as callers of the original expect. What was done for
 * the agent until then is taken back: its greeting is dropped, its slot cleared.
 */
#include <string.h>

#include "swarm/life_int.h"
#include "swarm/mail.h"

enum { TRIES = 4 }; /* waits 1, 2 and 4 s */

struct provision {
    struct workflow *w;
    struct life *life;
    const json_t *in;
    struct str agent, mail; /* mail: workflow id of the greeting */
    struct arena arena;
    struct agent_info row; /* as the last step that touched it left it */
    char openclaw_id[160];
    char why[sizeof(((struct err *)0)->msg)];
    bool already, connected, stored;
    int64_t at_ms;
};

static struct str field(const struct provision *p, const char *name)
{
    return json_member_str(p->in, name);
}

/* --- 0 --- */

static int check_heartbeat(const json_t *in, struct err *e)
{
    const json_t *interval = json_object_get(in, "heartbeatInterval");
    const json_t *list = json_object_get(in, "heartbeatChecklist");
    const json_t *conf = json_object_get(in, "configuration");

    if (interval && !json_is_null(interval) &&
        !life_interval_ms(json_member_str(in, "heartbeatInterval")))
        return err_set(e, ERR_INVALID,
                       "Invalid heartbeat interval: must be one of 30s, 1m, 5m, "
                       "15m, 30m, 1h, 2h");
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(e, ERR_INVALID, "Invalid heartbeat checklist: must be a list of texts");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_string(json_array_get(list, i)))
            return err_set(e, ERR_INVALID, "Invalid heartbeat checklist: must be a list of texts");
    if (conf && !json_is_null(conf) && !json_is_object(conf))
        return err_set(e, ERR_INVALID, "Invalid configuration: must be an object");
    return 0;
}

static int validate(void *arg, struct buf *out, struct err *e)
{
    static const char *const required[] = { "agentId", "name", "model", "userId", "sessionKey" };
    const struct provision *p = arg;

    for (size_t i = 0; i < LEN(required); i++)
        if (field(p, required[i]).n == 0)
            return err_set(e, ERR_INVALID, "Invalid provision request: missing required fields");
    for (size_t i = 0; i < LEN(required); i++)
        if (field(p, required[i]).n > 1024)
            return err_set(e, ERR_INVALID, "Invalid provision request: %s is too long",
                           required[i]);
    if (field(p, "sessionKey").n >= MAIL_SESSION || field(p, "agentId").n > 128)
        return err_set(e, ERR_INVALID,
                       "Invalid provision request: agentId or sessionKey is too "
                       "long");
    if (!memchr(field(p, "model").p, '/', field(p, "model").n))
        return err_set(e, ERR_INVALID, "Invalid model format: must be provider/model-name");
    return check_heartbeat(p->in, e) < 0 ? -(int)e->code : buf_add_z(out, "true", e);
}

/* --- 1 --- */

static struct str json_field(struct provision *p, const char *name)
{
    const json_t *value = json_object_get(p->in, name);
    struct str text = { 0 };
    struct err e;

    if (!value || json_is_null(value) || json_text(value, LIFE_TEXT, &p->arena, &text, &e) < 0)
        return (struct str){ 0 };
    return text;
}

static void new_row(struct provision *p, struct agent_info *row)
{
    struct str interval = field(p, "heartbeatInterval");

    *row = (struct agent_info){
        .id = p->agent,
        .name = field(p, "name"),
        .persona = field(p, "persona"),
        .model = field(p, "model"),
        .user = field(p, "userId"),
        .workspace = field(p, "workspaceId"),
        .session = field(p, "sessionKey"),
        .openclaw_id = field(p, "openclawAgentId"),
        .heartbeat = json_is_true(json_object_get(p->in, "heartbeatEnabled")),
        .interval = interval,
        .checklist = json_field(p, "heartbeatChecklist"),
        .configuration = json_field(p, "configuration"),
        .workflow = str_of(workflow_id(p->w)),
        .created_ms = swarm_now(),
        .status = AGENT_PROVISIONING,
    };
    row->updated_ms = row->created_ms;
    if (row->heartbeat && !interval.n)
        row->interval = STR("5m");
}

static void claim(struct agent_info *row, void *arg)
{
    const struct provision *p = arg;

    row->generation++;
    row->workflow = str_of(workflow_id(p->w));
    row->error = (struct str){ 0 };
}

/* A row that is there: ours to provision, or already done. */
static int store_known(struct store_tx *tx, struct provision *p, struct err *e)
{
    const struct life_step step = { p->agent, OP_PROVISION, swarm_now(), claim, p };
    int r = life_move_tx(tx, &step, &p->arena, &p->row, e);
    int64_t version;

    if (r != LIFE_STILL || p->row.status == AGENT_RUNNING) {
        p->already = r == LIFE_STILL;
        return r < 0 ? r : 0;
    }
    if (str_eq(p->row.workflow, str_of(workflow_id(p->w))))
        return 0;
    version = p->row.version; /* of a provisioning that never ended: it is ours now */
    p->row.workflow = str_of(workflow_id(p->w));
    p->row.updated_ms = swarm_now();
    r = life_write_tx(tx, &p->row, version, e);
    return r == LIFE_STILL ? err_set(e, ERR_CONFLICT, "the agent is being changed") : r;
}

static int store_metadata(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct provision *p = arg;
    struct agent_info row;
    int r, known = 0;

    p->already = false;
    new_row(p, &p->row);
    r = life_insert_tx(tx, &p->row, e);
    if (r == LIFE_STILL)
        known = r = life_find_tx(tx, p->agent, &p->arena, &row, e);
    else
        known = r < 0 ? r : 2;
    if (known == 1)
        r = store_known(tx, p, e);
    else if (known == 0)
        r = err_set(e, ERR_CONFLICT, "Session key '" STR_FMT "' belongs to another agent",
                    STR_ARG(field(p, "sessionKey")));
    if (r < 0)
        return r;
    return buf_printf(out, e, "{\"already\":%s}", p->already ? "true" : "false");
}

/* --- 2 --- */

static CO int connect_channels(void *arg, struct buf *out, struct err *e)
{
    struct provision *p = arg;
    AUTO(buf_done) struct buf text = { 0 }, meta = { 0 };
    struct mail_in in = { .from = STR("backend-api"), .to = field(p, "sessionKey") };
    struct mail_out sent;
    int r;

    buf_init(&text, LIFE_TEXT);
    buf_init(&meta, 4 * KIB);
    r = life_text_provision(p->in, &text, e);
    if (r == 0)
        r = buf_add_z(&meta, "{\"kind\":\"provision\",\"agentId\":", e);
    if (r == 0)
        r = json_write_str(&meta, p->agent, e);
    if (r == 0)
        r = buf_add_z(&meta, "}", e);
    in.content = buf_str(&text);
    in.metadata = buf_str(&meta);
    in.workflow = in.id = p->mail;
    if (r == 0)
        r = mail_send(p->life->s->mail, &in, &sent, e);
    if (r < 0)
        return r;
    if (field(p, "openclawAgentId").n)
        fmt_z(p->openclaw_id, sizeof(p->openclaw_id), "%.150s", field(p, "openclawAgentId").p);
    else
        fmt_z(p->openclaw_id, sizeof(p->openclaw_id), "openclaw_%.128s_%lld", p->agent.p,
              (long long)swarm_now());
    r = buf_add_z(out, "{\"openclawAgentId\":", e);
    if (r == 0)
        r = json_write_str(out, str_of(p->openclaw_id), e);
    return r < 0 ? r : buf_add_z(out, "}", e);
}

/* A greeting that is too long today is too long tomorrow; a full mailbox may have room again. */
static bool worth_again(const struct err *e, void *arg)
{
    return e->code != ERR_INVALID && e->code != ERR_CONFLICT;
}

/* --- 3 --- */

static void first_slot(struct agent_info *row, void *arg)
{
    int64_t every = life_interval_ms(row->interval);

    if (row->heartbeat && every)
        row->next_beat_ms = swarm_now() + every;
}

static int start_heartbeat(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct provision *p = arg;
    const struct life_step step = { p->agent, OP_PROVISION, swarm_now(), first_slot, p };
    int r;

    r = life_settle_tx(tx, &step, str_of(workflow_id(p->w)), AGENT_PROVISIONING, &p->arena, &p->row,
                       e);
    if (r < 0)
        return r;
    return buf_printf(out, e, "{\"nextHeartbeatAt\":%lld}", (long long)p->row.next_beat_ms);
}

/* --- 4 --- */

static void set_running(struct agent_info *row, void *arg)
{
    const struct provision *p = arg;

    if (*p->openclaw_id)
        row->openclaw_id = str_of(p->openclaw_id);
    row->error = (struct str){ 0 };
    row->error_count = 0;
    row->provisioned_ms = row->updated_ms;
}

static void set_failed(struct agent_info *row, void *arg)
{
    const struct provision *p = arg;

    row->error = str_of(p->why);
    row->error_count++;
    row->last_error_ms = row->updated_ms;
    row->next_beat_ms = 0;
}

static int finish(struct store_tx *tx, struct provision *p, enum agent_status to, struct buf *out,
                  struct err *e)
{
    const struct life_step step = { p->agent, OP_PROVISION, swarm_now(),
                                    to == AGENT_RUNNING ? set_running : set_failed, p };
    int r = life_settle_tx(tx, &step, str_of(workflow_id(p->w)), to, &p->arena, &p->row, e);

    if (r < 0)
        return r;
    if (r == LIFE_STILL && to == AGENT_RUNNING)
        return err_set(e, ERR_CONFLICT, "the agent was stopped while it was provisioned");
    return buf_printf(out, e, "{\"at\":%lld}", (long long)step.now_ms);
}

static int to_running(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    return finish(tx, arg, AGENT_RUNNING, out, e);
}

/* One that had failed before has failed once more, in a generation of its own. */
static int claim_failed(struct store_tx *tx, struct provision *p, struct err *e)
{
    const struct life_step step = { p->agent, OP_PROVISION, swarm_now(), claim, p };
    int r = life_move_tx(tx, &step, &p->arena, &p->row, e);

    return r == -ERR_NOT_FOUND || r == -ERR_CONFLICT ? 0 : r;
}

/* An invalid request for an agent that nobody knows leaves a row, if it can be one: callers look
 * there for the reason. */
static int to_failed(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct provision *p = arg;
    struct agent_info row;
    int r = 0;

    if (!p->stored && p->agent.n && p->agent.n <= 128 && field(p, "name").n &&
        field(p, "model").n && field(p, "userId").n && field(p, "sessionKey").n) {
        new_row(p, &row);
        if (!life_interval_ms(row.interval))
            row.interval = (struct str){ 0 };
        r = life_insert_tx(tx, &row, e);
        if (r == LIFE_STILL)
            r = claim_failed(tx, p, e);
    }
    return r < 0 ? r : finish(tx, p, AGENT_FAILED, out, e);
}

/* --- the whole --- */

static CO int drop_greeting(void *arg, struct buf *out, struct err *e)
{
    struct provision *p = arg;
    struct err ignored;
    int r = mail_drop(p->life->s->mail, p->mail, &ignored);

    if (r == -ERR_UNAVAILABLE) {
        *e = ignored;
        return r;
    }
    return buf_add_z(out, r < 0 ? "false" : "true", e); /* read already: nothing to take back */
}

static CO int steps(struct provision *p, struct err *e)
{
    const struct durable_retry retry = { .tries = TRIES,
                                         .first_ms = p->life->retry_ms,
                                         .again = worth_again };
    AUTO(buf_done) struct buf out = { 0 };
    json_t *done;
    int r;

    buf_init(&out, LIFE_PAYLOAD);
    r = durable_step(p->w, "validateProvisionRequest", NULL, validate, p, NULL, e);
    if (r == 0)
        r = durable_step_tx(p->w, "storeAgentMetadata", store_metadata, p, &out, e);
    if (r < 0)
        return r;
    p->stored = true;
    r = json_parse(buf_str(&out), 4, &p->arena, &done, NULL, e);
    if (r < 0)
        return r;
    p->already = json_is_true(json_object_get(done, "already"));
    if (p->already)
        return 0;
    buf_clear(&out);
    r = durable_step(p->w, "connectAgentChannels", &retry, connect_channels, p, &out, e);
    if (r == 0)
        r = json_parse(buf_str(&out), 4, &p->arena, &done, NULL, e);
    if (r < 0)
        return r;
    p->connected = true;
    fmt_z(p->openclaw_id, sizeof(p->openclaw_id), "%.159s",
          json_string_value(json_object_get(done, "openclawAgentId")));
    r = durable_step_tx(p->w, "startHeartbeatMonitoring", start_heartbeat, p, NULL, e);
    if (r < 0)
        return r;
    buf_clear(&out);
    r = durable_step_tx(p->w, "updateAgentStatus", to_running, p, &out, e);
    if (r == 0)
        r = json_parse(buf_str(&out), 4, &p->arena, &done, NULL, e);
    if (r == 0)
        p->at_ms = json_integer_value(json_object_get(done, "at"));
    return r;
}

static CO int take_back(struct provision *p, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    json_t *done;
    int r = 0;

    if (p->connected)
        r = durable_step(p->w, "disconnectAgentChannels", NULL, drop_greeting, p, NULL, e);
    buf_init(&out, LIFE_TEXT);
    if (r == 0)
        r = durable_step_tx(p->w, "updateAgentStatus", to_failed, p, &out, e);
    if (r == 0)
        r = json_parse(buf_str(&out), 4, &p->arena, &done, NULL, e);
    if (r == 0)
        p->at_ms = json_integer_value(json_object_get(done, "at"));
    return r;
}

static CO int answer(struct provision *p, bool failed, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    json_t *result;
    int r;

    buf_init(&out, LIFE_TEXT);
    result = json_pack("{s:s%, s:s, s:s%, s:I}", "agentId", p->agent.n ? p->agent.p : "",
                       p->agent.n, "status", failed ? "failed" : "provisioned", "sessionKey",
                       field(p, "sessionKey").n ? field(p, "sessionKey").p : "",
                       field(p, "sessionKey").n, "timestamp", (json_int_t)p->at_ms);
    if (failed)
        json_object_set_new(result, "error", json_string(p->why));
    else
        json_object_set_new(result, "openclawAgentId", json_string(p->openclaw_id));
    r = json_write(result, &out, e);
    json_decref(result);
    return r < 0 ? r : durable_return(p->w, buf_str(&out), e);
}

/* What was provisioned before is told as it is. */
static CO int look_up(void *arg, struct buf *out, struct err *e)
{
    struct provision *p = arg;
    struct agent_info row;
    int r;

    r = life_get(p->life, p->agent, &p->arena, &row, e);
    if (r < 0)
        return r;
    r = buf_printf(out, e, "{\"at\":%lld,\"openclawAgentId\":", (long long)row.provisioned_ms);
    if (r == 0)
        r = json_write_str(out, row.openclaw_id, e);
    return r < 0 ? r : buf_add_z(out, "}", e);
}

static CO int tell_known(struct provision *p, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    const char *id;
    json_t *done;
    int r;

    buf_init(&out, LIFE_TEXT);
    r = durable_step(p->w, "getAgent", NULL, look_up, p, &out, e);
    if (r == 0)
        r = json_parse(buf_str(&out), 4, &p->arena, &done, NULL, e);
    if (r < 0)
        return r;
    p->at_ms = json_integer_value(json_object_get(done, "at"));
    id = json_string_value(json_object_get(done, "openclawAgentId"));
    fmt_z(p->openclaw_id, sizeof(p->openclaw_id), "%.159s", id ? id : "");
    return 0;
}

static CO int provision(struct provision *p, struct err *e)
{
    bool failed = false;
    int r = steps(p, e);

    if (r == 0 && p->already)
        r = tell_known(p, e);
    if (r < 0 && life_left(r))
        return r;
    if (r < 0) {
        failed = true;
        fmt_z(p->why, sizeof(p->why), "%s", e->msg);
        r = take_back(p, e);
    }
    if (r < 0)
        return r;
    life_touch(p->life, p->agent);
    return answer(p, failed, e);
}

CO int life_provision_flow(struct workflow *w, void *ctx, struct err *e)
{
    struct provision p = { .w = w, .life = ctx, .in = workflow_arg(w, 0) };
    int r;

    p.agent = field(&p, "agentId");
    p.mail = str_of(arena_printf(&p.arena, "msg:%.240s", workflow_id(w)));
    r = provision(&p, e);
    arena_done(&p.arena);
    return r;
}
