/* SPDX-License-Identifier: MIT */
/*
 * The lanes of tasks: new rows, marks (state, attempts, owner), ends. On SQLite a batch is one
 * transaction, a prepared statement for each row; on PostgreSQL one statement, which may be sent
 * twice when its answer is lost and then finds its own work.
 */
#include "base/log.h"
#include "hub/link.h"
#include "hub/task_int.h"

/* clang-format off */
#define LATES_MAX (32 * MIB) /* bytes of late results that wait for the database */

#define COLUMNS \
    "(position, id, agent_id, state, sender, type, body, owner, timeout_ms, retry, attempts," \
    " created_at, sent_at)"
static const struct sql sql_insert = {
    "task accept one",
    "INSERT INTO hub_tasks " COLUMNS " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
    " ?13) ON CONFLICT DO NOTHING", NULL,
};
static const struct sql sql_insert_many = {
    "task accept", "",
    "INSERT INTO hub_tasks " COLUMNS
    " SELECT * FROM unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    " ON CONFLICT DO NOTHING RETURNING position",
};
static const struct sql sql_twin = {
    "task accepted before", "SELECT position FROM hub_tasks WHERE id = ?1", NULL,
};
#define OURS "completed_at IS NULL AND (owner IS NULL OR owner = "
static const struct sql sql_mark = { /* ?8 self */
    "task mark one",
    "UPDATE hub_tasks SET state = ?2, attempts = ?3, sent_at = ?4, started_at = ?5, cancel = ?6,"
    " owner = ?7 WHERE position = ?1 AND " OURS "?8)", NULL,
};
/* The first two conditions hold for every position. They make the planner expect one row, so that
 * it takes the index though the table was empty when it made the plan. */
#define ONE_ROW " WHERE (u.position & 0) = 0 AND (u.position | 0) = u.position) j"
static const struct sql sql_mark_many = {
    "task mark", "",
    "UPDATE hub_tasks t SET state = j.state, attempts = j.attempts, sent_at = j.sent,"
    " started_at = j.started, cancel = j.cancel, owner = j.owner"
    " FROM (SELECT * FROM unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
    "  AS u (position, state, attempts, sent, started, cancel, owner)" ONE_ROW
    " WHERE t.position = j.position AND t.completed_at IS NULL"
    " AND (t.owner IS NULL OR t.owner = ?8) RETURNING t.position",
};
static const struct sql sql_end = { /* ?9 self */
    "task end one",
    "UPDATE hub_tasks SET state = ?2, response = ?3, reason = ?4, attempts = ?5, sent_at = ?6,"
    " started_at = ?7, completed_at = ?8 WHERE position = ?1 AND " OURS "?9)", NULL,
};
static const struct sql sql_end_many = {
    "task end", "",
    "UPDATE hub_tasks t SET state = j.state, response = j.response, reason = j.reason,"
    " attempts = j.attempts, sent_at = j.sent, started_at = j.started, completed_at = j.completed"
    " FROM (SELECT * FROM unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    "  AS u (position, state, response, reason, attempts, sent, started, completed)" ONE_ROW
    " WHERE t.position = j.position AND (t.completed_at IS NULL"
    "  OR (t.completed_at = j.completed AND t.state = j.state)) AND (t.owner IS NULL OR t.owner = ?9)"
    " RETURNING t.position",
};
static const struct sql sql_late = { /* the result of what was given up */
    "task late result",
    "UPDATE hub_tasks SET response = ?3 WHERE id = ?1 AND agent_id = ?2 AND response IS NULL"
    " AND state IN ('timeout', 'lost', 'canceled')", NULL,
};
/* clang-format on */

static struct sql_arg text(struct str s)
{
    return s.p ? SQL_STR(s) : SQL_NULL;
}

static struct sql_arg number(int64_t v)
{
    return v ? SQL_INT(v) : SQL_NULL;
}

/* --- new rows --- */

static struct task *of_new(struct lane_ride *ride)
{
    return container_of(ride, struct task, ride);
}

struct batch {
    struct tasks *t;
    struct lane_ride *first;
};

static int twin_at(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

/* It was not inserted: is it there already, because our first answer was lost? */
static int find_twin(struct store_tx *tx, struct task *task, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(task->id) };
    int64_t position = 0;
    int r = store_run(tx, &sql_twin, args, LEN(args), twin_at, &position, e);

    if (r < 0)
        return r;
    task->outcome = position == task->position ? 0 : position ? -ERR_CONFLICT : -ERR_UNAVAILABLE;
    return 0;
}

