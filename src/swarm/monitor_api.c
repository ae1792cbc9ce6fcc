/* SPDX-License-Identifier: MIT */
/*
 * swarm/monitor_api.c — the health of workflows over HTTP, in the shapes of the original's monitor.
 */
#include <string.h>

#include "net/http.h"
#include "swarm/mail.h"
#include "swarm/monitor_int.h"

#define READS  (NEED_READ | NEED_WORKFLOWS | NEED_AGENTS)
#define STEERS (NEED_WORKFLOWS | NEED_AGENTS)
#define YEAR_H 8784

/* clang-format off */
struct bad_out {
    const char *workflow_uuid, *name, *type, *executor, *reason, *created_at, *last_progress_at;
    int64_t idle_seconds;
};
static const struct shape_field bad_fields[] = {
    FIELD(struct bad_out, workflow_uuid), FIELD(struct bad_out, name),
    FIELD(struct bad_out, type, .doc = "Of the monitor's kinds, or null."),
    FIELD(struct bad_out, executor, .doc = "The process that runs it, or ran it last."),
    FIELD(struct bad_out, reason, .doc = "workflow_stuck or workflow_orphaned."),
    FIELD(struct bad_out, created_at), FIELD(struct bad_out, last_progress_at, .doc = "When it last recorded a step, or changed."),
    FIELD(struct bad_out, idle_seconds),
};
static const struct shape shape_bad = SHAPE(struct bad_out, "WorkflowTrouble", bad_fields);

struct blocked_out { const char *workflow_uuid, *name, *type, *app_version, *created_at; };
static const struct shape_field blocked_fields[] = {
    FIELD(struct blocked_out, workflow_uuid), FIELD(struct blocked_out, name), FIELD(struct blocked_out, type),
    FIELD(struct blocked_out, app_version), FIELD(struct blocked_out, created_at),
};
static const struct shape shape_blocked = SHAPE(struct blocked_out, "WorkflowBlocked", blocked_fields);

struct limits_out { double stuck_seconds, backlog_seconds; int64_t failure_percent; };
static const struct shape_field limits_fields[] = {
    FIELD(struct limits_out, stuck_seconds), FIELD(struct limits_out, backlog_seconds), FIELD(struct limits_out, failure_percent),
};
static const struct shape shape_limits = SHAPE(struct limits_out, "WorkflowHealthLimits", limits_fields);

struct health_out {
    bool healthy, sampled;
    const char *checked_at;
    struct shape_strs problems;
    struct shape_list stuck, orphans, blocked;
    int64_t orphaned, failed_last_hour, ended_last_hour, dead, backlog, blocked_version;
    double failure_rate, backlog_age_seconds;
    const void *thresholds;
};
static const struct shape_field health_fields[] = {
    FIELD(struct health_out, healthy), FIELD(struct health_out, checked_at),
    FIELD(struct health_out, problems, .doc = "What is wrong, in words; empty when healthy."),
    FIELD(struct health_out, stuck, .of = &shape_bad, .doc = "They run and have recorded nothing for long; the first 200."),
    FIELD(struct health_out, orphans, .of = &shape_bad, .doc = "Their process is dead; the engine gives them back by itself. The first 200."),
    FIELD(struct health_out, orphaned),
    FIELD(struct health_out, failed_last_hour), FIELD(struct health_out, ended_last_hour),
    FIELD(struct health_out, failure_rate, .decimals = 4, .doc = "Share of those that ended in the last hour."),
    FIELD(struct health_out, dead, .doc = "Given up after too many recovery attempts, and still there."),
    FIELD(struct health_out, backlog, .doc = "Enqueued now."),
    FIELD(struct health_out, backlog_age_seconds, .decimals = 3, .doc = "For how long the oldest of them has waited."),
    FIELD(struct health_out, blocked_version, .doc = "Of them: no living process runs their version."),
    FIELD(struct health_out, blocked, .of = &shape_blocked, .doc = "Which those are, the first 200; POST …/{id}/recover has this daemon run one."),
    FIELD(struct health_out, sampled, .doc = "There is more of a kind than one look reads (20000): its numbers are of a part."),
    FIELD(struct health_out, thresholds, .of = &shape_limits),
};
static const struct shape shape_health = SHAPE(struct health_out, "WorkflowsHealth", health_fields);

struct one_query { const char *expected; };
static const struct shape_field one_query_fields[] = {
    FIELD(struct one_query, expected, .max = 64, .doc = "The status it ought to have."),
};
static const struct shape shape_one_query = SHAPE(struct one_query, "WorkflowHealthQuery", one_query_fields);

