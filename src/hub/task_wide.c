/* SPDX-License-Identifier: MIT */
/*
 * Tasks in the table that are not in memory: all at the start; later those that other daemons on
 * the same database have accepted, or watched over until they died or until the agent came here.
 *
 * Who is told of something looks sooner; a look every few seconds finds the rest. A row has an
 * owner from its first sending on: the daemon that its agent is connected to, or was last.
 */
#include <stdlib.h>

#include "base/log.h"
#include "hub/task_int.h"

#define PAGE        500
#define LOOK_MS     2000
#define ADOPT_EVERY 5  /* looks */
#define ALL_EVERY   30 /* looks, at rows of any age */
#define NEW_US      60000000
#define FOUND_MAX   1000

enum { NEWS_WAITING = 'a', NEWS_ENDED = 't', NEWS_CANCEL = 'c' };

/* clang-format off */
#define COLUMNS \
    "SELECT position, id, agent_id, state, sender, type, body, timeout_ms, retry, attempts, cancel," \
    " created_at, sent_at, started_at FROM hub_tasks"
#define MINE " AND (owner IS NULL OR owner = ?1)"
static const struct sql sql_open = { /* ?2, ?3 after */
    "open tasks",
    COLUMNS " WHERE completed_at IS NULL AND (agent_id, position) > (?2, ?3)" MINE
    " ORDER BY agent_id, position LIMIT ?4", NULL,
};
static const struct sql sql_open_agent = {
    "open tasks of an agent",
    COLUMNS " WHERE completed_at IS NULL AND agent_id = ?2 AND position > ?3" MINE
    " ORDER BY position LIMIT ?4", NULL,
};
static const struct sql sql_take = { /* its agent has come here */
    "take an agent's tasks",
    "UPDATE hub_tasks SET owner = ?1 WHERE agent_id = ?2 AND completed_at IS NULL"
    " AND owner IS NOT NULL AND owner <> ?1", NULL,
};
static const struct sql sql_adopt = { /* on SQLite there is nobody else */
    "adopt tasks",
    "UPDATE hub_tasks SET owner = ?1 WHERE completed_at IS NULL AND owner IS NOT NULL"
    " AND owner <> ?1",
    "UPDATE hub_tasks SET owner = ?1 WHERE completed_at IS NULL AND owner IS NOT NULL"
    " AND owner <> ?1 AND owner NOT IN (SELECT executor_id FROM durable_executors"
    "  WHERE lease_until_ms > (extract(epoch from clock_timestamp())*1000)::bigint)",
};
static const struct sql sql_newest = { "newest task", "SELECT max(position) FROM hub_tasks", NULL };
static const struct sql sql_found = {
    "tasks of others",
    "SELECT agent_id, id, 0 FROM hub_tasks WHERE completed_at IS NULL AND owner IS NULL"
    " AND position > ?2 UNION ALL"
    " SELECT agent_id, id, 1 FROM hub_tasks WHERE completed_at IS NULL AND owner = ?1"
    " AND cancel IS NOT NULL LIMIT ?3", NULL,
};
static const struct sql sql_wait = {
    "tasks that still wait", "",
    "SELECT id FROM hub_tasks WHERE id = ANY (?1) AND completed_at IS NULL AND owner IS NULL",
};
static const struct sql sql_tell = { "tell other hubs", "", "SELECT pg_notify('" TASK_CHANNEL "', ?1)" };
/* clang-format on */

/* --- rows into memory --- */

struct open_row {
    int64_t position, timeout, attempts, created, sent, started;
    struct str id, agent, state, sender, type, body, cancel;
    bool retry;
};

struct load {
    struct tasks *t;
    struct arena arena;
    struct open_row *rows;
    size_t n, bytes;
    struct str agent; /* after this, or only this one */
    int64_t after;
    bool one, take, changed;
};

static struct str copy(struct load *l, struct store_row *row, int col)
{
    struct str s = row_str(row, col);

