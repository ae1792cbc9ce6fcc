/* SPDX-License-Identifier: MIT */
/*
 * swarm/monitor_stat.c — numbers of a kind of workflow over a time, and what has failed. The
 * numbers are exact as long as no more than MONITOR_STATS workflows began in that time; past it
 * they are those of the newest so many, and say so.
 */
#include <string.h>

#include "swarm/mail.h"
#include "swarm/monitor_int.h"

const struct monitor_type monitor_types[MONITOR_TYPES] = {
    { "provision_agent", "AgentLifecycleWorkflow", "provisionAgentWorkflow" },
    { "heartbeat", "AgentLifecycleWorkflow", "heartbeatWorkflow" },
    { "pause_resume", "AgentLifecycleWorkflow", "pauseResumeWorkflow" },
    { "recovery", "AgentLifecycleWorkflow", "recoverWorkflow" },
    { "message", NULL, "routeAgentMessage" },
    { "command", "SwarmCommandWorkflow", "handleCommand" },
};
const char *const monitor_type_names[MONITOR_TYPES + 1] = {
    "provision_agent", "heartbeat", "pause_resume", "recovery", "message", "command", NULL,
};

const struct monitor_type *monitor_type_find(const char *type)
{
    for (size_t i = 0; type && i < MONITOR_TYPES; i++)
        if (strcmp(monitor_types[i].type, type) == 0)
            return &monitor_types[i];
    return NULL;
}

const char *monitor_type_of(struct str workflow_name)
{
    for (size_t i = 0; i < MONITOR_TYPES; i++)
        if (str_eq_z(workflow_name, monitor_types[i].name))
            return monitor_types[i].type;
    return NULL;
}

const char *monitor_message_status(int mail_status)
{
    switch (mail_status) {
    case MAIL_FAILED:
    case MAIL_EXPIRED:
        return "ERROR";
    case MAIL_DROPPED:
        return "CANCELLED";
    default:
        return "SUCCESS"; /* in the mailbox: that is what sending promises */
    }
}

/* --- numbers --- */

/* clang-format off */
/* Of seen(status, ms): what is counted, and times by nearest rank. */
#define COUNTED(good, bad, active) \
    " ranked AS (SELECT ms, ROW_NUMBER() OVER (ORDER BY ms) AS k, COUNT(*) OVER () AS n" \
    "  FROM seen WHERE ms IS NOT NULL AND status IN (" good ", " bad "))" \
    " SELECT (SELECT COUNT(*) FROM newest), COALESCE((SELECT MIN(at) FROM newest), 0), COUNT(*)," \
    " COALESCE(SUM(CASE WHEN status IN (" good ") THEN 1 ELSE 0 END), 0)," \
    " COALESCE(SUM(CASE WHEN status IN (" bad ") THEN 1 ELSE 0 END), 0)," \
    " COALESCE(SUM(CASE WHEN status IN (" active ") THEN 1 ELSE 0 END), 0)," \
    " COALESCE((SELECT CAST(AVG(ms) AS DOUBLE PRECISION) FROM ranked), 0)," \
    " COALESCE((SELECT MIN(ms) FROM ranked WHERE k * 100 >= n * 95), 0)," \
    " COALESCE((SELECT MIN(ms) FROM ranked WHERE k * 100 >= n * 99), 0) FROM seen"
/* ?1 since, ?2 rows, ?3 name or NULL. */
static const struct sql sql_stats = {
    "monitor stats",
    "WITH newest AS (SELECT name, status, created_at AS at, completed_at"
    "  FROM dbos.workflow_status WHERE created_at >= ?1 ORDER BY created_at DESC LIMIT ?2),"
    " seen AS (SELECT status, completed_at - at AS ms FROM newest"
    "  WHERE CAST(?3 AS TEXT) IS NULL OR name = ?3),"
    COUNTED("'SUCCESS'", "'ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'",
            "'PENDING', 'ENQUEUED', 'DELAYED'"),
    NULL,
};
/* ?1 since, ?2 rows. A message that waits counts whenever it was said: it is there now. */
static const struct sql sql_message_stats = {
    "monitor message stats",
    "WITH newest AS (SELECT status, ended_at - created_at AS ms, ended_at AS at"
    "  FROM (SELECT status, ended_at, created_at FROM agent_messages"
    "   WHERE status <> 'pending' AND ended_at >= ?1 ORDER BY ended_at DESC LIMIT ?2) e"
    "  UNION ALL SELECT status, NULL, created_at"
    "  FROM (SELECT status, created_at FROM agent_messages WHERE status = 'pending' LIMIT ?2) w),"
    " seen AS (SELECT status, ms FROM newest),"
    COUNTED("'acknowledged'", "'failed', 'expired'", "'pending'"),
    NULL,
};

/* ?1 rows, ?2 name or NULL, ?3 ended since. */
#define LAST(status) \
    "SELECT * FROM (SELECT workflow_uuid, created_at FROM dbos.workflow_status" \
    " WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')" \
    " AND status = '" status "' AND (CAST(?2 AS TEXT) IS NULL OR name = ?2)" \
    " AND COALESCE(completed_at, updated_at) >= ?3 ORDER BY created_at DESC LIMIT ?1) l_" status
