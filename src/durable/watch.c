/* SPDX-License-Identifier: MIT */
/*
 * durable/watch.c — do the runs of this process and the rows it owns agree?
 *
 * A run whose row was cancelled, taken by another or deleted is ended. A row that is PENDING under
 * this process and does not run here goes back to its queue: the answer of its claim was lost, or
 * its run ended without being able to write so. Nothing else would ever move such a row while this
 * process lives.
 */
#include "durable/queue_int.h"

#include "base/log.h"

/* clang-format off */
/* ?1 JSON [[id, token], ...] of what runs here, ?2 executor, ?3 how many. NOT IN of one text is
 * looked up in a hash; two columns would be compared with each of the list. */
#define OWN(list, id, token) \
    "WITH live AS (SELECT " id " AS id, " token " AS token FROM " list ")" \
    " SELECT 0, l.id, l.token, w.status FROM live l" \
    " LEFT JOIN dbos.workflow_status w ON w.workflow_uuid = l.id" \
    " WHERE w.status IS NULL OR w.status <> 'PENDING' OR w.owner_xid IS NULL" \
    "  OR w.owner_xid <> l.token" \
    " UNION ALL SELECT * FROM (SELECT 1, w.workflow_uuid, COALESCE(w.owner_xid, ''), w.status" \
    "  FROM dbos.workflow_status w WHERE w.status = 'PENDING' AND w.executor_id = ?2" \
    "  AND w.workflow_uuid || ' ' || COALESCE(w.owner_xid, '') NOT IN" \
    "   (SELECT l.id || ' ' || l.token FROM live l) LIMIT ?3) AS idle"
static const struct sql sql_own = {
    "own runs",
    OWN("json_each(?1)", "json_extract(value, '$[0]')", "json_extract(value, '$[1]')"),
    OWN("json_array_elements(?1::json) AS j(v)", "j.v ->> 0", "j.v ->> 1"),
};
/* The token of a row may be NULL by another's hand. Its attempts stay: it may have run. */
static const struct sql sql_put_back = { /* ?1 id ?2 token or '' ?3 executor ?4 now */
    "put back what does not run",
    "UPDATE dbos.workflow_status SET status = 'ENQUEUED', owner_xid = NULL,"
    " started_at_epoch_ms = NULL, updated_at = ?4,"
    " queue_name = COALESCE(queue_name, '" DURABLE_INTERNAL_QUEUE "')"
    " WHERE workflow_uuid = ?1 AND status = 'PENDING' AND COALESCE(owner_xid, '') = ?2"
    " AND executor_id = ?3 RETURNING queue_name",
    NULL,
};
/* clang-format on */

struct finding { /* a run whose row says otherwise, or a row that does not run */
    bool idle, cancelled;
    struct str id, token;
};

struct own {
    const struct durable *d;
    struct str live;
    struct arena arena;
    struct finding *found;
    size_t n;
    bool room;
};

enum { FOUND_MAX = 2 * SWEEP_BATCH };

static int take_finding(struct store_row *row, void *arg, struct err *e)
{
    struct own *own = arg;

    (void)e;
    if (own->n == FOUND_MAX)
        return 1;
    own->found[own->n++] = (struct finding){
        .idle = row_int(row, 0) != 0,
        .cancelled = str_eq_z(row_str(row, 3), "CANCELLED") ||
                     str_eq_z(row_str(row, 3), "MAX_RECOVERY_ATTEMPTS_EXCEEDED"),
        .id = arena_str(&own->arena, row_str(row, 1)),
        .token = arena_str(&own->arena, row_str(row, 2)),
    };
    return 0;
}

static int own_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct own *own = arg;
    const struct sql_arg args[] = { SQL_STR(own->live), SQL_Z(own->d->executor),
                                    SQL_INT(SWEEP_BATCH) };
    int r;

    arena_reset(&own->arena);
    own->n = 0;
    own->found = arena_alloc(&own->arena, FOUND_MAX * sizeof(*own->found));
    r = store_run(tx, &sql_own, args, LEN(args), take_finding, own, e);
    return r < 0 ? r : 0;
}

static int live_json(const struct durable *d, struct buf *out, struct err *e)
{
    int r = buf_add_z(out, "[", e);

    for (const struct workflow *w = d->live; w && r == 0; w = w->next) {
        r = buf_add_z(out, w == d->live ? "[" : ",[", e);
        if (r == 0)
            r = json_write_str(out, str_of(w->id), e);
        if (r == 0)
            r = buf_printf(out, e, ",\"%s\"]", w->token);
    }
    return r < 0 ? r : buf_add_z(out, "]", e);
}

/* Was the same found by the look before? Remembers it for the next. */
static bool again(struct sweeper *s, const struct finding *f)
{
    const char *text =
        arena_printf(&s->suspects[1], STR_FMT " " STR_FMT, STR_ARG(f->id), STR_ARG(f->token));

    s->suspect[1][s->n_suspects[1]++] = str_of(text);
    for (size_t i = 0; i < s->n_suspects[0]; i++) {
        if (str_eq_z(s->suspect[0][i], text))
            return true;
    }
    return false;
}

