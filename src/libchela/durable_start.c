/* SPDX-License-Identifier: MIT */
/* libchela/durable_start.c — workflows from outside: starting, waiting for, steering. */
#include "base/arena.h"
#include "base/time.h"
#include "durable/manage.h"
#include "libchela/durable_int.h"

_Static_assert((int)CHELA_WF_ENQUEUED == (int)DURABLE_ENQUEUED &&
                   (int)CHELA_WF_SUCCESS == (int)DURABLE_SUCCESS &&
                   (int)CHELA_WF_DEAD == (int)DURABLE_DEAD,
               "the library's statuses are the engine's");
_Static_assert((int)CHELA_NOTHING == (int)DURABLE_NOTHING &&
                   (int)CHELA_END == (int)DURABLE_STREAM_END,
               "the library's outcomes are the engine's");

_Static_assert((int)CHELA_MISFIRE_ALL == (int)MISFIRE_ALL &&
                   (int)CHELA_OVERLAP_REPLACE == (int)OVERLAP_REPLACE,
               "the library's policies are the engine's");

const char *chela_workflow_status_name(enum chela_workflow_status status)
{
    return status <= CHELA_WF_DEAD ? durable_status_name((enum durable_status)status) : NULL;
}

/* What a call from outside wants and gets: each function fills in what is its. */
struct flow_job {
    struct chela_durable *durable;
    struct durable *d;
    struct str id, topic, json, key;
    uint64_t timeout_ms;
    int64_t number; /* a step, an offset */
    bool children;
    struct durable_start start;
    const struct chela_schedule *schedule;
    struct durable_started started;
    char new_id[DURABLE_ID];
    enum durable_status status;
    struct buf out;
    struct chela_workflow_info *info;
};

/* Run it on the engine's thread; the text it got goes to *ret_json. */
static int flow_run(struct chela_durable *durable, fiber_fn *fn, struct flow_job *job,
                    char **ret_json, struct chela_error *error)
{
    struct err e;
    int r;

    job->durable = durable;
    job->d = durable->d;
    buf_init(&job->out, durable->payload_max + 1 * MIB);
    r = engine_run(durable->engine, fn, job, &e);
    r = wf_out(r, &job->out, &e, ret_json, error);
    buf_done(&job->out);
    return r;
}

static uint64_t deadline_of(const struct flow_job *job)
{
    return job->timeout_ms ? deadline_in((long long)job->timeout_ms) : DEADLINE_NONE;
}

/* --- starting --- */

struct durable_start lib_start(const struct chela_start *s)
{
    return (struct durable_start){
        .name = s->name,
        .class_name = s->class_name,
        .args = str_of(s->args_json),
        .named = str_of(s->named_json),
        .id = str_of(s->id),
        .queue = str_of(s->queue),
        .app_version = str_of(s->app_version),
        .dedup_id = str_of(s->dedup_id),
        .dedup_join = s->dedup_join,
        .id_must_be_new = s->id_must_be_new,
        .priority = s->priority,
        .partition_key = str_of(s->partition_key),
        .delay_ms = lib_ms(s->delay),
        .timeout_ms = lib_ms(s->timeout),
        .attributes = str_of(s->attributes),
    };
}

int lib_start_check(const struct chela_start *s, struct chela_error *error)
{
    int r = lib_seconds(s->delay, "delay", error);

    return r < 0 ? r : lib_seconds(s->timeout, "timeout", error);
}

CO static int do_start(void *arg, struct err *e)
{
    struct flow_job *job = arg;

    return durable_start(job->d, &job->start, &job->started, e);
}

int chela_durable_start(struct chela_durable *durable, const struct chela_start *start,
                        char **ret_id, struct chela_error *error)
{
    struct flow_job job = { .start = lib_start(start) };
    int r = lib_start_check(start, error);

    if (r == 0)
        r = flow_run(durable, do_start, &job, NULL, error);
    if (r == 0 && ret_id)
        *ret_id = xstrdup(job.started.id);
    return r;
}