static int new_one(struct store_tx *tx, struct task *task, struct err *e)
{
    const struct sql_arg args[] = {
        SQL_INT(task->position),
        SQL_STR(task->id),
        SQL_STR(task->agent->node.key),
        SQL_Z(task->marked ? "sent" : "queued"),
        SQL_STR(task->sender),
        text(task->type),
        SQL_STR(task->body),
        task->marked ? SQL_Z(task->t->self) : SQL_NULL,
        SQL_INT(task->timeout_ms),
        SQL_INT(task->retry),
        SQL_INT(task->attempts),
        SQL_INT(task->created),
        number(task->sent),
    };
    int r = store_run(tx, &sql_insert, args, LEN(args), NULL, NULL, e);

    if (r < 0)
        return r;
    task->outcome = 0;
    return store_changed(tx) == 1 ? 0 : find_twin(tx, task, e);
}

static int new_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct batch *b = arg;
    int r = 0;

    for (struct lane_ride *ride = b->first; r == 0 && ride; ride = ride->next)
        r = new_one(tx, of_new(ride), e);
    return r;
}

static int was_inserted(struct store_row *row, void *arg, struct err *e)
{
    const struct batch *b = arg;

    for (struct lane_ride *ride = b->first; ride; ride = ride->next) {
        if (of_new(ride)->position == row_int(row, 0))
            of_new(ride)->outcome = 0;
    }
    return 0;
}

static int twins_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct batch *b = arg;
    int r = 0;

    for (struct lane_ride *ride = b->first; r == 0 && ride; ride = ride->next) {
        if (of_new(ride)->outcome != 0)
            r = find_twin(tx, of_new(ride), e);
    }
    return r;
}

enum { NEW_TEXTS = 7, NEW_INTS = 6 };

static CO int new_many(struct batch *b, size_t n, struct err *e)
{
    struct arena a = { 0 };
    struct str *x[NEW_TEXTS];
    int64_t *v[NEW_INTS];
    size_t i = 0;
    bool missing = false;
    int r;

    for (int k = 0; k < NEW_TEXTS; k++)
        x[k] = arena_raw(&a, n * sizeof(struct str));
    for (int k = 0; k < NEW_INTS; k++)
        v[k] = arena_raw(&a, n * sizeof(int64_t));
    for (struct lane_ride *ride = b->first; ride; ride = ride->next, i++) {
        struct task *task = of_new(ride);
        const struct str texts[] = {
            task->id,
            task->agent->node.key,
            str_of(task->marked ? "sent" : "queued"),
            task->sender,
            task->type,
            task->body,
            str_of(task->marked ? b->t->self : NULL),
        };
        const int64_t ints[] = {
            task->position, task->timeout_ms, task->retry,
            task->attempts, task->created,    task->sent ? task->sent : SQL_INTS_NULL,
        };

        for (int k = 0; k < NEW_TEXTS; k++)
            x[k][i] = texts[k];
        for (int k = 0; k < NEW_INTS; k++)
            v[k][i] = ints[k];
        task->outcome = -ERR_CONFLICT;
    }
    {
        const struct sql_arg args[] = {
            SQL_INTS(v[0], n),  SQL_TEXTS(x[0], n), SQL_TEXTS(x[1], n), SQL_TEXTS(x[2], n),
            SQL_TEXTS(x[3], n), SQL_TEXTS(x[4], n), SQL_TEXTS(x[5], n), SQL_TEXTS(x[6], n),
            SQL_INTS(v[1], n),  SQL_INTS(v[2], n),  SQL_INTS(v[3], n),  SQL_INTS(v[4], n),
            SQL_INTS(v[5], n),
        };

        r = store_once(b->t->store, &sql_insert_many, args, LEN(args), was_inserted, b, e);
    }
    arena_done(&a);
    for (struct lane_ride *ride = b->first; ride; ride = ride->next)
        missing = missing || of_new(ride)->outcome != 0;
    return r < 0 || !missing ? r : store_read(b->t->store, twins_body, b, e);
}

static CO int new_send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    struct batch b = { arg, first };
    int r = b.t->pg ? new_many(&b, n, e) : store_do(b.t->store, new_body, &b, e);

    return r < 0 ? r : 0;
}