static void suspects_next(struct sweeper *s, size_t n)
{
    arena_done(&s->suspects[0]);
    s->suspects[0] = s->suspects[1];
    s->suspect[0] = s->suspect[1];
    s->n_suspects[0] = s->n_suspects[1];
    s->suspects[1] = (struct arena){ 0 };
    s->n_suspects[1] = 0;
    s->suspect[1] = arena_alloc(&s->suspects[1], (n + 1) * sizeof(*s->suspect[1]));
}

struct put_back {
    const struct durable *d;
    const struct finding *found;
    size_t n_found;
    const bool *chosen;
    int64_t now, n;
    struct touched touched;
};

static int take_put_back(struct store_row *row, void *arg, struct err *e)
{
    struct put_back *put = arg;

    (void)e;
    put->n++;
    touched_add(&put->touched, row_str(row, 0));
    return 0;
}

static int put_back_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct put_back *put = arg;
    int r = 0;

    touched_reset(&put->touched);
    put->n = 0;
    for (size_t i = 0; i < put->n_found && r == 0; i++) {
        const struct sql_arg args[] = { SQL_STR(put->found[i].id), SQL_STR(put->found[i].token),
                                        SQL_Z(put->d->executor), SQL_INT(put->now) };

        if (put->chosen[i])
            r = store_run(tx, &sql_put_back, args, LEN(args), take_put_back, put, e);
    }
    return r;
}

static CO int put_back(struct durable *d, const struct own *own, const bool *chosen, struct err *e)
{
    struct put_back put = {
        .d = d, .found = own->found, .n_found = own->n, .chosen = chosen, .now = wall_ms()
    };
    int r = store_do(d->store, put_back_body, &put, e);

    if (r == 0 && put.n > 0) {
        metric_add(&durable_m_stuck, 0, put.n);
        log_warn("workflows of this process did not run and were put back", "number",
                 LOG_INT(put.n));
        touched_poke(d, &put.touched);
    }
    touched_reset(&put.touched);
    return r;
}

/* A run was cancelled, or is not ours any more. */
static void end_run(struct durable *d, const struct finding *f)
{
    struct workflow *w = run_find(d, f->id);

    if (!w || !str_eq_z(f->token, w->token))
        return;
    if (!f->cancelled && w->end == RUN_GOES)
        metric_add(&durable_m_lost, 0, 1);
    run_end_now(w, f->cancelled ? RUN_CANCELLED : RUN_LOST);
}

void flight_begin(struct durable *d, struct flight *flight)
{
    *flight = (struct flight){ .next = d->flights, .link = &d->flights, .since_ms = now_ms() };
    if (flight->next)
        flight->next->link = &flight->next;
    d->flights = flight;
}

void flight_done(struct flight *flight)
{
    *flight->link = flight->next;
    if (flight->next)
        flight->next->link = flight->link;
}

bool flight_since(const struct durable *d, uint64_t ms)
{
    const struct flight *oldest = d->flights; /* each is put before those that are older */

    while (oldest && oldest->next)
        oldest = oldest->next;
    return oldest && oldest->since_ms <= ms;
}

/*
 * A cancel is acted upon at once. Everything else must be found twice: a run that just ends, parks
 * or is just being claimed looks the same for a moment. And a row is put back only when what was on
 * its way at the first sight has arrived: a claim or start whose answer was lost is sent again and
 * may yet begin it.
 */
static CO int judge(struct durable *d, struct own *own, uint64_t seen_ms, struct err *e)
{
    bool *chosen = arena_alloc(&own->arena, own->n + 1), any = false;
    bool pending = flight_since(d, seen_ms);

    suspects_next(d->sweeper, own->n);
    for (size_t i = 0; i < own->n; i++) {
        const struct finding *f = &own->found[i];

        if (f->cancelled && !f->idle) {
            end_run(d, f);
        } else if (again(d->sweeper, f)) {
            chosen[i] = f->idle && !pending;
            any = any || chosen[i];
            if (!f->idle)
                end_run(d, f);
        }
    }
    return any && !d->stopping ? put_back(d, own, chosen, e) : 0;
}

CO int watch_own(struct durable *d, struct err *e)
{
    AUTO(buf_done) struct buf live = { 0 };
    struct own own = { .d = d };
    uint64_t last = d->sweeper->looked_ms;
    int r;

    buf_init(&live, 16 * MIB);
    r = live_json(d, &live, e);
    if (r < 0)
        return r;
    own.live = buf_str(&live);
    d->sweeper->looked_ms = now_ms();
    r = store_read(d->store, own_body, &own, e);
    if (r == 0)
        r = judge(d, &own, last, e);
    arena_done(&own.arena);
    return r;
}
