/* SPDX-License-Identifier: MIT */
/*
 * AgentMessageWorkflow.routeAgentMessage: a message sent by a workflow, for clients that enqueue
 * one. Its steps and its result are the original's. What makes a message is from, to and id, here
 * as in mail_send(): two workflows that say one message are one message.
 */
#include "swarm/mail_int.h"

#define STEP_BYTES (64 * KIB)

struct flow {
    struct mail *m;
    struct str id, from, to, content, metadata;
    struct mail_out out;
};

static int validate(void *arg, struct buf *out, struct err *e)
{
    const struct flow *f = arg;

    if (!f->id.n || !f->from.n || !f->to.n || !f->content.n)
        return err_set(e, ERR_INVALID, "Invalid message: missing required fields");
    return buf_add_z(out, "true", e);
}

/* Recorded: the ids and the time of acceptance, which the result needs when it is run again. */
static int store_message(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct flow *f = arg;
    const struct mail_in in = {
        .id = f->id,
        .from = f->from,
        .to = f->to,
        .content = f->content,
        .metadata = f->metadata,
    };
    int r;

    r = mail_send_tx(tx, f->m, &in, &f->out, e);
    if (r == 0)
        r = buf_add_z(out, "{\"messageId\":", e);
    if (r == 0)
        r = json_write_str(out, str_of(f->out.id), e);
    if (r == 0)
        r = buf_add_z(out, ",\"workflowUuid\":", e);
    if (r == 0)
        r = json_write_str(out, str_of(f->out.workflow), e);
    return r < 0 ? r : buf_printf(out, e, ",\"acceptedAt\":%lld}", (long long)f->out.accepted_ms);
}

static int read_stored(struct flow *f, struct str json, struct err *e)
{
    struct arena a = { 0 };
    json_t *j;
    int r = json_parse(json, 8, &a, &j, NULL, e);

    if (r == 0) {
        struct str id = json_member_str(j, "messageId"), key = json_member_str(j, "workflowUuid");

        fmt_z(f->out.workflow, MAIL_ID, "%.*s", (int)(key.n < MAIL_ID ? key.n : 0), key.p);
        fmt_z(f->out.id, MAIL_ID, "%.*s", (int)(id.n < MAIL_ID ? id.n : 0), id.p);
        f->out.accepted_ms = json_integer_value(json_object_get(j, "acceptedAt"));
    }
    arena_done(&a);
    return r;
}

/* Whoever is there gets it now; who replies in time has its reply in the result. */
static CO int route(void *arg, struct buf *out, struct err *e)
{
    struct flow *f = arg;
    AUTO(buf_done) struct buf reply;
    int r;

    buf_init(&reply, (size_t)f->m->set->max_message);
    mail_sent(f->m, f->to);
    r = mail_reply_wait(f->m, str_of(f->out.workflow), deadline_in(f->m->set->agent_timeout_ms + 1),
                        &reply, e);
    if (r == -ERR_NOT_FOUND) /* ended and forgotten, long ago */
        r = MAIL_NOTHING;
    if (r < 0)
        return r;
    return mail_result_json(&f->out, r == 0 ? buf_str(&reply) : (struct str){ 0 }, out, e);
}

static int read_message(struct flow *f, const json_t *arg, struct buf *metadata, struct err *e)
{
    const json_t *meta = json_object_get(arg, "metadata");
    int r = 0;

    f->id = json_member_str(arg, "id");
    f->from = json_member_str(arg, "from");
    f->to = json_member_str(arg, "to");
    f->content = json_member_str(arg, "content");
    if (meta && !json_is_null(meta)) {
        r = json_write(meta, metadata, e);
        f->metadata = buf_str(metadata);
    }
    return r;
}

static CO int run_steps(struct workflow *w, struct flow *f, struct err *e)
{
    AUTO(buf_done) struct buf stored, result;
    int r;

    buf_init(&stored, STEP_BYTES);
    buf_init(&result, (size_t)f->m->set->max_message + STEP_BYTES);
    r = durable_step(w, "validateMessage", NULL, validate, f, NULL, e);
    if (r == 0)
        r = durable_step_tx(w, "storeMessage", store_message, f, &stored, e);
    if (r == 0)
        r = read_stored(f, buf_str(&stored), e);
    if (r == 0)
        r = durable_step(w, "routeMessage", NULL, route, f, &result, e);
    return r < 0 ? r : durable_return(w, buf_str(&result), e);
}

static CO int route_agent_message(struct workflow *w, void *ctx, struct err *e)
{
    struct mail *m = ctx;
    struct flow f = { .m = m };
    AUTO(buf_done) struct buf metadata;
    int r;

    buf_init(&metadata, (size_t)m->set->max_message);
    r = read_message(&f, workflow_arg(w, 0), &metadata, e);
    return r < 0 ? r : run_steps(w, &f, e);
}

int mail_flow_register(struct mail *m, struct err *e)
{
    const struct durable_type type = {
        .name = "routeAgentMessage",
        .class_name = "AgentMessageWorkflow",
        .fn = route_agent_message,
        .ctx = m,
        .doc = "Send a message to an agent's mailbox.",
    };

    m->type = type;
    return durable_register(m->s->conf.engine, &m->type, 1, e);
}
