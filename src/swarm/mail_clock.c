/* SPDX-License-Identifier: MIT */
/*
 * When deliveries are made again, by a wheel of slots that one fiber turns; and the chores of every
 * second: what is too old, what was delivered too often, what others have done.
 */
#include "base/log.h"
#include "swarm/mail_int.h"

#define SWEEP_MS  1000
#define GAUGE_MS  5000  /* between counts of what waits */
#define SCAN_MS   10000 /* between looks for what drivers were not told of */
#define KILL_ONCE 100   /* messages of one batch */

/* --- the wheel --- */

void mail_clock_unset(struct mail *m, struct mail_letter *l)
{
    if (!l->tprev)
        return;
    *l->tprev = l->tnext;
    if (l->tnext)
        l->tnext->tprev = l->tprev;
    l->tprev = NULL;
    if (!l->dying)
        m->n_timed--;
}

void mail_clock_set(struct mail *m, struct mail_letter *l, uint64_t due_ms)
{
    uint64_t at = due_ms / MAIL_TICK_MS + 1;
    struct mail_letter **slot;

    mail_clock_unset(m, l);
    l->due_ms = due_ms;
    if (m->n_timed == 0) {
        m->tick = now_ms() / MAIL_TICK_MS;
        mail_clock_wake(m);
    }
    if (at <= m->tick)
        at = m->tick + 1;
    if (at >= m->tick + MAIL_SLOTS)
        at = m->tick + MAIL_SLOTS - 1; /* comes round, and is set again */
    slot = &m->slots[at % MAIL_SLOTS];
    l->tnext = *slot;
    l->tprev = slot;
    if (l->tnext)
        l->tnext->tprev = &l->tnext;
    *slot = l;
    m->n_timed++;
}

uint64_t mail_clock_backoff(const struct mail *m, unsigned attempt)
{
    uint64_t ms = (uint64_t)m->set->redeliver_first_ms;
    uint64_t last = (uint64_t)m->set->redeliver_last_ms;

    for (unsigned i = 1; i < attempt && ms < last; i++)
        ms *= 2;
    return ms < last ? ms : last;
}

void mail_dying_add(struct mail *m, struct mail_letter *l)
{
    if (l->dying)
        return;
    mail_clock_unset(m, l);
    l->dying = true;
    l->tnext = m->dying;
    l->tprev = &m->dying;
    if (l->tnext)
        l->tnext->tprev = &l->tnext;
    m->dying = l;
    mail_sweep_wake(m);
}

static void came_due(struct mail *m, struct mail_letter *l)
{
    mail_clock_unset(m, l);
    if (l->due_ms > now_ms()) {
        mail_clock_set(m, l, l->due_ms);
        return;
    }
    if (l->attempt >= (uint64_t)m->set->message_attempts) {
        mail_dying_add(m, l);
        return;
    }
    l->due = true;
    mail_box_kick(m, l->box);
}

static void turn_to(struct mail *m, uint64_t tick)
{
    if (tick > m->tick + MAIL_SLOTS)
        m->tick = tick - MAIL_SLOTS; /* we were held up: every slot once */
    while (m->tick < tick) {
        struct mail_letter **slot = &m->slots[++m->tick % MAIL_SLOTS], *l, *next;

        for (l = *slot; l; l = next) {
            next = l->tnext;
            came_due(m, l);
        }
    }
}

/* Those that took nothing more are asked again. */
static void unchoke(struct mail *m)
{
    struct mail_box *box = m->choked, *next;
    uint64_t now = now_ms();

    m->choked = NULL;
    for (; box; box = next) {
        next = box->cnext;
        if (box->choked && box->n_subs > 0 && box->choke_at_ms > now) {
            box->cnext = m->choked;
            m->choked = box;
            continue;
        }
        box->chokes = box->choked = false;
        mail_box_kick(m, box);
    }
}

void mail_clock_wake(struct mail *m)
{
    if (m->clock)
        fiber_wake(m->clock);
}

CO int mail_clock_chore(void *arg, struct err *e)
{
    struct mail *m = arg;
    int r = 0;

    m->clock = fiber_self();
    while (r == 0 && m->running) {
        bool busy = m->n_timed || m->choked || m->pump_first || m->drive_waits;

        r = busy ? fiber_sleep(MAIL_TICK_MS, e) : fiber_park(DEADLINE_NONE, e);
        if (r < 0)
            break;
        if (m->n_timed)
            turn_to(m, now_ms() / MAIL_TICK_MS);
        unchoke(m);
        mail_drive_tick(m);
        if (m->pump_first && m->pumps == 0) /* there was no fiber for it */
            mail_pump_call(m);
    }
    m->clock = NULL;
    return 0;
}

