/* SPDX-License-Identifier: MIT */
/*
 * Starting and enqueueing. A start is an insert that leaves an existing row as it is; whether the
 * row that is there then is ours is told by its creator token, so a start that is sent twice is one
 * start. Only who inserted a row as PENDING runs it without a claim.
 */
#include <stdlib.h>

#include "base/log.h"
#include "durable/queue_int.h"

#define PRIORITY_MAX 2147483647 /* of the column */
#define SETTLE_MAX   100        /* rounds of insert and look, when the other row comes and goes */

/* clang-format off */
#define START_COLUMNS \
    "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, class_name, config_name," \
    " queue_name, owner_xid, creator_xid, executor_id, application_version, application_name," \
    " deduplication_id, queue_partition_key, authenticated_user, assumed_role," \
    " authenticated_roles, attributes, parent_workflow_id, schedule_name, priority," \
    " workflow_timeout_ms, workflow_deadline_epoch_ms, delay_until_epoch_ms, created_at," \
    " updated_at, recovery_attempts, application_id, serialization) "
static const struct sql sql_start = {
    "durable start",
    START_COLUMNS "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, '', ?15,"
    " ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?23, ?24, '', 'portable_json')"
    " ON CONFLICT DO NOTHING",
    START_COLUMNS "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, '', ?15,"
    " ?16::jsonb, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?23, ?24, '', 'portable_json')"
    " ON CONFLICT DO NOTHING",
};
static const struct sql sql_input = {
    "durable input",
    "INSERT INTO dbos.workflow_input (workflow_uuid, inputs) VALUES (?1, ?2)"
    " ON CONFLICT DO NOTHING",
    NULL,
};
static const struct sql sql_by_id = {
    "durable by id",
    "SELECT workflow_uuid, name, class_name, creator_xid, status = 'PENDING' AND"
    " owner_xid = creator_xid FROM dbos.workflow_status WHERE workflow_uuid = ?1",
    NULL,
};
static const struct sql sql_by_dedup = {
    "durable by dedup id",
    "SELECT workflow_uuid, name, class_name, creator_xid, FALSE FROM dbos.workflow_status"
    " WHERE queue_name = ?1 AND deduplication_id = ?2",
    NULL,
};
/* clang-format on */

/* The row */

static struct sql_arg text(struct str s)
{
    return s.p ? SQL_STR(s) : SQL_NULL;
}

static struct sql_arg number(int64_t n)
{
    return n ? SQL_INT(n) : SQL_NULL;
}

struct holder { /* of the id or of the dedup id */
    char id[DURABLE_ID];
    bool found, named; /* named: of the same name and class */
    bool ours, held;   /* held: as it was inserted, to be run by who did */
    const struct start_row *row;
};

static int take_holder(struct store_row *row, void *arg, struct err *e)
{
    struct holder *h = arg;
    struct str id = row_str(row, 0);

    h->found = true;
    h->named = str_eq(row_str(row, 1), h->row->name) &&
               str_eq(row_str(row, 2), h->row->class_name) && id.n < sizeof(h->id);
    h->ours = str_eq(row_str(row, 3), h->row->token);
    h->held = row_int(row, 4) != 0;
    fmt_z(h->id, sizeof(h->id), "%.*s", (int)(id.n < sizeof(h->id) ? id.n : 0), id.p);
    return 0;
}

static int look_by_id(struct store_tx *tx, struct holder *h, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(h->row->id) };

    h->found = false;
    return store_run(tx, &sql_by_id, args, LEN(args), take_holder, h, e);
}

static int look_by_dedup(struct store_tx *tx, struct holder *h, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(h->row->queue), SQL_STR(h->row->dedup_id) };

    h->found = false;
    return store_run(tx, &sql_by_dedup, args, LEN(args), take_holder, h, e);
}

static int insert_status(struct store_tx *tx, const struct start_row *row, struct err *e)
{
    const struct sql_arg args[] = {
        SQL_STR(row->id),
        SQL_Z(durable_status_name(row->status)),
        SQL_STR(row->name),
        text(row->class_name),
        text(row->config_name),
        text(row->queue),
        row->status == DURABLE_PENDING ? SQL_STR(row->token) : SQL_NULL,
        SQL_STR(row->token),
        text(row->executor),
        text(row->app_version),
        text(row->app_name),
        text(row->dedup_id),
        text(row->partition),
        text(row->user),
        text(row->roles),
        text(row->attributes),
        text(row->parent),
        text(row->schedule),
        SQL_INT(row->priority),
        number(row->timeout_ms),
        number(row->deadline_ms),
        number(row->delay_until_ms),
        SQL_INT(row->created_ms),
        SQL_INT(row->attempts),
    };

    return store_run(tx, &sql_start, args, LEN(args), NULL, NULL, e);
}

