/* SPDX-License-Identifier: MIT */
/* machine/shim_spec.c — the order to a shim as a file, and files that are there whole or not. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "machine/shim_int.h"

#define SPEC_MAX (1 * MIB)

static int write_all(int fd, struct str text, const char *name, struct err *e)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "write '%s'", name);
        text.p += n;
        text.n -= (size_t)n;
    }
    return 0;
}

int shim_file_write(const char *dir, const char *name, struct str text, bool sync, struct err *e)
{
    AUTO(free) char *path = xasprintf("%s/%s", dir, name);
    AUTO(free) char *temporary = xasprintf("%s/.%s.new", dir, name);
    AUTO(close_fd) int fd = -1;
    AUTO(close_fd) int dir_fd = -1;
    int r;

    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, "open '%s'", temporary);
    r = write_all(fd, text, temporary, e);
    if (r < 0)
        return r;
    if (sync && fsync(fd) < 0)
        return err_sys(e, "write '%s'", temporary);
    if (rename(temporary, path) < 0)
        return err_sys(e, "rename '%s'", temporary);
    if (!sync)
        return 0;
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0 || fsync(dir_fd) < 0)
        return err_sys(e, "write '%s'", dir);
    return 0;
}

int shim_file_read(const char *dir, const char *name, size_t max, struct arena *a, struct str *ret,
                   struct err *e)
{
    const char *path = arena_printf(a, "%s/%s", dir, name);
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    size_t n = 0;
    char *p;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open '%s'", path);
    if (!S_ISREG(st.st_mode) || st.st_size < 0 || (size_t)st.st_size > max)
        return err_set(e, ERR_LIMIT, "'%s' is no file of at most %zu bytes", path, max);
    p = arena_alloc(a, (size_t)st.st_size + 1);
    while (n < (size_t)st.st_size) {
        ssize_t got = read(fd, p + n, (size_t)st.st_size - n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, "read '%s'", path);
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret = (struct str){ p, n };
    return 0;
}

static json_t *texts(const char *const *list)
{
    json_t *array = list ? json_array() : json_null();

    for (; list && *list; list++)
        json_array_append_new(array, json_string(*list));
    return array;
}

int shim_spec_write(const struct shim_spec *spec, struct err *e)
{
    AUTO(buf_done) struct buf text;
    AUTO(json_decref) json_t *j = NULL;
    int r;

    buf_init(&text, SPEC_MAX);
    j = json_pack("{s:o, s:o, s:s?, s:I, s:I, s:I, s:I, s:o, s:o, s:I}", "argv", texts(spec->argv),
                  "env", texts(spec->env), "cwd", spec->cwd, "memory", (json_int_t)spec->memory_mib,
                  "pids", (json_int_t)spec->pids, "cpus", (json_int_t)spec->cpus, "uid",
                  (json_int_t)spec->uid, "files", texts(spec->files), "staging",
                  texts(spec->staging), "stopDepth", (json_int_t)spec->stop_depth);
    if (!j)
        return err_set(e, ERR_INVALID, "the command has texts that are not UTF-8");
    r = json_write(j, &text, e);
    if (r == 0)
        r = shim_file_write(spec->dir, "shim.json", buf_str(&text), false, e);
    return r;
}

static const char *const *list_of(const json_t *object, const char *key, struct arena *a)
{
    const json_t *array = json_object_get(object, key);
    const char **list;

    if (!json_is_array(array))
        return NULL;
    list = arena_alloc(a, (json_array_size(array) + 1) * sizeof(*list));
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *text = json_string_value(json_array_get(array, i));

        list[i] = arena_strdup(a, text ? text : "");
    }
    return list;
}

static long number_of(const json_t *object, const char *key)
{
    return (long)json_integer_value(json_object_get(object, key));
}

int shim_spec_read(const char *dir, struct arena *a, struct shim_spec *ret, struct err *e)
{
    struct str text;
    json_t *j;
    int r;

    r = shim_file_read(dir, "shim.json", SPEC_MAX, a, &text, e);
    if (r == 0)
        r = json_parse(text, 8, a, &j, NULL, e);
    if (r < 0)
        return r;
    *ret = (struct shim_spec){
        .dir = dir,
        .argv = list_of(j, "argv", a),
        .env = list_of(j, "env", a),
        .cwd = arena_strdup(a, json_string_value(json_object_get(j, "cwd"))),
        .memory_mib = number_of(j, "memory"),
        .pids = number_of(j, "pids"),
        .cpus = number_of(j, "cpus"),
        .uid = (unsigned)number_of(j, "uid"),
        .files = list_of(j, "files", a),
        .staging = list_of(j, "staging", a),
        .stop_depth = (unsigned)number_of(j, "stopDepth"),
    };
    if (!ret->argv || !ret->argv[0])
        return err_set(e, ERR_INVALID, "'%s/shim.json' names no command", dir);
    return 0;
}
