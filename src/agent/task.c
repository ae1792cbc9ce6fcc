/* SPDX-License-Identifier: MIT */
/*
 * agent/task.c — what every type of task needs: members of its payload, and failures with long
 * texts.
 */
#include "agent/task.h"

#include <stdio.h>

#define FAIL_MAX ((size_t)64 * KIB)

int task_text(const struct task *t, const char *key, bool needed, const char **ret, struct err *e)
{
    const json_t *v = json_object_get(t->payload, key);

    if (v && !json_is_null(v) && !json_is_string(v))
        return err_set(e, ERR_INVALID, "The \"%s\" argument must be of type string", key);
    if (v && json_is_string(v) && strlen(json_string_value(v)) != json_string_length(v))
        return err_set(e, ERR_INVALID, "The \"%s\" argument must be without null bytes", key);
    if (needed && json_string_length(v) == 0)
        return err_set(e, ERR_INVALID, "The \"%s\" argument must be a string that is not empty",
                       key);
    *ret = json_string_length(v) > 0 ? json_string_value(v) : NULL;
    return 0;
}

int task_int(const struct task *t, const char *key, long long min, long long max, long long def,
             long long *ret, struct err *e)
{
    const json_t *v = json_object_get(t->payload, key);
    long long n = def;

    if (v && !json_is_null(v)) {
        if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
            return err_set(e, ERR_INVALID,
                           "The value of \"%s\" is out of range. It must be an integer from %lld "
                           "to %lld",
                           key, min, max);
        n = json_integer_value(v);
    }
    *ret = n;
    return 0;
}

bool task_flag(const struct task *t, const char *key)
{
    return json_is_true(json_object_get(t->payload, key));
}

/* The text cut at its bound, between two characters. */
static char *bounded(struct arena *a, char *text)
{
    size_t n = strlen(text), end = FAIL_MAX;

    if (n <= FAIL_MAX)
        return text;
    while (end > 0 && (text[end] & 0xC0) == 0x80)
        end--;
    return arena_strndup(a, text, end);
}

/* What err.msg holds of it: a cut there may split a character, which err_set does not mind. */
int task_fail(struct task *t, enum err_code code, struct err *e, const char *fmt, ...)
{
    AUTO(free) char *text = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        text = NULL;
        return err_set(e, ERR_INTERNAL, "no text for a failure");
    }
    t->error = arena_strdup(t->arena, bounded(t->arena, text));
    return err_set(e, code, "%s", text);
}
