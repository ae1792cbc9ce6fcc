/* SPDX-License-Identifier: MIT */
/*
 * The life of the engine: what it offers, coming up, hearing what other processes say, going down.
 * Nothing here knows how a workflow runs (run.c) or who claims it (claim.c).
 */
#include <assert.h>
#include <stdlib.h>

#include "base/log.h"
#include "durable/durable_int.h"

#define RUNNING_DEFAULT 2048
#define PARK_MS         5000
#define LEASE_MS        30000
#define SWEEP_MS        1000
#define PAYLOAD_MAX     (16 * MIB)
#define STEPS_MAX       100000
#define STOP_LOOK_MS    10

/* clang-format off */
static const struct sql sql_version = {
    "durable version",
    "INSERT INTO dbos.application_versions"
    " (version_id, version_name, version_timestamp, created_at, application_name)"
    " VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT DO NOTHING",
    NULL,
};
static const struct sql sql_newest = {
    "durable newest version",
    "SELECT version_name FROM dbos.application_versions"
    " WHERE application_name IS NULL OR application_name = ?1"
    " ORDER BY version_timestamp DESC, version_name DESC LIMIT 1",
    NULL,
};
/* clang-format on */

void uuid_new(char out[37])
{
    unsigned char b[16];
    char hex[33];

    rand_bytes(b, sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    hex_format(b, sizeof(b), hex);
    fmt_z(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

static char *copy(const char *z)
{
    return z && *z ? xstrdup(z) : NULL;
}

static void conf_copy(struct durable *d, const struct durable_conf *from)
{
    struct durable_conf *c = &d->conf;

    *c = *from;
    c->app_version = xstrdup(from->app_version && *from->app_version ? from->app_version : "1");
    c->app_name = copy(from->app_name);
    c->instance = copy(from->instance);
    c->listen_url = copy(from->listen_url);
    if (c->running == 0)
        c->running = RUNNING_DEFAULT;
    if (c->park_ms == 0)
        c->park_ms = PARK_MS;
    if (c->lease_ms == 0)
        c->lease_ms = LEASE_MS;
    if (c->sweep_ms == 0)
        c->sweep_ms = SWEEP_MS;
    if (c->payload_max == 0)
        c->payload_max = PAYLOAD_MAX;
    if (c->steps_max == 0)
        c->steps_max = STEPS_MAX;
}

struct durable *durable_new(struct loop *loop, struct store *store, const struct durable_conf *conf)
{
    struct durable *d = xcalloc(1, sizeof(*d));
    char uuid[37];

    d->loop = loop;
    d->store = store;
    d->pg = strcmp(store_kind(store), "postgres") == 0;
    conf_copy(d, conf);
    uuid_new(uuid);
    fmt_z(d->executor, sizeof(d->executor), "chela-%s", uuid);
    d->hint_ms = d->conf.sweep_ms;
    d->n_buckets = 16;
    while (d->n_buckets < d->conf.running)
        d->n_buckets *= 2;
    d->by_id = xcalloc(d->n_buckets, sizeof(struct workflow *));
    d->chores = fiber_group_new(loop);
    d->runs = fiber_group_new(loop);
    d->journal = journal_new(d);
    return d;
}

void durable_free(struct durable *d)
{
    if (!d)
        return;
    assert(!d->running && d->n_live == 0);
    queues_free(d);
    waiters_free(d);
    journal_free(d->journal);
    fiber_group_free(d->chores);
    fiber_group_free(d->runs);
    for (size_t i = 0; i < d->n_types; i++)
        free((char *)(uintptr_t)d->addresses[i].p);
    free(d->addresses);
    free(d->types);
    free(d->queue_rows);
    free(d->by_id);
    free((char *)(uintptr_t)d->conf.app_version);
    free((char *)(uintptr_t)d->conf.app_name);
    free((char *)(uintptr_t)d->conf.instance);
    free((char *)(uintptr_t)d->conf.listen_url);
    free(d);
}

const char *durable_executor(const struct durable *d)
{
    return d->executor;
}

/* What it offers */

static struct str class_of(const struct durable_type *type)
{
    return str_of(type->class_name ? type->class_name : "");
}

const struct durable_type *type_find(const struct durable *d, struct str name,
                                     struct str class_name)
{
    for (size_t i = 0; i < d->n_types; i++) {
        if (str_eq_z(name, d->types[i]->name) && str_eq(class_name, class_of(d->types[i])))
            return d->types[i];
    }
    return NULL;
}

struct str type_address(struct str name, struct str class_name, struct arena *a)
{
    return str_of(arena_printf(a, STR_FMT "\x1f" STR_FMT, STR_ARG(class_name), STR_ARG(name)));
}

static int type_check(const struct durable *d, const struct durable_type *type, struct err *e)
{
    if (!type->name || !*type->name || !type->fn)
        return err_set(e, ERR_INVALID, "a workflow needs a name and a function");
    if (strlen(type->name) >= NAME_MAX_ || strlen(class_of(type).p) >= NAME_MAX_)
        return err_set(e, ERR_INVALID, "the name of workflow '%.40s...' is too long", type->name);
    if (type_find(d, str_of(type->name), class_of(type)))
        return err_set(e, ERR_CONFLICT, "workflow '%s' is registered already", type->name);
    return 0;
}

static void type_add(struct durable *d, const struct durable_type *type)
{
    char *address = xasprintf("%s\x1f%s", class_of(type).p, type->name);

    d->types = xrealloc(d->types, (d->n_types + 1) * sizeof(*d->types));
    d->addresses = xrealloc(d->addresses, (d->n_types + 1) * sizeof(*d->addresses));
    d->types[d->n_types] = type;
    d->addresses[d->n_types] = str_of(address);
    d->n_types++;
}

int durable_register(struct durable *d, const struct durable_type *types, size_t n, struct err *e)
{
    int r = 0;

    if (d->running)
        return err_set(e, ERR_INVALID, "workflows are registered before the engine runs");
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = type_check(d, &types[i], e);
        if (r == 0)
            type_add(d, &types[i]);
    }
    return r;
}

static int queue_check(const struct durable *d, const struct durable_queue *queue, struct err *e)
{
    if (!queue->name || !*queue->name || strlen(queue->name) >= NAME_MAX_)
        return err_set(e, ERR_INVALID, "a queue needs a name of at most %d bytes", NAME_MAX_ - 1);
    if (strncmp(queue->name, "_dbos_", 6) == 0)
        return err_set(e, ERR_INVALID, "names of queues that begin with _dbos_ are reserved");
    for (size_t i = 0; i < d->n_queue_rows; i++) {
        if (strcmp(d->queue_rows[i]->name, queue->name) == 0)
            return err_set(e, ERR_CONFLICT, "queue '%s' is registered already", queue->name);
    }
    return 0;
}

int durable_register_queues(struct durable *d, const struct durable_queue *queues, size_t n,
                            struct err *e)
{
    int r = 0;

    if (d->running)
        return err_set(e, ERR_INVALID, "queues are registered before the engine runs");
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = queue_check(d, &queues[i], e);
        if (r < 0)
            break;
        d->queue_rows = xrealloc(d->queue_rows, (d->n_queue_rows + 1) * sizeof(*d->queue_rows));
        d->queue_rows[d->n_queue_rows++] = &queues[i];
    }
    return r;
}

/* Coming up */

struct version_call {
    struct durable *d;
    char id[37];
    bool newest;
};

static int take_newest(struct store_row *row, void *arg, struct err *e)
{
    struct version_call *call = arg;

    call->newest = str_eq_z(row_str(row, 0), call->d->conf.app_version);
    return 0;
}

static int version_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct version_call *call = arg;
    const struct durable_conf *conf = &call->d->conf;
    const struct sql_arg row[] = { SQL_Z(call->id), SQL_Z(conf->app_version), SQL_INT(wall_ms()),
                                   SQL_Z(conf->app_name) };
    const struct sql_arg whose[] = { SQL_Z(conf->app_name) };
    int r;

    call->newest = true;
    r = store_run(tx, &sql_version, row, LEN(row), NULL, NULL, e);
    if (r == 0)
        r = store_run(tx, &sql_newest, whose, LEN(whose), take_newest, call, e);
    return r;
}

