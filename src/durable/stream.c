/* SPDX-License-Identifier: MIT */
/*
 * durable/stream.c — streams of values: written by a workflow, read by anybody from any offset
 * while it goes on. A closed stream ends in a marker (spec of DBOS); the stream of a workflow that
 * is over ends where it ends.
 */
#include <string.h>

#include "durable/wait_int.h"

#define CLOSED      "\"__DBOS_STREAM_CLOSED__\""
#define CLOSED_BARE "__DBOS_STREAM_CLOSED__" /* as older releases of DBOS wrote it */

enum { STREAM_CLOSED = 20, STREAM_READ_BYTES = 4 << 20 };

/* clang-format off */
static const struct sql sql_last = {
    "durable stream last",
    "SELECT \"offset\", value FROM dbos.streams WHERE workflow_uuid = ?1 AND key = ?2"
    " ORDER BY \"offset\" DESC LIMIT 1", NULL,
};
static const struct sql sql_append = {
    "durable stream append",
    "INSERT INTO dbos.streams (workflow_uuid, key, value, \"offset\", function_id, serialization)"
    " VALUES (?1, ?2, ?3, ?4, ?5, 'portable_json')", NULL,
};
static const struct sql sql_status = {
    "durable stream status", "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1",
    NULL,
};
static const struct sql sql_read = {
    "durable stream read",
    "SELECT \"offset\", value, serialization FROM dbos.streams"
    " WHERE workflow_uuid = ?1 AND key = ?2 AND \"offset\" >= ?3 ORDER BY \"offset\" LIMIT ?4", NULL,
};
/* clang-format on */

static bool is_end(struct str value)
{
    return str_eq(value, STR(CLOSED)) || str_eq(value, STR(CLOSED_BARE));
}

/* --- writing --- */

struct append {
    const struct workflow *w;
    struct str key, json, closed; /* the last: the error of a closed stream, as it is recorded */
    struct record record;
    int64_t offset;
    bool over;
};

static int last_row(struct store_row *row, void *arg, struct err *e)
{
    struct append *append = arg;

    (void)e;
    append->offset = row_int(row, 0) + 1;
    append->over = is_end(row_str(row, 1));
    return 0;
}

static int append_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct append *append = arg;
    struct str id = str_of(append->w->id);
    struct record record = append->record;
    struct sql_arg args[] = { SQL_STR(id), SQL_STR(append->key), SQL_STR(append->json), SQL_NULL,
                              SQL_INT(record.id) };
    int r;

    append->offset = 0;
    append->over = false;
    r = own_lock_tx(tx, id, str_of(append->w->token), e);
    if (r == 0)
        r = store_run(tx, &sql_last, args, 2, last_row, append, e);
    if (r != 0)
        return r;
    if (append->over)
        record.error = append->closed;
    r = record_tx(tx, id, &record, append->w->d->conf.app_name, e);
    if (r != 0 || append->over)
        return r ? r : STREAM_CLOSED;
    args[3] = SQL_INT(append->offset);
    return store_run(tx, &sql_append, args, LEN(args), NULL, NULL, e);
}

static int closed(struct str key, struct err *e)
{
    return err_set(e, ERR_CONFLICT, "the stream '" STR_FMT "' is closed", STR_ARG(key));
}

static int closed_text(struct str key, struct buf *out, struct err *e)
{
    struct err why;
    struct wire_error error;

    (void)closed(key, &why); /* for its text */
    error = (struct wire_error){ .name = str_of(err_name(why.code)), .message = str_of(why.msg) };
    return wire_write_error(WIRE_PORTABLE, &error, out, e);
}

static void tell(struct workflow *w, struct str key)
{
    AUTO(free) char *payload = xasprintf("%s::" STR_FMT, w->id, STR_ARG(key));

    (void)wake_waiters(w->d, WAIT_STREAM, str_of(w->id), key); /* however many */
    notify_others(w->d, NOTIFY_STREAMS, str_of(payload));
}

CO static int append_value(struct workflow *w, const char *name, struct str key, struct str json,
                           struct err *e)
{
    struct append append = { .w = w, .key = key, .json = json };
    AUTO(buf_done) struct buf text = { 0 };
    struct recorded rec;
    unsigned id;
    int r;

    r = run_recorded(w, name, &id, &rec, e);
    if (r == 1)
        return run_replay(w, &rec, NULL, e);
    buf_init(&text, 4 * KIB);
    if (r == 0)
        r = check_key(key, "the key", e);
    if (r == 0)
        r = check_value(w->d, json, e);
    if (r == 0)
        r = closed_text(key, &text, e);
    if (r < 0)
        return r;
    append.closed = buf_str(&text);
    append.record = (struct record){ .id = id,
                                     .name = name,
                                     .format = WIRE_PORTABLE,
                                     .started_ms = wall_ms(),
                                     .completed_ms = wall_ms() };
    r = run_store(w, append_body, &append, e);
    if (r == STREAM_CLOSED)
        return closed(key, e);
    if (r < 0)
        return r;
    if (r == JOURNAL_OK)
        tell(w, key);
    return run_wrote(w, r, e);
}