static void new_told(void *arg, struct lane_ride *ride, int r, const struct err *e)
{
    struct task *task = of_new(ride);
    struct err why;

    if (r == 0 && task->outcome == -ERR_CONFLICT)
        r = err_set(&why, ERR_CONFLICT, "a task of the id '" STR_FMT "' is known",
                    STR_ARG(task->id));
    else if (r == 0 && task->outcome < 0)
        r = err_set(&why, ERR_UNAVAILABLE, "another daemon took this task's place: try again");
    else if (r < 0)
        why = *e;
    task_accepted(task, r, &why);
}

void task_write_new(struct task *task)
{
    task->ride.bytes = TASK_ROW_BYTES + task->body.n;
    task->rides++;
    lane_add(&task->t->accepts, &task->ride);
}

/* --- marks --- */

struct marking { /* what the row is to say; the task may go on meanwhile */
    struct lane_ride ride;
    struct task *task;
    int64_t position, attempts, sent, started;
    const char *state, *owner;
    char *cancel;
    bool first, changed; /* first: before it may be sent */
};

static struct marking *of_mark(struct lane_ride *ride)
{
    return container_of(ride, struct marking, ride);
}

static int mark_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct batch *b = arg;
    int r = 0;

    for (struct lane_ride *ride = b->first; r == 0 && ride; ride = ride->next) {
        struct marking *m = of_mark(ride);
        const struct sql_arg args[] = {
            SQL_INT(m->position), SQL_Z(m->state),  SQL_INT(m->attempts), number(m->sent),
            number(m->started),   SQL_Z(m->cancel), SQL_Z(m->owner),      SQL_Z(b->t->self),
        };

        r = store_run(tx, &sql_mark, args, LEN(args), NULL, NULL, e);
        m->changed = r == 0 && store_changed(tx) > 0;
    }
    return r;
}

static int was_marked(struct store_row *row, void *arg, struct err *e)
{
    const struct batch *b = arg;

    for (struct lane_ride *ride = b->first; ride; ride = ride->next) {
        if (of_mark(ride)->position == row_int(row, 0))
            of_mark(ride)->changed = true;
    }
    return 0;
}

static CO int mark_many(struct batch *b, size_t n, struct err *e)
{
    struct arena a = { 0 };
    int64_t *position = arena_raw(&a, n * sizeof(int64_t));
    int64_t *attempts = arena_raw(&a, n * sizeof(int64_t));
    int64_t *sent = arena_raw(&a, n * sizeof(int64_t));
    int64_t *started = arena_raw(&a, n * sizeof(int64_t));
    struct str *state = arena_raw(&a, n * sizeof(struct str));
    struct str *cancel = arena_raw(&a, n * sizeof(struct str));
    struct str *owner = arena_raw(&a, n * sizeof(struct str));
    const struct sql_arg args[] = {
        SQL_INTS(position, n), SQL_TEXTS(state, n),  SQL_INTS(attempts, n), SQL_INTS(sent, n),
        SQL_INTS(started, n),  SQL_TEXTS(cancel, n), SQL_TEXTS(owner, n),   SQL_Z(b->t->self),
    };
    size_t i = 0;
    int r;

    for (struct lane_ride *ride = b->first; ride; ride = ride->next, i++) {
        struct marking *m = of_mark(ride);

        position[i] = m->position;
        attempts[i] = m->attempts;
        sent[i] = m->sent ? m->sent : SQL_INTS_NULL;
        started[i] = m->started ? m->started : SQL_INTS_NULL;
        state[i] = str_of(m->state);
        cancel[i] = str_of(m->cancel);
        owner[i] = str_of(m->owner);
        m->changed = false;
    }
    r = store_once(b->t->store, &sql_mark_many, args, LEN(args), was_marked, b, e);
    arena_done(&a);
    return r;
}

static CO int mark_send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    struct batch b = { arg, first };
    int r = b.t->pg ? mark_many(&b, n, e) : store_do(b.t->store, mark_body, &b, e);

    return r < 0 ? r : 0;
}

static void mark_told(void *arg, struct lane_ride *ride, int r, const struct err *e)
{
    struct marking *m = of_mark(ride);
    struct task *task = m->task;

    if (r < 0)
        log_error("the state of a task could not be written", "task", LOG_SLICE(task->id), "error",
                  LOG_ERR(e));
    task->rides++; /* it stays until we are done here */
    if (m->first)
        task_marked(task, r == 0 && m->changed);
    else if (r == 0 && !m->changed && !task->ending)
        task_drop(task); /* another daemon has it, or has ended it */
    task_release(task);
    task_release(task);
    free(m->cancel);
    free(m);
}

