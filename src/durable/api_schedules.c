/* SPDX-License-Identifier: MIT */
/*
 * durable/api_schedules.c — /api/v1/schedules: workflows that are started by the clock.
 */
#include <limits.h>

#include "durable/api_int.h"

struct schedule_out {
    const char *name, *id, *workflow, *class_name, *cron, *zone, *queue, *misfire, *overlap,
        *last_at, *next_at;
    json_t *context;
    bool paused;
    int64_t misfire_max;
};
struct schedules_out {
    struct shape_list schedules;
};
struct schedule_in {
    const char *workflow, *class_name, *cron, *zone, *queue, *misfire, *overlap;
    json_t *context;
    bool paused;
    int64_t misfire_max;
};
struct backfill_in {
    const char *from, *to;
};

static const char *const misfires[] = { "skip", "once", "all", NULL };
static const char *const overlaps[] = { "allow", "skip", "replace", NULL };

/* clang-format off */
static const struct shape_field schedule_fields[] = {
    FIELD(struct schedule_out, name), FIELD(struct schedule_out, id), FIELD(struct schedule_out, workflow), FIELD(struct schedule_out, class_name),
    FIELD(struct schedule_out, cron), FIELD(struct schedule_out, zone), FIELD(struct schedule_out, queue), FIELD(struct schedule_out, context),
    FIELD(struct schedule_out, paused), FIELD(struct schedule_out, misfire), FIELD(struct schedule_out, overlap),
    FIELD(struct schedule_out, misfire_max), FIELD(struct schedule_out, last_at), FIELD(struct schedule_out, next_at),
};
const struct shape shape_schedule = SHAPE(struct schedule_out, "Schedule", schedule_fields);
static const struct shape_field schedules_fields[] = { FIELD(struct schedules_out, schedules, .of = &shape_schedule) };
const struct shape shape_schedules = SHAPE(struct schedules_out, "Schedules", schedules_fields);

static const struct shape_field schedule_in_fields[] = {
    FIELD(struct schedule_in, workflow, .required = true, .min = 1, .max = 255, .doc = "Its name. It gets two arguments: the time it is for, and the context."),
    FIELD(struct schedule_in, class_name, .nullable = true, .min = 1, .max = 255),
    FIELD(struct schedule_in, cron, .required = true, .min = 1, .max = 255, .doc = "Five fields, or six with seconds first; @daily and the like. Day of month and of week must both match."),
    FIELD(struct schedule_in, zone, .nullable = true, .max = 255, .doc = "IANA time zone; UTC without."),
    FIELD(struct schedule_in, queue, .nullable = true, .min = 1, .max = 255), FIELD(struct schedule_in, context, .doc = "Any JSON value."),
    FIELD(struct schedule_in, paused), FIELD(struct schedule_in, misfire, .def = "\"skip\"", .one_of = misfires, .doc = "Times that passed while nobody ran."),
    FIELD(struct schedule_in, overlap, .def = "\"allow\"", .one_of = overlaps, .doc = "When the one before still runs."),
    FIELD(struct schedule_in, misfire_max, .nullable = true, .min = 0, .max = 10000, .doc = "Of misfire = all: the newest so many; 0: 1000."),
};
const struct shape shape_schedule_in = SHAPE(struct schedule_in, "ScheduleDefinition", schedule_in_fields);

static const struct shape_field backfill_fields[] = {
    FIELD(struct backfill_in, from, .required = true, .doc = "ISO 8601; this time is included."), FIELD(struct backfill_in, to, .required = true, .doc = "This one is not."),
};
const struct shape shape_backfill_in = SHAPE(struct backfill_in, "ScheduleBackfill", backfill_fields);
/* clang-format on */

