/* SPDX-License-Identifier: MIT */
/*
 * agent/audit.c — who had what done here: a line of JSON when a task comes and one when it ends.
 *
 * One write(2) per line to a file opened for appending. Nothing of the environment but names, of a
 * script its checksum, of texts no credentials of URLs. A log that cannot be written to stops no
 * task: the agent's own log says so once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/text.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/time.h"

#define AUDIT_MAX  ((off_t)(16 * MIB)) /* of a file; then it becomes .1, .1 becomes .2, ... */
#define AUDIT_KEEP 4                   /* older files */
#define TEXT_MAX   ((size_t)16 * KIB)  /* of one member */
#define ARGS_SHOWN 100

struct audit_log {
    char *path;
    int fd;
    bool broken; /* it has been said */
};

static void make_parents(const char *path)
{
    char *copy = xstrdup(path);

    for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = '\0';
        (void)mkdir(copy, 0750); /* it may be there; open() says what matters */
        *p = '/';
    }
    free(copy);
}

static int open_log(const char *path, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);

    return fd < 0 ? err_sys(e, "open '%s'", path) : fd;
}

int audit_log_open(const char *path, struct audit_log **ret, struct err *e)
{
    struct audit_log *l;
    int fd;

    make_parents(path);
    fd = open_log(path, e);
    if (fd < 0)
        return fd;
    l = xcalloc(1, sizeof(*l));
    l->path = xstrdup(path);
    l->fd = fd;
    *ret = l;
    return 0;
}

void audit_log_close(struct audit_log *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        close(l->fd);
    free(l->path);
    free(l);
}

/* --- the file --- */

static void rotate(struct audit_log *l)
{
    for (int i = AUDIT_KEEP - 1; i >= 0; i--) {
        AUTO(free) char *from = i ? xasprintf("%s.%d", l->path, i) : xstrdup(l->path);
        AUTO(free) char *to = xasprintf("%s.%d", l->path, i + 1);

        if (rename(from, to) < 0 && errno != ENOENT)
            log_warn("the audit log does not rotate", "path", LOG_STR(from), "errno",
                     LOG_INT(errno));
    }
}

/* Make sure that fd is the file at path and has room. */
static int ready(struct audit_log *l, struct err *e)
{
    struct stat st = { 0 };
    int fd;

    if (l->fd >= 0 && fstat(l->fd, &st) == 0 && st.st_nlink > 0 && st.st_size < AUDIT_MAX)
        return 0;
    if (l->fd >= 0 && st.st_nlink > 0)
        rotate(l);
    fd = open_log(l->path, e);
    if (fd < 0)
        return l->fd >= 0 ? 0 : fd; /* better a long one than none */
    if (l->fd >= 0)
        close(l->fd);
    l->fd = fd;
    return 0;
}

static int put_line(struct audit_log *l, const json_t *line, struct err *e)
{
    AUTO(buf_done) struct buf b;
    ssize_t n;
    int r;

    buf_init(&b, 1 * MIB);
    r = json_write(line, &b, e);
    if (r == 0)
        r = buf_add_z(&b, "\n", e);
    if (r == 0)
        r = ready(l, e);
    if (r < 0)
        return r;
    n = write(l->fd, b.p, b.n);
    return n == (ssize_t)b.n ? 0 : err_sysn(e, n < 0 ? errno : ENOSPC, "write '%s'", l->path);
}

/* --- the line --- */

/* Cut at the bound between two characters, without credentials. */
static json_t *shown(struct arena *a, const json_t *text)
{
    struct str s = { json_string_value(text), json_string_length(text) };

    if (s.n > TEXT_MAX) {
        s.n = TEXT_MAX;
        s.n = text_whole(TEXT_UTF8, s);
    }
    return json_string(text_masked(a, s));
}