int start_tx(struct store_tx *tx, const struct start_row *row, struct err *e)
{
    const struct sql_arg input[] = { SQL_STR(row->id), SQL_STR(row->inputs) };
    struct holder h = { .row = row };
    int r;

    r = insert_status(tx, row, e);
    if (r < 0)
        return r;
    if (store_changed(tx) == 1) {
        r = store_run(tx, &sql_input, input, LEN(input), NULL, NULL, e);
        return r < 0 ? r : JOURNAL_OK;
    }
    r = look_by_id(tx, &h, e);
    if (r < 0)
        return r;
    if (h.found) /* sent again: a row that others have taken up meanwhile is not ours to run */
        return h.ours && (h.held || row->status != DURABLE_PENDING) ? JOURNAL_OK : JOURNAL_TAKEN;
    return row->dedup_id.p ? START_DEDUP : JOURNAL_TAKEN;
}

/* Checks */

static int bad(struct durable_started *ret, enum durable_code code, enum err_code err,
               struct err *e, const char *what)
{
    ret->code = code;
    return err_set(e, err, "%s", what);
}

static int check_text(const char *what, struct str s, size_t max, struct err *e)
{
    if (s.n >= max)
        return err_set(e, ERR_INVALID, "%s is longer than %zu bytes", what, max - 1);
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return err_set(e, ERR_INVALID, "%s holds a control character", what);
    }
    if (!utf8_valid(s.p, s.n))
        return err_set(e, ERR_INVALID, "%s is not UTF-8", what);
    return 0;
}

static int check_texts(const struct durable_start *s, struct err *e)
{
    const struct {
        const char *what;
        struct str s;
    } texts[] = {
        { "the id", s->id },
        { "the name of the workflow", str_of(s->name ? s->name : "") },
        { "the class of the workflow", str_of(s->class_name ? s->class_name : "") },
        { "the name of the queue", s->queue },
        { "the version", s->app_version },
        { "the deduplication id", s->dedup_id },
        { "the partition key", s->partition_key },
        { "the user", s->user },
        { "the schedule", str_of(s->schedule ? s->schedule : "") },
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < LEN(texts); i++)
        r = check_text(texts[i].what, texts[i].s, DURABLE_ID, e);
    if (r == 0 && !(s->name && *s->name))
        r = err_set(e, ERR_INVALID, "a start needs the name of a workflow");
    if (r == 0 && s->id.n > 0 && str_trim(s->id).n == 0)
        r = err_set(e, ERR_INVALID, "the id is blank");
    return r;
}

static int check_json(const char *what, struct str json, char opens, struct err *e)
{
    int r;

    if (!json.p)
        return 0;
    r = wire_check(json, e);
    if (r == 0 && str_trim(json).p[0] != opens)
        r = err_set(e, ERR_INVALID, "not a JSON %s", opens == '[' ? "array" : "object");
    return r < 0 ? err_wrap(e, "%s", what) : 0;
}

/* What only makes sense with a queue, and what a queue asks for. */
static int check_queue(struct durable *d, const struct durable_start *s, struct err *e)
{
    if (!s->queue.n) {
        if (s->dedup_id.n || s->partition_key.n || s->delay_ms || s->priority)
            return err_set(e, ERR_INVALID,
                           "deduplication, partition, delay and priority need a queue");
        if (s->app_version.n && !str_eq_z(s->app_version, d->conf.app_version))
            return err_set(e, ERR_INVALID, "a start without a queue is of this version, '%s'",
                           d->conf.app_version);
        return 0;
    }
    if (!s->partition_key.n && queue_is_partitioned(d, s->queue))
        return err_set(e, ERR_INVALID, "queue '" STR_FMT "' needs a partition key",
                       STR_ARG(s->queue));
    return 0;
}

static int check_start(struct durable *d, const struct durable_start *s,
                       struct durable_started *ret, struct err *e)
{
    int r;

    r = check_texts(s, e);
    if (r == 0)
        r = check_json("the roles", s->roles, '[', e);
    if (r == 0)
        r = check_json("the attributes", s->attributes, '{', e);
    if (r < 0)
        return r;
    if (s->priority < 0 || s->priority > PRIORITY_MAX)
        return bad(ret, DURABLE_E_PRIORITY, ERR_INVALID, e, "a priority is 0 to 2147483647");
    if (s->delay_ms > INT64_MAX / 4 || s->timeout_ms > INT64_MAX / 4 || s->deadline_ms < 0 ||
        s->deadline_ms > INT64_MAX / 2)
        return err_set(e, ERR_INVALID, "a delay, timeout or deadline is out of range");
    return check_queue(d, s, e);
}

