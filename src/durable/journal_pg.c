/* SPDX-License-Identifier: MIT */
/*
 * A batch of the journal as one statement of PostgreSQL: one round trip, one commit. The answer
 * names the entries that were written, which is nearly always all; the others are looked into one
 * by one in transactions (journal_tx.c), so running a statement twice does no harm: what was
 * written the first time is found there.
 *
 * Each statement has two forms of one text: its entries j are arrays (unnest costs about 20 us for
 * each, so it pays for two and more), or the values themselves. Its plan must not depend on how
 * many there are, because it is made once: entries are joined to rows by LATERAL, never to each
 * other.
 *
 * Rows are locked in the order of their ids, so that batches of two processes do not deadlock. The
 * owner's check locks the workflow's row until the commit: a claim by somebody else waits for it,
 * and an entry that waited for such a claim looks at the row again and is not written.
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "durable/journal_int.h"

/* clang-format off */
#define STEP_J " AS j (id, token, fid, name, output, error, child, format, started, completed)"
#define STEP_MANY "unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)" STEP_J
#define STEP_ONE \
    "(VALUES (?1::text, ?2::text, ?3::bigint, ?4::text, ?5::text, ?6::text, ?7::text, ?8::text," \
    " ?9::bigint, ?10::bigint))" STEP_J
#define STEPS(source) \
    "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name, output," \
    " error, child_workflow_id, serialization, started_at_epoch_ms, completed_at_epoch_ms," \
    " application_name)" \
    " SELECT j.id, j.fid, j.name, j.output, j.error, j.child, j.format, j.started," \
    "  j.completed, ?11 FROM " source \
    " CROSS JOIN LATERAL (SELECT 1 FROM dbos.workflow_status w WHERE w.workflow_uuid = j.id" \
    "  AND w.status = 'PENDING' AND w.owner_xid = j.token FOR SHARE) own" \
    " ON CONFLICT DO NOTHING RETURNING workflow_uuid"

/* Parked workflows that wait for one of these go back to their queues: a NULL for each. One that
 * parks at this very moment may be missed; the sweep finds it. */
#define FINISH_J " AS j (id, token, status, output, error)"
#define FINISH_MANY "unnest(?1, ?2, ?3, ?4, ?5)" FINISH_J
#define FINISH_ONE "(VALUES (?1::text, ?2::text, ?3::text, ?4::text, ?5::text))" FINISH_J
#define FINISHES(source) \
    "WITH own AS MATERIALIZED (SELECT j.* FROM " source \
    "  CROSS JOIN LATERAL (SELECT 1 FROM dbos.workflow_status w WHERE w.workflow_uuid = j.id" \
    "   AND w.status = 'PENDING' AND w.owner_xid = j.token FOR NO KEY UPDATE) own)," \
    " upd AS (UPDATE dbos.workflow_status w SET status = own.status, output = own.output," \
    "   error = own.error, owner_xid = NULL, deduplication_id = NULL," \
    "   completed_at = " PG_NOW_MS ", updated_at = " PG_NOW_MS \
    "  FROM own WHERE w.workflow_uuid = own.id RETURNING w.workflow_uuid)," \
    " res AS (INSERT INTO dbos.workflow_output (workflow_uuid, output, error)" \
    "  SELECT own.id, own.output, own.error FROM own" \
    "  ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output," \
    "   error = excluded.error, retention_timestamp = excluded.retention_timestamp)," \
    " woken AS (UPDATE dbos.workflow_status p SET status = 'ENQUEUED'," \
    "   delay_until_epoch_ms = NULL, updated_at = " PG_NOW_MS \
    "  FROM own CROSS JOIN LATERAL (SELECT k.workflow_uuid FROM durable_parked k" \
    "   WHERE k.target = own.id AND k.kind = 'result' OFFSET 0) k" \
    "  WHERE p.workflow_uuid = k.workflow_uuid AND p.status = 'DELAYED' RETURNING 1)" \
    " SELECT workflow_uuid FROM upd UNION ALL SELECT NULL FROM woken"

