/* SPDX-License-Identifier: MIT */
/*
 * durable/park.c — waiting: in memory for a while, then as a row.
 *
 * Who waits stands in a hash by (kind, workflow) from before its first look at the database until
 * it is done, so a wake that comes between look and wait is kept. Whoever writes something wakes
 * after its commit (wake_waiters); what is heard from others does too; and everybody looks again
 * now and then, so that no wake-up is the only way forward.
 *
 * A workflow that waits for long is parked. Its row goes to DELAYED, with the end of its wait as
 * the delay, without an owner, in its queue (or the internal one), one attempt less, because the
 * claim that comes adds one; and durable_parked says what it waits for. So it costs rows and no
 * memory, needs no recovery, and obeys cancel, deadlines and resume as any delayed workflow. It
 * wakes by going to ENQUEUED: when the delay is over (sweep.c) or what it waits for is there.
 *
 * The race: what is waited for is committed while we park. On SQLite transactions are one after
 * another: either we see it, or its writer sees the row in durable_parked (unpark_tx). On
 * PostgreSQL we lock our row and the target's FOR UPDATE before we look. Who writes a message or an
 * event holds the row of the workflow it is for from its first statement (own_lock_tx, or the
 * foreign key's KEY SHARE lock, which FOR UPDATE excludes and an UPDATE would not), so either it
 * commits before our look, which is a statement of its own with a newer snapshot, or it waits for
 * our commit and its unpark_tx, again a later statement, sees us. That leaves who does not call
 * unpark_tx: npm clients (their NOTIFY is heard: wake_heard(); and the sweep), results of other
 * engines, and events of workflows that did not exist at our look: unpark_sweep() looks at what is
 * there and not at what happened, so it finds each.
 */
#include <assert.h>
#include <string.h>

#include "durable/wait_int.h"

enum { PARK_DONE = 0, PARK_READY = 10 }; /* beside JOURNAL_LOST and JOURNAL_TAKEN */
enum { UNTOLD_MS = 2000 };               /* between looks for what nobody may tell */
enum { STEP_SMALL_MS = 1000 };           /* a clock that differs by less was not stepped */

static const char *const kinds[WAIT_KINDS] = { "sleep", "recv", "event", "result", "stream" };

const char *wait_kind_name(enum wait_kind kind)
{
    return kinds[kind];
}

/* --- who waits --- */

struct waiters *waiters_get(struct durable *d)
{
    if (!d->waiters) {
        d->waiters = xcalloc(1, sizeof(*d->waiters));
        buf_init(&d->waiters->heard, HEARD_MAX);
        buf_init(&d->waiters->target, 64 * KIB);
        buf_init(&d->waiters->id, 64 * KIB);
    }
    return d->waiters;
}

void waiters_free(struct durable *d)
{
    if (!d->waiters)
        return;
    for (size_t i = 0; i < WAIT_BUCKETS; i++)
        assert(!d->waiters->buckets[i]);
    buf_done(&d->waiters->heard);
    buf_done(&d->waiters->target);
    buf_done(&d->waiters->id);
    free(TAKE(d->waiters));
}

static struct wait **bucket(struct waiters *all, enum wait_kind kind, struct str workflow)
{
    uint32_t h = 2166136261u ^ (uint32_t)kind;

    for (size_t i = 0; i < workflow.n; i++)
        h = (h ^ (unsigned char)workflow.p[i]) * 16777619u;
    return &all->buckets[h % WAIT_BUCKETS];
}

void wait_begin(struct durable *d, struct wait *wait)
{
    struct wait **at = bucket(waiters_get(d), wait->kind, wait->workflow);

    wait->fiber = fiber_self();
    wait->since = 0;
    wait->woken = wait->parked = false;
    wait->next = *at;
    wait->link = at;
    if (*at)
        (*at)->link = &wait->next;
    *at = wait;
}

void wait_done(struct wait *wait)
{
    if (!wait->link)
        return;
    *wait->link = wait->next;
    if (wait->next)
        wait->next->link = wait->link;
    wait->link = NULL;
}

static void wake(struct wait *wait)
{
    wait->woken = true;
    if (wait->parked)
        fiber_wake(wait->fiber);
}

unsigned wake_waiters(struct durable *d, enum wait_kind kind, struct str workflow, struct str topic)
{
    unsigned n = 0;

    if (!d->waiters)
        return 0;
    for (struct wait *w = *bucket(d->waiters, kind, workflow); w; w = w->next) {
        if (w->kind != kind || !str_eq(w->workflow, workflow))
            continue;
        if (kind != WAIT_RESULT && topic.p && !str_eq(w->topic, topic))
            continue;
        wake(w);
        n++;
    }
    if (kind == WAIT_RESULT)
        n += wake_waiters(d, WAIT_STREAM, workflow, (struct str){ 0 });
    return n;
}