/* Filling in */

static struct str opt(const char *z)
{
    return z && *z ? str_of(z) : (struct str){ 0 };
}

static struct str non_empty(struct str s)
{
    return s.n ? s : (struct str){ 0 };
}

/* The internal queue takes what is to run here while there is no room. */
static void place(struct durable *d, const struct durable_start *s, struct start_row *row)
{
    bool direct = !s->queue.n && run_room(d) > 0;

    row->queue = direct ? (struct str){ 0 } : s->queue.n ? s->queue : STR(DURABLE_INTERNAL_QUEUE);
    row->status = direct ? DURABLE_PENDING : s->delay_ms ? DURABLE_DELAYED : DURABLE_ENQUEUED;
    row->attempts = direct;
    row->executor = direct ? str_of(d->executor) : STR("");
    row->app_version = s->queue.n ? non_empty(s->app_version) : str_of(d->conf.app_version);
    row->delay_until_ms = s->delay_ms ? row->created_ms + (int64_t)s->delay_ms : 0;
    row->deadline_ms = s->deadline_ms;
    if (direct && row->timeout_ms && !row->deadline_ms)
        row->deadline_ms = row->created_ms + row->timeout_ms;
}

static void fill_row(struct durable *d, const struct durable_start *s,
                     const struct durable_type *type, struct arena *a, struct start_row *row)
{
    char *token = arena_raw(a, TOKEN_TEXT), *id = NULL;

    uuid_new(token);
    if (!s->id.n) {
        id = arena_raw(a, TOKEN_TEXT);
        uuid_new(id);
    }
    *row = (struct start_row){
        .id = id ? str_of(id) : s->id,
        .name = str_of(s->name),
        .class_name = opt(s->class_name),
        .token = str_of(token),
        .app_name = opt(d->conf.app_name),
        .dedup_id = non_empty(s->dedup_id),
        .partition = non_empty(s->partition_key),
        .user = s->user.p ? s->user : STR(""),
        .roles = s->roles.p ? s->roles : STR("[]"),
        .attributes = s->attributes,
        .schedule = opt(s->schedule),
        .priority = s->priority,
        .timeout_ms = (int64_t)(s->timeout_ms ? s->timeout_ms
                                : type        ? type->timeout_ms
                                              : 0),
        .created_ms = wall_ms(),
    };
    place(d, s, row);
}

int start_prepare(struct durable *d, const struct durable_start *start, struct buf *inputs,
                  struct arena *a, struct start_row *ret, struct durable_started *ret_started,
                  struct err *e)
{
    const struct durable_type *type;
    int r;

    *ret_started = (struct durable_started){ 0 };
    r = check_start(d, start, ret_started, e);
    if (r < 0)
        return r;
    type = type_find(d, str_of(start->name), opt(start->class_name));
    if (!type && !start->queue.n) {
        ret_started->code = DURABLE_E_UNREGISTERED;
        return err_set(
            e, ERR_INVALID,
            "no workflow '%.80s' is registered here; name a queue for it to run elsewhere",
            start->name);
    }
    r = wire_write_args(start->args, start->named, inputs, e);
    if (r < 0)
        return err_wrap(e, "arguments of '%s'", start->name);
    if (inputs->n > d->conf.payload_max)
        return err_set(e, ERR_LIMIT, "the arguments of '%s' are longer than %zu bytes", start->name,
                       d->conf.payload_max);
    fill_row(d, start, type, a, ret);
    ret->inputs = buf_str(inputs);
    fmt_z(ret_started->id, sizeof(ret_started->id), STR_FMT, STR_ARG(ret->id));
    return 0;
}

/* Somebody is there already */

struct settle_call {
    const struct start_row *row;
    int outcome;
    struct holder holder;
};

static int settle_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct settle_call *call = arg;

    call->holder = (struct holder){ .row = call->row };
    if (call->outcome == START_DEDUP)
        return look_by_dedup(tx, &call->holder, e);
    return look_by_id(tx, &call->holder, e);
}

static int settle_dedup(const struct start_row *row, const struct durable_start *start,
                        const struct holder *h, struct durable_started *ret, struct err *e)
{
    if (start->dedup_join) {
        fmt_z(ret->id, sizeof(ret->id), "%s", h->id);
        ret->existed = true;
        return 0;
    }
    ret->code = DURABLE_E_DEDUPLICATED;
    return err_set(e, ERR_CONFLICT, "workflow '%.80s' in queue '%.*s' has this deduplication id",
                   h->id, (int)(row->queue.n < 60 ? row->queue.n : 60), row->queue.p);
}