static const struct sql sql_failed = {
    "monitor failed",
    LAST("ERROR") " UNION ALL " LAST("MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    " ORDER BY created_at DESC LIMIT ?1",
    NULL,
};
/* clang-format on */

struct stats {
    const struct sql *sql;
    struct sql_arg args[3];
    size_t n_args;
    struct monitor_stats *ret;
};

static int take_stats(struct store_row *row, void *arg, struct err *e)
{
    struct stats *s = arg;
    struct monitor_stats *ret = s->ret;

    (void)e;
    ret->rows = row_int(row, 0);
    if (ret->rows >= MONITOR_STATS) {
        ret->sampled = true;
        ret->since_ms = row_int(row, 1);
    }
    ret->total = row_int(row, 2);
    ret->successful = row_int(row, 3);
    ret->failed = row_int(row, 4);
    ret->pending = row_int(row, 5);
    ret->mean_s = row_real(row, 6) / 1000;
    ret->p95_s = (double)row_int(row, 7) / 1000;
    ret->p99_s = (double)row_int(row, 8) / 1000;
    if (ret->successful + ret->failed)
        ret->rate = (double)ret->successful / (double)(ret->successful + ret->failed);
    return 0;
}

static int stats_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct stats *s = arg;

    return store_run(tx, s->sql, s->args, s->n_args, take_stats, s, e);
}

CO int monitor_stats(struct monitor *m, const struct monitor_type *type, int64_t since_ms,
                     struct monitor_stats *ret, struct err *e)
{
    bool messages = type && !type->class_name;
    struct stats s = {
        .sql = messages ? &sql_message_stats : &sql_stats,
        .args = { SQL_INT(since_ms), SQL_INT(MONITOR_STATS),
                  type ? SQL_STR(str_of(type->name)) : SQL_NULL },
        .n_args = messages ? 2 : 3,
        .ret = ret,
    };

    *ret = (struct monitor_stats){ .since_ms = since_ms };
    return store_read(m->s->conf.store, stats_body, &s, e);
}

/* --- failed --- */

struct ids {
    struct sql_arg args[3];
    struct arena *arena;
    struct str *v;
    size_t n;
};

static int take_id(struct store_row *row, void *arg, struct err *e)
{
    struct ids *ids = arg;

    (void)e;
    ids->v[ids->n++] = arena_str(ids->arena, row_str(row, 0));
    return 0;
}

static int failed_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct ids *ids = arg;

    ids->n = 0;
    return store_run(tx, &sql_failed, ids->args, LEN(ids->args), take_id, ids, e);
}

static const char *words_of(const struct durable_info *info, struct arena *a)
{
    const char *text = json_string_value(json_object_get(durable_info_error(info, a), "message"));

    if (text || !info->error.p)
        return text;
    return arena_strndup(a, info->error.p, info->error.n < 1000 ? info->error.n : 1000);
}

static CO int failed_messages(struct monitor *m, int64_t since_ms, unsigned limit, struct arena *a,
                              struct monitor_failed **ret, size_t *ret_n, struct err *e)
{
    const struct mail_filter filter = {
        .statuses = 1u << MAIL_FAILED | 1u << MAIL_EXPIRED,
        .limit = limit,
    };
    struct monitor_failed *out;
    struct mail_info *found;
    size_t n, kept = 0;
    int r = mail_list(m->s->mail, &filter, a, &found, &n, e);

    if (r < 0)
        return r;
    out = arena_alloc(a, (n + 1) * sizeof(*out));
    for (size_t i = 0; i < n; i++) {
        if (found[i].ended_ms < since_ms)
            continue;
        out[kept++] = (struct monitor_failed){
            .id = found[i].workflow,
            .name = STR("routeAgentMessage"),
            .status = monitor_message_status((int)found[i].status),
            .error = found[i].error.p ? arena_strndup(a, found[i].error.p, found[i].error.n)
                                      : mail_status_names[found[i].status],
            .created_ms = found[i].created_ms,
            .updated_ms = found[i].ended_ms,
            .attempts = found[i].attempts,
        };
    }
    *ret = out;
    *ret_n = kept;
    return 0;
}

CO int monitor_failed(struct monitor *m, const struct monitor_type *type, int64_t since_ms,
                      unsigned limit, struct arena *a, struct monitor_failed **ret, size_t *ret_n,
                      struct err *e)
{
    struct durable_filter filter = { .descending = true, .load_output = true, .limit = limit };
    struct durable_info *found = NULL;
    struct ids ids = {
        .args = { SQL_INT(limit), type ? SQL_STR(str_of(type->name)) : SQL_NULL,
                  SQL_INT(since_ms) },
        .arena = a,
        .v = arena_alloc(a, (limit + 1) * sizeof(*ids.v)),
    };
    size_t n = 0;
    int r;

    if (type && !type->class_name)
        return failed_messages(m, since_ms, limit, a, ret, ret_n, e);
    r = store_read(m->s->conf.store, failed_body, &ids, e);
    filter.ids = ids.v;
    filter.n_ids = ids.n;
    if (r == 0 && ids.n)
        r = durable_list(m->s->conf.engine, &filter, a, &found, &n, e);
    if (r < 0)
        return r;
    *ret = arena_alloc(a, (n + 1) * sizeof(**ret));
    for (size_t i = 0; i < n; i++)
        (*ret)[i] = (struct monitor_failed){
            .id = found[i].id,
            .name = found[i].name,
            .status = durable_status_name(found[i].status),
            .error = words_of(&found[i], a),
            .created_ms = found[i].created_ms,
            .updated_ms = found[i].updated_ms,
            .attempts = found[i].attempts,
        };
    *ret_n = n;
    return 0;
}
