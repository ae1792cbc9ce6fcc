/* SPDX-License-Identifier: MIT */
/*
 * durable/event.c — values that a workflow shows under a key: the latest, and the history that
 * fork and rewind need.
 */
#include <string.h>

#include "durable/wait_int.h"

/* clang-format off */
static const struct sql sql_set = {
    "durable event",
    "INSERT INTO dbos.workflow_events (workflow_uuid, key, value, serialization)"
    " VALUES (?1, ?2, ?3, 'portable_json') ON CONFLICT (workflow_uuid, key) DO UPDATE"
    " SET value = excluded.value, serialization = excluded.serialization", NULL,
};
static const struct sql sql_history = {
    "durable event history",
    "INSERT INTO dbos.workflow_events_history (workflow_uuid, function_id, key, value,"
    " serialization) VALUES (?1, ?2, ?3, ?4, 'portable_json')"
    " ON CONFLICT (workflow_uuid, function_id, key) DO UPDATE SET value = excluded.value,"
    " serialization = excluded.serialization", NULL,
};
static const struct sql sql_get = {
    "durable event get",
    "SELECT value, serialization FROM dbos.workflow_events WHERE workflow_uuid = ?1 AND key = ?2",
    NULL,
};
/* clang-format on */

/* --- setting --- */

struct set {
    const struct workflow *w;
    struct str key, json;
    struct record record;
    int unparked;
};

static int set_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct set *set = arg;
    struct str id = str_of(set->w->id);
    const struct sql_arg now[] = { SQL_STR(id), SQL_STR(set->key), SQL_STR(set->json) };
    const struct sql_arg then[] = { SQL_STR(id), SQL_INT(set->record.id), SQL_STR(set->key),
                                    SQL_STR(set->json) };
    int r;

    set->unparked = 0;
    r = own_lock_tx(tx, id, str_of(set->w->token), e);
    if (r == 0)
        r = record_tx(tx, id, &set->record, set->w->d->conf.app_name, e);
    if (r == 0)
        r = store_run(tx, &sql_set, now, LEN(now), NULL, NULL, e);
    if (r == 0)
        r = store_run(tx, &sql_history, then, LEN(then), NULL, NULL, e);
    if (r == 0)
        r = unpark_tx(tx, WAIT_EVENT, id, set->key, &set->unparked, e);
    return r;
}

static void tell(struct workflow *w, struct str key, bool unparked)
{
    AUTO(free) char *payload = xasprintf("%s::" STR_FMT, w->id, STR_ARG(key));

    (void)wake_waiters(w->d, WAIT_EVENT, str_of(w->id), key); /* however many */
    if (unparked)
        queue_poke(w->d, (struct str){ 0 });
    notify_others(w->d, NOTIFY_EVENTS, str_of(payload));
}

CO int durable_set_event(struct workflow *w, struct str key, struct str json, struct err *e)
{
    struct set set = { .w = w, .key = key, .json = json };
    struct recorded rec;
    unsigned id;
    int r;

    r = run_recorded(w, "DBOS.setEvent", &id, &rec, e);
    if (r == 1)
        return run_replay(w, &rec, NULL, e);
    if (r == 0)
        r = check_key(key, "the key", e);
    if (r == 0)
        r = check_value(w->d, json, e);
    if (r < 0)
        return r;
    set.record = (struct record){ .id = id,
                                  .name = "DBOS.setEvent",
                                  .format = WIRE_PORTABLE,
                                  .started_ms = wall_ms(),
                                  .completed_ms = wall_ms() };
    r = run_store(w, set_body, &set, e);
    if (r < 0)
        return r;
    if (r == JOURNAL_OK)
        tell(w, key, set.unparked > 0);
    return run_wrote(w, r, e);
}

/* --- values as they are read, for all calls that record one --- */

int value_take(struct value *value, struct str text, struct str serialization, struct err *e)
{
    value->found = true;
    value->format = wire_format_of(serialization);
    buf_clear(&value->text);
    return buf_add_str(&value->text, text, e);
}

static int unreadable(const struct value *value, size_t max, struct buf *out, struct err *e)
{
    struct wire_error error = { .name = STR("invalid"),
                                .message = STR("a value in a format that cannot be read here") };

    if (value->format != WIRE_UNKNOWN && value->text.n <= max)
        return 0;
    if (value->format != WIRE_UNKNOWN)
        error = (struct wire_error){ .name = STR("limit"),
                                     .message = STR("a value that is too large") };
    return wire_write_error(WIRE_PORTABLE, &error, out, e);
}