CO int start_settle(struct durable *d, const struct start_row *row,
                    const struct durable_start *start, int outcome, struct durable_started *ret,
                    struct err *e)
{
    struct settle_call call = { .row = row, .outcome = outcome };
    int r = store_read(d->store, settle_body, &call, e);

    if (r < 0)
        return r;
    if (!call.holder.found)
        return START_AGAIN;
    if (outcome == START_DEDUP)
        return settle_dedup(row, start, &call.holder, ret, e);
    if (call.holder.ours) /* sent twice, and the first answer was lost */
        return 0;
    if (!call.holder.named)
        return bad(ret, DURABLE_E_OTHER_WORKFLOW, ERR_CONFLICT, e,
                   "the id belongs to a workflow of another name");
    if (start->id_must_be_new)
        return bad(ret, DURABLE_E_ID_IN_USE, ERR_CONFLICT, e, "the id is in use");
    ret->existed = true;
    return 0;
}

/* Ours */

/* It cannot run here, or not any more: back to a queue, as if it had not begun. */
static CO int give_back(struct durable *d, const struct start_row *row, struct err *e)
{
    AUTO(buf_done) struct buf ids;
    int r;

    buf_init(&ids, 4 * KIB); /* an id and a token */
    r = buf_add_z(&ids, "[[", e);
    if (r == 0)
        r = json_write_str(&ids, row->id, e);
    if (r == 0)
        r = buf_printf(&ids, e, ",\"" STR_FMT "\"]]", STR_ARG(row->token));
    return r < 0 ? r : release_rows(d, buf_str(&ids), 1, e);
}

/* Nothing begins in an engine that stops, though its start was on its way before. */
static CO void begin(struct durable *d, const struct start_row *row, const struct claimed *c)
{
    struct err e;
    int r;

    if (d->running && !d->stopping) {
        if (run_begin(d, c, &e) == 0)
            return;
        log_warn("a started workflow cannot begin and is queued", "workflow", LOG_SLICE(row->id),
                 "error", LOG_ERR(&e));
    }
    r = give_back(d, row, &e);
    if (r < 0) /* whoever finds that it does not run */
        log_warn("a started workflow waits for the next sweep or start", "workflow",
                 LOG_SLICE(row->id), "error", LOG_ERR(&e));
}

CO void start_done(struct durable *d, const struct start_row *row)
{
    struct claimed c = {
        .id = row->id,
        .name = row->name,
        .class_name = row->class_name,
        .inputs = row->inputs,
        .serialization = STR("portable_json"),
        .token = row->token,
        .has_inputs = true,
        .attempts = 1,
        .timeout_ms = row->timeout_ms,
        .deadline_ms = row->deadline_ms,
        .created_ms = row->created_ms,
    };

    if (row->status == DURABLE_PENDING) {
        begin(d, row, &c);
    } else if (row->status == DURABLE_DELAYED) {
        sweep_due(d, row->delay_until_ms);
    } else {
        queue_poke(d, row->queue);
        notify_others(d, NOTIFY_QUEUE, row->queue);
    }
}

/* *ret_ours: it is ours to begin. */
static CO int insert(struct durable *d, const struct start_row *row,
                     const struct durable_start *start, struct durable_started *ret, bool *ret_ours,
                     struct err *e)
{
    int r;

    for (int i = 0; i < SETTLE_MAX; i++) {
        r = journal_start(d, row, e);
        *ret_ours = r == JOURNAL_OK;
        if (r <= 0)
            return r;
        r = start_settle(d, row, start, r, ret, e);
        if (r != START_AGAIN)
            return r;
    }
    return err_set(e, ERR_UNAVAILABLE, "another workflow of this id comes and goes");
}

CO int durable_start(struct durable *d, const struct durable_start *start,
                     struct durable_started *ret, struct err *e)
{
    AUTO(buf_done) struct buf inputs;
    struct durable_started started;
    struct arena a = { 0 };
    struct start_row row;
    struct flight flight;
    bool direct, ours = false;
    int r;

    buf_init(&inputs, d->conf.payload_max + KIB);
    r = start_prepare(d, start, &inputs, &a, &row, &started, e);
    if (r == 0) {
        direct = row.status == DURABLE_PENDING;
        d->n_starting += direct;
        flight_begin(d, &flight);
        r = insert(d, &row, start, &started, &ours, e);
        d->n_starting -= direct;
        if (r == 0 && ours)
            start_done(d, &row);
        flight_done(&flight);
    }
    arena_done(&a);
    if (r == 0 || started.code)
        *ret = started;
    return r;
}
