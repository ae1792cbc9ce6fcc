/* SPDX-License-Identifier: MIT */
/*
 * Drivers: code that delivers what is due to sessions nobody is subscribed to. Of one session one
 * delivery is under way at a time, the oldest; a few sessions at once.
 *
 * What is accepted here is driven at once. What other processes accepted, or left behind, is found
 * by a look at the sessions of the table; if it is younger than OTHERS_MS it is left to them.
 * Processes that share a database may deliver a message twice; a driver tells its peer the key.
 */
#include <assert.h>

#include "base/log.h"
#include "swarm/mail_int.h"

#define OTHERS_MS 30000
#define SCAN_ROWS 256

/* clang-format off */
static const struct sql sql_head = {
    "mail head",
    "SELECT position, workflow_uuid, message_id, sender, session, content, metadata, created_at,"
    " expires_at, attempts FROM agent_messages WHERE session = ?1 AND status = 'pending'"
    " ORDER BY position LIMIT 1", NULL,
};
static const struct sql sql_sessions = { /* leaps from session to session */
    "mail sessions",
    "WITH RECURSIVE s (session) AS (SELECT * FROM (SELECT session FROM agent_messages"
    "   WHERE status = 'pending' AND session > ?1 ORDER BY session LIMIT 1) AS f"
    "  UNION ALL SELECT (SELECT session FROM agent_messages WHERE status = 'pending'"
    "   AND session > s.session ORDER BY session LIMIT 1) FROM s WHERE s.session IS NOT NULL)"
    " SELECT session, (SELECT created_at FROM agent_messages m WHERE m.status = 'pending'"
    "  AND m.session = s.session ORDER BY position LIMIT 1) FROM s"
    " WHERE session IS NOT NULL LIMIT ?2", NULL,
};
/* clang-format on */

int mail_drive(struct mail *m, const struct mail_driver *driver, struct err *e)
{
    if (m->n_drivers == MAIL_DRIVERS)
        return err_set(e, ERR_LIMIT, "too many drivers of messages");
    m->drivers[m->n_drivers++] = (struct mail_driver_state){ .m = m, .driver = driver };
    m->new_drivers = true;
    mail_sweep_wake(m);
    return 0;
}

/* A setting may change which sessions a driver takes, so this is asked each time. */
struct mail_driver_state *mail_drive_of(struct mail *m, struct mail_box *box)
{
    for (size_t i = 0; i < m->n_drivers; i++) {
        const struct mail_driver *driver = m->drivers[i].driver;

        if (driver->takes(str_of(box->session), driver->arg))
            return &m->drivers[i];
    }
    return NULL;
}

bool mail_drive_replies(struct mail *m, struct mail_box *box)
{
    const struct mail_driver_state *d = mail_drive_of(m, box);

    return d && (!d->driver->replies || d->driver->replies(str_of(box->session), d->driver->arg));
}

/* --- one session --- */

struct head {
    struct mail_box *box;
    struct arena arena;
    struct mail_row row;
    bool any;
};

static int take_head(struct store_row *row, void *arg, struct err *e)
{
    struct head *head = arg;

    head->any = true;
    return mail_row_take(row, &head->arena, &head->row);
}

static int head_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct head *head = arg;
    const struct sql_arg args[] = { SQL_Z(head->box->session) };

    head->any = false;
    return store_run(tx, &sql_head, args, LEN(args), take_head, head, e);
}

static void wait_for_next(struct mail *m, struct mail_box *box)
{
    uint64_t wait = mail_clock_backoff(m, ++box->drive_fails);

    box->drive_at_ms = now_ms() + wait;
    if (box->drive_waits)
        return;
    box->drive_waits = true;
    box->dnext = m->waiting;
    m->waiting = box;
    m->drive_waits++;
    mail_clock_wake(m);
}

static bool hopeless(int r)
{
    return r == -ERR_INVALID || r == -ERR_NOT_FOUND || r == -ERR_FORBIDDEN;
}

static CO int failed(struct mail *m, struct mail_box *box, const struct mail_row *row, int r,
                     struct err *e)
{
    struct mail_death death = { MAIL_FAILED, e->msg };
    struct err why;
    int w;

    mail_wait_nobody(m, box, row->workflow);
    if (hopeless(r) || row->attempts + 1 >= m->set->message_attempts) {
        w = mail_dead_kill(m, &row->position, 1, &death, &why);
    } else {
        log_debug("a message could not be delivered", "session", LOG_STR(box->session), "error",
                  LOG_ERR(e));
        w = mail_attempts_write(m, &row->position, 1, &why);
    }
    if (!hopeless(r) || w < 0)
        wait_for_next(m, box);
    return w;
}

static CO int deliver(struct mail_driver_state *d, struct mail_box *box, const struct mail_row *row,
                      struct err *e)
{
    const struct mail_push push = {
        .workflow = row->workflow,
        .id = row->id,
        .from = row->from,
        .to = row->to,
        .content = row->content,
        .metadata = row->metadata,
        .accepted_ms = row->created_ms,
        .attempt = (unsigned)row->attempts + 1,
        .notice = str_starts(row->workflow, STR(MAIL_NOTICE)),
    };
    AUTO(buf_done) struct buf out;
    struct err why = { 0 };
    int r;