CO int value_record(struct workflow *w, unsigned id, const char *name, int64_t started_ms,
                    const struct value *value, struct buf *out, struct err *e)
{
    struct record record = { .id = id,
                             .name = name,
                             .format = WIRE_PORTABLE,
                             .started_ms = started_ms,
                             .completed_ms = wall_ms() };
    struct recorded rec = { .id = id, .name = str_of(name) };
    AUTO(buf_done) struct buf error = { 0 };
    int r = 0;

    buf_init(&error, 4 * KIB);
    if (value->found)
        r = unreadable(value, w->d->conf.payload_max, &error, e);
    if (r < 0)
        return r;
    if (error.n) {
        record.error = rec.error = buf_str(&error);
    } else if (value->found) {
        record.output = rec.output = buf_str(&value->text);
        record.format = value->format;
    }
    r = journal_step(w, &record, e);
    if (r >= 0)
        r = run_wrote(w, r, e);
    if (r < 0 || !value->found)
        return r < 0 ? r : DURABLE_NOTHING;
    rec.format = record.format;
    rec.has_error = error.n > 0;
    rec.has_output = !rec.has_error;
    return run_replay(w, &rec, out, e);
}

CO int read_patiently(struct workflow *w, store_body *body, void *arg, struct err *e)
{
    uint64_t pause = 50;
    int r;

    while ((r = store_read(w->d->store, body, arg, e)) == -ERR_UNAVAILABLE && !w->end) {
        r = fiber_sleep(pause, e);
        if (r < 0)
            break;
        pause = pause < 2000 ? 2 * pause : pause;
    }
    return r < 0 && w->end ? run_ended(w, e) : r;
}

/* --- getting --- */

struct get {
    struct str id, key;
    struct value value;
};

static void get_init(struct get *get, struct str id, struct str key)
{
    *get = (struct get){ .id = id, .key = key };
    buf_init(&get->value.text, SIZE_MAX / 2);
}

static void get_done_auto(struct get *get)
{
    buf_done(&get->value.text);
}

static int get_row(struct store_row *row, void *arg, struct err *e)
{
    struct get *get = arg;

    return value_take(&get->value, row_str(row, 0), row_str(row, 1), e);
}

static int get_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct get *get = arg;
    const struct sql_arg args[] = { SQL_STR(get->id), SQL_STR(get->key) };

    get->value.found = false;
    return store_run(tx, &sql_get, args, LEN(args), get_row, get, e);
}

CO int durable_peek_event(struct durable *d, struct str id, struct str key, uint64_t deadline_ms,
                          struct buf *out, struct err *e)
{
    AUTO(wait_done)
    struct wait wait = {
        .kind = WAIT_EVENT, .workflow = id, .topic = key, .deadline = deadline_ms
    };
    AUTO(get_done) struct get get;
    int r;

    get_init(&get, id, key);
    r = check_id(id, e);
    if (r == 0)
        r = check_key(key, "the key", e);
    if (r < 0)
        return r;
    wait_begin(d, &wait);
    do {
        r = store_read(d->store, get_body, &get, e);
        if (r < 0 || get.value.found)
            break;
        r = wait_round(d, NULL, &wait, e);
    } while (r == 0);
    if (r == WAIT_TIMEOUT)
        return err_set(e, ERR_TIMEOUT, "no event '" STR_FMT "' of '" STR_FMT "' yet", STR_ARG(key),
                       STR_ARG(id));
    if (r < 0 || !out)
        return r;
    return wire_read_value(get.value.format, buf_str(&get.value.text), out, e);
}

/* Wait for the event; value says whether it came. */
CO static int get_wait(struct workflow *w, struct get *get, struct wait *wait, struct err *e)
{
    int r = 0;

    while (r == 0) {
        r = read_patiently(w, get_body, get, e);
        if (r < 0 || get->value.found)
            return r;
        r = marker_keep(w, wait, e);
        if (r == 0)
            r = wait_round(w->d, w, wait, e);
    }
    return r == WAIT_TIMEOUT ? 0 : r;
}

CO int durable_get_event(struct workflow *w, struct str id, struct str key, uint64_t timeout_ms,
                         struct buf *out, struct err *e)
{
    AUTO(wait_done) struct wait wait = { .kind = WAIT_EVENT, .workflow = id, .topic = key };
    AUTO(get_done) struct get get;
    int64_t started = wall_ms();
    struct recorded rec;
    unsigned at;
    int r;

    get_init(&get, id, key);
    r = run_recorded(w, "DBOS.getEvent", &at, &rec, e);
    if (r == 1) {
        bool nothing = !rec.has_output && !rec.has_error;

        w->next_function++; /* of the timeout's record */
        return nothing ? DURABLE_NOTHING : run_replay(w, &rec, out, e);
    }
    if (r == 0)
        r = check_id(id, e);
    if (r == 0)
        r = check_key(key, "the key", e);
    if (r == 0)
        r = marker_take(w, timeout_ms ? timeout_ms : DEFAULT_WAIT_MS, &wait, e);
    if (r < 0)
        return r;
    wait_begin(w->d, &wait);
    r = get_wait(w, &get, &wait, e);
    return r < 0 ? r : value_record(w, at, "DBOS.getEvent", started, &get.value, out, e);
}