/* Which of two starts of one id in one batch was first is told by the creator's token. */
#define START_J \
    " AS j (id, token, status, name, class, config, queue, executor, version, app, dedup, part," \
    " caller, roles, attributes, parent, schedule, inputs, priority, timeout, deadline, delay," \
    " created, attempts)"
#define START_MANY \
    "unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18," \
    " ?19, ?20, ?21, ?22, ?23, ?24)" START_J
#define START_ONE \
    "(VALUES (?1::text, ?2::text, ?3::text, ?4::text, ?5::text, ?6::text, ?7::text, ?8::text," \
    " ?9::text, ?10::text, ?11::text, ?12::text, ?13::text, ?14::text, ?15::text, ?16::text," \
    " ?17::text, ?18::text, ?19::bigint, ?20::bigint, ?21::bigint, ?22::bigint, ?23::bigint," \
    " ?24::bigint))" START_J
#define STARTS(source) \
    "WITH j AS MATERIALIZED (SELECT * FROM " source ")," \
    " ins AS (INSERT INTO dbos.workflow_status (workflow_uuid, status, name, class_name," \
    "   config_name, queue_name, owner_xid, creator_xid, executor_id, application_version," \
    "   application_name, deduplication_id, queue_partition_key, authenticated_user," \
    "   assumed_role, authenticated_roles, attributes, parent_workflow_id, schedule_name," \
    "   priority, workflow_timeout_ms, workflow_deadline_epoch_ms, delay_until_epoch_ms," \
    "   created_at, updated_at, recovery_attempts, application_id, serialization)" \
    "  SELECT j.id, j.status, j.name, j.class, j.config, j.queue," \
    "   CASE WHEN j.status = 'PENDING' THEN j.token END, j.token, j.executor, j.version, j.app," \
    "   j.dedup, j.part, j.caller, '', j.roles, j.attributes::jsonb, j.parent, j.schedule," \
    "   j.priority, j.timeout, j.deadline, j.delay, j.created, j.created, j.attempts, ''," \
    "   'portable_json' FROM j" \
    "  ON CONFLICT DO NOTHING RETURNING creator_xid)," \
    " inp AS (INSERT INTO dbos.workflow_input (workflow_uuid, inputs)" \
    "  SELECT j.id, j.inputs FROM ins JOIN j ON j.token = ins.creator_xid" \
    "  ON CONFLICT DO NOTHING)" \
    " SELECT creator_xid FROM ins"

