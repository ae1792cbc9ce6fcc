/* SPDX-License-Identifier: MIT */
/*
 * durable/manage_list.c — looking at workflows and their steps.
 *
 * A filter that is not given is a NULL argument. Lists are JSON arrays, which both databases can
 * read as a table. Rows come in order of creation, oldest first unless asked otherwise.
 */
#include <limits.h>

#include "durable/manage_int.h"

#define LIST_LIMIT  1000
#define STEPS_LIMIT 10000
#define LIST_BYTES  (64 * MIB) /* of the inputs and outputs in one answer */

/* clang-format off */
/* Of w, at ?1; inputs when ?2 is 1, outputs when ?3 is. */
#define LIVING "SELECT 1 FROM durable_executors x WHERE x.app_version = w.application_version" \
    " AND x.draining = 0 AND x.lease_until_ms > ?1"
#define COLUMNS(json) "SELECT w.workflow_uuid, w.status, w.name, w.class_name, w.config_name," \
    " w.queue_name, w.authenticated_user, w.assumed_role, w.authenticated_roles, w.executor_id," \
    " w.application_version, w.application_name, w.application_id, w.deduplication_id," \
    " w.queue_partition_key, w.forked_from, w.parent_workflow_id, w.schedule_name, " json "," \
    " w.serialization, CASE WHEN w.was_forked_from THEN 1 ELSE 0 END, w.recovery_attempts," \
    " w.priority, w.created_at, w.updated_at, w.started_at_epoch_ms, w.completed_at," \
    " w.workflow_timeout_ms, w.workflow_deadline_epoch_ms, w.delay_until_epoch_ms," \
    " CASE WHEN w.status = 'DELAYED' AND EXISTS (SELECT 1 FROM durable_parked p" \
    "  WHERE p.workflow_uuid = w.workflow_uuid) THEN 1 ELSE 0 END," \
    " CASE WHEN w.status IN " SQL_ACTIVE " AND w.application_version IS NOT NULL" \
    "  AND (w.status <> 'PENDING' OR w.executor_id LIKE 'chela-%')" \
    "  AND NOT EXISTS (" LIVING ") THEN 1 ELSE 0 END," \
    " CASE WHEN ?2 = 1 THEN COALESCE((SELECT i.inputs FROM dbos.workflow_input i" \
    "  WHERE i.workflow_uuid = w.workflow_uuid), w.inputs) END," \
    " CASE WHEN ?3 = 1 THEN COALESCE((SELECT o.output FROM dbos.workflow_output o" \
    "  WHERE o.workflow_uuid = w.workflow_uuid), w.output) END," \
    " CASE WHEN ?3 = 1 THEN COALESCE((SELECT o.error FROM dbos.workflow_output o" \
    "  WHERE o.workflow_uuid = w.workflow_uuid), w.error) END" \
    " FROM dbos.workflow_status w"
#define COLUMNS_LITE COLUMNS("w.attributes")
#define COLUMNS_PG   COLUMNS("CAST(w.attributes AS TEXT)")

static const struct sql sql_get = {
    "manage get",
    COLUMNS_LITE " WHERE w.workflow_uuid = ?4",
    COLUMNS_PG " WHERE w.workflow_uuid = ?4",
};

#define TIMES " AND (CAST(?14 AS BIGINT) IS NULL OR w.created_at >= ?14)" \
    " AND (CAST(?15 AS BIGINT) IS NULL OR w.created_at <= ?15)" \
    " AND (CAST(?16 AS BIGINT) IS NULL OR w.completed_at >= ?16)" \
    " AND (CAST(?17 AS BIGINT) IS NULL OR w.completed_at <= ?17)" \
    " AND (?18 = 0 OR (w.queue_name IS NOT NULL AND w.status IN " SQL_ACTIVE "))" \
    " AND (CAST(?19 AS TEXT) IS NULL OR substr(w.workflow_uuid, 1, length(?19)) = ?19)"
/* A JSON object within another, by its members: whole values, while PostgreSQL looks deeper. */
#define CONTAINED " AND (CAST(?20 AS TEXT) IS NULL OR (w.attributes IS NOT NULL AND NOT EXISTS" \
    " (SELECT 1 FROM json_each(?20) f WHERE NOT EXISTS (SELECT 1 FROM json_each(w.attributes) h" \
    "  WHERE h.key = f.key AND h.value IS f.value AND (h.type = f.type" \
    "   OR (h.type IN ('integer', 'real') AND f.type IN ('integer', 'real')))))))"