static const struct schedule_out *show_schedule(const struct durable_schedule *s, struct arena *a)
{
    struct schedule_out *out = arena_new(a, struct schedule_out);
    struct err unread;

    *out = (struct schedule_out){
        .name = text_of(s->name, a),
        .id = text_of(s->id, a),
        .workflow = text_of(s->workflow, a),
        .class_name = text_of(s->class_name, a),
        .cron = text_of(s->cron, a),
        .zone = text_of(s->zone, a),
        .queue = text_of(s->queue, a),
        .misfire = durable_misfire_names[s->misfire],
        .overlap = durable_overlap_names[s->overlap],
        .paused = s->paused,
        .misfire_max = s->misfire_max,
        .last_at = time_text(s->last_ms, a),
        .next_at = time_text(s->next_ms, a),
    };
    if (s->context.p && json_parse(s->context, 512, a, &out->context, NULL, &unread) < 0)
        out->context = NULL; /* of a language we cannot read */
    return out;
}

CO int api_schedules(struct http_req *req, struct err *e)
{
    struct schedules_out *out = arena_new(req->arena, struct schedules_out);
    struct durable_schedule *found;
    int r;

    r = durable_schedules(req->room, req->arena, &found, &out->schedules.n, e);
    if (r < 0)
        return r;
    out->schedules.v = arena_alloc(req->arena, (out->schedules.n + 1) * sizeof(*out->schedules.v));
    for (size_t i = 0; i < out->schedules.n; i++)
        out->schedules.v[i] = show_schedule(&found[i], req->arena);
    req->out = out;
    return 0;
}

CO int api_schedule(struct http_req *req, struct err *e)
{
    struct durable_schedule found;
    int r;

    r = durable_schedule_get(req->room, req->args[0], req->arena, &found, e);
    if (r == 0)
        req->out = show_schedule(&found, req->arena);
    return r;
}

/* Its place in a list that has it: the shape has checked that. */
static unsigned place(const char *const *names, const char *name)
{
    unsigned i = 0;

    while (names[i + 1] && strcmp(names[i], name) != 0)
        i++;
    return i;
}

CO int api_schedule_put(struct http_req *req, struct err *e)
{
    const struct schedule_in *in = req->in;
    struct durable_schedule s = {
        .name = req->args[0],
        .workflow = str_of(in->workflow),
        .class_name = given(in->class_name),
        .cron = str_of(in->cron),
        .zone = in->zone && *in->zone ? str_of(in->zone) : (struct str){ 0 },
        .queue = given(in->queue),
        .context = STR("null"),
        .paused = in->paused,
        .misfire = (enum durable_misfire)place(misfires, in->misfire),
        .overlap = (enum durable_overlap)place(overlaps, in->overlap),
        .misfire_max = (unsigned)in->misfire_max,
    };
    int r = 0;

    if (s.name.n > 255)
        return err_set(e, ERR_INVALID, "a schedule's name has at most 255 bytes");
    if (in->context)
        r = json_text(in->context, SIZE_MAX / 2, req->arena, &s.context, e);
    if (r == 0)
        r = durable_schedule_put(req->room, &s, e);
    return r < 0 ? r : api_schedule(req, e);
}

CO int api_schedule_delete(struct http_req *req, struct err *e)
{
    return durable_schedule_remove(req->room, req->args[0], e);
}

CO int api_schedule_pause(struct http_req *req, struct err *e)
{
    return durable_schedule_pause(req->room, req->args[0], true, e);
}

CO int api_schedule_resume(struct http_req *req, struct err *e)
{
    return durable_schedule_pause(req->room, req->args[0], false, e);
}

CO int api_schedule_trigger(struct http_req *req, struct err *e)
{
    char id[DURABLE_ID];
    int r;

    r = durable_schedule_trigger(req->room, req->args[0], id, e);
    return r < 0 ? r : reply_id(req, id);
}

CO int api_schedule_backfill(struct http_req *req, struct err *e)
{
    const struct backfill_in *in = req->in;
    int64_t from, to, n;
    int r;

    r = time_given(in->from, "from", &from, e);
    if (r == 0)
        r = time_given(in->to, "to", &to, e);
    if (r == 0 && to <= from)
        return err_set(e, ERR_INVALID, "to is not after from");
    if (r == 0)
        r = durable_schedule_backfill(req->room, req->args[0], from, to, &n, e);
    return r < 0 ? r : reply_count(req, n);
}
