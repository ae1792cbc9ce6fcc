/* SPDX-License-Identifier: MIT */
/*
 * swarm/command_api.c — commands and trackers over HTTP. A command's answer is its result, also
 * when it could not be carried out; an agent (or who watches over it) tells how far its work is by
 * changing the tracker, and people are told once for each change.
 */
#include <inttypes.h>

#include "base/secret.h"
#include "swarm/command_int.h"

#define READS (NEED_READ | NEED_AGENTS)

struct command_body {
    const char *message, *text, *from, *id, *channel, *timestamp;
    bool reply;
};

struct tracker_out {
    int64_t issue_number;
    const char *agent_id, *state, *started_at, *completed_at, *pr_url, *error, *repository,
        *requested_by, *workflow_uuid, *updated_at;
};

struct trackers_out {
    struct shape_list trackers;
};

struct trackers_query {
    const char *state;
    bool active;
    int64_t limit;
};

struct change_body {
    const char *state, *pr_url, *error, *task, *tests, *coverage, *id;
    int64_t pr_number;
};

/* clang-format off */
#define COMMAND_FIELDS(default_reply) \
    FIELD(struct command_body, message, .nullable = true, .doc = "The command."), \
    FIELD(struct command_body, text, .nullable = true, .doc = "The same, by another name."), \
    FIELD(struct command_body, from, .nullable = true, .max = 200, .doc = "Who sent it: a session that replies go to, or with a channel a peer in that."), \
    FIELD(struct command_body, id, .nullable = true, .max = 1000, .doc = "The message's id: a repeat is the same command."), \
    FIELD(struct command_body, channel, .nullable = true, .max = 50, .doc = "Such as whatsapp."), \
    FIELD(struct command_body, timestamp, .nullable = true, .max = 100), \
    FIELD(struct command_body, reply, .def = default_reply, .doc = "Send the result to who asked, too.")
static const struct shape_field command_fields[] = { COMMAND_FIELDS("false") };
static const struct shape shape_command = SHAPE(struct command_body, "SwarmCommand", command_fields);
static const struct shape_field channel_fields[] = { COMMAND_FIELDS("true") };
static const struct shape shape_channel = SHAPE(struct command_body, "SwarmChannelMessage", channel_fields);

static const struct shape_field tracker_fields[] = {
    FIELD(struct tracker_out, issue_number), FIELD(struct tracker_out, agent_id),
    FIELD(struct tracker_out, state, .doc = "spawning_agent, agent_ready, work_in_progress, pr_created, tests_running, completed, failed or stopped."),
    FIELD(struct tracker_out, started_at), FIELD(struct tracker_out, completed_at), FIELD(struct tracker_out, pr_url),
    FIELD(struct tracker_out, error), FIELD(struct tracker_out, repository), FIELD(struct tracker_out, requested_by),
    FIELD(struct tracker_out, workflow_uuid), FIELD(struct tracker_out, updated_at),
};
static const struct shape shape_tracker = SHAPE(struct tracker_out, "SwarmTracker", tracker_fields);
static const struct shape_field trackers_fields[] = { FIELD(struct trackers_out, trackers, .of = &shape_tracker) };
static const struct shape shape_trackers = SHAPE(struct trackers_out, "SwarmTrackers", trackers_fields);

static const char *const stored_states[] = { "spawning_agent", "agent_ready", "work_in_progress", "pr_created", "tests_running", "completed", "failed", "stopped", NULL };
static const char *const told_states[] = { "work_in_progress", "pr_created", "tests_running", "completed", "failed", NULL };
static const char *const test_results[] = { "passing", "failing", NULL };

static const struct shape_field query_fields[] = {
    FIELD(struct trackers_query, state, .one_of = stored_states),
    FIELD(struct trackers_query, active, .coerce = true, .def = "false", .doc = "Only work that has not ended."),
    FIELD(struct trackers_query, limit, .coerce = true, .def = "100", .min = 1, .max = 1000),
};
static const struct shape shape_query = SHAPE(struct trackers_query, "SwarmTrackersQuery", query_fields);