#define CONTAINED_PG " AND (CAST(?20 AS TEXT) IS NULL OR w.attributes @> CAST(?20 AS JSONB))"
#define WHERE_LITE " WHERE " ANY_OF("w.name", 5) " AND " ANY_OF("w.queue_name", 6) \
    " AND " ANY_OF("w.authenticated_user", 7) " AND " ANY_OF("w.application_version", 8) \
    " AND " ANY_OF("w.executor_id", 9) " AND " ANY_OF("w.parent_workflow_id", 10) \
    " AND " ANY_OF("w.forked_from", 11) " AND " ANY_OF("w.schedule_name", 12) \
    " AND " ANY_OF("w.status", 13) TIMES CONTAINED
#define WHERE_PG " WHERE " ANY_OF_PG("w.name", 5) " AND " ANY_OF_PG("w.queue_name", 6) \
    " AND " ANY_OF_PG("w.authenticated_user", 7) " AND " ANY_OF_PG("w.application_version", 8) \
    " AND " ANY_OF_PG("w.executor_id", 9) " AND " ANY_OF_PG("w.parent_workflow_id", 10) \
    " AND " ANY_OF_PG("w.forked_from", 11) " AND " ANY_OF_PG("w.schedule_name", 12) \
    " AND " ANY_OF_PG("w.status", 13) TIMES CONTAINED_PG
/* With ids the rows are looked up by them, and without by their time. */
#define IDS_LITE " AND w.workflow_uuid " IN_LIST(4)
#define IDS_PG   " AND w.workflow_uuid " IN_LIST_PG(4)
#define NO_IDS   " AND CAST(?4 AS TEXT) IS NULL"
#define UP       " ORDER BY w.created_at, w.workflow_uuid LIMIT ?21 OFFSET ?22"
#define DOWN     " ORDER BY w.created_at DESC, w.workflow_uuid DESC LIMIT ?21 OFFSET ?22"

static const struct sql sql_list[2][2] = { /* [with ids][descending] */
    { { "manage list", COLUMNS_LITE WHERE_LITE NO_IDS UP, COLUMNS_PG WHERE_PG NO_IDS UP },
      { "manage list down", COLUMNS_LITE WHERE_LITE NO_IDS DOWN,
        COLUMNS_PG WHERE_PG NO_IDS DOWN } },
    { { "manage list ids", COLUMNS_LITE WHERE_LITE IDS_LITE UP, COLUMNS_PG WHERE_PG IDS_PG UP },
      { "manage list ids down", COLUMNS_LITE WHERE_LITE IDS_LITE DOWN,
        COLUMNS_PG WHERE_PG IDS_PG DOWN } },
};

static const struct sql sql_steps = {
    "manage steps",
    "SELECT function_id, function_name, output, error, child_workflow_id, serialization,"
    " started_at_epoch_ms, completed_at_epoch_ms FROM dbos.operation_outputs"
    " WHERE workflow_uuid = ?1 AND function_id >= ?2 ORDER BY function_id LIMIT ?3",
};
/* clang-format on */

struct list {
    const struct sql *sql;
    struct sql_arg args[22];
    size_t n_args;
    struct arena *arena;
    struct durable_info *rows;
    size_t n, max, bytes;
};

static struct str keep(struct list *l, struct store_row *row, int col)
{
    return row_is_null(row, col) ? (struct str){ 0 } : arena_str(l->arena, row_str(row, col));
}

static int64_t number(struct store_row *row, int col)
{
    return row_is_null(row, col) ? 0 : row_int(row, col);
}

static void list_texts(struct list *l, struct store_row *row, struct durable_info *info)
{
    struct str *const texts[] = {
        &info->id,       &info->name,        &info->class_name,    &info->config_name,
        &info->queue,    &info->user,        &info->role,          &info->roles,
        &info->executor, &info->app_version, &info->app_name,      &info->app_id,
        &info->dedup_id, &info->partition,   &info->forked_from,   &info->parent,
        &info->schedule, &info->attributes,  &info->serialization,
    };

    for (size_t i = 0; i < LEN(texts); i++) /* the second column is the status */
        *texts[i] = keep(l, row, i == 0 ? 0 : (int)i + 1);
}

