/* SPDX-License-Identifier: MIT */
/* swarm/tracker.c — see tracker.h. */
#include "swarm/tracker.h"

#include "swarm/swarm_int.h"

const char *const tracker_state_names[TRACKER_STATES] = {
    "parsing_command", "spawning_agent", "agent_ready", "work_in_progress", "pr_created",
    "tests_running",   "completed",      "failed",      "stopped",
};

#define TO(state) (1u << TRACKER_##state)
/* What may follow when an agent is at work: it says itself how far it is. */
#define AT_WORK (TO(WORKING) | TO(PR) | TO(TESTING) | TO(COMPLETED) | TO(FAILED) | TO(STOPPED))

static const unsigned moves[TRACKER_STATES] = {
    [TRACKER_SPAWNING] = TO(READY) | TO(FAILED) | TO(STOPPED),
    [TRACKER_READY] = AT_WORK,
    [TRACKER_WORKING] = AT_WORK,
    [TRACKER_PR] = AT_WORK,
    [TRACKER_TESTING] = AT_WORK,
    [TRACKER_COMPLETED] = TO(SPAWNING) | TO(STOPPED),
    [TRACKER_FAILED] = TO(SPAWNING) | TO(STOPPED),
    [TRACKER_STOPPED] = TO(SPAWNING),
};

enum tracker_state tracker_state_of(struct str name)
{
    int s = 0;

    while (s < TRACKER_STATES && !str_eq_z(name, tracker_state_names[s]))
        s++;
    return (enum tracker_state)s;
}

bool tracker_allows(enum tracker_state from, enum tracker_state to)
{
    return from != to && (moves[from] & (1u << to));
}

static json_t *text_json(struct str s)
{
    return s.p ? json_stringn(s.p, s.n) : json_null();
}

static json_t *time_json(int64_t ms, struct arena *a)
{
    const char *text = time_python(ms, a);

    return text ? json_string(text) : json_null();
}

json_t *tracker_json(const struct tracker *t)
{
    struct arena a = { 0 };
    json_t *j = json_object();

    json_object_set_new(j, "issue_number", json_integer(t->issue));
    json_object_set_new(j, "agent_id", text_json(t->agent));
    json_object_set_new(j, "state", json_string(tracker_state_names[t->state]));
    json_object_set_new(j, "started_at", time_json(t->started_ms, &a));
    json_object_set_new(j, "completed_at", time_json(t->completed_ms, &a));
    json_object_set_new(j, "pr_url", text_json(t->pr_url));
    json_object_set_new(j, "error", text_json(t->error));
    arena_done(&a);
    return j;
}

/* --- reading --- */

#define COLUMNS \
    "issue_number, repository, agent_id, state, pr_url, error, requested_by, workflow_uuid, " \
    "started_at, completed_at, updated_at "

static const struct sql one_sql = {
    "tracker: one",
    "SELECT " COLUMNS "FROM swarm_trackers WHERE issue_number = ?1",
    NULL,
};

/* To be moved: on PostgreSQL nobody else may move it until we have. */
static const struct sql lock_sql = {
    "tracker: lock",
    "SELECT " COLUMNS "FROM swarm_trackers WHERE issue_number = ?1",
    "SELECT " COLUMNS "FROM swarm_trackers WHERE issue_number = ?1 FOR UPDATE",
};

static const struct sql list_sql = {
    "tracker: list",
    "SELECT " COLUMNS "FROM swarm_trackers WHERE (?1 = '' OR state = ?1)"
    " AND (?2 = 0 OR state NOT IN ('completed', 'failed', 'stopped'))"
    " ORDER BY issue_number LIMIT ?3",
    NULL,
};

struct rows {
    struct arena *a;
    struct tracker *v;
    size_t n, max;
};

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct rows *rows = arg;
    struct tracker *t = &rows->v[rows->n];
    struct str *const texts[] = { &t->repository, &t->agent,        NULL,        &t->pr_url,
                                  &t->error,      &t->requested_by, &t->workflow };

    if (rows->n == rows->max)
        return 1;
    *t = (struct tracker){ .issue = row_int(row, 0) };
    for (int i = 0; i < (int)LEN(texts); i++)
        if (texts[i] && !row_is_null(row, i + 1))
            *texts[i] = arena_str(rows->a, row_str(row, i + 1));
    t->state = tracker_state_of(row_str(row, 3));
    if (t->state == TRACKER_STATES)
        return err_set(e, ERR_INTERNAL, "tracker %lld has a state of its own", (long long)t->issue);
    t->started_ms = row_int(row, 8);
    t->completed_ms = row_int(row, 9);
    t->updated_ms = row_int(row, 10);
    rows->n++;
    return 0;
}

