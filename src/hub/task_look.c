/* SPDX-License-Identifier: MIT */
/*
 * TaskRecords: texts that are put together from texts, since bodies and responses are kept as
 * compact JSON. Of what is in memory the memory knows the state, of the rest the row.
 */
#include <inttypes.h>

#include "hub/task_int.h"

#define PAGE       1000
#define LIST_BYTES (64 * MIB) /* after which a list ends */

/* --- one record --- */

void task_view_of(const struct task *task, const struct task_ending *end, struct task_view *ret)
{
    *ret = (struct task_view){
        .position = task->position,
        .created = task->created,
        .sent = task->state == TASK_QUEUED ? 0 : task->sent,
        .started = task->started,
        .attempts = task->attempts,
        .id = task->id,
        .agent = task->agent->node.key,
        .type = task->type,
        .sender = task->sender,
        .body = task->body,
        .state = str_of(task_state_name(task->state)),
        .cancel = str_of(task->cancel),
    };
    if (task->state == TASK_QUEUED && task->marked)
        ret->attempts--; /* not yet */
    if (!end)
        return;
    ret->sent = end->sent;
    ret->started = end->started;
    ret->completed = end->completed;
    ret->state = str_of(task_state_name(end->state));
    ret->response = str_of(end->response);
    ret->reason = str_of(end->reason);
}

static int add_text(struct buf *b, const char *key, struct str s, struct err *e)
{
    int r = buf_printf(b, e, ",\"%s\":", key);

    if (r < 0)
        return r;
    return s.p ? json_write_str(b, s, e) : buf_add_z(b, "null", e);
}

static int add_time(struct buf *b, const char *key, int64_t v, struct err *e)
{
    if (!v)
        return buf_printf(b, e, ",\"%s\":null", key);
    return buf_printf(b, e, ",\"%s\":%" PRId64, key, v);
}

static int add_json(struct buf *b, const char *key, struct str text, struct err *e)
{
    int r = buf_printf(b, e, ",\"%s\":", key);

    return r < 0 ? r : buf_add_str(b, text.n ? text : STR("null"), e);
}

int task_record(const struct task_view *v, struct buf *b, struct err *e)
{
    int r = buf_add_z(b, "{\"id\":", e);

    if (r == 0)
        r = json_write_str(b, v->id, e);
    if (r == 0)
        r = add_text(b, "agentId", v->agent, e);
    if (r == 0)
        r = add_text(b, "type", v->type, e);
    if (r == 0)
        r = add_text(b, "status", v->state, e);
    if (r == 0)
        r = add_time(b, "createdAt", v->created, e);
    if (r == 0)
        r = add_time(b, "sentAt", v->sent, e);
    if (r == 0)
        r = add_time(b, "startedAt", v->started, e);
    if (r == 0)
        r = add_time(b, "completedAt", v->completed, e);
    if (r == 0)
        r = add_json(b, "task", v->body, e);
    if (r == 0)
        r = add_json(b, "response", v->response, e);
    if (r == 0)
        r = add_text(b, "from", v->sender, e);
    if (r == 0 && v->reason.p)
        r = add_text(b, "reason", v->reason, e);
    if (r == 0 && v->cancel.p)
        r = add_text(b, "canceling", v->cancel, e);
    if (r == 0)
        r = buf_printf(b, e, ",\"attempts\":%" PRId64 ",\"seq\":%" PRId64 "}", v->attempts,
                       v->position);
    return r;
}

/* --- rows --- */

/* clang-format off */
#define COLUMNS \
    "SELECT position, id, agent_id, state, sender, type, body, response, reason, cancel, attempts," \
    " created_at, sent_at, started_at, completed_at FROM hub_tasks"
static const struct sql sql_by_id = { "task by id", COLUMNS " WHERE id = ?1", NULL };
/* ?2 a state or '' ?3 only what has not ended */
#define WANTED " (?2 = '' OR state = ?2) AND (?3 = 0 OR completed_at IS NULL)" \
    " ORDER BY position DESC LIMIT ?4"
static const struct sql sql_list = {
    "tasks", COLUMNS " WHERE position < ?1 AND" WANTED, NULL,
};
static const struct sql sql_list_agent = {
    "tasks of an agent", COLUMNS " WHERE agent_id = ?5 AND position < ?1 AND" WANTED, NULL,
};
/* clang-format on */

struct rows {
    struct arena arena;
    struct task_view *v;
    size_t n, max, bytes;
    struct str agent, id, state; /* what is asked for */
    int64_t before;
    bool open;
};

static struct str copy(struct rows *x, struct store_row *row, int col)
{
    struct str s = row_str(row, col);

