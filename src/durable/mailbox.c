/* SPDX-License-Identifier: MIT */
/*
 * durable/mailbox.c — messages to workflows.
 *
 * A message is a row; who receives takes the oldest of a topic that is not consumed, and marks it
 * in the transaction that records it as the result of the call. The engine keeps messages of one
 * sender in order even within a millisecond and over a clock that is set back: a new one is dated
 * after those that wait already.
 *
 * At most MAILBOX_MAX messages wait per workflow and topic (ERR_LIMIT for the next): nobody who
 * does not receive is sent to for ever.
 */
#include "base/id.h"
#include "durable/wait_int.h"

#define MAILBOX_MAX      10000
#define MAILBOX_MAX_TEXT "10000"

enum { TAKE_NONE = 20, TAKE_TOLD = 21, SEND_UNKNOWN = 22, SEND_FULL = 23 };

/* clang-format off */
static const struct sql sql_known = {
    "durable send to", "SELECT 1 FROM dbos.workflow_status WHERE workflow_uuid = ?1", NULL,
};
static const struct sql sql_waiting = {
    "durable send waiting",
    "SELECT COUNT(*), MAX(m.created_at_epoch_ms) FROM (SELECT created_at_epoch_ms"
    " FROM dbos.notifications WHERE destination_uuid = ?1 AND topic = ?2 AND consumed = FALSE"
    " LIMIT " MAILBOX_MAX_TEXT ") m", NULL,
};
static const struct sql sql_send = {
    "durable send",
    "INSERT INTO dbos.notifications (message_uuid, destination_uuid, topic, message,"
    " created_at_epoch_ms, serialization) VALUES (?1, ?2, ?3, ?4, ?5, 'portable_json')"
    " ON CONFLICT (message_uuid) DO NOTHING", NULL,
};
static const struct sql sql_oldest = {
    "durable recv oldest",
    "SELECT message_uuid, message, serialization FROM dbos.notifications"
    " WHERE destination_uuid = ?1 AND topic = ?2 AND consumed = FALSE"
    " ORDER BY created_at_epoch_ms, message_uuid LIMIT 1", NULL,
};
static const struct sql sql_recorded = {
    "durable recv recorded",
    "SELECT 1 FROM dbos.operation_outputs WHERE workflow_uuid = ?1 AND function_id = ?2", NULL,
};
static const struct sql sql_consume = {
    "durable recv consume",
    "UPDATE dbos.notifications SET consumed = TRUE, consumed_by_function_id = ?2"
    " WHERE message_uuid = ?1", NULL,
};
/* clang-format on */

int check_key(struct str key, const char *what, struct err *e)
{
    if (key.n > KEY_MAX)
        return err_set(e, ERR_LIMIT, "%s is longer than %d bytes", what, KEY_MAX);
    if (!utf8_valid(key.p, key.n) || memchr(key.p ? key.p : "", 0, key.n))
        return err_set(e, ERR_INVALID, "%s is not text", what);
    return 0;
}

int check_value(struct durable *d, struct str json, struct err *e)
{
    if (json.n > d->conf.payload_max)
        return err_set(e, ERR_LIMIT, "a value of %zu bytes; at most %zu", json.n,
                       d->conf.payload_max);
    return wire_check(json, e);
}

static struct str topic_of(struct str topic)
{
    return topic.p ? topic : STR(DURABLE_NO_TOPIC);
}

/* --- sending --- */

struct send {
    const struct workflow *w; /* NULL: from outside */
    struct str to, topic, json;
    char *uuid; /* of the message */
    struct record record;
    struct str unknown, full; /* errors as they are recorded */
    bool known;
    int64_t waiting, newest;
    int unparked;
};

static int known_row(struct store_row *row, void *arg, struct err *e)
{
    struct send *send = arg;

    (void)row;
    (void)e;
    send->known = true;
    return 0;
}

static int waiting_row(struct store_row *row, void *arg, struct err *e)
{
    struct send *send = arg;

    (void)e;
    send->waiting = row_int(row, 0);
    send->newest = row_is_null(row, 1) ? 0 : row_int(row, 1);
    return 0;
}

