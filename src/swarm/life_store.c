/* SPDX-License-Identifier: MIT */
/* swarm/life_store.c — rows of agent_swarm_instances: reading, inserting, writing back. */
#include "swarm/life_int.h"

/* clang-format off */
static const struct sql sql_find = {
    "life find",
    "SELECT " LIFE_COLUMNS " FROM agent_swarm_instances WHERE id = ?1",
    NULL,
};
static const struct sql sql_session = {
    "life find session",
    "SELECT " LIFE_COLUMNS " FROM agent_swarm_instances WHERE openclaw_session_key = ?1",
    NULL,
};
static const struct sql sql_insert = {
    "life insert",
    "INSERT INTO agent_swarm_instances (id, name, persona, model, user_id, workspace_id, status,"
    " generation, openclaw_session_key, openclaw_agent_id, heartbeat_enabled, heartbeat_interval,"
    " heartbeat_checklist, configuration, workflow_uuid, created_at, updated_at)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'provisioning', ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15)"
    " ON CONFLICT DO NOTHING",
    "INSERT INTO agent_swarm_instances (id, name, persona, model, user_id, workspace_id, status,"
    " generation, openclaw_session_key, openclaw_agent_id, heartbeat_enabled, heartbeat_interval,"
    " heartbeat_checklist, configuration, workflow_uuid, created_at, updated_at)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'provisioning', ?7, ?8, ?9, ?10, ?11::heartbeat_interval, ?12,"
    " ?13, ?14, ?15, ?15) ON CONFLICT DO NOTHING",
};
#define WRITE(status, interval) \
    "UPDATE agent_swarm_instances SET version = version + 1, status = " status ", name = ?4," \
    " persona = ?5, model = ?6, generation = ?7, openclaw_agent_id = ?8, heartbeat_enabled = ?9," \
    " heartbeat_interval = " interval ", heartbeat_checklist = ?11, next_heartbeat_at = ?12," \
    " configuration = ?13, error_message = ?14, error_count = ?15, last_error_at = ?16," \
    " workflow_uuid = ?17, updated_at = ?18, provisioned_at = ?19, paused_at = ?20," \
    " stopped_at = ?21," \
    " last_heartbeat_at = CASE WHEN ?22 > COALESCE(last_heartbeat_at, 0) THEN ?22" \
    " ELSE last_heartbeat_at END WHERE id = ?1 AND version = ?2"
static const struct sql sql_write = {
    "life write",
    WRITE("?3", "?10"),
    WRITE("?3::agent_swarm_status", "?10::heartbeat_interval"),
};
/* clang-format on */

static struct str text_of(struct store_row *row, int col, struct arena *a)
{
    return row_is_null(row, col) ? (struct str){ 0 } : arena_str(a, row_str(row, col));
}

void life_take_row(struct store_row *row, struct arena *a, struct agent_info *ret)
{
    struct str status = row_str(row, 6);

    *ret = (struct agent_info){
        .id = text_of(row, 0, a),
        .name = text_of(row, 1, a),
        .persona = text_of(row, 2, a),
        .model = text_of(row, 3, a),
        .user = text_of(row, 4, a),
        .workspace = text_of(row, 5, a),
        .status = AGENT_FAILED,
        .generation = row_int(row, 7),
        .version = row_int(row, 8),
        .session = text_of(row, 9, a),
        .openclaw_id = text_of(row, 10, a),
        .heartbeat = row_int(row, 11) != 0,
        .interval = text_of(row, 12, a),
        .checklist = text_of(row, 13, a),
        .last_beat_ms = row_int(row, 14),
        .next_beat_ms = row_int(row, 15),
        .configuration = text_of(row, 16, a),
        .error = text_of(row, 17, a),
        .error_count = row_int(row, 18),
        .last_error_ms = row_int(row, 19),
        .workflow = text_of(row, 20, a),
        .created_ms = row_int(row, 21),
        .updated_ms = row_int(row, 22),
        .provisioned_ms = row_int(row, 23),
        .paused_ms = row_int(row, 24),
        .stopped_ms = row_int(row, 25),
    };
    (void)agent_status_parse(status, &ret->status); /* the table's own check knows no other */
}

struct found {
    struct arena *arena;
    struct agent_info *ret;
    int n;
};

static int take_found(struct store_row *row, void *arg, struct err *e)
{
    struct found *found = arg;

    life_take_row(row, found->arena, found->ret);
    found->n = 1;
    return 0;
}

static int find(struct store_tx *tx, const struct sql *sql, struct str key, struct arena *a,
                struct agent_info *ret, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(key) };
    struct found found = { .arena = a, .ret = ret };
    int r = store_run(tx, sql, args, LEN(args), take_found, &found, e);

    return r < 0 ? r : found.n;
}

int life_find_tx(struct store_tx *tx, struct str id, struct arena *a, struct agent_info *ret,
                 struct err *e)
{
    return find(tx, &sql_find, id, a, ret, e);
}

int life_find_session_tx(struct store_tx *tx, struct str session, struct arena *a,
                         struct agent_info *ret, struct err *e)
{
    return find(tx, &sql_session, session, a, ret, e);
}

static struct sql_arg text_or_null(struct str s)
{
    return s.p ? SQL_STR(s) : SQL_NULL;
}

static struct sql_arg time_or_null(int64_t ms)
{
    return ms ? SQL_INT(ms) : SQL_NULL;
}

int life_insert_tx(struct store_tx *tx, const struct agent_info *row, struct err *e)
{
    const struct sql_arg args[] = {
        SQL_STR(row->id),
        SQL_STR(row->name),
        text_or_null(row->persona),
        SQL_STR(row->model),
        SQL_STR(row->user),
        text_or_null(row->workspace),
        SQL_INT(row->generation),
        text_or_null(row->session),
        text_or_null(row->openclaw_id),
        SQL_INT(row->heartbeat),
        text_or_null(row->interval),
        text_or_null(row->checklist),
        text_or_null(row->configuration),
        text_or_null(row->workflow),
        SQL_INT(row->created_ms),
    };
    int r = store_run(tx, &sql_insert, args, LEN(args), NULL, NULL, e);

    if (r < 0)
        return r;
    return store_changed(tx) == 1 ? 0 : LIFE_STILL;
}

int life_write_tx(struct store_tx *tx, struct agent_info *row, int64_t version, struct err *e)
{
    const struct sql_arg args[] = {
        SQL_STR(row->id),
        SQL_INT(version),
        SQL_Z(agent_status_names[row->status]),
        SQL_STR(row->name),
        text_or_null(row->persona),
        SQL_STR(row->model),
        SQL_INT(row->generation),
        text_or_null(row->openclaw_id),
        SQL_INT(row->heartbeat),
        text_or_null(row->interval),
        text_or_null(row->checklist),
        time_or_null(row->next_beat_ms),
        text_or_null(row->configuration),
        text_or_null(row->error),
        SQL_INT(row->error_count),
        time_or_null(row->last_error_ms),
        text_or_null(row->workflow),
        SQL_INT(row->updated_ms),
        time_or_null(row->provisioned_ms),
        time_or_null(row->paused_ms),
        time_or_null(row->stopped_ms),
        SQL_INT(row->last_beat_ms),
    };
    int r = store_run(tx, &sql_write, args, LEN(args), NULL, NULL, e);

    if (r < 0)
        return r;
    if (store_changed(tx) != 1)
        return LIFE_STILL;
    row->version = version + 1;
    return 0;
}
