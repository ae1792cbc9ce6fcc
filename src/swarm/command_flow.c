/* SPDX-License-Identifier: MIT */
/*
 * swarm/command_flow.c — SwarmCommandWorkflow.handleCommand: one command, from its text to its
 * result, {"success":…} as the original's orchestrator gave it. A command that cannot be carried
 * out is a result too; the workflow fails only when it is cancelled.
 */
#include "base/log.h"
#include "swarm/command_int.h"

json_t *flow_result(bool success, int64_t issue)
{
    json_t *j = json_object();

    json_object_set_new(j, "success", json_boolean(success));
    if (issue)
        json_object_set_new(j, "issue_number", json_integer(issue));
    return j;
}

/* --- steps --- */

static int parse_out(struct flow *f, const struct buf *out, json_t **ret, struct err *e)
{
    /* the buffer ends before the flow does */
    return json_parse(arena_str(&f->a, buf_str(out)), 64, &f->a, ret, NULL, e);
}

CO int flow_step(struct flow *f, const char *name, const struct durable_retry *retry,
                 durable_step_fn *body, json_t **ret, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    int r;

    buf_init(&out, COMMAND_RESULT);
    r = durable_step(f->w, name, retry, body, f, &out, e);
    return r < 0 ? r : parse_out(f, &out, ret, e);
}

CO int flow_step_tx(struct flow *f, const char *name, durable_tx_fn *body, json_t **ret,
                    struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    int r;

    buf_init(&out, COMMAND_RESULT);
    r = durable_step_tx(f->w, name, body, f, &out, e);
    return r < 0 ? r : parse_out(f, &out, ret, e);
}

/* A mailbox that is full takes no more; that harms the notification alone. */
static int notify_body(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    struct flow *f = arg;
    int r = notify_send_tx(tx, f->c->s->notify, f->from, f->say_key, f->say, e);

    if (r < 0 && r != -ERR_LIMIT && r != -ERR_CONFLICT && r != -ERR_INVALID)
        return r;
    return buf_add_z(out, r < 0 ? "{\"sent\":false}" : "{\"sent\":true}", e);
}

CO int flow_notify(struct flow *f, const char *event, struct str text, struct err *e)
{
    json_t *ignored;
    int r;

    f->say = text;
    f->say_key = command_key(event, f->issue, str_of(workflow_id(f->w)), &f->a);
    r = flow_step_tx(f, "notify", notify_body, &ignored, e);
    if (flow_left(r))
        return r;
    if (r < 0)
        log_warn("a notification was not made", "key", LOG_SLICE(f->say_key), "error", LOG_ERR(e));
    else
        notify_sent(f->c->s->notify, f->from);
    return 0;
}

/* --- parsing --- */

static int parsed_json(const struct flow *f, const struct command_parsed *p, json_t *j,
                       struct err *e)
{
    const char *repository = f->c->s->settings->default_repo;

    (void)e;
    json_object_set_new(j, "command_type", json_string(command_names[p->kind]));
    json_object_set_new(j, "raw_command", json_stringn(p->raw.p, p->raw.n));
    json_object_set_new(j, "issue_number", p->issue ? json_integer(p->issue) : json_null());
    json_object_set_new(j, "repository", json_string(repository));
    json_object_set_new(j, "task_description", json_null());
    json_object_set_new(j, "is_natural_language", json_false());
    return 0;
}

static CO int parse_body(void *arg, struct buf *out, struct err *e)
{
    struct flow *f = arg;
    AUTO(json_decref) json_t *j = json_object();
    AUTO(buf_done) struct buf why = { 0 };
    struct command_parsed p;
    int r;

    buf_init(&why, COMMAND_TEXT + 1024);
    if (command_look(f->text, &p) == CMD_FINE) {
        r = parsed_json(f, &p, j, e);
    } else {
        r = command_fault_text(&p, &why, e);
        if (r == 0)
            json_object_set_new(j, "error", json_stringn(buf_str(&why).p, why.n));
    }
    return r < 0 ? r : json_write(j, out, e);
}