    l->bytes += s.n;
    return row_is_null(row, col) ? (struct str){ 0 } : arena_str(&l->arena, s);
}

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct load *l = arg;

    l->rows[l->n++] = (struct open_row){
        .position = row_int(row, 0),
        .id = copy(l, row, 1),
        .agent = copy(l, row, 2),
        .state = copy(l, row, 3),
        .sender = copy(l, row, 4),
        .type = copy(l, row, 5),
        .body = copy(l, row, 6),
        .timeout = row_int(row, 7),
        .retry = row_int(row, 8) != 0,
        .attempts = row_int(row, 9),
        .cancel = copy(l, row, 10),
        .created = row_int(row, 11),
        .sent = row_int(row, 12),
        .started = row_int(row, 13),
    };
    return l->n == PAGE || l->bytes > 16 * MIB;
}

static int load_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct load *l = arg;
    const struct sql_arg args[] = {
        SQL_Z(l->t->self),
        SQL_STR(l->agent),
        SQL_INT(l->after),
        SQL_INT(PAGE),
    };
    int r = l->take ? store_run(tx, &sql_take, args, 2, NULL, NULL, e) : 0;

    l->n = l->bytes = 0;
    if (r < 0)
        return r;
    return store_run(tx, l->one ? &sql_open_agent : &sql_open, args, LEN(args), take_row, l, e);
}

static void set_state(struct task *task, const struct open_row *row)
{
    const struct tasks *t = task->t;
    int64_t age_ms = hub_now() - row->sent;

    if (str_eq_z(row->state, "queued"))
        return;
    task_mark(task, true);
    task->state = str_eq_z(row->state, "running") ? TASK_RUNNING : TASK_SENT;
    task->sent = row->sent;
    task->started = row->started;
    task->sent_ms = task_mono() - (age_ms > 0 ? age_ms : 0);
    task->started_ms = task->sent_ms;
    task->not_before_ms = task_mono() + t->set->lease_ms; /* its agent has to come back first */
}

static void add_row(struct tasks *t, const struct open_row *row)
{
    const struct task_texts texts = { row->id, row->sender, row->type, row->body };
    struct task *task;

    if (task_find(t, row->id))
        return;
    task = task_add(t, task_agent_get(t, row->agent), row->position, &texts);
    task->written = true;
    task->settled = true;
    task->here = !t->pg;
    task->created = row->created;
    task->timeout_ms = row->timeout;
    task->retry = row->retry;
    task->attempts = (unsigned)row->attempts;
    if (row->cancel.p) {
        task->cancel = str_dup(row->cancel);
        task->cancel_ms = task_mono();
    }
    set_state(task, row);
    task_due(task);
    if (!hub_agents_find(t->h->agents, row->agent) && !t->pg)
        task_end(task, TASK_FAILED, "the agent was deregistered");
}

static CO int load(struct load *l, struct err *e)
{
    bool more = true;
    int r = 0;

    l->rows = xcalloc(PAGE, sizeof(*l->rows));
    while (r >= 0 && more) {
        arena_reset(&l->arena);
        r = l->take ? store_do(l->t->store, load_body, l, e)
                    : store_read(l->t->store, load_body, l, e);
        l->take = false;
        more = r > 0;
        for (size_t i = 0; r >= 0 && i < l->n; i++)
            add_row(l->t, &l->rows[i]);
        if (l->n > 0) {
            l->after = l->rows[l->n - 1].position;
            l->agent = l->one ? l->agent : l->rows[l->n - 1].agent;
        }
        if (more && !l->one) { /* it lives in the arena, which begins anew */
            struct arena kept = l->arena;

            l->arena = (struct arena){ 0 };
            l->agent = arena_str(&l->arena, l->agent);
            arena_done(&kept);
        }
    }
    arena_done(&l->arena);
    free(l->rows);
    return r < 0 ? r : 0;
}

static CO int load_all(struct tasks *t, struct err *e)
{
    struct load l = { .t = t, .agent = STR("") };

    return load(&l, e);
}

CO int task_load_agent(struct tasks *t, struct str agent, struct err *e)
{
    struct load l = { .t = t, .agent = agent, .one = true, .take = true };

    return load(&l, e);
}

/* --- start --- */

struct adopt {
    struct tasks *t;
    int64_t newest;
    bool any;
};

static int take_newest(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int adopt_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct adopt *x = arg;
    const struct sql_arg args[] = { SQL_Z(x->t->self) };
    int r = store_run(tx, &sql_adopt, args, LEN(args), NULL, NULL, e);

    x->any = r >= 0 && store_changed(tx) > 0;
    return r < 0 ? r : store_run(tx, &sql_newest, NULL, 0, take_newest, &x->newest, e);
}

