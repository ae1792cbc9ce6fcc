/* SPDX-License-Identifier: MIT */
/* libchela/session.c — sessions as structs, and those of a bridge. */
#include "bridge/session.h"

#include <stdio.h>
#include <string.h>

#include "bridge/export.h"
#include "libchela/bridge_int.h"

enum { SESSION_DEPTH = 512, FILE_MAX = 1 << 30 };

/* --- the struct --- */

struct chela_session *chela_session_new(const char *session_id, const char *user_id)
{
    struct chela_session *s = xcalloc(1, sizeof(*s));

    s->session_id = xstrdup(session_id);
    s->user_id = xstrdup(user_id);
    s->created_us = s->last_activity_us = wall_us();
    s->metadata = xstrdup("{}");
    return s;
}

void chela_session_free(struct chela_session *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_messages; i++) {
        free(s->messages[i].role);
        free(s->messages[i].content);
        free(s->messages[i].agent);
    }
    free(s->messages);
    free(s->session_id);
    free(s->user_id);
    free(s->metadata);
    free(s);
}

static struct chela_message *add(struct chela_session *s)
{
    if ((s->n_messages & (s->n_messages - 1)) == 0) /* 0, 1, 2, 4, 8...: full */
        s->messages =
            xrealloc(s->messages, (s->n_messages ? 2 * s->n_messages : 1) * sizeof(*s->messages));
    return &s->messages[s->n_messages++];
}

void chela_session_add_message(struct chela_session *s, const char *role, const char *content,
                               const char *agent)
{
    int64_t now = wall_us();

    *add(s) = (struct chela_message){
        .role = xstrdup(role),
        .content = xstrdup(content),
        .agent = xstrdup(agent ? agent : ""),
        .at_us = now,
    };
    s->last_activity_us = now > s->last_activity_us ? now : s->last_activity_us + 1;
}

static void write_message(const struct chela_message *m, struct out *o)
{
    out_z(o, "{\"timestamp\":");
    out_time(o, m->at_us);
    out_z(o, ",\"role\":");
    out_str(o, str_of(m->role));
    out_z(o, ",\"content\":");
    out_str(o, str_of(m->content));
    out_z(o, ",\"agent\":");
    out_str(o, str_of(m->agent));
    out_z(o, m->interrupted ? ",\"interrupted\":true}" : "}");
}

char *chela_session_json(const struct chela_session *s)
{
    struct out o;

    out_init(&o, SIZE_MAX / 2);
    out_z(&o, "{\"session_id\":");
    out_str(&o, str_of(s->session_id));
    out_z(&o, ",\"user_id\":");
    out_str(&o, str_of(s->user_id));
    out_z(&o, ",\"created_at\":");
    out_time(&o, s->created_us);
    out_z(&o, ",\"last_activity\":");
    out_time(&o, s->last_activity_us);
    out_z(&o, ",\"messages\":[");
    for (size_t i = 0; i < s->n_messages; i++) {
        out_comma(&o, i);
        write_message(&s->messages[i], &o);
    }
    out_z(&o, "],\"metadata\":");
    out_z(&o, s->metadata);
    out_z(&o, "}");
    return lib_take_json(&o);
}

/* --- of a bridge --- */

struct session_job {
    struct bridge *b;
    struct str id, user, role, content, agent;
    const char *path;
    struct str text;
    int64_t before_us;
    long long n;
    struct chela_session *session;
};

static char *member(const json_t *o, const char *key)
{
    struct str s = json_member_str(o, key);

    return s.p ? str_dup(s) : xstrdup("");
}

static int64_t stamp(const json_t *o, const char *key)
{
    int64_t us = 0;
    struct err e;

    return time_parse(json_member_str(o, key), &us, &e) < 0 ? 0 : us;
}

static struct chela_session *read_session(const json_t *j, struct arena *a, struct err *e)
{
    const json_t *messages = json_object_get(j, "messages");
    struct chela_session *s;
    struct str metadata;

    if (json_text(json_object_get(j, "metadata"), SIZE_MAX / 2, a, &metadata, e) < 0)
        return NULL;
    s = xcalloc(1, sizeof(*s));
    s->session_id = member(j, "session_id");
    s->user_id = member(j, "user_id");
    s->created_us = stamp(j, "created_at");
    s->last_activity_us = stamp(j, "last_activity");
    s->metadata = str_dup(metadata);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i);

        *add(s) = (struct chela_message){
            .role = member(m, "role"),
            .content = member(m, "content"),
            .agent = member(m, "agent"),
            .at_us = stamp(m, "timestamp"),
            .interrupted = json_is_true(json_object_get(m, "interrupted")),
        };
    }
    return s;
}

CO static int do_get(void *arg, struct err *e)
{
    struct session_job *job = arg;
    struct arena arena = { 0 };
    struct out o;
    json_t *j;
    int r;

    out_init(&o, FILE_MAX);
    r = bridge_session_write(job->b, job->id, &o, e);
    if (r == 0)
        r = json_parse(out_text(&o), SESSION_DEPTH, &arena, &j, NULL, e);
    if (r == 0) {
        job->session = read_session(j, &arena, e);
        r = job->session ? 0 : -(int)e->code;
    }
    out_done(&o);
    arena_done(&arena);
    return r;
}