/* On SQLite see journal_tx.c. */
static const struct sql many[LANES] = {
    [LANE_STEP] =   { "durable steps",    "", STEPS(STEP_MANY) },
    [LANE_START] =  { "durable starts",   "", STARTS(START_MANY) },
    [LANE_FINISH] = { "durable finishes", "", FINISHES(FINISH_MANY) },
};
static const struct sql one[LANES] = {
    [LANE_STEP] =   { "durable a step",   "", STEPS(STEP_ONE) },
    [LANE_START] =  { "durable a start",  "", STARTS(START_ONE) },
    [LANE_FINISH] = { "durable a finish", "", FINISHES(FINISH_ONE) },
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
    /* clang-format off */
    static const size_t at[] = {
        AT(name), AT(class_name), AT(config_name), AT(queue), AT(executor), AT(app_version),
        AT(app_name), AT(dedup_id), AT(partition), AT(user), AT(roles), AT(attributes),
        AT(parent), AT(schedule), AT(inputs),
    };
    /* clang-format on */
#undef AT
    struct str *id = add_texts(c), *token = add_texts(c), *status = add_texts(c);

    for (const struct entry *entry = c->b->first; entry; entry = entry->next) {
        *id++ = entry->row->id;
        *token++ = entry->row->token;
        *status++ = str_of(durable_status_name(entry->row->status));
    }
    for (size_t i = 0; i < LEN(at); i++) {
        struct str *p = add_texts(c);

        for (const struct entry *entry = c->b->first; entry; entry = entry->next)
            *p++ = *(const struct str *)(const void *)((const char *)entry->row + at[i]);
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

/* For one entry: the values instead of arrays of one. */
static void columns_unwrap(struct columns *c)
{
    for (size_t i = 0; i < c->n; i++) {
        struct sql_arg *arg = &c->args[i];

        if (arg->kind == SQL_K_TEXTS)
            *arg = arg->texts[0].p ? SQL_STR(arg->texts[0]) : SQL_NULL;
        else if (arg->kind == SQL_K_INTS)
            *arg = arg->ints[0] == SQL_INTS_NULL ? SQL_NULL : SQL_INT(arg->ints[0]);
    }
}

static void (*const columns_of[LANES])(struct columns *c) = {
    [LANE_STEP] = step_columns,
    [LANE_START] = start_columns,
    [LANE_FINISH] = finish_columns,
};

/* What came back: the keys of entries that were written, about in their order */

struct written {
    struct batch *b;
    struct entry *next;
};

static bool is_key(const struct batch *b, const struct entry *entry, struct str key)
{
    if (b->kind == LANE_START)
        return str_eq(entry->row->token, key);
    return str_eq_z(key, entry->w->id);
}

static int take_written(struct store_row *row, void *arg, struct err *e)
{
    struct written *call = arg;
    struct batch *b = call->b;
    struct str key = row_str(row, 0);

    if (!key.p) {
        b->woke = true;
        return 0;
    }
    for (unsigned i = 0; i < b->n; i++) {
        struct entry *entry = call->next ? call->next : b->first;

        call->next = entry->next;
        if (!entry->written && is_key(b, entry, key)) {
            entry->written = true;
            return 0;
        }
    }
    return 0; /* told a second time */
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

static CO int look_into_rest(struct batch *b, struct err *e)
{
    struct one_call call = { .b = b };
    int r;

    for (struct entry *entry = b->first; entry; entry = entry->next) {
        entry->outcome = JOURNAL_OK;
        if (entry->written && !entry->twin)
            continue;
        call.entry = entry;
        r = store_do(b->d->store, one_body, &call, e);
        if (r < 0)
            return r;
        entry->outcome = r;
    }
    return 0;
}

/* Order of ids */

static struct str id_of(const struct batch *b, const struct entry *entry)
{
    return b->kind == LANE_START ? entry->row->id : str_of(entry->w->id);
}

static int compare_ids(const void *a, const void *b, void *arg)
{
    const struct entry *const *x = a, *const *y = b;
    struct str s = id_of(arg, *x), t = id_of(arg, *y);
    int r = memcmp(s.p, t.p, s.n < t.n ? s.n : t.n);

    return r != 0 ? r : (s.n > t.n) - (s.n < t.n);
}

/*
 * Locks are taken in the order of the arrays. Two executions of one workflow may meet here, one of
 * which has lost it: what comes back does not tell them apart, so both are looked into.
 */
static void arrange(struct batch *b, struct arena *a)
{
    struct entry **all = arena_raw(a, b->n * sizeof(struct entry *));
    unsigned n = 0;

    for (struct entry *entry = b->first; entry; entry = entry->next) {
        entry->written = entry->twin = false;
        all[n++] = entry;
    }
    qsort_r(all, n, sizeof(struct entry *), compare_ids, b);
    for (unsigned i = 0; i < n; i++) {
        all[i]->next = i + 1 < n ? all[i + 1] : NULL;
        if (i > 0 && b->kind != LANE_START && compare_ids(&all[i - 1], &all[i], b) == 0)
            all[i - 1]->twin = all[i]->twin = true;
    }
    b->first = all[0];
}

CO int batch_send_pg(struct batch *b, struct err *e)
{
    const struct sql *sql = b->n == 1 ? &one[b->kind] : &many[b->kind];
    struct written call = { .b = b };
    AUTO(columns) struct columns c = { .b = b };
    int r;

    arrange(b, &c.arena);
    columns_of[b->kind](&c);
    if (b->n == 1)
        columns_unwrap(&c);
    b->woke = false;
    r = store_once(b->d->store, sql, c.args, c.n, take_written, &call, e);
    return r < 0 ? r : look_into_rest(b, e);
}