static int list_row(struct store_row *row, void *arg, struct err *e)
{
    struct list *l = arg;
    struct durable_info *info = &l->rows[l->n];
    int r = durable_status_parse(row_str(row, 1), &info->status, e);

    if (r < 0)
        return r;
    list_texts(l, row, info);
    info->was_forked_from = row_int(row, 20) != 0;
    info->attempts = number(row, 21);
    info->priority = number(row, 22);
    info->created_ms = number(row, 23);
    info->updated_ms = number(row, 24);
    info->started_ms = number(row, 25);
    info->completed_ms = number(row, 26);
    info->timeout_ms = number(row, 27);
    info->deadline_ms = number(row, 28);
    info->delay_until_ms = number(row, 29);
    info->parked = row_int(row, 30) != 0;
    info->blocked_version = row_int(row, 31) != 0;
    l->bytes += row_str(row, 32).n + row_str(row, 33).n + row_str(row, 34).n;
    if (l->bytes > LIST_BYTES && l->n > 0)
        return err_set(e, ERR_LIMIT, "inputs and outputs of more than %zu MiB: ask for fewer rows",
                       LIST_BYTES / MIB);
    info->input = keep(l, row, 32);
    info->output = keep(l, row, 33);
    info->error = keep(l, row, 34);
    l->n++;
    return 0;
}

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct list *l = arg;

    l->n = l->bytes = 0;
    return store_run(tx, l->sql, l->args, l->n_args, list_row, l, e);
}

static CO int list_run(struct durable *d, struct list *l, struct err *e)
{
    int r = store_read(d->store, list_body, l, e);

    for (size_t i = 0; r == 0 && i < l->n; i++) {
        struct durable_info *info = &l->rows[i];

        info->known = type_find(d, info->name, info->class_name) != NULL;
        info->blocked_version &= info->known;
    }
    return r;
}

static int statuses_arg(struct list *l, unsigned statuses, struct sql_arg *ret, struct err *e)
{
    struct str names[DURABLE_STATUSES];
    size_t n = 0;

    if (statuses >> DURABLE_STATUSES)
        return err_set(e, ERR_INVALID, "an unknown status is asked for");
    for (int i = 0; i < DURABLE_STATUSES; i++)
        if (statuses & 1u << i)
            names[n++] = str_of(durable_status_name((enum durable_status)i));
    *ret = list_arg(l->arena, names, n);
    return 0;
}

static int list_args(struct list *l, const struct durable_filter *f, struct err *e)
{
    const struct {
        const struct str *v;
        size_t n;
    } lists[] = {
        { f->ids, f->n_ids },
        { f->names, f->n_names },
        { f->queues, f->n_queues },
        { f->users, f->n_users },
        { f->versions, f->n_versions },
        { f->executors, f->n_executors },
        { f->parents, f->n_parents },
        { f->forked_from, f->n_forked_from },
        { f->schedules, f->n_schedules },
    };
    json_t *attributes;
    int r;

    l->args[1] = SQL_INT(f->load_input);
    l->args[2] = SQL_INT(f->load_output);
    for (size_t i = 0; i < LEN(lists); i++) {
        if (lists[i].n > DURABLE_IDS_MAX)
            return err_set(e, ERR_LIMIT, "a filter has at most %d values", DURABLE_IDS_MAX);
        l->args[3 + i] = list_arg(l->arena, lists[i].v, lists[i].n);
    }
    r = statuses_arg(l, f->statuses, &l->args[12], e);
    if (r < 0)
        return r;
    l->args[13] = int_arg(f->created_from_ms);
    l->args[14] = int_arg(f->created_to_ms);
    l->args[15] = int_arg(f->completed_from_ms);
    l->args[16] = int_arg(f->completed_to_ms);
    l->args[17] = SQL_INT(f->queues_only);
    l->args[18] = f->id_prefix.n ? SQL_STR(f->id_prefix) : SQL_NULL;
    l->args[19] = f->attributes.n ? SQL_STR(f->attributes) : SQL_NULL;
    l->args[20] = SQL_INT((int64_t)l->max);
    l->args[21] = SQL_INT(f->offset);
    if (f->offset < 0)
        return err_set(e, ERR_INVALID, "an offset is not negative");
    if (!f->attributes.n)
        return 0;
    r = json_parse(f->attributes, 64, l->arena, &attributes, NULL, e);
    if (r < 0)
        return err_wrap(e, "attributes");
    return json_is_object(attributes)
               ? 0
               : err_set(e, ERR_INVALID, "attributes are to be a JSON object");
}