struct details_out {
    const char *workflowUuid, *status, *name, *type, *executor, *error, *created_at, *updated_at, *last_progress_at;
    int64_t recovery_attempts;
};
static const struct shape_field details_fields[] = {
    FIELD(struct details_out, workflowUuid), FIELD(struct details_out, status), FIELD(struct details_out, name),
    FIELD(struct details_out, type), FIELD(struct details_out, executor), FIELD(struct details_out, error),
    FIELD(struct details_out, recovery_attempts), FIELD(struct details_out, created_at), FIELD(struct details_out, updated_at),
    FIELD(struct details_out, last_progress_at),
};
static const struct shape shape_details = SHAPE(struct details_out, "WorkflowHealthDetails", details_fields);

struct one_out {
    bool healthy;
    const char *workflow_uuid, *status, *reason;
    const void *details;
};
static const struct shape_field one_fields[] = {
    FIELD(struct one_out, healthy), FIELD(struct one_out, workflow_uuid), FIELD(struct one_out, status, .omit = true),
    FIELD(struct one_out, reason, .doc = "null; workflow_not_found; unexpected_status: expected X, got Y; workflow_failed; retries_exceeded; workflow_stuck; workflow_orphaned."),
    FIELD(struct one_out, details, .of = &shape_details, .omit = true),
};
static const struct shape shape_one = SHAPE(struct one_out, "WorkflowHealth", one_fields);

struct failed_query { const char *type, *since; int64_t limit; };
static const struct shape_field failed_query_fields[] = {
    FIELD(struct failed_query, type, .one_of = monitor_type_names, .doc = "Without one: all workflows. message: dead messages."),
    FIELD(struct failed_query, since, .max = 40, .doc = "Ended at this time (ISO 8601, or ms since 1970) or later."),
    FIELD(struct failed_query, limit, .def = "100", .min = 1, .max = 1000),
};
static const struct shape shape_failed_query = SHAPE(struct failed_query, "FailedWorkflowsQuery", failed_query_fields);

struct failed_row { const char *workflow_uuid, *name, *type, *status, *created_at, *updated_at, *error; int64_t recovery_attempts; };
static const struct shape_field failed_row_fields[] = {
    FIELD(struct failed_row, workflow_uuid), FIELD(struct failed_row, name), FIELD(struct failed_row, type),
    FIELD(struct failed_row, status), FIELD(struct failed_row, created_at), FIELD(struct failed_row, updated_at),
    FIELD(struct failed_row, recovery_attempts), FIELD(struct failed_row, error),
};
static const struct shape shape_failed_row = SHAPE(struct failed_row, "FailedWorkflow", failed_row_fields);

struct failed_out { struct shape_list workflows; };
static const struct shape_field failed_fields[] = { FIELD(struct failed_out, workflows, .of = &shape_failed_row, .doc = "Newest first.") };
static const struct shape shape_failed = SHAPE(struct failed_out, "FailedWorkflows", failed_fields);

struct metrics_query { const char *type; int64_t hours; };
static const struct shape_field metrics_query_fields[] = {
    FIELD(struct metrics_query, type, .one_of = monitor_type_names, .doc = "Without one: all workflows."),
    FIELD(struct metrics_query, hours, .def = "24", .min = 1, .max = YEAR_H),
};
static const struct shape shape_metrics_query = SHAPE(struct metrics_query, "WorkflowMetricsQuery", metrics_query_fields);

struct numbers_out {
    int64_t total_workflows, successful, failed, pending;
    double success_rate, avg_duration_seconds, p95_duration_seconds, p99_duration_seconds;
};
static const struct shape_field numbers_fields[] = {
    FIELD(struct numbers_out, total_workflows), FIELD(struct numbers_out, successful), FIELD(struct numbers_out, failed),
    FIELD(struct numbers_out, pending),
    FIELD(struct numbers_out, success_rate, .decimals = 4, .doc = "Successful of the successful and the failed; 0 without any."),
    FIELD(struct numbers_out, avg_duration_seconds, .decimals = 3, .doc = "From creation to the end, of those that have ended."),
    FIELD(struct numbers_out, p95_duration_seconds, .decimals = 3), FIELD(struct numbers_out, p99_duration_seconds, .decimals = 3),
};
static const struct shape shape_numbers = SHAPE(struct numbers_out, "WorkflowNumbers", numbers_fields);