static int get(struct store_tx *tx, const struct sql *sql, int64_t issue, struct arena *a,
               struct tracker *ret, struct err *e)
{
    struct tracker t;
    struct rows rows = { .a = a, .v = &t, .max = 1 };
    const struct sql_arg args[] = { SQL_INT(issue) };
    int r = store_run(tx, sql, args, LEN(args), take_row, &rows, e);

    if (r < 0)
        return r;
    if (!rows.n)
        return TRACKER_NONE;
    *ret = t;
    return 0;
}

int tracker_get_tx(struct store_tx *tx, int64_t issue, struct arena *a, struct tracker *ret,
                   struct err *e)
{
    return get(tx, &one_sql, issue, a, ret, e);
}

int tracker_list_tx(struct store_tx *tx, enum tracker_state state, bool active, unsigned limit,
                    struct arena *a, struct tracker **ret, size_t *ret_n, struct err *e)
{
    struct rows rows = { .a = a, .max = limit };
    const struct sql_arg args[] = {
        SQL_Z(state < TRACKER_STATES ? tracker_state_names[state] : ""),
        SQL_INT(active),
        SQL_INT(limit),
    };
    int r;

    rows.v = arena_alloc(a, (limit + 1) * sizeof(*rows.v)); /* the last takes no row */
    r = store_run(tx, &list_sql, args, LEN(args), take_row, &rows, e);
    if (r < 0)
        return r;
    *ret = rows.v;
    *ret_n = rows.n;
    return 0;
}

/* --- moving --- */

static const struct sql make_sql = {
    "tracker: make",
    "INSERT INTO swarm_trackers (issue_number, repository, state, requested_by, workflow_uuid,"
    " started_at, updated_at) VALUES (?1, ?2, 'spawning_agent', ?3, ?4, ?5, ?5)"
    " ON CONFLICT (issue_number) DO NOTHING",
    NULL,
};

static const struct sql again_sql = {
    "tracker: begin again",
    "UPDATE swarm_trackers SET repository = ?2, state = 'spawning_agent', requested_by = ?3,"
    " workflow_uuid = ?4, started_at = ?5, updated_at = ?5, agent_id = NULL, pr_url = NULL,"
    " error = NULL, completed_at = NULL WHERE issue_number = ?1",
    NULL,
};

static const struct sql move_sql = {
    "tracker: move",
    "UPDATE swarm_trackers SET state = ?2, agent_id = COALESCE(?3, agent_id),"
    " pr_url = COALESCE(?4, pr_url), error = COALESCE(?5, error), completed_at = ?6,"
    " updated_at = ?7 WHERE issue_number = ?1",
    NULL,
};

static struct sql_arg maybe(struct str s)
{
    return s.p ? SQL_STR(s) : SQL_NULL;
}

static int begin(struct store_tx *tx, const struct sql *sql, const struct tracker_change *c,
                 struct err *e)
{
    const struct sql_arg args[] = { SQL_INT(c->issue), SQL_STR(c->repository),
                                    maybe(c->requested_by), maybe(c->workflow),
                                    SQL_INT(c->now_ms) };

    return store_run(tx, sql, args, LEN(args), NULL, NULL, e);
}

static int move(struct store_tx *tx, const struct tracker_change *c, const struct tracker *was,
                struct err *e)
{
    bool ended = !tracker_active(c->to);
    const struct sql_arg args[] = {
        SQL_INT(c->issue),
        SQL_Z(tracker_state_names[c->to]),
        maybe(c->agent),
        maybe(c->pr_url),
        maybe(c->error),
        !ended                                     ? SQL_NULL
        : was->state == c->to && was->completed_ms ? SQL_INT(was->completed_ms)
                                                   : SQL_INT(c->now_ms),
        SQL_INT(c->now_ms),
    };

    return store_run(tx, &move_sql, args, LEN(args), NULL, NULL, e);
}

int tracker_move_tx(struct store_tx *tx, const struct tracker_change *c, struct arena *a,
                    struct tracker *ret, struct err *e)
{
    struct tracker was = { 0 };
    bool made = false, same;
    int r;

    if (c->to == TRACKER_SPAWNING) {
        r = begin(tx, &make_sql, c, e);
        if (r < 0)
            return r;
        made = store_changed(tx) > 0;
    }
    r = get(tx, &lock_sql, c->issue, a, &was, e);
    if (r != 0 || made) {
        *ret = was;
        return r;
    }
    same = was.state == c->to && c->to != TRACKER_SPAWNING;
    if ((!same && !tracker_allows(was.state, c->to)) ||
        (c->only.n && !str_eq(c->only, was.workflow))) {
        *ret = was;
        return TRACKER_REFUSED;
    }
    r = c->to == TRACKER_SPAWNING ? begin(tx, &again_sql, c, e) : move(tx, c, &was, e);
    if (r == 0)
        r = get(tx, &one_sql, c->issue, a, ret, e);
    return r != 0 ? r : same ? TRACKER_SAME : 0;
}
