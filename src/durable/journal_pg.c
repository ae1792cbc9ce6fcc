/* SPDX-License-Identifier: MIT */
/*
 * A batch of the journal as one statement of PostgreSQL: arrays in, one round trip, one commit. The
 * answer names the entries that were not written, which is hardly ever one; those are looked into
 * one by one in transactions (journal_tx.c), so running a statement twice does no harm: what was
 * written the first time is found there.
 *
 * Rows are locked in the order of their ids, so that batches of two processes do not deadlock. The
 * owner's check locks the workflow's row until the commit: a claim by somebody else waits for it,
 * and an entry that waited for such a claim looks at the row again and is not written.
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#include "durable/journal_int.h"

/* clang-format off */
static const struct sql sql_steps = { "durable steps", "", /* SQLite: journal_tx.c */
    "WITH j AS MATERIALIZED (SELECT * FROM unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
    "  WITH ORDINALITY AS j (id, token, fid, name, output, error, child, format, started,"
    "   completed, n)),"
    " own AS MATERIALIZED (SELECT j.n FROM dbos.workflow_status w"
    "  JOIN j ON j.id = w.workflow_uuid"
    "  WHERE w.status = 'PENDING' AND w.owner_xid = j.token"
    "  ORDER BY w.workflow_uuid FOR SHARE OF w),"
    " ins AS (INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name,"
    "   output, error, child_workflow_id, serialization, started_at_epoch_ms,"
    "   completed_at_epoch_ms, application_name)"
    "  SELECT j.id, j.fid, j.name, j.output, j.error, j.child, j.format, j.started, j.completed,"
    "   ?11 FROM own JOIN j ON j.n = own.n"
    "  ON CONFLICT DO NOTHING RETURNING workflow_uuid, function_id)"
    " SELECT j.n FROM j WHERE NOT EXISTS (SELECT 1 FROM ins"
    "  WHERE ins.workflow_uuid = j.id AND ins.function_id = j.fid)",
};

/* Parked workflows that wait for one of these go back to their queues: n is 0 for each. One that
 * parks at this very moment may be missed; the sweep finds it. */
static const struct sql sql_finishes = { "durable finishes", "",
    "WITH j AS MATERIALIZED (SELECT * FROM unnest(?1, ?2, ?3, ?4, ?5)"
    "  WITH ORDINALITY AS j (id, token, status, output, error, n)),"
    " own AS MATERIALIZED (SELECT j.* FROM dbos.workflow_status w"
    "  JOIN j ON j.id = w.workflow_uuid"
    "  WHERE w.status = 'PENDING' AND w.owner_xid = j.token"
    "  ORDER BY w.workflow_uuid FOR NO KEY UPDATE OF w),"
    " upd AS (UPDATE dbos.workflow_status w SET status = own.status, output = own.output,"
    "   error = own.error, owner_xid = NULL, deduplication_id = NULL,"
    "   completed_at = " PG_NOW_MS ", updated_at = " PG_NOW_MS
    "  FROM own WHERE w.workflow_uuid = own.id RETURNING own.n),"
    " res AS (INSERT INTO dbos.workflow_output (workflow_uuid, output, error)"
    "  SELECT own.id, own.output, own.error FROM own"
    "  ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output,"
    "   error = excluded.error, retention_timestamp = excluded.retention_timestamp),"
    " woken AS (UPDATE dbos.workflow_status p SET status = 'ENQUEUED',"
    "   delay_until_epoch_ms = NULL, updated_at = " PG_NOW_MS
    "  WHERE p.status = 'DELAYED' AND p.workflow_uuid IN (SELECT k.workflow_uuid"
    "   FROM durable_parked k WHERE k.kind = 'result' AND k.target IN (SELECT own.id FROM own))"
    "  RETURNING 1)"
    " SELECT j.n FROM j WHERE NOT EXISTS (SELECT 1 FROM upd WHERE upd.n = j.n)"
    " UNION ALL SELECT 0 FROM woken",
};