static void copy_text(json_t *line, struct arena *a, const json_t *from, const char *key)
{
    const json_t *v = json_object_get(from, key);

    if (json_is_string(v))
        json_object_set_new(line, key, shown(a, v));
}

static void add_names(json_t *line, const json_t *env)
{
    json_t *names = json_array(), *o, *value;
    const char *key;

    memcpy(&o, &env, sizeof(o)); /* only read: jansson's iteration has no const form */
    json_object_foreach(o, key, value)
    {
        if (json_array_size(names) < ARGS_SHOWN)
            json_array_append_new(names, json_string(key));
    }
    json_object_set_new(line, "env", names);
}

static void add_script(json_t *line, struct arena *a, const json_t *payload)
{
    const json_t *script = json_object_get(payload, "script");
    const json_t *args = json_object_get(payload, "args");
    char hex[2 * SECRET_KEY + 1];
    json_t *list;

    if (!json_is_string(script))
        return;
    sha256_hex((struct str){ json_string_value(script), json_string_length(script) }, hex);
    json_object_set_new(line, "scriptSha256", json_string(hex));
    json_object_set_new(line, "scriptBytes", json_integer((json_int_t)json_string_length(script)));
    list = json_array();
    for (size_t i = 0; i < json_array_size(args) && i < ARGS_SHOWN; i++)
        if (json_is_string(json_array_get(args, i)))
            json_array_append_new(list, shown(a, json_array_get(args, i)));
    json_object_set_new(line, "args", list);
}

static void add_task(json_t *line, struct arena *a, const json_t *payload)
{
    static const char *const texts[] = { "command",    "filePath",    "path",   "repo",
                                         "repoPath",   "destination", "remote", "branch",
                                         "transferId", "cwd" };
    const json_t *env = json_object_get(payload, "env");

    for (size_t i = 0; i < LEN(texts); i++)
        copy_text(line, a, payload, texts[i]);
    add_script(line, a, payload);
    if (json_is_object(env))
        add_names(line, env);
    if (json_is_true(json_object_get(payload, "sudo")))
        json_object_set_new(line, "sudo", json_true());
}

static void copy_value(json_t *line, const char *key, json_t *value)
{
    if (value && !json_is_object(value) && !json_is_array(value))
        json_object_set(line, key, value);
}

static void add_response(json_t *line, struct arena *a, const json_t *response)
{
    const json_t *result = json_object_get(response, "result");

    copy_value(line, "exitCode", json_object_get(result, "exitCode"));
    copy_value(line, "signal", json_object_get(result, "signal"));
    copy_value(line, "timedOut", json_object_get(result, "timedOut"));
    copy_value(line, "success", json_object_get(response, "success"));
    copy_value(line, "durationMs", json_object_get(response, "duration"));
    if (json_is_false(json_object_get(response, "success")) && !json_object_get(result, "exitCode"))
        copy_text(line, a, response, "error"); /* a command's own words are not repeated */
}

void audit_task(struct audit_log *l, const char *event, const char *agent, const char *from,
                const json_t *payload, const json_t *response)
{
    AUTO(json_decref) json_t *line = json_object();
    struct arena a = { 0 };
    char now[TIME_TEXT];
    struct err e;
    int r;

    if (!l)
        return;
    time_format_z(wall_us(), now);
    json_object_set_new(line, "ts", json_string(now));
    json_object_set_new(line, "event", json_string(event));
    json_object_set_new(line, "agentId", json_string(agent ? agent : ""));
    copy_text(line, &a, payload, "taskId");
    copy_text(line, &a, payload, "shellId");
    copy_text(line, &a, payload, "type");
    json_object_set_new(line, "from", json_string(from ? from : ""));
    add_task(line, &a, payload);
    if (response)
        add_response(line, &a, response);
    r = put_line(l, line, &e);
    if (r < 0 && !l->broken)
        log_error("the audit log is not written", "error", LOG_ERR(&e));
    l->broken = r < 0;
    arena_done(&a);
}