/* --- every second --- */

void mail_sweep_wake(struct mail *m)
{
    if (m->sweeper)
        fiber_wake(m->sweeper);
}

static CO int kill_dying(struct mail *m, struct err *e)
{
    static const struct mail_death death = { MAIL_FAILED,
                                             "delivered too often without an acknowledgement" };
    int64_t at[KILL_ONCE];
    struct mail_letter *l;
    int r = 0;

    while (r == 0 && m->dying) {
        size_t n = 0;

        for (l = m->dying; l && n < KILL_ONCE; l = l->tnext)
            at[n++] = l->position;
        r = mail_dead_kill(m, at, n, &death, e);
        for (size_t i = 0; r == 0 && i < n; i++) { /* those that had ended otherwise */
            for (l = m->dying; l && l->position != at[i];)
                l = l->tnext;
            if (l)
                mail_letter_free(m, l);
        }
    }
    return r;
}

/* What was pushed and has nobody any more: the pushes are counted, the letters forgotten. */
static CO int adopt(struct mail *m, struct err *e)
{
    size_t n = 0, cap = 0;
    int64_t *positions = NULL;
    int r;

    if (!m->orphans)
        return 0;
    m->orphans = false;
    for (size_t i = 0; i < m->boxes.n_slots; i++) {
        for (struct strmap_node *node = m->boxes.slots[i]; node; node = node->next) {
            struct mail_box *box = container_of(node, struct mail_box, node);
            struct mail_letter *l = box->n_subs ? NULL : box->first, *next;

            for (; l; l = next) {
                next = l->next;
                if (l->sub || l->dying || box->driving) {
                    m->orphans = m->orphans || box->driving;
                    continue;
                }
                if (n == cap) {
                    cap = cap ? 2 * cap : 64;
                    positions = xrealloc(positions, cap * sizeof(*positions));
                }
                positions[n++] = l->position;
                mail_letter_free(m, l);
            }
        }
    }
    r = n ? mail_attempts_write(m, positions, n, e) : 0;
    free(positions);
    return r;
}

struct chore {
    const char *name;
    CO int (*run)(struct mail *m, struct err *e);
    unsigned every_ms; /* 0: each time */
    bool pg;           /* on PostgreSQL only */
};

static const struct chore chores[] = {
    { "mail: dead", kill_dying, 0, false },
    { "mail: nobody's", adopt, 0, false },
    { "mail: expired", mail_age_expire, SWEEP_MS, false },
    { "mail: others", mail_hear_poll, SWEEP_MS, true },
    { "mail: replies", mail_wait_poll, SWEEP_MS, true },
    { "mail: old", mail_age_collect, SWEEP_MS, false },
    { "mail: gauge", mail_look_gauge, GAUGE_MS, false },
    { "mail: drivers", mail_drive_scan, SCAN_MS, false },
};

struct sweep {
    uint64_t last[LEN(chores)];
    bool failing[LEN(chores)];
};

static CO void run_chore(struct mail *m, struct sweep *s, size_t i)
{
    uint64_t now = now_ms();
    struct err e;
    int r;

    if ((chores[i].pg && !m->pg) || (s->last[i] && now - s->last[i] < chores[i].every_ms))
        return;
    s->last[i] = now;
    r = chores[i].run(m, &e);
    if (r == -ERR_CANCELED)
        return;
    if (r < 0 && !s->failing[i])
        log_warn("a chore fails and is tried again", "chore", LOG_STR(chores[i].name), "error",
                 LOG_ERR(&e));
    else if (r >= 0 && s->failing[i])
        log_info("a chore works again", "chore", LOG_STR(chores[i].name));
    s->failing[i] = r < 0;
}

CO int mail_sweep_chore(void *arg, struct err *e)
{
    struct mail *m = arg;
    struct sweep s = { 0 };
    int r = 0;

    m->sweeper = fiber_self();
    while (m->running && (r == 0 || r == -ERR_TIMEOUT)) {
        for (size_t i = 0; m->running && i < LEN(chores); i++)
            run_chore(m, &s, i);
        mail_box_forget_idle(m);
        lane_poke(&m->accepts); /* there may have been too many fibers */
        r = fiber_park(deadline_in(SWEEP_MS), e);
    }
    m->sweeper = NULL;
    return 0;
}