static const struct sql sql_starts = { "durable starts", "",
    "WITH j AS MATERIALIZED (SELECT * FROM unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,"
    "   ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)"
    "  WITH ORDINALITY AS j (id, status, name, class, config, queue, token, executor, version,"
    "   app, dedup, part, caller, roles, attributes, parent, schedule, inputs, priority, timeout,"
    "   deadline, delay, created, attempts, n)),"
    " ins AS (INSERT INTO dbos.workflow_status (workflow_uuid, status, name, class_name,"
    "   config_name, queue_name, owner_xid, creator_xid, executor_id, application_version,"
    "   application_name, deduplication_id, queue_partition_key, authenticated_user,"
    "   assumed_role, authenticated_roles, attributes, parent_workflow_id, schedule_name,"
    "   priority, workflow_timeout_ms, workflow_deadline_epoch_ms, delay_until_epoch_ms,"
    "   created_at, updated_at, recovery_attempts, application_id, serialization)"
    "  SELECT j.id, j.status, j.name, j.class, j.config, j.queue,"
    "   CASE WHEN j.status = 'PENDING' THEN j.token END, j.token, j.executor, j.version, j.app,"
    "   j.dedup, j.part, j.caller, '', j.roles, j.attributes::jsonb, j.parent, j.schedule,"
    "   j.priority, j.timeout, j.deadline, j.delay, j.created, j.created, j.attempts, '',"
    "   'portable_json' FROM j ORDER BY j.id"
    "  ON CONFLICT DO NOTHING RETURNING creator_xid),"
    " inp AS (INSERT INTO dbos.workflow_input (workflow_uuid, inputs)"
    "  SELECT j.id, j.inputs FROM j JOIN ins ON ins.creator_xid = j.token"
    "  ON CONFLICT DO NOTHING)"
    " SELECT j.n FROM j WHERE NOT EXISTS (SELECT 1 FROM ins WHERE ins.creator_xid = j.token)",
};
/* clang-format on */

/* Columns: from the entries to arrays */

struct columns {
    struct arena arena;
    const struct batch *b;
    struct sql_arg args[25];
    size_t n;
};

static inline void columns_auto(struct columns *c)
{
    arena_done(&c->arena);
}

static struct str *add_texts(struct columns *c)
{
    struct str *p = arena_raw(&c->arena, c->b->n * sizeof(*p));

    assert(c->n < LEN(c->args));
    c->args[c->n++] = SQL_TEXTS(p, c->b->n);
    return p;
}

static int64_t *add_ints(struct columns *c)
{
    int64_t *p = arena_raw(&c->arena, c->b->n * sizeof(*p));

    assert(c->n < LEN(c->args));
    c->args[c->n++] = SQL_INTS(p, c->b->n);
    return p;
}

static int64_t or_null(int64_t v)
{
    return v ? v : SQL_INTS_NULL;
}

static void add_ids(struct columns *c)
{
    struct str *id = add_texts(c), *token = add_texts(c);

    for (const struct entry *entry = c->b->first; entry; entry = entry->next) {
        *id++ = str_of(entry->w->id);
        *token++ = str_of(entry->w->token);
    }
}

static void step_columns(struct columns *c)
{
    struct str *name, *output, *error, *child, *format;
    int64_t *fid, *started, *completed;

    add_ids(c);
    fid = add_ints(c);
    name = add_texts(c);
    output = add_texts(c);
    error = add_texts(c);
    child = add_texts(c);
    format = add_texts(c);
    started = add_ints(c);
    completed = add_ints(c);
    for (const struct entry *entry = c->b->first; entry; entry = entry->next) {
        const struct record *record = entry->record;

        *fid++ = record->id;
        *name++ = str_of(record->name);
        *output++ = record->output;
        *error++ = record->error;
        *child++ = record->child;
        *format++ = str_of(wire_format_name(record->format));
        *started++ = or_null(record->started_ms);
        *completed++ = or_null(record->completed_ms);
    }
    c->args[c->n++] = SQL_Z(c->b->d->conf.app_name);
}