static const struct shape_field change_fields[] = {
    FIELD(struct change_body, state, .nullable = true, .one_of = told_states),
    FIELD(struct change_body, pr_url, .nullable = true, .max = 1000, .doc = "Needed for pr_created."),
    FIELD(struct change_body, pr_number, .nullable = true, .doc = "Absent: the number that ends pr_url."),
    FIELD(struct change_body, error, .nullable = true, .max = 4000, .doc = "Of failed, or of failing tests."),
    FIELD(struct change_body, task, .nullable = true, .max = 4000, .doc = "Of work_in_progress: what is being done."),
    FIELD(struct change_body, tests, .nullable = true, .one_of = test_results, .doc = "How they ended."),
    FIELD(struct change_body, coverage, .nullable = true, .max = 10, .doc = "Of passing tests, in percent."),
    FIELD(struct change_body, id, .nullable = true, .max = 100, .doc = "Of this report of tests: a repeat is told once."),
};
static const struct shape shape_change = SHAPE(struct change_body, "SwarmTrackerChange", change_fields);
/* clang-format on */

/* --- commands --- */

static struct str or_default(const char *z, const char *def)
{
    return str_of(z && *z ? z : def);
}

/* The same message of a channel, sent again by its webhook, has the same id. */
static struct str id_of(const struct command_body *body, struct str channel, struct str text,
                        struct arena *a)
{
    char hex[2 * SECRET_KEY + 1];
    const char *all;

    if (body->id && *body->id)
        return str_of(body->id);
    if (!body->timestamp || !*body->timestamp)
        return (struct str){ 0 };
    all = arena_printf(a, STR_FMT "\n%s\n%s\n" STR_FMT, STR_ARG(channel),
                       body->from ? body->from : "", body->timestamp, STR_ARG(text));
    sha256_hex(str_of(all), hex);
    return str_of(arena_strdup(a, hex));
}

static struct str session_of(const char *from, struct str channel, struct arena *a)
{
    if (!from || !*from || !channel.n || strchr(from, ':'))
        return str_of(from ? from : "");
    return str_of(arena_printf(a, STR_FMT ":%s", STR_ARG(channel), from));
}

/* The result is an object: our field goes before its end. */
static int reply_result(struct http_req *req, const struct buf *out, const char *workflow,
                        struct err *e)
{
    json_t *result;
    struct str text;
    int r = json_parse(arena_str(req->arena, buf_str(out)), 64, req->arena, &result, NULL, e);

    if (r < 0 || !json_is_object(result))
        return err_set(e, ERR_INTERNAL, "a command's result is no object");
    json_object_set_new(result, "workflow_uuid", json_string(workflow));
    r = json_text(result, COMMAND_RESULT, req->arena, &text, e);
    if (r == 0)
        http_reply_text(req, 200, "application/json", text);
    return r;
}

static CO int run(struct http_req *req, struct str channel, struct err *e)
{
    const struct command_body *body = req->in;
    struct str text = or_default(body->message, body->text ? body->text : "");
    struct command_in in = {
        .id = id_of(body, channel, text, req->arena),
        .from = session_of(body->from, channel, req->arena),
        .text = text,
        .channel = channel,
        .reply = body->reply,
    };
    AUTO(buf_done) struct buf out = { 0 };
    char workflow[DURABLE_ID];
    int r;

    if (!body->message && !body->text)
        return err_set(e, ERR_INVALID, "message is missing");
    if (text.n > COMMAND_TEXT)
        return err_set(e, ERR_LIMIT, "a command is at most %zu bytes long", COMMAND_TEXT);
    buf_init(&out, COMMAND_RESULT);
    r = command_run(req->room, &in, req->deadline_ms, workflow, &out, e);
    return r < 0 ? r : reply_result(req, &out, workflow, e);
}

static CO int post_command(struct http_req *req, struct err *e)
{
    const struct command_body *body = req->in;

    return run(req, str_of(body->channel ? body->channel : ""), e);
}

static CO int post_channel(struct http_req *req, struct err *e)
{
    const struct command_body *body = req->in;

    return run(req, or_default(body->channel, "whatsapp"), e);
}

/* --- trackers --- */

static const struct tracker_out *out_of(const struct tracker *t, struct arena *a)
{
    struct tracker_out *out = arena_new(a, struct tracker_out);

    *out = (struct tracker_out){
        .issue_number = t->issue,
        .agent_id = t->agent.p,
        .state = tracker_state_names[t->state],
        .started_at = time_python(t->started_ms, a),
        .completed_at = time_python(t->completed_ms, a),
        .pr_url = t->pr_url.p,
        .error = t->error.p,
        .repository = t->repository.p,
        .requested_by = t->requested_by.n ? t->requested_by.p : NULL,
        .workflow_uuid = t->workflow.p,
        .updated_at = time_python(t->updated_ms, a),
    };
    return out;
}