void wait_told(struct durable *d, struct str workflow, const struct run_outcome *outcome)
{
    if (!d->waiters)
        return;
    for (struct wait *w = *bucket(d->waiters, WAIT_RESULT, workflow); w; w = w->next) {
        if (w->kind == WAIT_RESULT && w->ended && str_eq(w->workflow, workflow))
            w->ended(w, outcome);
    }
}

void wake_all_waiters(struct durable *d)
{
    if (!d->waiters)
        return;
    for (size_t i = 0; i < WAIT_BUCKETS; i++)
        for (struct wait *w = d->waiters->buckets[i]; w; w = w->next)
            wake(w);
}

/* --- is it there? --- */

/* clang-format off */
static const struct sql sql_look[WAIT_KINDS] = {
    [WAIT_RECV] = { "durable look message",
        "SELECT 1 FROM dbos.notifications"
        " WHERE destination_uuid = ?1 AND topic = ?2 AND consumed = FALSE LIMIT 1", NULL },
    [WAIT_EVENT] = { "durable look event",
        "SELECT 1 FROM dbos.workflow_events WHERE workflow_uuid = ?1 AND key = ?2", NULL },
    [WAIT_RESULT] = { "durable look result",
        "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM dbos.workflow_status WHERE workflow_uuid = ?1"
        " AND status IN ('ENQUEUED', 'DELAYED', 'PENDING'))", NULL },
};
/* clang-format on */

static int seen(struct store_row *row, void *arg, struct err *e)
{
    (void)row;
    (void)e;
    *(int *)arg = 1;
    return 0;
}

int wait_look_tx(struct store_tx *tx, enum wait_kind kind, struct str workflow, struct str topic,
                 struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(workflow), SQL_STR(topic) };
    int found = 0, r;

    if (!sql_look[kind].text)
        return 0;
    r = store_run(tx, &sql_look[kind], args, kind == WAIT_RESULT ? 1 : 2, seen, &found, e);
    return r < 0 ? r : found;
}

/* --- parking --- */

/* clang-format off */
static const struct sql sql_lock = {
    "durable park lock",
    "SELECT workflow_uuid, status, owner_xid FROM dbos.workflow_status"
    " WHERE workflow_uuid IN (?1, ?2) ORDER BY workflow_uuid",
    "SELECT workflow_uuid, status, owner_xid FROM dbos.workflow_status"
    " WHERE workflow_uuid IN (?1, ?2) ORDER BY workflow_uuid FOR UPDATE",
};
static const struct sql sql_park = {
    "durable park",
    "UPDATE dbos.workflow_status SET status = 'DELAYED', delay_until_epoch_ms = ?3,"
    " owner_xid = NULL, queue_name = COALESCE(queue_name, '" DURABLE_INTERNAL_QUEUE "'),"
    " recovery_attempts = recovery_attempts - 1, updated_at = ?4"
    " WHERE workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?2", NULL,
};
static const struct sql sql_parked = {
    "durable parked",
    "INSERT INTO durable_parked (workflow_uuid, kind, target, topic, since_ms)"
    " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (workflow_uuid) DO UPDATE SET kind = excluded.kind,"
    " target = excluded.target, topic = excluded.topic, since_ms = excluded.since_ms", NULL,
};
static const struct sql sql_marker = {
    "durable park marker",
    "UPDATE dbos.operation_outputs SET output = ?3, started_at_epoch_ms = ?4"
    " WHERE workflow_uuid = ?1 AND function_id = ?2 AND function_name = 'DBOS.sleep'", NULL,
};
/* clang-format on */

struct park {
    const struct workflow *w;
    const struct wait *wait;
    const struct record *record; /* of a sleep that begins; NULL: none */
    int64_t now, until;
    bool moved; /* the recorded end is not that of our clock any more */
    bool owned; /* as the body found it */
};

static int found_row(struct store_row *row, void *arg, struct err *e)
{
    struct park *park = arg;

    (void)e;
    if (str_eq_z(row_str(row, 0), park->w->id))
        park->owned =
            str_eq_z(row_str(row, 1), "PENDING") && str_eq_z(row_str(row, 2), park->w->token);
    return 0;
}

static int remark(struct store_tx *tx, const struct park *park, struct err *e)
{
    char text[32];
    const struct sql_arg args[] = { SQL_Z(park->w->id), SQL_INT(park->wait->marker), SQL_Z(text),
                                    SQL_INT(park->now) };

    fmt_z(text, sizeof(text), "%lld", (long long)park->until);
    return store_run(tx, &sql_marker, args, LEN(args), NULL, NULL, e);
}