CO int task_load(struct tasks *t, struct err *e)
{
    struct adopt x = { .t = t };
    int r = store_do(t->store, adopt_body, &x, e);

    if (r < 0)
        return r;
    if (x.newest > t->h->last_order)
        t->h->last_order = x.newest; /* the clock may have been set back */
    return load_all(t, e);
}

/* --- news --- */

struct task_news {
    struct lane_ride ride;
    size_t n;
    char text[];
};

static void say(struct tasks *t, char what, struct str name)
{
    size_t n = str_of(t->self).n + name.n + 4;
    struct task_news *news;

    if (!t->pg)
        return;
    news = xcalloc(1, sizeof(*news) + n);
    fmt_z(news->text, n, "%c %s " STR_FMT, what, t->self, STR_ARG(name));
    news->n = strlen(news->text);
    news->ride.bytes = n;
    lane_add(&t->news, &news->ride);
}

void task_say_waiting(struct tasks *t, struct str agent)
{
    say(t, NEWS_WAITING, agent);
}

void task_say_ended(struct tasks *t, struct str id)
{
    say(t, NEWS_ENDED, id);
}

void task_say_cancel(struct tasks *t, struct str id)
{
    say(t, NEWS_CANCEL, id);
}

static int tell_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r = 0;

    for (struct lane_ride *ride = arg; r >= 0 && ride; ride = ride->next) {
        const struct task_news *news = container_of(ride, struct task_news, ride);
        const struct sql_arg args[] = { SQL_STR(((struct str){ news->text, news->n })) };

        r = store_run(tx, &sql_tell, args, LEN(args), NULL, NULL, e);
    }
    return r;
}

CO int task_news_send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    const struct tasks *t = arg;
    int r = store_do(t->store, tell_body, first, e);

    return r < 0 ? r : 0;
}

void task_news_told(void *arg, struct lane_ride *ride, int r, const struct err *e)
{
    free(container_of(ride, struct task_news, ride)); /* unsaid, a look finds it */
}

/* --- looking --- */

struct look {
    struct tasks *t;
    struct task_agent *a;
};

static CO int look_for(void *arg, struct err *e)
{
    struct look look = *(struct look *)arg;
    int r;

    free(arg);
    do {
        look.a->look_again = false;
        r = task_load_agent(look.t, look.a->node.key, e);
    } while (r == 0 && look.a->look_again);
    look.a->looking = false;
    if (r == 0)
        task_pump(look.t, look.a);
    return r == -ERR_CANCELED ? 0 : r;
}

static void look_at(struct tasks *t, struct task_agent *a)
{
    struct look *look;
    struct err e;

    a->look_again = a->looking;
    if (a->looking || t->stopping)
        return;
    look = xcalloc(1, sizeof(*look));
    *look = (struct look){ t, a };
    a->looking = fiber_group_spawn(t->chores, "task look", look_for, look, &e) == 0;
    if (!a->looking)
        free(look); /* the next look finds it */
}

static void heard(struct str payload, void *arg)
{
    struct tasks *t = arg;
    struct str rest = payload, what, who;
    struct task_agent *a;
    struct task *task;

    if (!payload.p) {
        t->look_all = true;
        return;
    }
    if (!t->chores || !str_split(&rest, ' ', &what) || !str_split(&rest, ' ', &who) ||
        str_eq_z(who, t->self) || what.n != 1)
        return;
    a = what.p[0] == NEWS_WAITING ? task_agent_find(t, rest) : NULL;
    task = what.p[0] != NEWS_WAITING ? task_find(t, rest) : NULL;
    if (a && a->connected)
        look_at(t, a);
    if (task && what.p[0] == NEWS_CANCEL && task->written)
        task_cancel_here(task, "an operator asked for it");
    if (what.p[0] != NEWS_ENDED)
        return;
    if (task && task->written && !task->ending)
        task_drop(task);
    task_wake(t, &t->outside, rest, NULL, NULL);
}

struct found {
    struct tasks *t;
    struct arena arena;
    int64_t after;
    size_t n;
    struct {
        struct str agent, id;
        bool cancel;
    } v[FOUND_MAX];
};

static int take_found(struct store_row *row, void *arg, struct err *e)
{
    struct found *f = arg;

    f->v[f->n].agent = arena_str(&f->arena, row_str(row, 0));
    f->v[f->n].id = arena_str(&f->arena, row_str(row, 1));
    f->v[f->n++].cancel = row_int(row, 2) != 0;
    return f->n == FOUND_MAX;
}