static CO int register_version(struct durable *d, struct err *e)
{
    struct version_call call = { .d = d };
    int r;

    uuid_new(call.id);
    r = store_do(d->store, version_body, &call, e);
    if (r == 0)
        d->newest = call.newest;
    return r;
}

static CO int announce(struct durable *d, struct err *e)
{
    int r = lease_announce(d, e);

    if (r == 0)
        r = register_version(d, e);
    if (r == 0)
        r = queues_register_rows(d, e);
    return r;
}

static int spawn_chores(struct durable *d, struct err *e)
{
    /* clang-format off */
    static const struct { const char *name; fiber_fn *fn; } chores[] = {
        { "durable lease",     lease_chore },
        { "durable reclaim",   reclaim_chore },
        { "durable sweep",     sweep_chore },
        { "durable schedules", schedule_chore },
        { "durable retention", retain_chore },
    };
    /* clang-format on */
    int r = 0;

    for (size_t i = 0; r == 0 && i < LEN(chores); i++)
        r = fiber_group_spawn(d->chores, chores[i].name, chores[i].fn, d, e);
    return r;
}

CO int durable_run(struct durable *d, struct err *e)
{
    int r;

    assert(!d->running && !d->stopping);
    r = announce(d, e);
    if (r < 0)
        return err_wrap(e, "start the durable engine");
    d->running = true;
    r = queues_start(d, e);
    if (r == 0)
        r = spawn_chores(d, e);
    if (r == 0)
        r = hear_start(d, e);
    if (r < 0) {
        durable_stop(d, 0);
        return err_wrap(e, "start the durable engine");
    }
    log_info("durable engine runs", "executor", LOG_STR(d->executor), "version",
             LOG_STR(d->conf.app_version), "workflows", LOG_INT((long long)d->n_types));
    return 0;
}