CO static int do_ensure(void *arg, struct err *e)
{
    struct session_job *job = arg;
    int r;

    if (!job->id.n || job->id.n > 4 * SESSION_ID_MAX || !utf8_valid(job->id.p, job->id.n) ||
        !utf8_valid(job->user.p, job->user.n))
        return err_set(e, ERR_INVALID, "a session needs an id, and ids are UTF-8");
    r = bridge_session_ensure(job->b, job->id, job->user, e);
    return r < 0 ? r : do_get(job, e);
}

CO static int do_delete(void *arg, struct err *e)
{
    struct session_job *job = arg;

    return bridge_session_delete(job->b, job->id, e);
}

CO static int do_add(void *arg, struct err *e)
{
    struct session_job *job = arg;

    if (!utf8_valid(job->role.p, job->role.n) || !utf8_valid(job->content.p, job->content.n) ||
        !utf8_valid(job->agent.p, job->agent.n))
        return err_set(e, ERR_INVALID, "the texts of a message must be UTF-8");
    return bridge_session_append(job->b, job->id, job->role, job->content, job->agent, e);
}

CO static int do_count(void *arg, struct err *e)
{
    struct session_job *job = arg;

    job->n = bridge_session_count(job->b);
    return 0;
}

CO static int do_cleanup(void *arg, struct err *e)
{
    struct session_job *job = arg;

    return sessions_cleanup(job->b, job->before_us, &job->n, e);
}

CO static int do_export(void *arg, struct err *e)
{
    struct session_job *job = arg;

    return export_to_file(job->b, job->path, &job->n, e);
}

CO static int do_import(void *arg, struct err *e)
{
    struct session_job *job = arg;

    return import_text(job->b, job->text, &job->n, e);
}

static int run(struct chela_bridge *bridge, struct session_job *job, CO fiber_fn *fn,
               struct chela_error *error)
{
    struct err e;

    job->b = engine_bridge(bridge->engine);
    if (engine_run(bridge->engine, fn, job, &e) < 0)
        return lib_error(&e, error);
    return 0;
}

int chela_bridge_session_register(struct chela_bridge *bridge, const char *session_id,
                                  const char *user_id, struct chela_session **ret,
                                  struct chela_error *error)
{
    struct session_job job = {
        .id = str_of(session_id),
        .user = user_id && *user_id ? str_of(user_id) : STR(SESSION_ANONYMOUS),
    };
    int r = run(bridge, &job, do_ensure, error);

    if (r == 0)
        *ret = job.session;
    return r;
}

int chela_bridge_session(struct chela_bridge *bridge, const char *session_id,
                         struct chela_session **ret, struct chela_error *error)
{
    struct session_job job = { .id = str_of(session_id) };
    int r = run(bridge, &job, do_get, error);

    if (r == 0)
        *ret = job.session;
    return r;
}

int chela_bridge_session_delete(struct chela_bridge *bridge, const char *session_id,
                                struct chela_error *error)
{
    struct session_job job = { .id = str_of(session_id) };

    return run(bridge, &job, do_delete, error);
}

int chela_bridge_session_add_message(struct chela_bridge *bridge, const char *session_id,
                                     const char *role, const char *content, const char *agent,
                                     struct chela_error *error)
{
    struct session_job job = {
        .id = str_of(session_id),
        .role = str_of(role),
        .content = str_of(content),
        .agent = agent ? str_of(agent) : STR(""),
    };

    return run(bridge, &job, do_add, error);
}

long long chela_bridge_session_count(struct chela_bridge *bridge)
{
    struct session_job job = { 0 };

    return run(bridge, &job, do_count, NULL) < 0 ? 0 : job.n;
}

int chela_bridge_cleanup(struct chela_bridge *bridge, double max_age_hours, long long *ret_removed,
                         struct chela_error *error)
{
    struct session_job job = { .before_us = INT64_MAX };
    int r;

    if (!(max_age_hours >= 0))
        return lib_fail(error, CHELA_E_INVALID, CHELA_ERROR_UNKNOWN,
                        "the age must not be negative");
    if (max_age_hours > 0)
        job.before_us =
            max_age_hours < 1e6 ? wall_us() - (int64_t)(max_age_hours * 3600 * 1e6) : INT64_MIN;
    r = run(bridge, &job, do_cleanup, error);
    if (r == 0 && ret_removed)
        *ret_removed = job.n;
    return r;
}

int chela_bridge_export(struct chela_bridge *bridge, const char *path, long long *ret_n,
                        struct chela_error *error)
{
    struct session_job job = { .path = path };
    int r = run(bridge, &job, do_export, error);

    if (r == 0 && ret_n)
        *ret_n = job.n;
    return r;
}

static int read_file(const char *path, struct buf *b, struct err *e)
{
    FILE *f = fopen(path, "re");
    char piece[4096];
    size_t n;
    int r = 0;

    if (!f)
        return err_sys(e, "open '%s'", path);
    while (r == 0 && (n = fread(piece, 1, sizeof(piece), f)) > 0)
        r = buf_add(b, piece, n, e);
    if (r == 0 && ferror(f))
        r = err_sys(e, "read '%s'", path);
    fclose(f);
    return r;
}

int chela_bridge_import(struct chela_bridge *bridge, const char *path, long long *ret_n,
                        struct chela_error *error)
{
    AUTO(buf_done) struct buf b;
    struct session_job job = { 0 };
    struct err e;
    int r;

    buf_init(&b, FILE_MAX);
    if (read_file(path, &b, &e) < 0)
        return lib_error(&e, error);
    job.text = b.n ? buf_str(&b) : STR("");
    r = run(bridge, &job, do_import, error);
    if (r == 0 && ret_n)
        *ret_n = job.n;
    return r;
}