/* 0, or 1: it is no command, and the result says so. */
static CO int parse(struct flow *f, struct err *e)
{
    struct str type;
    json_t *j;
    int r;

    r = flow_step(f, "parseCommand", NULL, parse_body, &j, e);
    if (r < 0)
        return r;
    type = json_member_str(j, "command_type");
    for (int kind = 0; kind < CMD_KINDS; kind++)
        if (str_eq_z(type, command_names[kind])) {
            f->kind = (enum command_kind)kind;
            f->issue = json_integer_value(json_object_get(j, "issue_number"));
            return 0;
        }
    f->result = flow_result(false, 0);
    json_object_set(f->result, "error", json_object_get(j, "error"));
    json_object_set_new(f->result, "error_type", json_string("parse_error"));
    return 1;
}

/* --- the whole --- */

static CO int help(struct flow *f, struct err *e)
{
    AUTO(buf_done) struct buf text = { 0 };
    int r;

    buf_init(&text, 4 * KIB);
    r = command_help(&text, e);
    if (r < 0)
        return r;
    f->result = flow_result(true, 0);
    json_object_set_new(f->result, "message", json_stringn(buf_str(&text).p, text.n));
    return 0;
}

static CO int carry_out(struct flow *f, struct err *e)
{
    static CO int (*const parts[CMD_KINDS])(struct flow * f, struct err * e) = {
        [CMD_WORK] = flow_work, [CMD_STATUS] = flow_status, [CMD_STOP] = flow_stop,
        [CMD_LIST] = flow_list, [CMD_HELP] = help,
    };
    int r = parse(f, e);

    if (r == 0)
        r = parts[f->kind](f, e);
    if (r >= 0 || flow_left(r))
        return r < 0 ? r : 0;
    json_decref(f->result);
    f->result = flow_result(false, 0);
    json_object_set_new(f->result, "error", json_string(e->msg));
    json_object_set_new(f->result, "error_type", json_string("orchestration_error"));
    return 0;
}

static CO int answer(struct flow *f, struct err *e)
{
    AUTO(buf_done) struct buf text = { 0 };
    int r;

    if (!f->reply)
        return 0;
    buf_init(&text, COMMAND_TEXT + 4 * KIB);
    r = command_say(f->kind, f->result, &text, e);
    if (r < 0)
        return r;
    return text.n ? flow_notify(f, "reply", arena_str(&f->a, buf_str(&text)), e) : 0;
}

static CO int finish(struct flow *f, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    int r;

    buf_init(&out, COMMAND_RESULT);
    r = json_write(f->result, &out, e);
    if (r == 0)
        r = durable_return(f->w, buf_str(&out), e);
    if (r == 0)
        metric_add(&swarm_m_commands, 0, 1);
    return r;
}

/* One argument: {text, from?, reply?}, or the text alone. */
static int take_argument(struct flow *f, struct err *e)
{
    const json_t *arg = workflow_arg(f->w, 0);

    if (json_is_string(arg)) {
        f->text = (struct str){ json_string_value(arg), json_string_length(arg) };
    } else {
        f->text = json_member_str(arg, "text");
        f->from = json_member_str(arg, "from");
        f->reply = json_is_true(json_object_get(arg, "reply"));
    }
    if (!f->text.p)
        return err_set(e, ERR_INVALID, "one argument is wanted: {\"text\": a command}");
    if (f->text.n > COMMAND_TEXT)
        return err_set(e, ERR_INVALID, "a command is at most %zu bytes long", COMMAND_TEXT);
    return 0;
}

CO int command_flow(struct workflow *w, void *ctx, struct err *e)
{
    struct flow f = { .c = ctx, .w = w };
    int r = take_argument(&f, e);

    if (r == 0)
        r = carry_out(&f, e);
    if (r == 0)
        r = answer(&f, e);
    if (r == 0)
        r = finish(&f, e);
    json_decref(f.result);
    arena_done(&f.a);
    return r;
}
