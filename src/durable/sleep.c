/* SPDX-License-Identifier: MIT */
/*
 * durable/sleep.c — sleeping, and the recorded ends of other waits.
 *
 * A wait's end is recorded once, before it begins, as "DBOS.sleep" with the wall time it ends at.
 * Replays take the record. A long sleep records and parks in one transaction.
 */
#include "durable/wait_int.h"

#define MARKER "DBOS.sleep"

/* The end of a record; other engines may have written a fraction. */
static int parse_until(const struct recorded *rec, int64_t *ret, struct err *e)
{
    struct str rest = rec->output, whole = { 0 };
    long long v;

    if (!str_split(&rest, '.', &whole) || int_parse(whole, 0, INT64_MAX, &v, e) < 0)
        return err_set(e, ERR_INTERNAL, "record %u: a sleep without its end", rec->id);
    *ret = v;
    return 0;
}

CO int marker_take(struct workflow *w, uint64_t ms, struct wait *wait, struct err *e)
{
    struct recorded rec;
    int64_t started, until;
    unsigned id;
    int r;

    r = run_recorded(w, MARKER, &id, &rec, e);
    if (r < 0)
        return r;
    wait->marker = id;
    wait->until_ms = 0;
    wait->deadline = now_ms() + (ms < WAIT_LONGEST_MS ? ms : WAIT_LONGEST_MS);
    if (r == 0)
        return 0;
    r = parse_until(&rec, &until, e);
    if (r < 0)
        return r;
    started = rec.started_ms;
    wait->until_ms = until;
    wait->deadline = now_ms() + wait_left_ms(clock_ms(w->d), started, until);
    return 0;
}

CO static int record_until(struct workflow *w, struct wait *wait, bool sleep, struct err *e)
{
    char text[32];
    struct record record = { .id = wait->marker, .name = MARKER, .format = WIRE_PORTABLE };
    int64_t now = clock_ms(w->d);
    uint64_t mono = now_ms();
    int r;

    wait->until_ms = now + (int64_t)(wait->deadline > mono ? wait->deadline - mono : 0);
    fmt_z(text, sizeof(text), "%lld", (long long)wait->until_ms);
    record.output = str_of(text);
    record.started_ms = now;
    record.completed_ms = sleep ? wait->until_ms : now;
    r = journal_step(w, &record, e);
    return r < 0 ? r : run_wrote(w, r, e);
}

CO int marker_keep(struct workflow *w, struct wait *wait, struct err *e)
{
    return wait->until_ms ? 0 : record_until(w, wait, false, e);
}

CO int durable_sleep(struct workflow *w, uint64_t ms, struct err *e)
{
    AUTO(wait_done) struct wait wait = { .kind = WAIT_SLEEP, .workflow = str_of(w->id) };
    uint64_t now;
    int r;

    r = marker_take(w, ms, &wait, e);
    if (r < 0 || (ms == 0 && !wait.until_ms))
        return r;
    now = now_ms();
    if (!wait.until_ms && ms > w->d->conf.park_ms && !w->hold_slot) {
        int64_t wall = clock_ms(w->d);

        return park_sleep(w, wait.marker, wall, wall + (int64_t)(wait.deadline - now), e);
    }
    wait_begin(w->d, &wait);
    if (!wait.until_ms)
        r = record_until(w, &wait, true, e);
    while (r == 0)
        r = wait_round(w->d, w, &wait, e);
    return r == WAIT_TIMEOUT ? 0 : r;
}