/* Going down */

/* Until no run is left, or the time is up, or the caller is cancelled. */
static CO void drain(struct durable *d, uint64_t grace_ms)
{
    uint64_t deadline = now_ms() + grace_ms;

    d->drain = fiber_self();
    while (d->n_live > 0 && now_ms() < deadline) {
        if (fiber_park(deadline, NULL) == -ERR_CANCELED)
            break;
    }
    d->drain = NULL;
}

/* Somebody else stops it. */
static CO void until_stopped(const struct durable *d)
{
    while (d->running || fiber_group_size(d->chores) > 0) {
        if (fiber_sleep(STOP_LOOK_MS, NULL) < 0)
            return;
    }
}

CO void durable_stop(struct durable *d, uint64_t grace_ms)
{
    if (!d->running)
        return;
    if (d->stopping) {
        until_stopped(d);
        return;
    }
    d->stopping = true;
    wake_all_waiters(d); /* outsiders who wait here are told */
    if (grace_ms > 0)
        drain(d, grace_ms);
    for (struct workflow *w = d->live; w; w = w->next)
        run_end_now(w, RUN_STOPPING);
    (void)fiber_group_join(d->runs, NULL); /* a run's result is in its row */
    hear_stop(d);
    fiber_group_cancel(d->chores);
    (void)fiber_group_join(d->chores, NULL); /* they were told to end */
    lease_end(d);
    d->running = false;
    (void)fiber_group_join(d->chores, NULL); /* who told others something meanwhile */
    log_info("durable engine stopped", "executor", LOG_STR(d->executor));
}
