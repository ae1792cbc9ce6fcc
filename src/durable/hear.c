/* SPDX-License-Identifier: MIT */
/*
 * What other processes on the same PostgreSQL tell us, turned into wakes of those who wait here.
 * All of it is hints to look sooner: polling finds what no message came for.
 */
#include "base/log.h"
#include "durable/durable_int.h"

#define HEARING_POLL_MS 10000 /* of waits, while news reach us */
#define LOOK_MS         1000  /* at whether they do */
#define DEAF_MS         10000 /* until it is said that they do not */

/* "<workflow>::<topic>": ids and topics may hold colons themselves, so every cut is tried. */
static void heard_pairs(struct durable *d, enum wait_kind kind, struct str payload)
{
    for (size_t i = 0; i + 1 < payload.n; i++) {
        if (payload.p[i] == ':' && payload.p[i + 1] == ':')
            wake_heard(d, kind, (struct str){ payload.p, i },
                       (struct str){ payload.p + i + 2, payload.n - i - 2 });
    }
}

static void on_messages(struct durable *d, struct str payload)
{
    heard_pairs(d, WAIT_RECV, payload);
}

static void on_events(struct durable *d, struct str payload)
{
    heard_pairs(d, WAIT_EVENT, payload);
}

static void on_streams(struct durable *d, struct str payload)
{
    heard_pairs(d, WAIT_STREAM, payload);
}

static void on_result(struct durable *d, struct str payload)
{
    wake_waiters(d, WAIT_RESULT, payload, (struct str){ 0 });
}

static void on_cancel(struct durable *d, struct str payload)
{
    struct workflow *w = run_find(d, payload);

    /* The row decides: the sweep looks at it now, and ends the run if it says so. */
    if (w)
        sweep_due(d, 0);
    wake_waiters(d, WAIT_RESULT, payload, (struct str){ 0 });
}

static void look_again(struct durable *d)
{
    wake_all_waiters(d);
    queue_poke(d, (struct str){ 0 });
}

static const struct channel {
    const char *name;
    void (*heard)(struct durable *d, struct str payload);
} channels[] = {
    { NOTIFY_QUEUE, queue_poke },     { NOTIFY_CANCEL, on_cancel }, { NOTIFY_RESULTS, on_result },
    { NOTIFY_MESSAGES, on_messages }, { NOTIFY_EVENTS, on_events }, { NOTIFY_STREAMS, on_streams },
};

/* To those who asked; *name empty: to all. */
static void tell_others(struct durable *d, const char *name, struct str payload)
{
    for (size_t i = 0; i < d->n_ears; i++) {
        if (!*name || strcmp(name, d->ears[i].channel) == 0)
            d->ears[i].heard(payload, d->ears[i].arg);
    }
}

static void heard(const char *name, struct str payload, void *arg)
{
    struct durable *d = arg;

    tell_others(d, name, *name ? payload : (struct str){ 0 });
    if (!*name || payload.n == 0) {
        look_again(d);
        return;
    }
    for (size_t i = 0; i < LEN(channels); i++) {
        if (strcmp(name, channels[i].name) == 0)
            channels[i].heard(d, payload);
    }
}

struct hearing {
    uint64_t last; /* when we heard, mono */
    bool said;     /* that we do not */
};

static void say_hearing(struct hearing *h, bool hears)
{
    uint64_t now = now_ms();

    if (hears) {
        if (h->said)
            log_info("news of other engines arrive again");
        *h = (struct hearing){ .last = now };
    } else if (!h->said && now - h->last >= DEAF_MS) {
        log_warn("no news of other engines arrive by LISTEN, so the database is asked more often:"
                 " a pooler in transaction mode needs a direct URL for listening");
        h->said = true;
    }
}

/* How often waits must look by themselves. */
static CO int hear_chore(void *arg, struct err *e)
{
    struct durable *d = arg;
    struct hearing h = { .last = now_ms() };
    int r = 0;

    while (r == 0 && d->ear) { /* none: the engine was stopped before this first ran */
        bool hears = store_hears(d->ear);

        say_hearing(&h, hears);
        d->hint_ms = hears ? HEARING_POLL_MS : d->conf.sweep_ms;
        metric_set(&durable_m_hears, 0, hears);
        r = fiber_sleep(LOOK_MS, e);
    }
    return r == -ERR_CANCELED ? 0 : r;
}

int hear_start(struct durable *d, struct err *e)
{
    const char *names[LEN(channels) + DURABLE_EARS];
    size_t n = 0;
    int r;

    if (!d->pg)
        return 0;
    for (size_t i = 0; i < LEN(channels); i++)
        names[n++] = channels[i].name;
    for (size_t i = 0; i < d->n_ears; i++)
        names[n++] = d->ears[i].channel;
    r = store_listen(d->store, d->conf.listen_url, names, n, heard, d, &d->ear, e);
    if (r == 0)
        r = fiber_group_spawn(d->chores, "durable ear", hear_chore, d, e);
    return r;
}

int durable_hear(struct durable *d, const char *channel, void (*fn)(struct str payload, void *arg),
                 void *arg, struct err *e)
{
    if (d->n_ears == DURABLE_EARS)
        return err_set(e, ERR_LIMIT, "too many channels to hear");
    d->ears[d->n_ears].channel = channel;
    d->ears[d->n_ears].heard = fn;
    d->ears[d->n_ears++].arg = arg;
    return 0;
}

bool durable_hears(const struct durable *d)
{
    return d->ear && store_hears(d->ear);
}

void hear_stop(struct durable *d)
{
    store_ear_free(TAKE(d->ear));
}