    buf_init(&out, (size_t)d->m->set->max_message);
    metric_add(row->attempts ? &swarm_m_redelivered : &swarm_m_delivered, 0, 1);
    r = d->driver->deliver(&push, d->driver->arg, &out, &why);
    if (r < 0 && (r == -ERR_CANCELED || fiber_canceled()))
        return err_set(e, ERR_CANCELED, "stopping");
    if (r < 0)
        return failed(d->m, box, row, r, &why);
    box->drive_fails = 0;
    r = mail_end(d->m, row->to, row->workflow, row->position,
                 out.n ? buf_str(&out) : (struct str){ 0 }, e);
    if (r < 0) { /* delivered, but that is not written: it will be delivered again */
        wait_for_next(d->m, box);
        return r;
    }
    if (!out.n)
        mail_wait_nobody(d->m, box, row->workflow);
    return 0;
}

static bool goes_on(const struct mail *m, const struct mail_box *box)
{
    return m->running && box->n_subs == 0 && !box->drive_waits;
}

static CO void drive_box(struct mail_driver_state *d, struct mail_box *box)
{
    struct mail *m = d->m;
    int r = 0;

    do {
        struct head head = { .box = box };
        struct err e;

        box->drive_more = false;
        r = store_read(m->store, head_body, &head, &e);
        if (r == 0 && head.any && goes_on(m, box)) {
            box->delivering = head.row.position;
            r = deliver(d, box, &head.row, &e);
            box->delivering = 0;
            box->drive_more = true;
        }
        if (r < 0 && r != -ERR_CANCELED) {
            log_debug("messages cannot be read or ended now", "error", LOG_ERR(&e));
            wait_for_next(m, box);
        }
        arena_done(&head.arena);
    } while (r == 0 && box->drive_more && goes_on(m, box));
}

static CO int drive_run(void *arg, struct err *e)
{
    struct mail_driver_state *d = arg;

    while (d->m->running && d->first) {
        struct mail_box *box = d->first;

        d->first = box->qnext;
        box->drive_queued = false;
        box->driving = true;
        if (goes_on(d->m, box))
            drive_box(d, box);
        box->driving = false;
        if (box->n_subs > 0)
            mail_box_more(d->m, box, true);
    }
    d->running--;
    return 0;
}

/* --- which sessions --- */

static void queue(struct mail_driver_state *d, struct mail_box *box)
{
    struct err e;

    box->drive_queued = true;
    box->qnext = NULL;
    if (!d->first)
        d->last = &d->first;
    *d->last = box;
    d->last = &box->qnext;
    if (d->running < d->driver->fibers &&
        fiber_group_spawn(d->m->chores, "mail driver", drive_run, d, &e) == 0)
        d->running++;
}

void mail_drive_hint(struct mail *m, struct mail_box *box)
{
    struct mail_driver_state *d;

    box->drive_more = true;
    if (!m->running || box->driving || box->drive_queued || box->queued || box->drive_waits)
        return;
    d = mail_drive_of(m, box);
    if (d)
        queue(d, box);
}

void mail_drive_tick(struct mail *m)
{
    struct mail_box *box = m->waiting, *next;
    uint64_t now = now_ms();

    m->waiting = NULL;
    for (; box; box = next) {
        next = box->dnext;
        if (box->drive_at_ms > now) {
            box->dnext = m->waiting;
            m->waiting = box;
            continue;
        }
        box->drive_waits = false;
        m->drive_waits--;
        mail_drive_hint(m, box);
    }
}

struct scan {
    struct mail *m;
    char after[MAIL_SESSION];
    struct arena arena;
    struct str sessions[SCAN_ROWS];
    int64_t oldest[SCAN_ROWS];
    size_t n;
};

static int take_session(struct store_row *row, void *arg, struct err *e)
{
    struct scan *scan = arg;

    if (scan->n == SCAN_ROWS)
        return 0;
    scan->sessions[scan->n] = arena_str(&scan->arena, row_str(row, 0));
    scan->oldest[scan->n++] = row_int(row, 1);
    return 0;
}

static int scan_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct scan *scan = arg;
    const struct sql_arg args[] = { SQL_Z(scan->after), SQL_INT(SCAN_ROWS) };

    arena_done(&scan->arena);
    scan->n = 0;
    return store_run(tx, &sql_sessions, args, LEN(args), take_session, scan, e);
}

static void drive_found(struct mail *m, struct str session, int64_t oldest, bool first)
{
    struct mail_box *box;

    if (session.n >= MAIL_SESSION || (m->pg && !first && swarm_now() - oldest < OTHERS_MS))
        return;
    for (size_t i = 0; i < m->n_drivers; i++) {
        if (!m->drivers[i].driver->takes(session, m->drivers[i].driver->arg))
            continue;
        box = mail_box_get(m, session);
        if (box->n_subs == 0)
            mail_drive_hint(m, box);
        return;
    }
}

CO int mail_drive_scan(struct mail *m, struct err *e)
{
    struct scan *scan;
    bool first = m->new_drivers;
    int r;

    if (m->n_drivers == 0)
        return 0;
    m->new_drivers = false;
    scan = xcalloc(1, sizeof(*scan));
    do {
        r = store_read(m->store, scan_body, scan, e);
        for (size_t i = 0; r == 0 && i < scan->n; i++)
            drive_found(m, scan->sessions[i], scan->oldest[i], first);
        if (scan->n > 0 && scan->sessions[scan->n - 1].n >= MAIL_SESSION)
            break; /* not written by us */
        if (r == 0 && scan->n > 0)
            fmt_z(scan->after, sizeof(scan->after), STR_FMT, STR_ARG(scan->sessions[scan->n - 1]));
    } while (r == 0 && scan->n == SCAN_ROWS);
    if (r < 0)
        m->new_drivers = first;
    arena_done(&scan->arena);
    free(scan);
    return r;
}