void task_write_mark(struct task *task)
{
    struct marking *m = xcalloc(1, sizeof(*m));
    bool sent = task->marking || task->state != TASK_QUEUED;

    m->task = task;
    m->first = task->marking;
    m->position = task->position;
    m->attempts = task->attempts;
    m->sent = task->marking ? hub_now() : task->sent;
    m->started = task->started;
    m->state = task->marking ? "sent" : task_state_name(task->state);
    m->owner = sent ? task->t->self : NULL;
    m->cancel = task->cancel ? xstrdup(task->cancel) : NULL;
    m->ride.bytes = TASK_ROW_BYTES;
    task->unsaved = false;
    task->rides++;
    lane_add(&task->t->marks, &m->ride);
}

/* --- ends --- */

static struct task_ending *of_end(struct lane_ride *ride)
{
    return container_of(ride, struct task_ending, ride);
}

static int end_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct batch *b = arg;
    int r = 0;

    for (struct lane_ride *ride = b->first; r == 0 && ride; ride = ride->next) {
        struct task_ending *end = of_end(ride);
        const struct sql_arg args[] = {
            SQL_INT(end->position), SQL_Z(task_state_name(end->state)),
            SQL_Z(end->response),   SQL_Z(end->reason),
            SQL_INT(end->attempts), number(end->sent),
            number(end->started),   SQL_INT(end->completed),
            SQL_Z(b->t->self),
        };

        r = store_run(tx, &sql_end, args, LEN(args), NULL, NULL, e);
        end->changed = r == 0 && store_changed(tx) > 0;
    }
    return r;
}

static int was_ended(struct store_row *row, void *arg, struct err *e)
{
    const struct batch *b = arg;

    for (struct lane_ride *ride = b->first; ride; ride = ride->next) {
        if (of_end(ride)->position == row_int(row, 0))
            of_end(ride)->changed = true;
    }
    return 0;
}

static CO int end_many(struct batch *b, size_t n, struct err *e)
{
    struct arena a = { 0 };
    int64_t *v[5];
    struct str *x[3];
    size_t i = 0;
    int r;

    for (size_t k = 0; k < LEN(v); k++)
        v[k] = arena_raw(&a, n * sizeof(int64_t));
    for (size_t k = 0; k < LEN(x); k++)
        x[k] = arena_raw(&a, n * sizeof(struct str));
    for (struct lane_ride *ride = b->first; ride; ride = ride->next, i++) {
        struct task_ending *end = of_end(ride);

        v[0][i] = end->position;
        v[1][i] = end->attempts;
        v[2][i] = end->sent ? end->sent : SQL_INTS_NULL;
        v[3][i] = end->started ? end->started : SQL_INTS_NULL;
        v[4][i] = end->completed;
        x[0][i] = str_of(task_state_name(end->state));
        x[1][i] = str_of(end->response);
        x[2][i] = str_of(end->reason);
        end->changed = false;
    }
    {
        const struct sql_arg args[] = {
            SQL_INTS(v[0], n),  SQL_TEXTS(x[0], n), SQL_TEXTS(x[1], n),
            SQL_TEXTS(x[2], n), SQL_INTS(v[1], n),  SQL_INTS(v[2], n),
            SQL_INTS(v[3], n),  SQL_INTS(v[4], n),  SQL_Z(b->t->self),
        };

        r = store_once(b->t->store, &sql_end_many, args, LEN(args), was_ended, b, e);
    }
    arena_done(&a);
    return r;
}

static CO int end_send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    struct batch b = { arg, first };
    int r = b.t->pg ? end_many(&b, n, e) : store_do(b.t->store, end_body, &b, e);

    return r < 0 ? r : 0;
}

static void end_told(void *arg, struct lane_ride *ride, int r, const struct err *e)
{
    task_ended(of_end(ride), r, e);
}

void task_write_end(struct task_ending *end)
{
    struct task *task = end->task;

    end->ride.bytes = TASK_ROW_BYTES + str_of(end->response).n;
    task->ending = true;
    task->rides++;
    lane_add(&task->t->ends, &end->ride);
}

/* --- results of what was given up --- */