static void finish_columns(struct columns *c)
{
    struct str *status, *output, *error;

    add_ids(c);
    status = add_texts(c);
    output = add_texts(c);
    error = add_texts(c);
    for (const struct entry *entry = c->b->first; entry; entry = entry->next) {
        *status++ = str_of(durable_status_name(entry->status));
        *output++ = entry->output;
        *error++ = entry->error;
    }
}

static void start_texts(struct columns *c)
{
#define AT(member) offsetof(struct start_row, member)
    static const size_t at[] = {
        AT(name),        AT(class_name), AT(config_name), AT(queue),     AT(token), AT(executor),
        AT(app_version), AT(app_name),   AT(dedup_id),    AT(partition), AT(user),  AT(roles),
        AT(attributes),  AT(parent),     AT(schedule),    AT(inputs),
    };
#undef AT
    struct str *id = add_texts(c), *status = add_texts(c);

    for (const struct entry *entry = c->b->first; entry; entry = entry->next) {
        *id++ = entry->row->id;
        *status++ = str_of(durable_status_name(entry->row->status));
    }
    for (size_t i = 0; i < LEN(at); i++) {
        struct str *p = add_texts(c);

        for (const struct entry *entry = c->b->first; entry; entry = entry->next)
            *p++ = *(const struct str *)((const char *)entry->row + at[i]);
    }
}

static void start_columns(struct columns *c)
{
    int64_t *priority, *timeout, *deadline, *delay, *created, *attempts;

    start_texts(c);
    priority = add_ints(c);
    timeout = add_ints(c);
    deadline = add_ints(c);
    delay = add_ints(c);
    created = add_ints(c);
    attempts = add_ints(c);
    for (const struct entry *entry = c->b->first; entry; entry = entry->next) {
        const struct start_row *row = entry->row;

        *priority++ = row->priority;
        *timeout++ = or_null(row->timeout_ms);
        *deadline++ = or_null(row->deadline_ms);
        *delay++ = or_null(row->delay_until_ms);
        *created++ = row->created_ms;
        *attempts++ = row->attempts;
    }
}

/* The statement, and what it left */

static const struct {
    const struct sql *sql;
    void (*columns)(struct columns *c);
} lanes[LANES] = {
    [LANE_STEP] = { &sql_steps, step_columns },
    [LANE_START] = { &sql_starts, start_columns },
    [LANE_FINISH] = { &sql_finishes, finish_columns },
};

struct left {
    bool at[LANE_BATCH]; /* entries that were not written; may be told twice */
    bool woke;
};

static int take_left(struct store_row *row, void *arg, struct err *e)
{
    struct left *left = arg;
    int64_t n = row_int(row, 0);

    if (n == 0)
        left->woke = true;
    else
        left->at[n - 1] = true;
    return 0;
}

struct one_call {
    struct batch *b;
    struct entry *entry;
};

static int one_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct one_call *call = arg;

    return entry_tx(tx, call->b, call->entry, e);
}

static CO int look_into(struct batch *b, const struct left *left, struct err *e)
{
    struct one_call call = { .b = b, .entry = b->first };
    int r;

    for (unsigned i = 0; i < b->n; i++, call.entry = call.entry->next) {
        if (!left->at[i]) {
            call.entry->outcome = JOURNAL_OK;
            continue;
        }
        r = store_do(b->d->store, one_body, &call, e);
        if (r < 0)
            return r;
        call.entry->outcome = r;
    }
    return 0;
}

CO int batch_send_pg(struct batch *b, struct err *e)
{
    AUTO(columns) struct columns c = { .b = b };
    struct left left = { 0 };
    int r;

    assert(b->n <= LANE_BATCH);
    lanes[b->kind].columns(&c);
    r = store_once(b->d->store, lanes[b->kind].sql, c.args, c.n, take_left, &left, e);
    if (r < 0)
        return r;
    b->woke = left.woke;
    return look_into(b, &left, e);
}
