/* SPDX-License-Identifier: MIT */
/*
 * Entries of the journal in a transaction, one after the other: how SQLite gets them all, and how
 * PostgreSQL gets those that its one statement for many did not write. Here it is found out why:
 * not ours any more, another record is there, or it was written the time before and only the
 * answer was lost.
 */
#include "durable/journal_int.h"

/* clang-format off */
static const struct sql sql_lock = {
    "durable own",
    "SELECT 1 FROM dbos.workflow_status"
    " WHERE workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?2",
    "SELECT 1 FROM dbos.workflow_status"
    " WHERE workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?2 FOR NO KEY UPDATE",
};

#define RECORD_COLUMNS \
    "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name, output, error," \
    " child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms, serialization," \
    " application_name) "
static const struct sql sql_record = {
    "durable record",
    RECORD_COLUMNS "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
    NULL,
};
/* On SQLite nobody writes beside us, so the look at the owner needs no lock of its own. */
static const struct sql sql_record_owned = {
    "durable record owned",
    RECORD_COLUMNS "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10"
    " WHERE EXISTS (SELECT 1 FROM dbos.workflow_status"
    "  WHERE workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?11)"
    " ON CONFLICT DO NOTHING",
    NULL,
};
static const struct sql sql_recorded = {
    "durable recorded",
    "SELECT function_name, output, error, started_at_epoch_ms, completed_at_epoch_ms"
    " FROM dbos.operation_outputs WHERE workflow_uuid = ?1 AND function_id = ?2",
    NULL,
};
static const struct sql sql_finish = {
    "durable finish",
    "UPDATE dbos.workflow_status SET status = ?3, output = ?4, error = ?5, owner_xid = NULL,"
    " deduplication_id = NULL, completed_at = ?6, updated_at = ?6"
    " WHERE workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?2",
    "UPDATE dbos.workflow_status SET status = ?3, output = ?4, error = ?5, owner_xid = NULL,"
    " deduplication_id = NULL, completed_at = " PG_NOW_MS ", updated_at = " PG_NOW_MS
    " WHERE ?6::bigint IS NOT NULL"
    " AND workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?2",
};
static const struct sql sql_output = {
    "durable output",
    "INSERT INTO dbos.workflow_output (workflow_uuid, output, error) VALUES (?1, ?2, ?3)"
    " ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error,"
    " retention_timestamp = excluded.retention_timestamp",
    NULL,
};
static const struct sql sql_finished = {
    "durable finished",
    "SELECT s.status, o.output, o.error FROM dbos.workflow_status s"
    " JOIN dbos.workflow_output o ON o.workflow_uuid = s.workflow_uuid WHERE s.workflow_uuid = ?1",
    NULL,
};
/* clang-format on */

static int take_hit(struct store_row *row, void *arg, struct err *e)
{
    *(bool *)arg = true;
    return 0;
}

int own_lock_tx(struct store_tx *tx, struct str workflow, struct str token, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(workflow), SQL_STR(token) };
    bool ours = false;
    int r = store_run(tx, &sql_lock, args, LEN(args), take_hit, &ours, e);

    if (r < 0)
        return r;
    return ours ? JOURNAL_OK : JOURNAL_LOST;
}

static struct sql_arg text(struct str s)
{
    return s.p ? SQL_STR(s) : SQL_NULL;
}

static struct sql_arg time_ms(int64_t ms)
{
    return ms ? SQL_INT(ms) : SQL_NULL;
}

static const char *format_of(const struct record *record)
{
    return wire_format_name(record->format);
}

int record_tx(struct store_tx *tx, struct str workflow, const struct record *record,
              const char *app_name, struct err *e)
{
    const struct sql_arg args[] = {
        SQL_STR(workflow),           SQL_INT(record->id),
        SQL_Z(record->name),         text(record->output),
        text(record->error),         text(record->child),
        time_ms(record->started_ms), time_ms(record->completed_ms),
        SQL_Z(format_of(record)),    SQL_Z(app_name),
    };
    int r = store_run(tx, &sql_record, args, LEN(args), NULL, NULL, e);

    if (r < 0)
        return r;
    return store_changed(tx) == 1 ? JOURNAL_OK : JOURNAL_TAKEN;
}

/* Steps */

struct same {
    const struct entry *entry;
    bool same;
};

static bool same_text(struct store_row *row, int col, struct str want)
{
    return row_is_null(row, col) ? !want.p : want.p && str_eq(row_str(row, col), want);
}

