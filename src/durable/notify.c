/* SPDX-License-Identifier: MIT */
/*
 * durable/notify.c — telling other processes on the same PostgreSQL, after the commit.
 *
 * Payloads gather for a moment, each once, and go out in one statement, because a NOTIFY makes
 * commits of the whole database wait for each other. They are hints: what is not sent (nobody else
 * lives, too many wait, the database is away) is found by looking. Past the bound, one empty
 * payload per channel says "look at everything".
 *
 * Clients and engines of DBOS may hear the channels of DBOS; ours only other processes of ours.
 */
#include "durable/queue_int.h"

#include "base/log.h"

#define WAITING_MAX 4096
#define PAYLOAD_MAX 7900 /* of PostgreSQL: 8000 bytes */
#define GATHER_MS   10
#define SLOTS       8192 /* of the table: a power of two, never more than half full */
#define CHANNELS    8

struct note {
    const char *channel; /* a constant */
    struct str payload;  /* in the arena */
};

struct notifier {
    struct arena arena;
    struct note *slots[SLOTS];
    struct note *waiting[WAITING_MAX];
    size_t n;
    const char *whole[CHANNELS]; /* where one payload was too many */
    size_t n_whole;
    bool sending, failing;
    uint64_t last_ms;
};

/* clang-format off */
static const struct sql sql_notify = { /* ?1 JSON [[channel, payload], ...] */
    "notify",
    "SELECT 1 WHERE ?1 IS NULL",
    "SELECT pg_notify(j.v ->> 0, j.v ->> 1) FROM json_array_elements(?1::json) AS j(v)",
};
/* clang-format on */

static struct note **slot(struct notifier *n, const char *channel, struct str payload)
{
    uint64_t h = (uintptr_t)channel >> 3;
    size_t i;

    for (i = 0; i < payload.n; i++)
        h = (h ^ (unsigned char)payload.p[i]) * 1099511628211u;
    i = (size_t)(h ^ (h >> 32)) & (SLOTS - 1);
    while (n->slots[i] &&
           !(n->slots[i]->channel == channel && str_eq(n->slots[i]->payload, payload)))
        i = (i + 1) & (SLOTS - 1);
    return &n->slots[i];
}

/* The channel's one constant, so that channels compare as pointers. */
static const char *channel_of(const char *name)
{
    static const char *const names[] = { NOTIFY_QUEUE,  NOTIFY_CANCEL,  NOTIFY_RESULTS,
                                         NOTIFY_EVENTS, NOTIFY_STREAMS, NOTIFY_MESSAGES };

    for (size_t i = 0; i < LEN(names); i++) {
        if (strcmp(names[i], name) == 0)
            return names[i];
    }
    return NULL;
}

static void add_whole(struct notifier *n, const char *channel)
{
    for (size_t i = 0; i < n->n_whole; i++) {
        if (n->whole[i] == channel)
            return;
    }
    n->whole[n->n_whole++] = channel;
}

static void add(struct notifier *n, const char *channel, struct str payload)
{
    struct note **at;

    if (payload.n == 0 || payload.n > PAYLOAD_MAX || n->n == WAITING_MAX) {
        add_whole(n, channel);
        return;
    }
    at = slot(n, channel, payload);
    if (*at)
        return;
    *at = arena_new(&n->arena, struct note);
    (*at)->channel = channel;
    (*at)->payload = arena_str(&n->arena, payload);
    n->waiting[n->n++] = *at;
}

static int write_note(struct buf *out, const char *channel, struct str payload, struct err *e)
{
    int r = buf_printf(out, e, "%s[\"%s\",", out->n == 0 ? "[" : ",", channel);

    if (r == 0)
        r = json_write_str(out, payload, e);
    return r < 0 ? r : buf_add_z(out, "]", e);
}

/* All that waits, as JSON; nothing waits afterwards. */
static int take_all(struct notifier *n, struct buf *out, struct err *e)
{
    int r = 0;

    for (size_t i = 0; i < n->n && r == 0; i++)
        r = write_note(out, n->waiting[i]->channel, n->waiting[i]->payload, e);
    for (size_t i = 0; i < n->n_whole && r == 0; i++)
        r = write_note(out, n->whole[i], STR(""), e);
    if (r == 0)
        r = buf_add_z(out, "]", e);
    memset(n->slots, 0, sizeof(n->slots));
    n->n = n->n_whole = 0;
    arena_reset(&n->arena);
    return r;
}

static CO int send_all(struct durable *d, struct err *e)
{
    AUTO(buf_done) struct buf json = { 0 };
    struct sql_arg arg;
    int r;

    buf_init(&json, 64 * MIB);
    r = take_all(d->notifier, &json, e);
    arg = SQL_STR(buf_str(&json));
    return r < 0 ? r : store_once(d->store, &sql_notify, &arg, 1, NULL, NULL, e);
}

/* Lives while something waits. When the engine stops it sends what there is and does not wait. */
static CO int send_chore(void *arg, struct err *e)
{
    struct durable *d = arg;
    struct notifier *n = d->notifier;

    while (n->n > 0 || n->n_whole > 0) {
        uint64_t now = now_ms();

        if (now < n->last_ms + GATHER_MS)
            (void)chore_pause(n->last_ms + GATHER_MS - now);
        n->last_ms = now_ms();
        chore_note("notify", &n->failing, send_all(d, e), e);
    }
    n->sending = false;
    return 0;
}

void notify_others(struct durable *d, const char *channel, struct str payload)
{
    const char *known = channel_of(channel);
    struct err e;

    if (!d->pg || !known || !d->running)
        return;
    if (strncmp(known, "chela_", 6) == 0 && lease_others(d) == 0)
        return;
    if (!d->notifier)
        d->notifier = xcalloc(1, sizeof(*d->notifier));
    add(d->notifier, known, payload);
    if (d->notifier->sending)
        return;
    d->notifier->sending = true;
    if (fiber_group_spawn(d->chores, "durable notifier", send_chore, d, &e) < 0) {
        d->notifier->sending = false; /* the next one tries again; who waits looks by itself */
        log_warn("others are not told", "error", LOG_ERR(&e));
    }
}

void notifier_free(struct durable *d)
{
    if (!d->notifier)
        return;
    arena_done(&d->notifier->arena);
    free(TAKE(d->notifier));
}