static int late_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct batch *b = arg;
    int r = 0;

    for (struct lane_ride *ride = b->first; r == 0 && ride; ride = ride->next) {
        struct task_ending *end = of_end(ride);
        const struct sql_arg args[] = { SQL_STR(end->id), SQL_STR(end->agent),
                                        SQL_Z(end->response) };

        r = store_run(tx, &sql_late, args, LEN(args), NULL, NULL, e);
        end->changed = r == 0 && store_changed(tx) > 0;
    }
    return r;
}

static CO int late_send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    struct batch b = { arg, first };
    int r = store_do(b.t->store, late_body, &b, e);

    return r < 0 ? r : 0;
}

static void late_told(void *arg, struct lane_ride *ride, int r, const struct err *e)
{
    struct task_ending *end = of_end(ride);

    if (r < 0)
        log_error("a late result could not be written", "task", LOG_SLICE(end->id), "error",
                  LOG_ERR(e));
    else
        task_tell(arg, end->agent, "ack", end->id, NULL);
    ((struct tasks *)arg)->late_bytes -= ride->bytes;
    free(end->response);
    free(end);
}

void task_late(struct tasks *t, struct str agent, struct str id, char *response)
{
    size_t bytes = TASK_ROW_BYTES + str_of(response).n;
    struct task_ending *end;

    if (t->late_bytes + bytes > LATES_MAX && t->late_bytes) {
        log_debug("a late result is not taken now", "task", LOG_SLICE(id));
        free(response); /* without our word the agent keeps it, and says it again */
        return;
    }
    end = xcalloc(1, sizeof(*end) + agent.n + id.n);
    memcpy(end->text, id.p, id.n);
    memcpy(end->text + id.n, agent.p, agent.n);
    end->id = (struct str){ end->text, id.n };
    end->agent = (struct str){ end->text + id.n, agent.n };
    end->response = response;
    end->ride.bytes = bytes;
    t->late_bytes += bytes;
    lane_add(&t->lates, &end->ride);
}

/* --- dead letters --- */

struct grave {
    struct lane_ride ride;
    const char *why; /* constant */
    size_t len;
    char message[];
};

static CO int grave_send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    const struct tasks *t = arg;
    int r = 0;

    for (struct lane_ride *ride = first; r == 0 && ride; ride = ride->next) {
        const struct grave *g = container_of(ride, struct grave, ride);

        r = dead_add(t->h, (struct str){ g->message, g->len }, g->why, e);
    }
    return r;
}

static void grave_told(void *arg, struct lane_ride *ride, int r, const struct err *e)
{
    if (r < 0)
        log_warn("a dead letter was lost", "error", LOG_ERR(e));
    free(container_of(ride, struct grave, ride));
}

void task_bury(struct tasks *t, const struct task *task, const char *why)
{
    AUTO(buf_done) struct buf b;
    struct grave *g;
    struct err e;

    buf_init(&b, TASK_TEXT_MAX);
    if (task_frame(task, &b, &e) < 0) {
        log_warn("a dead letter was lost", "error", LOG_ERR(&e));
        return;
    }
    g = xmalloc(sizeof(*g) + buf_str(&b).n);
    *g = (struct grave){ .why = why, .len = buf_str(&b).n };
    memcpy(g->message, buf_str(&b).p, g->len);
    g->ride.bytes = g->len;
    lane_add(&t->graves, &g->ride);
}

/* --- all of them --- */

static bool go_on(void *arg, struct lane_ride *ride)
{
    return true;
}

void task_lanes(struct tasks *t)
{
    const struct lane any = {
        .loop = t->loop,
        .arg = t,
        .max_n = TASK_BATCH,
        .max_flights = 1,
        .max_bytes = TASK_BYTES,
    };

    t->accepts = t->marks = t->ends = t->lates = t->graves = t->news = any;
    t->accepts.name = "task accept";
    t->accepts.send = new_send;
    t->accepts.told = new_told;
    t->marks.name = "task mark";
    t->marks.send = mark_send;
    t->marks.told = mark_told;
    t->ends.name = "task end";
    t->ends.send = end_send;
    t->ends.told = end_told;
    t->ends.max_flights = 2;
    t->lates.name = "task late";
    t->lates.send = late_send;
    t->lates.told = late_told;
    t->marks.waits = t->ends.waits = t->lates.waits = go_on;
    t->graves.name = "task dead letter";
    t->graves.send = grave_send;
    t->graves.told = grave_told;
    t->graves.max_n = 1;
    t->news.name = "task news";
    t->news.send = task_news_send;
    t->news.told = task_news_told;
}