static int take_recorded(struct store_row *row, void *arg, struct err *e)
{
    struct same *call = arg;
    const struct record *record = call->entry->record;

    call->same = str_eq_z(row_str(row, 0), record->name) && same_text(row, 1, record->output) &&
                 same_text(row, 2, record->error) && row_int(row, 3) == record->started_ms &&
                 row_int(row, 4) == record->completed_ms;
    return 0;
}

/* A record is there already: is it this very one? */
static int look_recorded(struct store_tx *tx, const struct entry *entry, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(entry->w->id), SQL_INT(entry->record->id) };
    struct same call = { .entry = entry };
    int r = store_run(tx, &sql_recorded, args, LEN(args), take_recorded, &call, e);

    if (r < 0)
        return r;
    return call.same ? JOURNAL_OK : JOURNAL_TAKEN;
}

/* SQLite: 1 when it was written, 0 when it is to be found out why not. */
static int step_fast(struct store_tx *tx, const struct entry *entry, struct err *e)
{
    const struct record *record = entry->record;
    const struct sql_arg args[] = {
        SQL_Z(entry->w->id),         SQL_INT(record->id),
        SQL_Z(record->name),         text(record->output),
        text(record->error),         text(record->child),
        time_ms(record->started_ms), time_ms(record->completed_ms),
        SQL_Z(format_of(record)),    SQL_Z(entry->w->d->conf.app_name),
        SQL_Z(entry->w->token),
    };
    int r = store_run(tx, &sql_record_owned, args, LEN(args), NULL, NULL, e);

    return r < 0 ? r : store_changed(tx) == 1;
}

static int step_tx(struct store_tx *tx, const struct batch *b, const struct entry *entry,
                   struct err *e)
{
    struct str id = str_of(entry->w->id);
    int r;

    if (!b->d->pg) {
        r = step_fast(tx, entry, e);
        if (r != 0)
            return r < 0 ? r : JOURNAL_OK;
    }
    r = own_lock_tx(tx, id, str_of(entry->w->token), e);
    if (r == JOURNAL_OK)
        r = record_tx(tx, id, entry->record, entry->w->d->conf.app_name, e);
    if (r == JOURNAL_TAKEN)
        r = look_recorded(tx, entry, e);
    return r;
}

/* Finishes */

static int take_finished(struct store_row *row, void *arg, struct err *e)
{
    struct same *call = arg;
    const struct entry *entry = call->entry;

    call->same = str_eq_z(row_str(row, 0), durable_status_name(entry->status)) &&
                 same_text(row, 1, entry->output) && same_text(row, 2, entry->error);
    return 0;
}

static int look_finished(struct store_tx *tx, const struct entry *entry, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(entry->w->id) };
    struct same call = { .entry = entry };
    int r = store_run(tx, &sql_finished, args, LEN(args), take_finished, &call, e);

    if (r < 0)
        return r;
    return call.same ? JOURNAL_OK : JOURNAL_LOST;
}

static int finish_tx(struct store_tx *tx, struct batch *b, const struct entry *entry, struct err *e)
{
    struct str id = str_of(entry->w->id);
    const struct sql_arg status[] = {
        SQL_STR(id),         SQL_Z(entry->w->token), SQL_Z(durable_status_name(entry->status)),
        text(entry->output), text(entry->error),     SQL_INT(wall_ms()),
    };
    const struct sql_arg output[] = { SQL_STR(id), text(entry->output), text(entry->error) };
    int n = 0, r;

    r = store_run(tx, &sql_finish, status, LEN(status), NULL, NULL, e);
    if (r < 0)
        return r;
    if (store_changed(tx) == 0)
        return look_finished(tx, entry, e);
    r = store_run(tx, &sql_output, output, LEN(output), NULL, NULL, e);
    if (r == 0)
        r = unpark_tx(tx, WAIT_RESULT, id, (struct str){ 0 }, &n, e);
    b->woke = b->woke || n > 0;
    return r < 0 ? r : JOURNAL_OK;
}

/* Batches */

int entry_tx(struct store_tx *tx, struct batch *b, struct entry *entry, struct err *e)
{
    switch (b->kind) {
    case LANE_STEP:
        return step_tx(tx, b, entry, e);
    case LANE_START:
        return start_tx(tx, entry->row, e);
    default:
        return finish_tx(tx, b, entry, e);
    }
}

static int batch_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct batch *b = arg;

    b->woke = false;
    for (struct entry *entry = b->first; entry; entry = entry->next) {
        int r = entry_tx(tx, b, entry, e);

        if (r < 0)
            return r;
        entry->outcome = r;
    }
    return 0;
}

CO int batch_send_tx(struct batch *b, struct err *e)
{
    return store_do(b->d->store, batch_body, b, e);
}