/* Is there somebody to send to, and room? 0, SEND_UNKNOWN or SEND_FULL. */
static int look_at_mailbox(struct store_tx *tx, struct send *send, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(send->to), SQL_STR(send->topic) };
    int r;

    send->known = false;
    send->waiting = send->newest = 0;
    r = store_run(tx, &sql_known, args, 1, known_row, send, e);
    if (r == 0)
        r = store_run(tx, &sql_waiting, args, 2, waiting_row, send, e);
    if (r < 0)
        return r;
    return !send->known ? SEND_UNKNOWN : send->waiting >= MAILBOX_MAX ? SEND_FULL : 0;
}

static int put_message(struct store_tx *tx, struct send *send, struct err *e)
{
    int64_t now = wall_ms();
    const struct sql_arg args[] = { SQL_Z(send->uuid), SQL_STR(send->to), SQL_STR(send->topic),
                                    SQL_STR(send->json),
                                    SQL_INT(now > send->newest ? now : send->newest + 1) };
    int r;

    r = store_run(tx, &sql_send, args, LEN(args), NULL, NULL, e);
    if (r == 0)
        r = unpark_tx(tx, WAIT_RECV, send->to, send->topic, &send->unparked, e);
    return r;
}

static int send_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct send *send = arg;
    struct record record = send->record;
    int told, r;

    send->unparked = 0;
    if (send->w && (r = own_lock_tx(tx, str_of(send->w->id), str_of(send->w->token), e)) != 0)
        return r;
    told = look_at_mailbox(tx, send, e);
    if (told < 0)
        return told;
    if (send->w) {
        record.error = told == SEND_UNKNOWN ? send->unknown
                       : told == SEND_FULL  ? send->full
                                            : (struct str){ 0 };
        r = record_tx(tx, str_of(send->w->id), &record, send->w->d->conf.app_name, e);
        if (r != 0)
            return r;
    }
    return told ? told : put_message(tx, send, e);
}

/* The error that a refused message is; ERR_NOT_FOUND or ERR_LIMIT. */
static int refused(int told, struct str to, struct err *e)
{
    if (told == SEND_UNKNOWN)
        return err_set(e, ERR_NOT_FOUND, "there is no workflow '" STR_FMT "'", STR_ARG(to));
    return err_set(e, ERR_LIMIT, "%d messages wait for '" STR_FMT "' already", MAILBOX_MAX,
                   STR_ARG(to));
}

static int refused_text(int told, struct str to, struct buf *out, struct err *e)
{
    struct err why;
    struct wire_error error = { 0 };

    (void)refused(told, to, &why); /* for its text */
    error.name = str_of(err_name(why.code));
    error.message = str_of(why.msg);
    if (told == SEND_UNKNOWN)
        error.code = STR("16");
    return wire_write_error(WIRE_PORTABLE, &error, out, e);
}

static int send_check(struct durable *d, struct send *send, struct str key, struct err *e)
{
    char uuid[UUID_TEXT];
    int r;

    if (send->to.n == 0 || send->to.n >= DURABLE_ID || check_key(send->to, "the id", e) < 0)
        return err_set(e, ERR_INVALID, "not the id of a workflow");
    r = check_key(send->topic, "the topic", e);
    if (r == 0)
        r = check_key(key, "the key of the message", e);
    if (r == 0)
        r = check_value(d, send->json, e);
    if (r < 0)
        return r;
    uuid_v7(uuid);
    send->uuid =
        key.n ? xasprintf(STR_FMT "::" STR_FMT, STR_ARG(key), STR_ARG(send->to)) : xstrdup(uuid);
    return 0;
}

static void sent(struct durable *d, const struct send *send)
{
    (void)wake_waiters(d, WAIT_RECV, send->to, send->topic); /* how many is of no interest */
    if (send->unparked)
        queue_poke(d, (struct str){ 0 });
}

CO int durable_post(struct durable *d, struct str to, struct str topic, struct str json,
                    struct str key, struct err *e)
{
    struct send send = { .to = to, .topic = topic_of(topic), .json = json };
    AUTO(free) char *uuid = NULL;
    int r;

    r = send_check(d, &send, key, e);
    uuid = send.uuid;
    if (r == 0)
        r = store_do(d->store, send_body, &send, e);
    if (r > 0)
        return refused(r, to, e);
    if (r == 0)
        sent(d, &send);
    return r;
}