static int found_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct found *f = arg;
    const struct sql_arg args[] = { SQL_Z(f->t->self), SQL_INT(f->after), SQL_INT(FOUND_MAX) };

    f->n = 0;
    arena_reset(&f->arena);
    return store_run(tx, &sql_found, args, LEN(args), take_found, f, e);
}

static CO int look(struct tasks *t, struct err *e)
{
    bool all = t->look_all || t->looks % ALL_EVERY == 0;
    struct found *f = xcalloc(1, sizeof(*f));
    int r;

    t->look_all = false;
    f->t = t;
    f->after = all ? 0 : wall_us() - NEW_US;
    r = store_read(t->store, found_body, f, e);
    for (size_t i = 0; r >= 0 && i < f->n; i++) {
        struct task_agent *a = task_agent_find(t, f->v[i].agent);
        struct task *task = task_find(t, f->v[i].id);

        if (f->v[i].cancel && task)
            task_cancel_here(task, "an operator asked for it");
        else if (!f->v[i].cancel && !task && a && a->connected)
            look_at(t, a);
    }
    arena_done(&f->arena);
    free(f);
    return r < 0 ? r : 0;
}

/* --- what was accepted here and waits for an agent that may be elsewhere --- */

struct check {
    struct arena arena;
    size_t n;
    struct str ids[FOUND_MAX];
    bool waits[FOUND_MAX];
};

static void collect(struct tasks *t, struct check *c)
{
    for (struct task_agent *a = t->active; a; a = a->anext) {
        for (struct task *task = a->connected ? NULL : a->first; task; task = task->next) {
            if (c->n == FOUND_MAX)
                return;
            if (!task->written || task->state != TASK_QUEUED || task->rides > 0 ||
                task->round == t->round)
                continue;
            task->round = t->round;
            c->ids[c->n++] = arena_str(&c->arena, task->id);
        }
    }
    t->round++; /* all were looked at */
}

static int still_waits(struct store_row *row, void *arg, struct err *e)
{
    struct check *c = arg;

    for (size_t i = 0; i < c->n; i++)
        c->waits[i] = c->waits[i] || str_eq(c->ids[i], row_str(row, 0));
    return 0;
}

static int check_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct check *c = arg;
    const struct sql_arg args[] = { SQL_TEXTS(c->ids, c->n) };

    memset(c->waits, 0, sizeof(c->waits));
    return store_run(tx, &sql_wait, args, LEN(args), still_waits, c, e);
}

static CO int check(struct tasks *t, struct err *e)
{
    struct check *c = xcalloc(1, sizeof(*c));
    int r = 0;

    collect(t, c);
    if (c->n > 0)
        r = store_read(t->store, check_body, c, e);
    for (size_t i = 0; r >= 0 && i < c->n; i++) {
        struct task *task = c->waits[i] ? NULL : task_find(t, c->ids[i]);

        if (task && !task_known(task) && task->rides == 0)
            task_drop(task); /* another daemon has it, or has ended it */
    }
    arena_done(&c->arena);
    free(c);
    return r < 0 ? r : 0;
}

static CO int adopt(struct tasks *t, struct err *e)
{
    struct adopt x = { .t = t };
    int r = store_do(t->store, adopt_body, &x, e);

    return r < 0 || !x.any ? (r < 0 ? r : 0) : load_all(t, e);
}

CO int task_wide_chore(void *arg, struct err *e)
{
    struct tasks *t = arg;
    int r = 0;

    while (r != -ERR_CANCELED) {
        r = fiber_sleep(LOOK_MS, e);
        if (r == 0)
            r = look(t, e);
        if (r == 0 && t->looks % ADOPT_EVERY == 0)
            r = adopt(t, e);
        if (r == 0 && t->looks % ADOPT_EVERY == 1)
            r = check(t, e);
        t->looks++;
        if (r < 0 && r != -ERR_CANCELED)
            log_warn("tasks of other daemons could not be looked for", "error", LOG_ERR(e));
    }
    return 0;
}

int task_wide_new(struct tasks *t, struct err *e)
{
    if (!t->pg)
        return 0;
    return durable_hear(t->h->conf.engine, TASK_CHANNEL, heard, t, e);
}