struct metrics_out {
    const char *workflow_type, *since, *sampled_since;
    int64_t time_range_hours, rows_read;
    const void *metrics;
};
static const struct shape_field metrics_fields[] = {
    FIELD(struct metrics_out, workflow_type), FIELD(struct metrics_out, time_range_hours), FIELD(struct metrics_out, since),
    FIELD(struct metrics_out, metrics, .of = &shape_numbers),
    FIELD(struct metrics_out, rows_read, .doc = "Workflows of any kind that the numbers were taken from, the newest 100000 at most."),
    FIELD(struct metrics_out, sampled_since, .omit = true, .doc = "Present when there were more: the numbers are of those since then."),
};
static const struct shape shape_metrics = SHAPE(struct metrics_out, "WorkflowMetrics", metrics_fields);

struct recover_out { bool recovered; const char *status, *workflowUuid; };
static const struct shape_field recover_fields[] = {
    FIELD(struct recover_out, recovered), FIELD(struct recover_out, status, .doc = "As it is now, or not_found."), FIELD(struct recover_out, workflowUuid),
};
static const struct shape shape_recover = SHAPE(struct recover_out, "WorkflowRecovery", recover_fields);
/* clang-format on */

static const char *text(struct str s, struct arena *a)
{
    return s.p ? arena_strndup(a, s.p, s.n) : NULL;
}

/* --- the whole --- */

static const struct bad_out *show_bad(const struct monitor_bad *bad, int64_t now, struct arena *a)
{
    struct bad_out *out = arena_new(a, struct bad_out);
    int64_t idle = now - bad->progress_ms;

    *out = (struct bad_out){
        .workflow_uuid = text(bad->id, a),
        .name = text(bad->name, a),
        .type = monitor_type_of(bad->name),
        .executor = text(bad->executor, a),
        .reason = bad->orphan ? "workflow_orphaned" : "workflow_stuck",
        .created_at = time_python(bad->created_ms, a),
        .last_progress_at = time_python(bad->progress_ms, a),
        .idle_seconds = idle > 0 ? idle / 1000 : 0,
    };
    return out;
}

static const struct blocked_out *show_blocked(const struct monitor_bad *one, struct arena *a)
{
    struct blocked_out *out = arena_new(a, struct blocked_out);

    *out = (struct blocked_out){
        .workflow_uuid = text(one->id, a),
        .name = text(one->name, a),
        .type = monitor_type_of(one->name),
        .app_version = text(one->version, a),
        .created_at = time_python(one->created_ms, a),
    };
    return out;
}

static void show_all_bad(const struct monitor_look *l, struct health_out *out, struct arena *a)
{
    out->stuck.v = arena_alloc(a, (l->n_bad + 1) * sizeof(*out->stuck.v));
    out->orphans.v = arena_alloc(a, (l->n_bad + 1) * sizeof(*out->orphans.v));
    for (size_t i = 0; i < l->n_bad; i++) {
        struct shape_list *to = l->bad[i].orphan ? &out->orphans : &out->stuck;

        to->v[to->n++] = show_bad(&l->bad[i], l->at_ms, a);
    }
    out->blocked.v = arena_alloc(a, (l->n_blocked + 1) * sizeof(*out->blocked.v));
    for (size_t i = 0; i < l->n_blocked; i++)
        out->blocked.v[out->blocked.n++] = show_blocked(&l->blocked[i], a);
}

static CO int get_health(struct http_req *req, struct err *e)
{
    struct health_out *out = arena_new(req->arena, struct health_out);
    struct limits_out *limits = arena_new(req->arena, struct limits_out);
    struct monitor *m = req->room;
    const struct swarm_settings *set = m->s->settings;
    struct monitor_look l;
    int r = monitor_look(m, req->arena, &l, e);

    if (r < 0)
        return r;
    *limits = (struct limits_out){ (double)set->stuck_ms / 1000, (double)set->backlog_ms / 1000,
                                   set->failure_rate };
    *out = (struct health_out){
        .healthy = !l.problems,
        .sampled = l.sampled,
        .checked_at = time_python(l.at_ms, req->arena),
        .problems = { l.texts, l.n_texts },
        .orphaned = l.orphaned,
        .failed_last_hour = l.failed,
        .ended_last_hour = l.ended,
        .failure_rate = l.ended ? (double)l.failed / (double)l.ended : 0,
        .dead = l.dead,
        .backlog = l.backlog,
        .backlog_age_seconds = (double)l.backlog_ms / 1000,
        .blocked_version = l.blocked_version,
        .thresholds = limits,
    };
    out->problems.v = arena_alloc(req->arena, (l.n_texts + 1) * sizeof(*out->problems.v));
    memcpy(out->problems.v, l.texts, l.n_texts * sizeof(*l.texts));
    show_all_bad(&l, out, req->arena);
    req->out = out;
    return 0;
}