    x->bytes += s.n;
    return row_is_null(row, col) ? (struct str){ 0 } : arena_str(&x->arena, s);
}

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct rows *x = arg;
    struct task_view *v = &x->v[x->n++];

    *v = (struct task_view){
        .position = row_int(row, 0),
        .id = copy(x, row, 1),
        .agent = copy(x, row, 2),
        .state = copy(x, row, 3),
        .sender = copy(x, row, 4),
        .type = copy(x, row, 5),
        .body = copy(x, row, 6),
        .response = copy(x, row, 7),
        .reason = copy(x, row, 8),
        .cancel = copy(x, row, 9),
        .attempts = row_int(row, 10),
        .created = row_int(row, 11),
        .sent = row_int(row, 12),
        .started = row_int(row, 13),
        .completed = row_int(row, 14),
    };
    if (v->completed)
        v->cancel = (struct str){ 0 }; /* the reason says it */
    return x->n == x->max || x->bytes > LIST_BYTES;
}

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct rows *x = arg;
    const struct sql_arg args[] = {
        SQL_INT(x->before),       SQL_STR(x->state), SQL_INT(x->open),
        SQL_INT((int64_t)x->max), SQL_STR(x->agent),
    };

    x->n = x->bytes = 0;
    return x->agent.n ? store_run(tx, &sql_list_agent, args, 5, take_row, x, e)
                      : store_run(tx, &sql_list, args, 4, take_row, x, e);
}

static int one_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct rows *x = arg;
    const struct sql_arg args[] = { SQL_STR(x->id) };

    x->n = x->bytes = 0;
    return store_run(tx, &sql_by_id, args, LEN(args), take_row, x, e);
}

CO int task_read(struct tasks *t, struct str agent, struct str id, struct buf *b, struct err *e)
{
    struct task_view v;
    struct rows x = { .v = &v, .max = 1, .id = id };
    int r = store_read(t->store, one_body, &x, e);

    if (r >= 0 && (x.n == 0 || (agent.n && !str_eq(v.agent, agent))))
        r = err_set(e, ERR_NOT_FOUND, "Task not found");
    if (r >= 0)
        r = task_record(&v, b, e);
    if (r == 0 && !v.completed)
        r = TASK_OPEN;
    arena_done(&x.arena);
    return r;
}

/* --- lists --- */

static bool is_open_state(struct str state)
{
    return str_eq_z(state, "queued") || str_eq_z(state, "sent") || str_eq_z(state, "running");
}

/* As the memory has it, where it knows better. */
static void refresh(const struct tasks *t, struct task_view *v)
{
    struct task *task = v->completed ? NULL : task_find(t, v->id);

    if (task_known(task))
        task_view_of(task, NULL, v);
}

/* A page of rows; adds those that are wanted. */
static int add_page(struct tasks *t, struct rows *x, struct str state, size_t max, size_t *n,
                    struct buf *b, struct err *e)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < x->n && *n < max; i++) {
        x->before = x->v[i].position;
        refresh(t, &x->v[i]);
        if (state.n && !str_eq(x->v[i].state, state))
            continue;
        if ((*n)++ > 0)
            r = buf_add_z(b, ",", e);
        if (r == 0)
            r = task_record(&x->v[i], b, e);
    }
    return r;
}

CO int task_list_text(struct tasks *t, struct str agent, const char *state, int64_t before,
                      size_t max, struct buf *b, struct err *e)
{
    struct str wanted = str_of(state ? state : "");
    struct rows x = {
        .v = xcalloc(PAGE, sizeof(struct task_view)),
        .agent = agent,
        .open = is_open_state(wanted),
        .before = before > 0 ? before : INT64_MAX,
    };
    bool more = true;
    size_t n = 0;
    int r = buf_add_z(b, "[", e);

    x.state = x.open ? STR("") : wanted;
    while (r >= 0 && more && n < max && buf_str(b).n < LIST_BYTES) {
        size_t want = x.open ? PAGE : max - n;

        x.max = want < PAGE ? want : PAGE;
        arena_reset(&x.arena);
        r = store_read(t->store, list_body, &x, e);
        more = x.n == x.max || x.bytes > LIST_BYTES;
        if (r >= 0)
            r = add_page(t, &x, wanted, max, &n, b, e);
    }
    arena_done(&x.arena);
    free(x.v);
    return r < 0 ? r : buf_add_z(b, "]", e);
}

CO int task_list(struct tasks *t, struct str agent, const char *state, int64_t before, size_t max,
                 json_t **ret, struct err *e)
{
    AUTO(buf_done) struct buf b;
    int r;

    buf_init(&b, TASK_TEXT_MAX);
    r = task_list_text(t, agent, state, before, max, &b, e);
    if (r < 0)
        return r;
    *ret = json_loadb(buf_str(&b).p, buf_str(&b).n, 0, NULL);
    return *ret ? 0 : err_set(e, ERR_INTERNAL, "the list of tasks cannot be read");
}
