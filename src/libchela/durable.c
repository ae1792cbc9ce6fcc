/* SPDX-License-Identifier: MIT */
/*
 * libchela/durable.c — opening an engine, what it offers, running and stopping it; and how a
 * function of the program's becomes a workflow.
 */
#include "libchela/durable_int.h"

#include <string.h>

#include "base/secret.h"
#include "base/time.h"

#define STEP_THREADS 16
#define PAYLOAD_MAX  (16 * MIB)
#define SECONDS_MAX  1e10

_Static_assert(CHELA_E_PARKED != -ERR_PARKED && CHELA_E_FAILED == -11,
               "codes of the library are mapped by lib_error() where they differ");

struct type_block {
    struct type_block *next;
    struct chela_durable *owner;
    struct durable_type *types;
    struct durable_queue *queues;
    struct type_ctx {
        struct chela_durable *owner;
        chela_workflow_fn *fn;
        void *ctx;
    } * ctx;
    char **strings; /* NULL-terminated */
    size_t n_strings;
};

uint64_t lib_ms(double seconds)
{
    if (!(seconds > 0))
        return 0;
    if (seconds > SECONDS_MAX)
        seconds = SECONDS_MAX;
    return seconds < 0.001 ? 1 : (uint64_t)(seconds * 1000 + 0.5);
}

int lib_seconds(double seconds, const char *what, struct chela_error *error)
{
    if (seconds >= 0)
        return 0;
    return lib_fail(error, CHELA_E_INVALID, CHELA_ERROR_UNKNOWN, "a %s of %g seconds", what,
                    seconds);
}

void lib_take_text(struct buf *b, char **ret)
{
    if (ret)
        *ret = str_dup(b->n ? buf_str(b) : STR(""));
}

int lib_from(int r, const struct chela_error *error, struct err *e)
{
    enum err_code code = r < 0 && r >= CHELA_E_INTERNAL ? (enum err_code)(-r) : ERR_INTERNAL;

    if (r == CHELA_E_PARKED)
        code = ERR_PARKED;
    return err_set(e, code, "%.*s", (int)sizeof(error->text) - 1,
                   error->text[0] ? error->text : "failed");
}

/* --- opening --- */

static struct durable_conf conf_of(const struct chela_durable_config *c)
{
    return (struct durable_conf){
        .app_version = c->app_version,
        .app_name = c->app_name,
        .listen_url = c->listen_url,
        .running = c->running,
        .park_ms = lib_ms(c->park_after),
        .lease_ms = lib_ms(c->lease),
        .sweep_ms = lib_ms(c->sweep),
        .payload_max = c->payload_max ? c->payload_max : PAYLOAD_MAX,
        .steps_max = c->steps_max,
        .retain_ms = lib_ms(c->retain_age),
        .retain_rows = c->retain_rows,
    };
}

/* The number that names this directory among the processes of a database. */
static int load_instance(const char *dir, char out[33], struct err *e)
{
    AUTO(free) char *path = xasprintf("%s/instance", dir);
    unsigned char key[32];
    int r = secret_key_file(path, key, e);

    if (r == 0)
        hex_format(key, 16, out);
    return r;
}

static int open_engine(const struct chela_durable_config *c, struct engine **ret, struct err *e)
{
    struct durable_conf durable = conf_of(c);
    struct engine_conf conf = { .durable = &durable, .pool = c->connections, .lock_fd = -1 };
    AUTO(free) char *url = NULL;
    char instance[33];
    int r = 0;

    if (c->state_dir) {
        r = lib_lock_dir(c->state_dir, &conf.lock_fd, e);
        if (r == 0)
            r = load_instance(c->state_dir, instance, e);
        durable.instance = instance;
    }
    if (c->database_url)
        url = xstrdup(c->database_url);
    else
        url = c->state_dir ? xasprintf("sqlite:%s/chela.db", c->state_dir)
                           : xstrdup("sqlite::memory:");
    conf.store_url = url; /* used before this returns only, as is instance */
    if (r == 0)
        return engine_new(&conf, ret, e);
    if (conf.lock_fd >= 0)
        close(conf.lock_fd);
    return r;
}

int chela_durable_new(const struct chela_durable_config *config, struct chela_durable **ret,
                      struct chela_error *error)
{
    static const struct chela_durable_config defaults;
    const struct chela_durable_config *c = config ? config : &defaults;
    struct chela_durable *durable;
    struct engine *engine;
    struct err e;

    if (open_engine(c, &engine, &e) < 0)
        return lib_error(&e, error);
    durable = xcalloc(1, sizeof(*durable));
    durable->engine = engine;
    durable->d = engine_durable(engine);
    durable->payload_max = c->payload_max ? c->payload_max : PAYLOAD_MAX;
    durable->pool = pool_new(c->step_threads ? c->step_threads : STEP_THREADS);
    *ret = durable;
    return 0;
}

static void block_free(struct type_block *block)
{
    for (size_t i = 0; i < block->n_strings; i++)
        free(block->strings[i]);
    free(block->strings);
    free(block->types);
    free(block->queues);
    free(block->ctx);
    free(block);
}

void chela_durable_free(struct chela_durable *durable)
{
    struct type_block *block, *next;

    if (!durable)
        return;
    engine_free(durable->engine);
    pool_free(durable->pool);
    for (block = durable->types; block; block = next) {
        next = block->next;
        block_free(block);
    }
    free(durable);
}