static int park_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct park *park = arg;
    const struct workflow *w = park->w;
    const struct wait *wait = park->wait;
    bool sleep = wait->kind == WAIT_SLEEP;
    const struct sql_arg lock[] = { SQL_Z(w->id), sleep ? SQL_Z(w->id) : SQL_STR(wait->workflow) };
    const struct sql_arg row[] = { SQL_Z(w->id), SQL_Z(w->token), SQL_INT(park->until),
                                   SQL_INT(park->now) };
    const struct sql_arg parked[] = { SQL_Z(w->id), SQL_Z(wait_kind_name(wait->kind)),
                                      sleep ? SQL_NULL : SQL_STR(wait->workflow),
                                      wait->topic.p ? SQL_STR(wait->topic) : SQL_NULL,
                                      SQL_INT(park->now) };
    int r;

    park->owned = false;
    r = store_run(tx, &sql_lock, lock, LEN(lock), found_row, park, e);
    if (r == 0 && !park->owned)
        return JOURNAL_LOST;
    if (r == 0 && park->record)
        r = record_tx(tx, str_of(w->id), park->record, w->d->conf.app_name, e);
    if (r == 0 && (r = wait_look_tx(tx, wait->kind, wait->workflow, wait->topic, e)) == 1)
        return PARK_READY;
    if (r == 0)
        r = store_run(tx, &sql_park, row, LEN(row), NULL, NULL, e);
    if (r == 0)
        r = store_run(tx, &sql_parked, parked, LEN(parked), NULL, NULL, e);
    if (r == 0 && park->moved)
        r = remark(tx, park, e);
    return r;
}

/* 0: what is waited for is there. */
CO static int park(struct park *park, struct err *e)
{
    struct workflow *w = (struct workflow *)(uintptr_t)park->w;
    int r = run_store(w, park_body, park, e);

    if (r < 0)
        return r;
    if (w->end) /* meanwhile; if we are parked all the same, whoever ended us sees the row */
        return run_ended(w, e);
    if (r == PARK_READY)
        return 0;
    if (r != PARK_DONE)
        return run_wrote(w, r, e);
    if (park->until < NEVER_MS)
        sweep_due(w->d, park->until);
    w->end = RUN_PARKED;
    return run_ended(w, e);
}

CO int park_sleep(struct workflow *w, unsigned id, int64_t now, int64_t until, struct err *e)
{
    char text[32];
    struct record record = { .id = id,
                             .name = "DBOS.sleep",
                             .format = WIRE_PORTABLE,
                             .started_ms = now,
                             .completed_ms = until };
    struct wait wait = { .kind = WAIT_SLEEP };
    struct park it = { .w = w, .wait = &wait, .record = &record, .now = now, .until = until };

    fmt_z(text, sizeof(text), "%lld", (long long)until);
    record.output = str_of(text);
    return park(&it, e);
}

CO static int park_wait(struct workflow *w, const struct wait *wait, struct err *e)
{
    struct park it = { .w = w, .wait = wait, .until = NEVER_MS };
    int64_t drift;

    it.now = clock_ms(w->d);
    if (wait->deadline != DEADLINE_NONE) {
        uint64_t now = now_ms();

        it.until = it.now + (int64_t)(wait->deadline > now ? wait->deadline - now : 0);
        drift = it.until - wait->until_ms;
        if (drift > -STEP_SMALL_MS && drift < STEP_SMALL_MS)
            it.until = wait->until_ms;
        else
            it.moved = wait->until_ms != 0;
    }
    return park(&it, e);
}

/* --- one round --- */

static bool parks(const struct workflow *w, const struct wait *wait, uint64_t now)
{
    uint64_t park_ms = w ? w->d->conf.park_ms : 0;

    return w && !w->hold_slot && wait->kind != WAIT_STREAM && now - wait->since >= park_ms &&
           (wait->deadline == DEADLINE_NONE || wait->deadline - now > park_ms);
}

/* When a wait that nobody wakes looks again. */
static uint64_t look_again(const struct durable *d, const struct workflow *w,
                           const struct wait *wait, uint64_t now)
{
    uint64_t every = d->hint_ms ? d->hint_ms : 1000, at;
    bool tells = wait->kind != WAIT_RESULT && wait->kind != WAIT_STREAM;

    /* Other engines may be DBOS's, which tell nobody that a workflow has ended. */
    if (!tells && every > UNTOLD_MS && !run_find((struct durable *)(uintptr_t)d, wait->workflow))
        every = UNTOLD_MS;
    at = wait->kind == WAIT_SLEEP ? wait->deadline : deadline_min(wait->deadline, now + every);
    if (w && !w->hold_slot && w->d->conf.park_ms > now - wait->since)
        at = deadline_min(at, wait->since + w->d->conf.park_ms);
    return at;
}

CO int wait_round(struct durable *d, struct workflow *w, struct wait *wait, struct err *e)
{
    uint64_t now = now_ms();
    int r;

    if (w && w->end)
        return run_ended(w, e);
    if (!w && d->stopping)
        return err_set(e, ERR_UNAVAILABLE, "the engine is stopping");
    if (!wait->since)
        wait->since = now;
    if (wait->woken) {
        wait->woken = false;
        return 0;
    }
    if (now >= wait->deadline)
        return WAIT_TIMEOUT;
    if (parks(w, wait, now))
        return park_wait(w, wait, e);
    wait->parked = true;
    r = fiber_park(look_again(d, w, wait, now), e);
    wait->parked = wait->woken = false;
    if (w && w->end)
        return run_ended(w, e);
    return r == -ERR_TIMEOUT ? 0 : r;
}