/* --- one --- */

/* The original's rules in its order: a later one wins. RETRIES_EXCEEDED is its name of the dead. */
static void judge(struct one_out *out, const char *expected, struct arena *a)
{
    const bool dead = strcmp(out->status, "MAX_RECOVERY_ATTEMPTS_EXCEEDED") == 0;

    if (expected && strcmp(expected, out->status) != 0 &&
        !(dead && strcmp(expected, "RETRIES_EXCEEDED") == 0))
        out->reason =
            arena_printf(a, "unexpected_status: expected %s, got %s", expected, out->status);
    if (strcmp(out->status, "ERROR") == 0)
        out->reason = "workflow_failed";
    if (dead)
        out->reason = "retries_exceeded";
}

static const char *error_of(const struct durable_info *info, struct arena *a)
{
    const char *words = json_string_value(json_object_get(durable_info_error(info, a), "message"));

    return words ? words : text(info->error, a);
}

static CO int check_workflow(struct http_req *req, const struct durable_info *info,
                             struct one_out *out, struct err *e)
{
    struct details_out *details = arena_new(req->arena, struct details_out);
    const struct one_query *query = req->query;
    struct monitor *m = req->room;
    const int64_t now = swarm_now();
    struct monitor_pace pace;
    int r = monitor_pace(m, info->id, &pace, e);

    if (r < 0)
        return r;
    out->status = durable_status_name(info->status);
    *details = (struct details_out){
        .workflowUuid = out->workflow_uuid,
        .status = out->status,
        .name = text(info->name, req->arena),
        .type = monitor_type_of(info->name),
        .executor = info->executor.n ? text(info->executor, req->arena) : NULL,
        .error = error_of(info, req->arena),
        .created_at = time_python(info->created_ms, req->arena),
        .updated_at = time_python(info->updated_ms, req->arena),
        .last_progress_at = time_python(pace.at_ms < now ? pace.at_ms : now, req->arena),
        .recovery_attempts = info->attempts,
    };
    out->details = details;
    if (info->status == DURABLE_PENDING && pace.orphan)
        out->reason = "workflow_orphaned";
    else if (info->status == DURABLE_PENDING && pace.at_ms && !pace.holds &&
             pace.at_ms < now - m->s->settings->stuck_ms)
        out->reason = "workflow_stuck";
    judge(out, query->expected, req->arena);
    return 0;
}

static CO int check_message(struct http_req *req, struct one_out *out, struct err *e)
{
    struct details_out *details = arena_new(req->arena, struct details_out);
    const struct one_query *query = req->query;
    struct monitor *m = req->room;
    struct mail_info info;
    int r = mail_get(m->s->mail, req->args[0], req->arena, &info, e);

    if (r == -ERR_NOT_FOUND) {
        out->reason = "workflow_not_found";
        return 0;
    }
    if (r < 0)
        return r;
    out->status = monitor_message_status((int)info.status);
    *details = (struct details_out){
        .workflowUuid = text(info.workflow, req->arena),
        .status = out->status,
        .name = "routeAgentMessage",
        .type = "message",
        .error = text(info.error, req->arena),
        .created_at = time_python(info.created_ms, req->arena),
        .updated_at = time_python(info.ended_ms ? info.ended_ms : info.created_ms, req->arena),
        .recovery_attempts = info.attempts,
    };
    out->details = details;
    judge(out, query->expected, req->arena);
    return 0;
}

static CO int get_one(struct http_req *req, struct err *e)
{
    struct one_out *out = arena_new(req->arena, struct one_out);
    struct monitor *m = req->room;
    struct durable_info info;
    int r = durable_get(m->s->conf.engine, req->args[0], req->arena, &info, e);

    out->workflow_uuid = text(req->args[0], req->arena);
    if (r == 0)
        r = check_workflow(req, &info, out, e);
    else if (r == -ERR_NOT_FOUND)
        r = check_message(req, out, e);
    out->healthy = !out->reason;
    req->out = out;
    return r;
}

/* --- what has failed, and numbers --- */

