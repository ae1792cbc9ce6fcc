/* SPDX-License-Identifier: MIT */
/*
 * durable/zone.c — time zones, over GLib's GTimeZone (included here and nowhere else): the C
 * library knows one zone per process. GLib does not say when an offset ends, so that is searched
 * for, and remembered.
 */
#include <glib.h>

#include "durable/cron.h"

#define DAY        INT64_C(86400)
#define FAR        INT64_C(4102444800) /* 2100: nobody has made rules for then */
#define NAME_LIMIT 64

struct zone {
    GTimeZone *tz;               /* NULL: UTC */
    int64_t from, until, offset; /* what was asked for last */
};

/*
 * Does it look like a name of the IANA database? GLib takes offsets, paths and rules of POSIX
 * ("XYZ5") too, which other engines that read the schedule would refuse.
 */
static bool is_name(struct str name)
{
    static const char *const with_digits[] = { "EST5EDT", "CST6CDT", "MST7MDT", "PST8PDT" };
    bool digits = false, slash = false;

    if (name.n == 0 || name.n > NAME_LIMIT || !g_ascii_isalpha(name.p[0]))
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];

        if (!g_ascii_isalnum(c) && !strchr("_/+-", c))
            return false;
        digits |= g_ascii_isdigit(c) || c == '+';
        slash |= c == '/';
    }
    for (size_t i = 0; i < LEN(with_digits); i++)
        if (str_eq_z(name, with_digits[i]))
            return true;
    return !digits || slash;
}

int zone_open(struct str name, struct zone **ret, struct err *e)
{
    GTimeZone *tz = NULL;
    char text[NAME_LIMIT + 1];
    struct zone *z;

    if (name.n && !str_eq_z(name, "UTC")) {
        if (!is_name(name))
            return err_set(e, ERR_INVALID, "'" STR_FMT "' is not the name of a time zone",
                           name.n > NAME_LIMIT ? NAME_LIMIT : (int)name.n, name.p);
        fmt_z(text, sizeof(text), STR_FMT, STR_ARG(name));
        tz = g_time_zone_new_identifier(text);
        if (!tz)
            return err_set(e, ERR_INVALID, "unknown time zone '%s' (package tzdata has them)",
                           text);
    }
    z = xcalloc(1, sizeof(*z));
    z->tz = tz;
    *ret = z;
    return 0;
}

void zone_free(struct zone *z)
{
    if (!z)
        return;
    if (z->tz)
        g_time_zone_unref(z->tz);
    free(z);
}

/* Is the interval of the zone the same at both times? Intervals are numbered in order of time. */
static bool same_interval(GTimeZone *tz, int64_t a, int64_t b)
{
    return g_time_zone_find_interval(tz, G_TIME_TYPE_UNIVERSAL, a) ==
           g_time_zone_find_interval(tz, G_TIME_TYPE_UNIVERSAL, b);
}

/* The first second after `at` of another interval; FAR when there is none before. */
static int64_t interval_end(GTimeZone *tz, int64_t at)
{
    int64_t low = at, high = at;

    while (same_interval(tz, at, high)) {
        low = high;
        if (high >= FAR)
            return INT64_MAX;
        high += 64 * DAY;
    }
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;

        if (same_interval(tz, at, middle))
            low = middle;
        else
            high = middle;
    }
    return high;
}

int64_t zone_offset(struct zone *z, int64_t at, int64_t *ret_until)
{
    if (!z->tz) {
        *ret_until = INT64_MAX;
        return 0;
    }
    if (at < z->from || at >= z->until) {
        int interval = g_time_zone_find_interval(z->tz, G_TIME_TYPE_UNIVERSAL, at);

        z->offset = g_time_zone_get_offset(z->tz, interval);
        z->until = interval_end(z->tz, at);
        z->from = at;
    }
    *ret_until = z->until;
    return z->offset;
}
