/* SPDX-License-Identifier: MIT */
/* swarm/swarm.c — the parts of the room, made in the order of their needs. */
#include "swarm/swarm.h"

#include <string.h>

#include "base/log.h"
#include "swarm/command.h"
#include "swarm/gate.h"
#include "swarm/life.h"
#include "swarm/mail.h"
#include "swarm/monitor.h"
#include "swarm/notify.h"

int swarm_new(const struct swarm_conf *conf, struct swarm **ret, struct err *e)
{
    struct swarm *s = xcalloc(1, sizeof(*s));
    int r;

    s->conf = *conf;
    s->settings = conf->settings;
    s->pg = strcmp(store_kind(conf->store), "sqlite") != 0;
    s->chores = fiber_group_new(conf->loop);
    r = mail_new(s, &s->mail, e);
    if (r == 0)
        r = life_new(s, &s->life, e);
    if (r == 0)
        r = notify_new(s, &s->notify, e);
    if (r == 0)
        r = command_new(s, &s->command, e);
    if (r == 0)
        r = monitor_new(s, &s->monitor, e);
    if (r == 0)
        r = gate_new(s, &s->gate, e);
    if (r < 0) {
        swarm_free(s);
        return err_wrap(e, "swarm");
    }
    *ret = s;
    return 0;
}

CO int swarm_start(struct swarm *s, struct err *e)
{
    int r = mail_start(s->mail, e);

    if (r == 0)
        r = life_start(s->life, e);
    if (r == 0)
        r = notify_start(s->notify, e);
    if (r == 0)
        r = command_start(s->command, e);
    if (r == 0)
        r = monitor_start(s->monitor, e);
    if (r == 0)
        r = gate_start(s->gate, e);
    return r < 0 ? err_wrap(e, "swarm") : 0;
}

CO void swarm_stop(struct swarm *s)
{
    struct err e;

    s->stopping = true;
    gate_stop(s->gate);
    monitor_stop(s->monitor);
    command_stop(s->command);
    notify_stop(s->notify);
    life_stop(s->life);
    mail_stop(s->mail);
    fiber_group_cancel(s->chores);
    (void)fiber_group_join(s->chores, &e); /* they end by being cancelled */
}

void swarm_free(struct swarm *s)
{
    if (!s)
        return;
    gate_free(s->gate);
    monitor_free(s->monitor);
    command_free(s->command);
    notify_free(s->notify);
    life_free(s->life);
    mail_free(s->mail);
    fiber_group_free(s->chores);
    free(s);
}

void swarm_tables(struct swarm *s, struct http_table out[SWARM_TABLES])
{
    struct http_table *t = out;

    *t++ = (struct http_table){ "/api/v1/messages", &dialect_plain, mail_routes, mail_routes_len,
                                s->mail };
    *t++ = (struct http_table){ "/api/v1/openclaw", &dialect_fastapi, notify_routes,
                                notify_routes_len, s->notify };
    *t++ = (struct http_table){ "/api/v1/commands", &dialect_plain, command_routes,
                                command_routes_len, s->command };
    life_table(s->life, t++);
    monitor_tables(s->monitor, t);
    t += MONITOR_TABLES;
    gate_tables(s->gate, t);
    _Static_assert(4 + MONITOR_TABLES + GATE_TABLES == SWARM_TABLES, "count them");
}

const char *time_python(int64_t ms, struct arena *a)
{
    char text[TIME_TEXT];

    if (!ms)
        return NULL;
    time_format_z(ms * 1000, text); /* "2026-11-20T17:05:27.745Z" */
    if (ms % 1000 == 0)
        return arena_printf(a, "%.19s+00:00", text);
    return arena_printf(a, "%.23s000+00:00", text);
}

static bool fits(struct str s, struct str pattern)
{
    size_t i = 0, p = 0, star = SIZE_MAX, back = 0;

    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            back = i;
        } else if (p < pattern.n && pattern.p[p] == s.p[i]) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++back;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

bool session_fits(struct str session, const char *patterns)
{
    struct str rest = str_of(patterns), one;

    while (str_split(&rest, ',', &one)) {
        one = str_trim(one);
        if (one.n && fits(session, one))
            return true;
    }
    return false;
}

static enum err_code code_of(const char *name)
{
    for (int code = 1; name && code <= ERR_INTERNAL; code++)
        if (strcmp(name, err_name((enum err_code)code)) == 0)
            return (enum err_code)code;
    return ERR_INTERNAL;
}

/* A recorded error as one of ours. */
static int failed(struct str json, struct arena *a, struct err *e)
{
    json_t *error = NULL;
    const char *message, *name;

    if (json_parse(json, 64, a, &error, NULL, NULL) < 0 || !json_is_object(error))
        return err_set(e, ERR_INTERNAL, "a workflow failed");
    message = json_string_value(json_object_get(error, "message"));
    name = json_string_value(json_object_get(error, "name"));
    return err_set(e, code_of(name), "%s", message ? message : "a workflow failed");
}

CO int swarm_run(struct swarm *s, const char *class_name, const char *name, struct str id,
                 const json_t *arg, uint64_t deadline_ms, struct durable_started *ret,
                 struct buf *out, struct err *e)
{
    struct durable_start start = { .name = name, .class_name = class_name, .id = id };
    AUTO(buf_done) struct buf args = { 0 };
    struct arena a = { 0 };
    enum durable_status status;
    int r;

    buf_init(&args, 16 * MIB);
    r = buf_add_z(&args, "[", e);
    if (r == 0)
        r = json_write(arg, &args, e);
    if (r == 0)
        r = buf_add_z(&args, "]", e);
    start.args = buf_str(&args);
    if (r == 0)
        r = durable_start(s->conf.engine, &start, ret, e);
    if (r == 0)
        r = durable_await(s->conf.engine, str_of(ret->id), deadline_ms, &status, out, e);
    if (r == 0 && status == DURABLE_ERROR)
        r = failed(buf_str(out), &a, e);
    else if (r == 0 && status != DURABLE_SUCCESS)
        r = err_set(e, ERR_UNAVAILABLE, "workflow %s is %s", ret->id, durable_status_name(status));
    arena_done(&a);
    return r;
}

void swarm_gauges(struct swarm *s)
{
    metric_set(&swarm_m_sockets, 0, gate_sockets(s->gate));
}