CO int durable_write_stream(struct workflow *w, struct str key, struct str json, struct err *e)
{
    if (is_end(str_trim(json)))
        return err_set(e, ERR_INVALID, "this value is the mark of a stream's end");
    return append_value(w, "DBOS.writeStream", key, json, e);
}

CO int durable_close_stream(struct workflow *w, struct str key, struct err *e)
{
    return append_value(w, "DBOS.closeStream", key, STR(CLOSED), e);
}

/* --- reading --- */

struct item {
    int64_t offset;
    enum wire_format format;
    size_t at, n; /* in the buffer */
};

struct reader {
    struct str id, key;
    int64_t offset;
    unsigned max;
    /* what it finds */
    struct item *items;
    unsigned n;
    struct buf text;
    bool known, over, end;
};

static void reader_done_auto(struct reader *reader)
{
    free(reader->items);
    buf_done(&reader->text);
}

static int status_row(struct store_row *row, void *arg, struct err *e)
{
    struct reader *reader = arg;
    enum durable_status status;
    int r = durable_status_parse(row_str(row, 0), &status, e);

    reader->known = true;
    reader->over = r == 0 && !durable_status_active(status);
    return r;
}

static int read_row(struct store_row *row, void *arg, struct err *e)
{
    struct reader *reader = arg;
    struct str value = row_str(row, 1);
    int r;

    if (is_end(value)) {
        reader->end = true;
        return 1;
    }
    if (reader->n && reader->text.n + value.n > STREAM_READ_BYTES)
        return 1;
    reader->items[reader->n++] =
        (struct item){ row_int(row, 0), wire_format_of(row_str(row, 2)), reader->text.n, value.n };
    r = buf_add_str(&reader->text, value, e);
    return r;
}

/* The status first: if it is over then, all values are there. */
static int read_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct reader *reader = arg;
    const struct sql_arg args[] = { SQL_STR(reader->id), SQL_STR(reader->key),
                                    SQL_INT(reader->offset), SQL_INT(reader->max) };
    int r;

    reader->n = 0;
    reader->known = reader->over = reader->end = false;
    buf_clear(&reader->text);
    r = store_run(tx, &sql_status, args, 1, status_row, reader, e);
    if (r == 0)
        r = store_run(tx, &sql_read, args, LEN(args), read_row, reader, e);
    return r < 0 ? r : 0;
}

static int give(const struct reader *reader,
                int (*each)(int64_t offset, struct str json, void *arg, struct err *e), void *arg,
                struct err *e)
{
    AUTO(buf_done) struct buf json = { 0 };
    int r = 0;

    buf_init(&json, SIZE_MAX / 2);
    for (unsigned i = 0; i < reader->n && r == 0; i++) {
        const struct item *item = &reader->items[i];
        struct str text = { buf_str(&reader->text).p + item->at, item->n };

        buf_clear(&json);
        r = wire_read_value(item->format, text, &json, e);
        if (r == 0)
            r = each(item->offset, buf_str(&json), arg, e);
    }
    return r;
}

CO int durable_read_stream(struct durable *d, struct str id, struct str key, int64_t offset,
                           unsigned max, uint64_t deadline_ms,
                           int (*each)(int64_t offset, struct str json, void *arg, struct err *e),
                           void *arg, struct err *e)
{
    AUTO(wait_done)
    struct wait wait = {
        .kind = WAIT_STREAM, .workflow = id, .topic = key, .deadline = deadline_ms
    };
    AUTO(reader_done) struct reader it = { .id = id, .key = key, .offset = offset };
    int r;

    r = check_id(id, e);
    if (r == 0)
        r = check_key(key, "the key", e);
    if (r < 0)
        return r;
    it.max = max == 0 ? 1 : max > 10000 ? 10000 : max;
    it.items = xcalloc(it.max, sizeof(*it.items));
    buf_init(&it.text, SIZE_MAX / 2);
    wait_begin(d, &wait);
    do {
        r = store_read(d->store, read_body, &it, e);
        if (r == 0 && !it.known)
            r = err_set(e, ERR_NOT_FOUND, "there is no workflow '" STR_FMT "'", STR_ARG(id));
        if (r < 0 || it.n || it.end || it.over)
            break;
        r = wait_round(d, NULL, &wait, e);
    } while (r == 0);
    if (r == WAIT_TIMEOUT)
        return err_set(e, ERR_TIMEOUT, "nothing new in the stream '" STR_FMT "'", STR_ARG(key));
    if (r == 0)
        r = give(&it, each, arg, e);
    return r == 0 && (it.end || (it.over && !it.n)) ? DURABLE_STREAM_END : r;
}