struct listing {
    const struct trackers_query *query;
    struct arena *a;
    struct tracker *v;
    size_t n;
};

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct listing *l = arg;
    enum tracker_state state = tracker_state_of(str_of(l->query->state));

    return tracker_list_tx(tx, state, l->query->active, (unsigned)l->query->limit, l->a, &l->v,
                           &l->n, e);
}

static CO int list(struct http_req *req, struct err *e)
{
    const struct command *c = req->room;
    struct listing l = { .query = req->query, .a = req->arena };
    struct trackers_out *out = arena_new(req->arena, struct trackers_out);
    int r = store_read(c->s->conf.store, list_body, &l, e);

    if (r < 0)
        return r;
    out->trackers.v = arena_alloc(req->arena, (l.n + 1) * sizeof(*out->trackers.v));
    for (; out->trackers.n < l.n; out->trackers.n++)
        out->trackers.v[out->trackers.n] = out_of(&l.v[out->trackers.n], req->arena);
    req->out = out;
    return 0;
}

static int issue_of(const struct http_req *req, int64_t *ret, struct err *e)
{
    long long issue;

    if (int_parse(req->args[0], 1, INT64_MAX, &issue, NULL) < 0)
        return err_set(e, ERR_NOT_FOUND, "No work on issue " STR_FMT, STR_ARG(req->args[0]));
    *ret = issue;
    return 0;
}

static int no_work(int64_t issue, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "No work on issue %" PRId64, issue);
}

struct one {
    int64_t issue;
    struct arena *a;
    struct tracker t;
    int outcome;
};

static int get_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct one *one = arg;

    one->outcome = tracker_get_tx(tx, one->issue, one->a, &one->t, e);
    return one->outcome < 0 ? one->outcome : 0;
}

static CO int get(struct http_req *req, struct err *e)
{
    const struct command *c = req->room;
    struct one one = { .a = req->arena };
    int r = issue_of(req, &one.issue, e);

    if (r == 0)
        r = store_read(c->s->conf.store, get_body, &one, e);
    if (r < 0)
        return r;
    if (one.outcome == TRACKER_NONE)
        return no_work(one.issue, e);
    req->out = out_of(&one.t, req->arena);
    return 0;
}

/* --- what an agent tells of its work --- */

struct telling {
    const struct command *c;
    const struct change_body *body;
    int64_t issue, now_ms;
    struct arena *a;
    struct tracker t;
    int outcome;
    bool said;
};

/* What is said of a state that was reached; NOTIFY_EVENTS: nothing. */
static enum notify_event event_of(enum tracker_state state)
{
    switch (state) {
    case TRACKER_WORKING:
        return NOTIFY_WORK_STARTED;
    case TRACKER_PR:
        return NOTIFY_PR_CREATED;
    case TRACKER_COMPLETED:
        return NOTIFY_WORK_COMPLETED;
    case TRACKER_FAILED:
        return NOTIFY_ERROR;
    default:
        return NOTIFY_EVENTS;
    }
}

/* A full mailbox, or words that were said before, do not keep the tracker from moving. */
static int say(struct store_tx *tx, struct telling *t, enum notify_event event, struct str step,
               struct err *e)
{
    const struct change_body *body = t->body;
    const struct notification n = {
        .event = event,
        .issue = t->issue,
        .agent = t->t.agent,
        .task = str_of(body->task),
        .url = t->t.pr_url,
        .error = event == NOTIFY_ERROR ? t->t.error : str_of(body->error),
        .coverage = str_of(body->coverage),
        .pr = body->pr_number ? body->pr_number : command_pr_of(t->t.pr_url),
    };
    AUTO(buf_done) struct buf text = { 0 };
    int r;

    buf_init(&text, COMMAND_TEXT);
    r = notify_text(&n, &text, e);
    if (r == 0)
        r = notify_send_tx(tx, t->c->s->notify, t->t.requested_by,
                           command_key(notify_event_names[event], t->issue, step, t->a),
                           buf_str(&text), e);
    if (r == -ERR_LIMIT || r == -ERR_CONFLICT || r == -ERR_INVALID)
        return 0;
    t->said = t->said || r == 0;
    return r;
}

static int say_moved(struct store_tx *tx, struct telling *t, struct err *e)
{
    enum notify_event event = event_of(t->t.state);
    const char *step;

    if (event == NOTIFY_EVENTS)
        return 0;
    step = arena_printf(t->a, STR_FMT "@%" PRId64, STR_ARG(t->t.workflow), t->now_ms);
    return say(tx, t, event, str_of(step), e);
}