CO static int send_now(struct workflow *w, struct send *send, struct err *e)
{
    AUTO(buf_done) struct buf unknown = { 0 }, full = { 0 };
    int r;

    buf_init(&unknown, 4 * KIB);
    buf_init(&full, 4 * KIB);
    r = refused_text(SEND_UNKNOWN, send->to, &unknown, e);
    if (r == 0)
        r = refused_text(SEND_FULL, send->to, &full, e);
    if (r < 0)
        return r;
    send->unknown = buf_str(&unknown);
    send->full = buf_str(&full);
    r = run_store(w, send_body, send, e);
    if (r == SEND_UNKNOWN || r == SEND_FULL)
        return refused(r, send->to, e);
    if (r != 0)
        return r < 0 ? r : run_wrote(w, r, e);
    sent(w->d, send);
    return run_wrote(w, JOURNAL_OK, e);
}

CO int durable_send(struct workflow *w, struct str to, struct str topic, struct str json,
                    struct str key, struct err *e)
{
    struct send send = { .w = w, .to = to, .topic = topic_of(topic), .json = json };
    AUTO(free) char *uuid = NULL;
    struct recorded rec;
    unsigned id;
    int r;

    r = run_recorded(w, "DBOS.send", &id, &rec, e);
    if (r == 1)
        return run_replay(w, &rec, NULL, e);
    if (r == 0)
        r = send_check(w->d, &send, key, e);
    uuid = send.uuid;
    if (r < 0)
        return r;
    send.record = (struct record){ .id = id,
                                   .name = "DBOS.send",
                                   .format = WIRE_PORTABLE,
                                   .started_ms = wall_ms(),
                                   .completed_ms = wall_ms() };
    return send_now(w, &send, e);
}

/* --- receiving --- */

struct take {
    const struct workflow *w;
    struct str topic;
    bool last; /* record that there was nothing */
    struct record record;
    struct buf uuid, text, error;
    bool found;
    enum wire_format format;
};

static inline void take_done_auto(struct take *take)
{
    buf_done(&take->uuid);
    buf_done(&take->text);
    buf_done(&take->error);
}

/* A message that we cannot hand over: the error that stands in its place. */
static int cannot_read(struct take *take, const char *name, const char *message, struct err *e)
{
    const struct wire_error error = { .name = str_of(name), .message = str_of(message) };

    return wire_write_error(WIRE_PORTABLE, &error, &take->error, e);
}

static int oldest_row(struct store_row *row, void *arg, struct err *e)
{
    struct take *take = arg;
    struct str text = row_str(row, 1);
    int r;

    take->found = true;
    take->format = wire_format_of(row_str(row, 2));
    r = buf_add_str(&take->uuid, row_str(row, 0), e);
    if (r < 0)
        return r;
    if (take->format == WIRE_UNKNOWN)
        return cannot_read(take, "invalid", "a message in a format that cannot be read here", e);
    if (text.n > take->w->d->conf.payload_max)
        return cannot_read(take, "limit", "a message that is too large", e);
    return buf_add_str(&take->text, text, e);
}

static int take_oldest(struct store_tx *tx, struct take *take, struct err *e)
{
    const struct sql_arg of[] = { SQL_Z(take->w->id), SQL_STR(take->topic) };

    take->found = false;
    buf_clear(&take->uuid);
    buf_clear(&take->text);
    buf_clear(&take->error);
    return store_run(tx, &sql_oldest, of, LEN(of), oldest_row, take, e);
}

static int recorded_row(struct store_row *row, void *arg, struct err *e)
{
    (void)row;
    (void)e;
    *(bool *)arg = true;
    return 0;
}

/*
 * There is no message. When the answer to a commit was lost, that may be because we took it: then
 * the record is there, and to wait for another would be to wait for ever.
 */
static int none_left(struct store_tx *tx, const struct take *take, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(take->w->id), SQL_INT(take->record.id) };
    bool recorded = false;
    int r = store_run(tx, &sql_recorded, args, LEN(args), recorded_row, &recorded, e);

    return r < 0 ? r : recorded ? JOURNAL_TAKEN : TAKE_NONE;
}