CO int durable_list(struct durable *d, const struct durable_filter *f, struct arena *a,
                    struct durable_info **ret, size_t *ret_n, struct err *e)
{
    struct list l = { .sql = &sql_list[f->n_ids > 0][f->descending], .n_args = 22, .arena = a };
    int r;

    l.max = f->limit == 0 ? 100 : f->limit;
    if (l.max > LIST_LIMIT)
        return err_set(e, ERR_LIMIT, "at most %d rows at once", LIST_LIMIT);
    r = list_args(&l, f, e);
    if (r < 0)
        return r;
    l.rows = arena_alloc(a, l.max * sizeof(*l.rows));
    l.args[0] = SQL_INT(clock_ms(d));
    r = list_run(d, &l, e);
    if (r < 0)
        return r;
    *ret = l.rows;
    *ret_n = l.n;
    return 0;
}

CO int durable_get(struct durable *d, struct str id, struct arena *a, struct durable_info *ret,
                   struct err *e)
{
    struct list l = { .sql = &sql_get, .n_args = 4, .arena = a, .rows = ret, .max = 1 };
    int r;

    l.args[0] = SQL_INT(clock_ms(d));
    l.args[1] = l.args[2] = SQL_INT(1);
    l.args[3] = SQL_STR(id);
    r = list_run(d, &l, e);
    if (r < 0)
        return r;
    if (l.n == 0)
        return err_set(e, ERR_NOT_FOUND, "workflow '" STR_FMT "' does not exist",
                       id.n > 100 ? 100 : (int)id.n, id.p);
    return 0;
}

/* --- steps --- */

struct steps {
    struct sql_arg args[3];
    struct arena *arena;
    struct durable_step_info *rows;
    size_t n, cap, bytes;
};

static struct durable_step_info *step_new(struct steps *s)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        struct durable_step_info *rows = arena_alloc(s->arena, cap * sizeof(*rows));

        if (s->n)
            memcpy(rows, s->rows, s->n * sizeof(*rows));
        s->rows = rows;
        s->cap = cap;
    }
    return &s->rows[s->n];
}

static int step_row(struct store_row *row, void *arg, struct err *e)
{
    struct steps *s = arg;
    struct durable_step_info *step = step_new(s);
    struct str *const texts[] = { &step->name, &step->output, &step->error, &step->child,
                                  &step->serialization };

    s->bytes += row_str(row, 2).n + row_str(row, 3).n;
    if (s->bytes > LIST_BYTES && s->n > 0)
        return err_set(e, ERR_LIMIT, "results of more than %zu MiB: ask for fewer steps",
                       LIST_BYTES / MIB);
    step->id = row_int(row, 0);
    for (size_t i = 0; i < LEN(texts); i++)
        *texts[i] = row_is_null(row, (int)i + 1) ? (struct str){ 0 }
                                                 : arena_str(s->arena, row_str(row, (int)i + 1));
    step->started_ms = number(row, 6);
    step->completed_ms = number(row, 7);
    s->n++;
    return 0;
}

static int steps_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct steps *s = arg;

    s->n = s->bytes = 0;
    return store_run(tx, &sql_steps, s->args, LEN(s->args), step_row, s, e);
}

CO int durable_steps(struct durable *d, struct str id, int64_t from, unsigned limit,
                     struct arena *a, struct durable_step_info **ret, size_t *ret_n, struct err *e)
{
    struct steps s = { .arena = a };
    int r;

    if (limit == 0)
        limit = 100;
    if (limit > STEPS_LIMIT && limit != UINT_MAX)
        return err_set(e, ERR_LIMIT, "at most %d steps at once", STEPS_LIMIT);
    s.args[0] = SQL_STR(id);
    s.args[1] = SQL_INT(from);
    s.args[2] = SQL_INT(limit);
    r = store_read(d->store, steps_body, &s, e);
    if (r < 0)
        return r;
    *ret = s.rows;
    *ret_n = s.n;
    return 0;
}