/* --- waiting for --- */

CO static int do_await(void *arg, struct err *e)
{
    struct flow_job *job = arg;

    return durable_await(job->d, job->id, deadline_of(job), &job->status, &job->out, e);
}

int chela_durable_await(struct chela_durable *durable, const char *id, double timeout,
                        enum chela_workflow_status *ret, char **ret_json, struct chela_error *error)
{
    struct flow_job job = { .id = str_of(id), .timeout_ms = lib_ms(timeout) };
    int r = lib_seconds(timeout, "timeout", error);

    if (r == 0)
        r = flow_run(durable, do_await, &job, ret_json, error);
    if (r == 0 && ret)
        *ret = (enum chela_workflow_status)job.status;
    return r;
}

CO static int do_get_event(void *arg, struct err *e)
{
    struct flow_job *job = arg;

    return durable_peek_event(job->d, job->id, job->key, deadline_of(job), &job->out, e);
}

int chela_durable_get_event(struct chela_durable *durable, const char *id, const char *key,
                            double timeout, char **ret_json, struct chela_error *error)
{
    struct flow_job job = { .id = str_of(id), .key = str_of(key), .timeout_ms = lib_ms(timeout) };
    int r = lib_seconds(timeout, "timeout", error);

    return r < 0 ? r : flow_run(durable, do_get_event, &job, ret_json, error);
}

static int take_value(int64_t offset, struct str json, void *arg, struct err *e)
{
    struct flow_job *job = arg;

    job->number = -1; /* there was one */
    buf_clear(&job->out);
    return buf_add_str(&job->out, json, e);
}

CO static int do_read_stream(void *arg, struct err *e)
{
    struct flow_job *job = arg;
    int r = durable_read_stream(job->d, job->id, job->key, job->number, 1, deadline_of(job),
                                take_value, job, e);

    return r > 0 && job->number == -1 ? 0 : r; /* the last value, and the end behind it */
}

int chela_durable_read_stream(struct chela_durable *durable, const char *id, const char *key,
                              int64_t offset, double timeout, char **ret_json,
                              struct chela_error *error)
{
    struct flow_job job = { .id = str_of(id),
                            .key = str_of(key),
                            .number = offset < 0 ? 0 : offset,
                            .timeout_ms = lib_ms(timeout) };
    int r = lib_seconds(timeout, "timeout", error);

    return r < 0 ? r : flow_run(durable, do_read_stream, &job, ret_json, error);
}

/* --- looking at --- */

static struct chela_workflow_info *info_of(const struct durable_info *from)
{
    struct chela_workflow_info *info = xcalloc(1, sizeof(*info));

    *info = (struct chela_workflow_info){
        .id = lib_strdup(from->id),
        .name = lib_strdup(from->name),
        .queue = lib_strdup(from->queue),
        .app_version = lib_strdup(from->app_version),
        .executor = lib_strdup(from->executor),
        .parent = lib_strdup(from->parent),
        .error_json = lib_strdup(from->error),
        .status = (enum chela_workflow_status)from->status,
        .parked = from->parked,
        .blocked_version = from->blocked_version,
        .attempts = from->attempts,
        .created_ms = from->created_ms,
        .started_ms = from->started_ms,
        .completed_ms = from->completed_ms,
    };
    return info;
}

void chela_workflow_info_free(struct chela_workflow_info *info)
{
    if (!info)
        return;
    free(info->id);
    free(info->name);
    free(info->queue);
    free(info->app_version);
    free(info->executor);
    free(info->parent);
    free(info->error_json);
    free(info);
}

CO static int do_info(void *arg, struct err *e)
{
    struct flow_job *job = arg;
    struct arena a = { 0 };
    struct durable_info info;
    int r = durable_get(job->d, job->id, &a, &info, e);

    if (r == 0)
        job->info = info_of(&info);
    arena_done(&a);
    return r;
}