static int read_since(const char *since, int64_t *ret_ms, struct err *e)
{
    struct err not_a_number;
    long long ms;
    int64_t us;
    int r;

    *ret_ms = 0;
    if (!since)
        return 0;
    if (int_parse(str_of(since), 0, 253402300799999, &ms, &not_a_number) == 0) {
        *ret_ms = ms;
        return 0;
    }
    r = time_parse(str_of(since), &us, e);
    if (r < 0)
        return err_wrap(e, "since");
    *ret_ms = us > 0 ? us / 1000 : 0;
    return 0;
}

static const struct failed_row *show_failed(const struct monitor_failed *f, struct arena *a)
{
    struct failed_row *row = arena_new(a, struct failed_row);

    *row = (struct failed_row){
        .workflow_uuid = text(f->id, a),
        .name = text(f->name, a),
        .type = monitor_type_of(f->name),
        .status = f->status,
        .created_at = time_python(f->created_ms, a),
        .updated_at = time_python(f->updated_ms, a),
        .error = f->error,
        .recovery_attempts = f->attempts,
    };
    return row;
}

static CO int get_failed(struct http_req *req, struct err *e)
{
    struct failed_out *out = arena_new(req->arena, struct failed_out);
    const struct failed_query *query = req->query;
    struct monitor_failed *found;
    int64_t since_ms;
    int r = read_since(query->since, &since_ms, e);

    if (r == 0)
        r = monitor_failed(req->room, monitor_type_find(query->type), since_ms,
                           (unsigned)query->limit, req->arena, &found, &out->workflows.n, e);
    if (r < 0)
        return r;
    out->workflows.v = arena_alloc(req->arena, (out->workflows.n + 1) * sizeof(*out->workflows.v));
    for (size_t i = 0; i < out->workflows.n; i++)
        out->workflows.v[i] = show_failed(&found[i], req->arena);
    req->out = out;
    return 0;
}

static CO int get_metrics(struct http_req *req, struct err *e)
{
    struct metrics_out *out = arena_new(req->arena, struct metrics_out);
    struct numbers_out *numbers = arena_new(req->arena, struct numbers_out);
    const struct metrics_query *query = req->query;
    const int64_t since_ms = swarm_now() - query->hours * MONITOR_HOUR;
    struct monitor_stats s;
    int r = monitor_stats(req->room, monitor_type_find(query->type), since_ms, &s, e);

    if (r < 0)
        return r;
    *numbers = (struct numbers_out){ s.total, s.successful, s.failed, s.pending,
                                     s.rate,  s.mean_s,     s.p95_s,  s.p99_s };
    *out = (struct metrics_out){
        .workflow_type = query->type,
        .time_range_hours = query->hours,
        .since = time_python(since_ms, req->arena),
        .metrics = numbers,
        .rows_read = s.rows,
        .sampled_since = s.sampled ? time_python(s.since_ms, req->arena) : NULL,
    };
    req->out = out;
    return 0;
}

static CO int post_recover(struct http_req *req, struct err *e)
{
    struct recover_out *out = arena_new(req->arena, struct recover_out);
    int r = monitor_recover(req->room, req->args[0], &out->recovered, &out->status, req->arena, e);

    out->workflowUuid = text(req->args[0], req->arena);
    req->out = out;
    return r;
}

/* clang-format off */
const struct http_route monitor_workflow_routes[] = {
    { HTTP_M_GET, "/api/v1/workflows/health", get_health, READS, .out = &shape_health,
      .tag = "workflows", .doc = "Are the workflows well? What is stuck, orphaned, dead, failing or waiting." },
    { HTTP_M_GET, "/api/v1/workflows/failed", get_failed, READS, .query = &shape_failed_query, .out = &shape_failed,
      .tag = "workflows", .doc = "Workflows that ended with an error or are dead." },
    { HTTP_M_GET, "/api/v1/workflows/metrics", get_metrics, READS, .query = &shape_metrics_query, .out = &shape_metrics,
      .tag = "workflows", .doc = "Numbers and durations of a kind of workflow over the last hours." },
    { HTTP_M_GET, "/api/v1/workflows/{id}/health", get_one, READS, .query = &shape_one_query, .out = &shape_one, .flags = ROUTE_SLASHES,
      .tag = "workflows", .doc = "Is a workflow well, and has it the status that is expected?" },
    { HTTP_M_POST, "/api/v1/workflows/{id}/recover", post_recover, STEERS, .out = &shape_recover, .flags = ROUTE_SLASHES,
      .tag = "workflows", .doc = "Give what a dead process has left back to its queue, or resume what was cancelled or is dead; what waits for a version that nobody runs is run by this one." },
};
/* clang-format on */
const size_t monitor_workflow_routes_len = LEN(monitor_workflow_routes);