static int say_tests(struct store_tx *tx, struct telling *t, struct err *e)
{
    bool passing = str_eq_z(STR("passing"), t->body->tests);
    const char *step =
        t->body->id ? arena_printf(t->a, STR_FMT "/%s", STR_ARG(t->t.workflow), t->body->id)
                    : arena_printf(t->a, STR_FMT "@%" PRId64, STR_ARG(t->t.workflow), t->now_ms);

    return say(tx, t, passing ? NOTIFY_TESTS_PASSING : NOTIFY_TESTS_FAILING, str_of(step), e);
}

static int refuse(const struct telling *t, struct err *e)
{
    return err_set(e, ERR_CONFLICT, "Work on issue #%" PRId64 " is in state '%s'%s%s", t->issue,
                   tracker_state_names[t->t.state], t->body->state ? ", which cannot become " : "",
                   t->body->state ? t->body->state : "");
}

static int move(struct store_tx *tx, struct telling *t, struct err *e)
{
    const struct change_body *body = t->body;
    enum tracker_state to = body->state ? tracker_state_of(str_of(body->state)) : t->t.state;
    const struct tracker_change change = {
        .issue = t->issue,
        .to = to,
        .pr_url = str_of(body->pr_url),
        .error = to == TRACKER_FAILED ? str_of(body->error) : (struct str){ 0 },
        .now_ms = t->now_ms,
    };
    int r;

    if (!tracker_active(t->t.state) && to != t->t.state)
        return refuse(t, e);
    if (to == TRACKER_PR && !body->pr_url && !t->t.pr_url.n)
        return err_set(e, ERR_INVALID, "pr_url is missing");
    r = tracker_move_tx(tx, &change, t->a, &t->t, e);
    if (r == TRACKER_REFUSED)
        return refuse(t, e);
    return r == 0 ? say_moved(tx, t, e) : r < 0 ? r : 0;
}

static int tell_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct telling *t = arg;
    int r;

    t->said = false;
    t->outcome = tracker_get_tx(tx, t->issue, t->a, &t->t, e);
    if (t->outcome != 0)
        return t->outcome < 0 ? t->outcome : 0;
    if (t->body->tests && !tracker_active(t->t.state))
        return refuse(t, e);
    r = t->body->state || t->body->pr_url ? move(tx, t, e) : 0;
    if (r == 0 && t->body->tests)
        r = say_tests(tx, t, e);
    return r;
}

static CO int tell(struct http_req *req, struct err *e)
{
    struct command *c = req->room;
    struct telling t = { .c = c, .body = req->in, .a = req->arena, .now_ms = swarm_now() };
    int r = issue_of(req, &t.issue, e);

    if (r == 0 && !t.body->state && !t.body->pr_url && !t.body->tests)
        r = err_set(e, ERR_INVALID, "nothing to change: state, pr_url or tests is missing");
    if (r == 0)
        r = store_do(c->s->conf.store, tell_body, &t, e);
    if (r < 0)
        return r;
    if (t.outcome == TRACKER_NONE)
        return no_work(t.issue, e);
    if (t.said)
        notify_sent(c->s->notify, t.t.requested_by);
    req->out = out_of(&t.t, req->arena);
    return 0;
}

/* clang-format off */
const struct http_route command_routes[] = {
    { HTTP_M_POST, "/api/v1/commands", post_command, NEED_AGENTS, .in = &shape_command, .tag = "commands",
      .doc = "Carry out a command from chat; the result says whether it could be." },
    { HTTP_M_POST, "/whatsapp/command", post_channel, NEED_AGENTS, .in = &shape_channel, .tag = "commands",
      .doc = "The same for a channel's webhook: {from, message, timestamp, channel}; replies go there." },
    { HTTP_M_GET, "/api/v1/trackers", list, READS, .query = &shape_query, .out = &shape_trackers, .tag = "commands",
      .doc = "Work on issues that commands have begun." },
    { HTTP_M_GET, "/api/v1/trackers/{issue}", get, READS, .out = &shape_tracker, .tag = "commands",
      .doc = "Work on one issue." },
    { HTTP_M_PATCH, "/api/v1/trackers/{issue}", tell, NEED_AGENTS, .in = &shape_change, .out = &shape_tracker, .tag = "commands",
      .doc = "Tell how far the work is; who asked for it is told once for each change." },
};
/* clang-format on */
const size_t command_routes_len = LEN(command_routes);