int chela_durable_info(struct chela_durable *durable, const char *id,
                       struct chela_workflow_info **ret, struct chela_error *error)
{
    struct flow_job job = { .id = str_of(id) };
    int r = flow_run(durable, do_info, &job, NULL, error);

    if (r == 0)
        *ret = job.info;
    return r;
}

/* --- steering --- */

CO static int do_send(void *arg, struct err *e)
{
    struct flow_job *job = arg;

    return durable_post(job->d, job->id, job->topic, job->json, job->key, e);
}

int chela_durable_send(struct chela_durable *durable, const char *id, const char *topic,
                       const char *json, const char *key, struct chela_error *error)
{
    struct flow_job job = {
        .id = str_of(id), .topic = str_of(topic), .json = str_of(json), .key = str_of(key)
    };

    return flow_run(durable, do_send, &job, NULL, error);
}

CO static int do_cancel(void *arg, struct err *e)
{
    struct flow_job *job = arg;
    int64_t n;

    return durable_cancel(job->d, &job->id, 1, job->children, &n, e);
}

int chela_durable_cancel(struct chela_durable *durable, const char *id, bool children,
                         struct chela_error *error)
{
    struct flow_job job = { .id = str_of(id), .children = children };

    return flow_run(durable, do_cancel, &job, NULL, error);
}

CO static int do_resume(void *arg, struct err *e)
{
    struct flow_job *job = arg;

    return durable_resume(job->d, job->id, (struct str){ 0 }, e);
}

int chela_durable_resume(struct chela_durable *durable, const char *id, struct chela_error *error)
{
    struct flow_job job = { .id = str_of(id) };

    return flow_run(durable, do_resume, &job, NULL, error);
}

CO static int do_fork(void *arg, struct err *e)
{
    struct flow_job *job = arg;
    const struct durable_fork fork = { .id = job->id, .step = job->number };

    return durable_fork(job->d, &fork, job->new_id, e);
}

int chela_durable_fork(struct chela_durable *durable, const char *id, int64_t step, char **ret_id,
                       struct chela_error *error)
{
    struct flow_job job = { .id = str_of(id), .number = step };
    int r = flow_run(durable, do_fork, &job, NULL, error);

    if (r == 0 && ret_id)
        *ret_id = xstrdup(job.new_id);
    return r;
}

/* --- schedules --- */

CO static int do_schedule(void *arg, struct err *e)
{
    const struct flow_job *job = arg;
    const struct chela_schedule *s = job->schedule;
    const struct durable_schedule own = {
        .name = str_of(s->name),
        .workflow = str_of(s->workflow),
        .class_name = str_of(s->class_name),
        .cron = str_of(s->cron),
        .zone = str_of(s->zone),
        .queue = str_of(s->queue),
        .context = str_of(s->context_json),
        .paused = s->paused,
        .misfire = (enum durable_misfire)s->misfire,
        .overlap = (enum durable_overlap)s->overlap,
    };

    return durable_schedule_put(job->d, &own, e);
}

int chela_durable_schedule(struct chela_durable *durable, const struct chela_schedule *schedule,
                           struct chela_error *error)
{
    struct flow_job job = { .schedule = schedule };

    if (schedule->misfire < 0 || schedule->misfire > CHELA_MISFIRE_ALL || schedule->overlap < 0 ||
        schedule->overlap > CHELA_OVERLAP_REPLACE)
        return lib_fail(error, CHELA_E_INVALID, CHELA_ERROR_UNKNOWN, "no such policy");
    return flow_run(durable, do_schedule, &job, NULL, error);
}

CO static int do_unschedule(void *arg, struct err *e)
{
    const struct flow_job *job = arg;

    return durable_schedule_remove(job->d, job->id, e);
}

int chela_durable_unschedule(struct chela_durable *durable, const char *name,
                             struct chela_error *error)
{
    struct flow_job job = { .id = str_of(name) };

    return flow_run(durable, do_unschedule, &job, NULL, error);
}
