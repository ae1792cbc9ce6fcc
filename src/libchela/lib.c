/* SPDX-License-Identifier: MIT */
/* libchela/lib.c — see lib.h; and the classes of errors. */
#include "libchela/lib.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/log.h"

_Static_assert((int)CHELA_ERROR_TIMEOUT == (int)ERROR_TIMEOUT &&
                   (int)CHELA_ERROR_UNKNOWN == (int)ERROR_UNKNOWN &&
                   (int)CHELA_ERROR_TYPES == (int)ERROR_TYPES,
               "the library's classes of errors are the bridge's");
_Static_assert(CHELA_E_FORBIDDEN == -ERR_FORBIDDEN && CHELA_E_NOT_FOUND == -ERR_NOT_FOUND &&
                   CHELA_E_INTERNAL == -ERR_INTERNAL,
               "the library's codes are those of base/err.h");

enum error_type lib_type(enum chela_error_type type)
{
    return (enum error_type)type;
}

void lib_quiet(void)
{
    log_setup(LOG_ERROR, LOG_AUTO);
}

static enum chela_error_type type_of(enum err_code code, const char *text)
{
    if (code == ERR_TIMEOUT)
        return CHELA_ERROR_TIMEOUT;
    return (enum chela_error_type)classify_text(str_of(text), (struct str){ 0 });
}

int lib_error(const struct err *e, struct chela_error *ret)
{
    if (ret) {
        *ret = (struct chela_error){ .type = type_of(e->code, e->msg) };
        fmt_z(ret->text, sizeof(ret->text), "%s", e->msg);
    }
    return e->code == ERR_PARKED ? CHELA_E_PARKED : -(int)e->code;
}

int lib_fail(struct chela_error *ret, int code, enum chela_error_type type, const char *fmt, ...)
{
    va_list ap;

    if (!ret)
        return code;
    *ret = (struct chela_error){ .type = type };
    va_start(ap, fmt);
    (void)vsnprintf(ret->text, sizeof(ret->text), fmt, ap); /* long texts are cut */
    va_end(ap);
    return code;
}

int lib_work_failed(struct chela_error *from, struct chela_error *ret)
{
    from->text[sizeof(from->text) - 1] = '\0';
    if (from->type < 0 || from->type >= CHELA_ERROR_TYPES)
        from->type = chela_classify(from->text, NULL, from->status);
    if (ret)
        *ret = *from;
    return CHELA_E_FAILED;
}

int lib_lock_dir(const char *dir, int *ret_fd, struct err *e)
{
    AUTO(free) char *path = xasprintf("%s/chelad.lock", dir);
    AUTO(close_fd) int fd = -1;

    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "make '%s'", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "open '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, ERR_CONFLICT, "'%s' is in use by another process", dir);
    *ret_fd = take_fd(&fd);
    return 0;
}

char *lib_take_json(struct out *o)
{
    char *text = o->r < 0 ? NULL : str_dup(out_text(o));

    out_done(o);
    return text;
}

const char *chela_error_type_name(enum chela_error_type type)
{
    return type >= 0 && type < CHELA_ERROR_TYPES ? error_type_name(lib_type(type)) : NULL;
}

enum chela_error_type chela_error_type_from_name(const char *name)
{
    return (enum chela_error_type)error_type_of(str_of(name));
}

enum chela_error_type chela_classify(const char *text, const char *class_name, int http_status)
{
    if (http_status)
        return (enum chela_error_type)classify_status(http_status, str_of(text));
    return (enum chela_error_type)classify_text(str_of(text), str_of(class_name));
}
