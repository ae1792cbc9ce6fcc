/* SPDX-License-Identifier: MIT */
/*
 * base/conf_value.c — one setting's text as a value, checked against its row.
 */
#include <limits.h>

#include "base/conf_int.h"

static void format_unit(long long v, const char *const *names, const long long *sizes, size_t n,
                        char out[32])
{
    size_t i = 0;

    while (i + 1 < n && (v == 0 || v % sizes[i] != 0))
        i++;
    fmt_z(out, 32, "%lld%s", v / sizes[i], names[i]);
}

/* A bound in the unit people write it in. */
static void format_bound(enum opt_kind kind, long long v, char out[32])
{
    static const char *const times[] = { "d", "h", "m", "s", "ms" };
    static const long long ms[] = { 86400000, 3600000, 60000, 1000, 1 };
    static const char *const sizes[] = { "G", "M", "K", "" };
    static const long long bytes[] = { 1LL << 30, 1 << 20, 1 << 10, 1 };

    if (kind == OPT_MSEC)
        format_unit(v, times, ms, LEN(times), out);
    else if (kind == OPT_SIZE)
        format_unit(v, sizes, bytes, LEN(sizes), out);
    else
        fmt_z(out, 32, "%lld", v);
}

static int check_bounds(const struct opt *opt, const char *text, long long v, struct err *e)
{
    char min[32], max[32];

    if ((opt->min == 0 && opt->max == 0) || (v >= opt->min && v <= opt->max))
        return 0;
    format_bound(opt->kind, opt->min, min);
    format_bound(opt->kind, opt->max, max);
    return err_set(e, ERR_INVALID, "'%s' is not between %s and %s", text, min, max);
}

static int parse_bool(const char *text, long long *ret, struct err *e)
{
    static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

    for (size_t i = 0; i < LEN(words); i++) {
        if (str_eq_nocase(str_of(text), str_of(words[i]))) {
            *ret = i % 2;
            return 0;
        }
    }
    return err_set(e, ERR_INVALID, "'%s' is neither yes nor no", text);
}

static int check_one_of(const struct opt *opt, const char *text, struct err *e)
{
    char list[160] = "";
    size_t n = 0;

    if (!opt->one_of)
        return 0;
    for (const char *const *choice = opt->one_of; *choice; choice++) {
        if (strcmp(text, *choice) == 0)
            return 0;
        if (n + strlen(*choice) + 3 < sizeof(list)) {
            fmt_z(list + n, sizeof(list) - n, "%s%s", n > 0 ? ", " : "", *choice);
            n = strlen(list);
        }
    }
    if (opt->flags & OPT_SECRET)
        return err_set(e, ERR_INVALID, "not one of %s", list);
    return err_set(e, ERR_INVALID, "'%.80s' is not one of %s", text, list);
}

int conf_value_parse(const struct opt *opt, const char *text, union conf_value *ret, struct err *e)
{
    union conf_value v;
    int r;

    if (opt->kind == OPT_STR) {
        if (!utf8_valid(text, strlen(text)))
            return err_set(e, ERR_INVALID, "not UTF-8");
        r = check_one_of(opt, text, e);
        if (r == 0)
            ret->text = text;
        return r;
    }
    if (opt->kind == OPT_BOOL)
        r = parse_bool(text, &v.number, e);
    else if (opt->kind == OPT_MSEC)
        r = duration_parse(str_of(text), &v.number, e);
    else if (opt->kind == OPT_SIZE)
        r = size_parse(str_of(text), &v.number, e);
    else
        r = int_parse(str_of(text), LLONG_MIN, LLONG_MAX, &v.number, e);
    if (r == 0)
        r = check_bounds(opt, text, v.number, e);
    if (r == 0)
        *ret = v;
    return r;
}