/* --- a function of the program's as a workflow --- */

int wf_enter(const struct chela_workflow *w, struct chela_error *error)
{
    if (!pthread_equal(pthread_self(), w->thread) || w->in_step)
        return lib_fail(error, CHELA_E_INVALID, CHELA_ERROR_UNKNOWN,
                        "only the function of a workflow itself may make this call, not a step");
    return 0;
}

CO static int run_workflow(struct workflow *w, void *ctx, struct err *e)
{
    const struct type_ctx *type = ctx;
    struct chela_workflow face = { .w = w, .owner = type->owner, .thread = pthread_self() };
    struct chela_error error = { .type = CHELA_ERROR_TYPES };
    AUTO(buf_done) struct buf args;
    int r;

    buf_init(&args, SIZE_MAX / 2); /* bounded when it was read */
    r = json_write(workflow_args(w), &args, e);
    if (r == 0)
        r = buf_add(&args, "", 1, e);
    if (r < 0)
        return r;
    r = type->fn(&face, args.p + args.off, type->ctx, &error);
    free(face.named);
    error.text[sizeof(error.text) - 1] = '\0';
    return r == 0 ? 0 : lib_from(r, &error, e);
}

static char *keep(struct type_block *block, const char *z)
{
    char *copy;

    if (!z)
        return NULL;
    copy = xstrdup(z);
    block->strings = xrealloc(block->strings, (block->n_strings + 1) * sizeof(*block->strings));
    block->strings[block->n_strings++] = copy;
    return copy;
}

static struct type_block *add_block(struct chela_durable *durable)
{
    struct type_block *block = xcalloc(1, sizeof(*block));

    block->owner = durable;
    block->next = durable->types;
    durable->types = block;
    return block;
}

struct register_job {
    struct durable *d;
    const struct type_block *block;
    size_t n;
};

static int do_register(void *arg, struct err *e)
{
    struct register_job *job = arg;

    return job->block->types ? durable_register(job->d, job->block->types, job->n, e)
                             : durable_register_queues(job->d, job->block->queues, job->n, e);
}

static int register_block(struct chela_durable *durable, const struct type_block *block, size_t n,
                          struct chela_error *error)
{
    struct register_job job = { durable->d, block, n };
    struct err e;

    return lib_done(engine_run(durable->engine, do_register, &job, &e), &e, error);
}

int chela_durable_register(struct chela_durable *durable, const struct chela_workflow_type *types,
                           size_t n, struct chela_error *error)
{
    struct type_block *block = add_block(durable);

    for (size_t i = 0; i < n; i++)
        if (!types[i].fn)
            return lib_fail(error, CHELA_E_INVALID, CHELA_ERROR_UNKNOWN,
                            "a workflow needs a name and a function");
    block->types = xcalloc(n + 1, sizeof(*block->types));
    block->ctx = xcalloc(n + 1, sizeof(*block->ctx));
    for (size_t i = 0; i < n; i++) {
        block->ctx[i] = (struct type_ctx){ durable, types[i].fn, types[i].ctx };
        block->types[i] = (struct durable_type){
            .name = keep(block, types[i].name),
            .class_name = keep(block, types[i].class_name),
            .fn = run_workflow,
            .ctx = &block->ctx[i],
            .max_attempts = types[i].max_attempts,
            .timeout_ms = lib_ms(types[i].timeout),
        };
    }
    return register_block(durable, block, n, error);
}

int chela_durable_register_queues(struct chela_durable *durable, const struct chela_queue *queues,
                                  size_t n, struct chela_error *error)
{
    struct type_block *block = add_block(durable);

    block->queues = xcalloc(n + 1, sizeof(*block->queues));
    for (size_t i = 0; i < n; i++) {
        const struct chela_queue *q = &queues[i];

        block->queues[i] = (struct durable_queue){
            .name = keep(block, q->name),
            .concurrency = q->concurrency,
            .worker_concurrency = q->worker_concurrency,
            .rate_max = q->rate_max,
            .rate_period_ms = lib_ms(q->rate_period),
            .partition_concurrency = q->partition_concurrency,
            .partition_worker_concurrency = q->partition_worker_concurrency,
            .partition_rate_max = q->partition_rate_max,
            .partition_rate_period_ms = lib_ms(q->partition_rate_period),
            .polling_ms = lib_ms(q->polling),
            .hold_slot = q->hold_slot,
        };
    }
    return register_block(durable, block, n, error);
}

/* --- running --- */

CO static int do_run(void *arg, struct err *e)
{
    struct chela_durable *durable = arg;

    if (durable->ran)
        return err_set(e, ERR_CONFLICT, "the engine was run before: open another");
    durable->ran = true;
    return durable_run(durable->d, e);
}

int chela_durable_run(struct chela_durable *durable, struct chela_error *error)
{
    struct err e;

    return lib_done(engine_run(durable->engine, do_run, durable, &e), &e, error);
}

struct stop_job {
    struct durable *d;
    uint64_t grace_ms;
};

CO static int do_stop(void *arg, struct err *e)
{
    struct stop_job *job = arg;

    durable_stop(job->d, job->grace_ms);
    return 0;
}

void chela_durable_stop(struct chela_durable *durable, double grace_seconds)
{
    struct stop_job job = { durable->d, lib_ms(grace_seconds) };
    struct err e;

    if (engine_run(durable->engine, do_stop, &job, &e) < 0)
        return; /* only when called from the engine's thread, which has no business here */
}