static int take_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct take *take = arg;
    struct record record = take->record;
    struct sql_arg args[2];
    int r;

    r = own_lock_tx(tx, str_of(take->w->id), str_of(take->w->token), e);
    if (r == 0)
        r = take_oldest(tx, take, e);
    if (r != 0)
        return r;
    if (!take->found && !take->last)
        return none_left(tx, take, e);
    record.completed_ms = wall_ms();
    if (take->error.n) {
        record.error = buf_str(&take->error);
    } else if (take->found) {
        record.output = buf_str(&take->text);
        record.format = take->format;
    }
    r = record_tx(tx, str_of(take->w->id), &record, take->w->d->conf.app_name, e);
    if (r != 0 || !take->found)
        return r ? r : TAKE_TOLD;
    args[0] = SQL_STR(buf_str(&take->uuid));
    args[1] = SQL_INT(record.id);
    return store_run(tx, &sql_consume, args, 2, NULL, NULL, e);
}

/* 0 taken, TAKE_NONE, TAKE_TOLD (nothing, and that is recorded) */
CO static int take(struct workflow *w, struct take *take, struct err *e)
{
    int r = run_store(w, take_body, take, e);

    if (r == TAKE_NONE || r == TAKE_TOLD)
        return w->end ? run_ended(w, e) : r;
    return r < 0 ? r : run_wrote(w, r, e);
}

/* What was taken, as a replay would give it. */
static int hand_over(struct workflow *w, const struct take *take, struct buf *out, struct err *e)
{
    const struct recorded rec = {
        .id = take->record.id,
        .name = str_of(take->record.name),
        .output = buf_str(&take->text),
        .error = buf_str(&take->error),
        .has_output = !take->error.n,
        .has_error = take->error.n > 0,
        .format = take->error.n ? WIRE_PORTABLE : take->format,
    };

    return run_replay(w, &rec, out, e);
}

static int look_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct wait *wait = arg;

    return wait_look_tx(tx, wait->kind, wait->workflow, wait->topic, e);
}

/* Wait until a message was seen, or it is too late for one. */
CO static int await_message(struct workflow *w, struct wait *wait, struct err *e)
{
    int r, seen = 0;

    while (!seen) {
        r = wait_round(w->d, w, wait, e);
        if (r != 0)
            return r;
        seen = store_read(w->d->store, look_body, wait, e);
        if (seen < 0 && w->end)
            return run_ended(w, e);
        if (seen < 0) /* it is away: the transaction that takes waits for it */
            return 0;
    }
    return 0;
}

CO static int receive(struct workflow *w, struct take *it, uint64_t timeout_ms, struct buf *out,
                      struct err *e)
{
    AUTO(wait_done)
    struct wait wait = { .kind = WAIT_RECV, .workflow = str_of(w->id), .topic = it->topic };
    int r;

    r = marker_take(w, timeout_ms, &wait, e);
    if (r < 0)
        return r;
    wait_begin(w->d, &wait);
    while ((r = take(w, it, e)) == TAKE_NONE) {
        r = marker_keep(w, &wait, e);
        if (r == 0)
            r = await_message(w, &wait, e);
        if (r < 0)
            return r;
        it->last = r == WAIT_TIMEOUT;
    }
    if (r == TAKE_TOLD)
        return DURABLE_NOTHING;
    return r < 0 ? r : hand_over(w, it, out, e);
}

CO int durable_recv(struct workflow *w, struct str topic, uint64_t timeout_ms, struct buf *out,
                    struct err *e)
{
    AUTO(take_done) struct take it = { .w = w, .topic = topic_of(topic) };
    struct recorded rec;
    unsigned id;
    int r;

    r = run_recorded(w, "DBOS.recv", &id, &rec, e);
    if (r < 0)
        return r;
    if (r == 1) {
        bool nothing = !rec.has_output && !rec.has_error;

        w->next_function++; /* of the timeout's record */
        return nothing ? DURABLE_NOTHING : run_replay(w, &rec, out, e);
    }
    r = check_key(it.topic, "the topic", e);
    if (r < 0)
        return r;
    it.record = (struct record){
        .id = id, .name = "DBOS.recv", .format = WIRE_PORTABLE, .started_ms = wall_ms()
    };
    buf_init(&it.uuid, 64 * KIB);
    buf_init(&it.text, w->d->conf.payload_max);
    buf_init(&it.error, 4 * KIB);
    return receive(w, &it, timeout_ms ? timeout_ms : DEFAULT_WAIT_MS, out, e);
}
