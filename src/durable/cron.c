/* SPDX-License-Identifier: MIT */
/*
 * durable/cron.c — cron expressions: a text becomes sets of bits, and the next time is found by
 * walking months and days, not seconds. Zones come in as stretches of one offset: within one,
 * local time and the time of the world run alike, so a local time that is skipped is in no
 * stretch, and one that is repeated is in two.
 */
#include "durable/cron.h"

#include <string.h>
#include <time.h>

#define DAY     INT64_C(86400)
#define YEAR    (365 * DAY + DAY / 4)
#define HORIZON (100 * YEAR)
#define CYCLE   (401 * YEAR) /* the calendar repeats itself, weekdays too */

struct cron {
    uint64_t seconds, minutes;
    uint32_t hours;
    uint16_t months;        /* bits 1..12 */
    uint8_t weekdays;       /* bits 0..6, Sunday is 0 */
    uint32_t days;          /* bits 1..31 */
    uint32_t last;          /* bit n: L-n */
    uint32_t nearest;       /* bit n: nW */
    bool last_workday;      /* LW */
    uint8_t weekday_last;   /* nL */
    uint8_t weekday_nth[6]; /* [m]: n#m */
};

/* --- text to sets --- */

struct field {
    const char *name;
    int min, max;             /* max of what may be written: 7 for the day of the week */
    int wrap;                 /* what comes after the last is this many below */
    const char *const *words; /* NULL-terminated; the first is the value `min` */
};

static const char *const month_words[] = { "january",  "february", "march",  "april",     "may",
                                           "june",     "july",     "august", "september", "october",
                                           "november", "december", NULL };
static const char *const day_words[] = { "sunday",   "monday", "tuesday",  "wednesday",
                                         "thursday", "friday", "saturday", NULL };

enum { F_SECOND, F_MINUTE, F_HOUR, F_DAY, F_MONTH, F_WEEKDAY, FIELDS };
static const struct field fields[FIELDS] = {
    { "second", 0, 59, 60, NULL },       { "minute", 0, 59, 60, NULL },
    { "hour", 0, 23, 24, NULL },         { "day of month", 1, 31, 31, NULL },
    { "month", 1, 12, 12, month_words }, { "day of week", 0, 7, 7, day_words },
};

static const char *const nicknames[][2] = {
    { "@yearly", "0 0 1 1 *" }, { "@annually", "0 0 1 1 *" }, { "@monthly", "0 0 1 * *" },
    { "@weekly", "0 0 * * 0" }, { "@daily", "0 0 * * *" },    { "@midnight", "0 0 * * *" },
    { "@hourly", "0 * * * *" },
};

static int refuse(const struct field *f, struct str item, struct err *e)
{
    return err_set(e, ERR_INVALID, "'" STR_FMT "' is no %s of a cron expression",
                   item.n > 64 ? 64 : (int)item.n, item.p, f->name);
}

/* A word, whole or its first three letters, or a number of digits alone; -1: neither. */
static int value_parse(const struct field *f, struct str s)
{
    int v = 0;

    for (int i = 0; f->words && f->words[i]; i++)
        if (str_eq_nocase(s, str_of(f->words[i])) ||
            str_eq_nocase(s, (struct str){ f->words[i], 3 }))
            return f->min + i;
    if (s.n == 0 || s.n > 4)
        return -1;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return -1;
        v = v * 10 + (s.p[i] - '0');
    }
    return v >= f->min && v <= f->max ? v : -1;
}

/* The values of a range, one that wraps too, with its step. */
static uint64_t range_bits(const struct field *f, int from, int to, int step)
{
    uint64_t bits = 0;
    int last = f->min + f->wrap - 1;

    if (from > last) { /* Sunday as 7 begins the week */
        from -= f->wrap;
        to -= to > last ? f->wrap : 0;
    }
    if (to < from)
        to += f->wrap;
    for (int v = from; v <= to; v += step)
        bits |= UINT64_C(1) << (v > last ? v - f->wrap : v);
    return bits;
}

static bool cut(struct str s, char at, struct str *left, struct str *right)
{
    const char *p = s.n ? memchr(s.p, at, s.n) : NULL;

    if (!p)
        return false;
    *left = (struct str){ s.p, (size_t)(p - s.p) };
    *right = (struct str){ p + 1, s.n - left->n - 1 };
    return true;
}

/* "*", "5", "5-10", each of the first and last with "/step": bits. */
static int item_bits(const struct field *f, struct str item, uint64_t *ret, struct err *e)
{
    struct str range = item, step_text, left, right;
    const struct field steps = { .min = 1, .max = 9999 };
    int step = 1, from, to;
    bool stepped = cut(item, '/', &range, &step_text);

    if (stepped)
        step = value_parse(&steps, step_text);
    if (str_eq_z(range, "*")) {
        from = f->min;
        to = f->min + f->wrap - 1;
    } else if (cut(range, '-', &left, &right)) {
        from = value_parse(f, left);
        to = value_parse(f, right);
    } else {
        from = to = value_parse(f, range);
        if (stepped)
            return refuse(f, item, e);
    }
    if (from < 0 || to < 0 || step < 1)
        return refuse(f, item, e);
    *ret |= range_bits(f, from, to, step);
    return 0;
}

/* L, L-n, nW, LW. False: it is none of these. */
static bool day_special(struct cron *c, struct str item)
{
    const struct field behind = { .min = 1, .max = 30 };
    int n;

    if (str_eq_nocase(item, STR("L"))) {
        c->last |= 1;
    } else if (str_eq_nocase(item, STR("LW"))) {
        c->last_workday = true;
    } else if (item.n > 2 && str_eq_nocase((struct str){ item.p, 2 }, STR("L-"))) {
        n = value_parse(&behind, (struct str){ item.p + 2, item.n - 2 });
        if (n < 0)
            return false;
        c->last |= UINT32_C(1) << n;
    } else if (item.n > 1 && (item.p[item.n - 1] | 0x20) == 'w') {
        n = value_parse(&fields[F_DAY], (struct str){ item.p, item.n - 1 });
        if (n < 0)
            return false;
        c->nearest |= UINT32_C(1) << n;
    } else {
        return false;
    }
    return true;
}

/* nL, n#m. False: it is neither. */
static bool weekday_special(struct cron *c, struct str item)
{
    const struct field count = { .min = 1, .max = 5 };
    struct str left, right;
    int day, n;

    if (cut(item, '#', &left, &right)) {
        day = value_parse(&fields[F_WEEKDAY], left);
        n = value_parse(&count, right);
        if (day < 0 || n < 0)
            return false;
        c->weekday_nth[n] |= (uint8_t)(1u << day % 7);
        return true;
    }
    if (item.n < 2 || (item.p[item.n - 1] | 0x20) != 'l')
        return false;
    day = value_parse(&fields[F_WEEKDAY], (struct str){ item.p, item.n - 1 });
    if (day < 0)
        return false;
    c->weekday_last |= (uint8_t)(1u << day % 7);
    return true;
}

static int field_parse(struct cron *c, int which, struct str text, struct err *e)
{
    const struct field *f = &fields[which];
    struct str rest = text, item;
    uint64_t bits = 0;
    int r = 0;

    if (str_eq_z(text, "?") && (which == F_DAY || which == F_WEEKDAY))
        rest = STR("*");
    if (rest.n && rest.p[rest.n - 1] == ',')
        return refuse(f, text, e);
    while (r == 0 && str_split(&rest, ',', &item)) {
        if (which == F_DAY && day_special(c, item))
            continue;
        if (which == F_WEEKDAY && weekday_special(c, item))
            continue;
        r = item_bits(f, item, &bits, e);
    }
    switch (which) {
    case F_SECOND:
        c->seconds = bits;
        break;
    case F_MINUTE:
        c->minutes = bits;
        break;
    case F_HOUR:
        c->hours = (uint32_t)bits;
        break;
    case F_DAY:
        c->days = (uint32_t)bits;
        break;
    case F_MONTH:
        c->months = (uint16_t)bits;
        break;
    default:
        c->weekdays = (uint8_t)bits;
        break;
    }
    return r;
}

static int fields_parse(struct cron *c, struct str text, struct err *e)
{
    struct str rest = str_trim(text), part, parts[FIELDS];
    size_t n = 0, first;
    int r = 0;

    while (str_split(&rest, ' ', &part)) {
        if (part.n == 0)
            continue;
        if (n < FIELDS)
            parts[n] = part;
        n++;
    }
    if (n != FIELDS && n != FIELDS - 1)
        return err_set(e, ERR_INVALID, "a cron expression has 5 or 6 fields, this one %zu", n);
    first = FIELDS - n;
    if (first)
        c->seconds = 1;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = field_parse(c, (int)(first + i), parts[i], e);
    return r;
}

/* --- the next time --- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static int month_length(int year, int month)
{
    static const int lengths[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && leap ? 29 : lengths[month - 1];
}

/* The working day nearest to a day, in the same month. first: weekday of the month's first. */
static int nearest_workday(int day, int length, int first)
{
    int weekday = (first + day - 1) % 7;

    if (weekday == 6)
        return day > 1 ? day - 1 : day + 2;
    if (weekday == 0)
        return day < length ? day + 1 : day - 2;
    return day;
}

/* The days of a month that match, bits 1..31. */
static uint32_t month_days(const struct cron *c, int length, int first)
{
    uint32_t by_day = c->days, by_week = 0;
    int last_weekday = (first + length - 1) % 7;

    for (int day = 1; day <= length; day++) {
        int weekday = (first + day - 1) % 7;

        if (c->last & UINT32_C(1) << (length - day))
            by_day |= UINT32_C(1) << day;
        if (c->nearest & UINT32_C(1) << day)
            by_day |= UINT32_C(1) << nearest_workday(day, length, first);
        if ((c->weekdays | c->weekday_nth[(day + 6) / 7]) & 1 << weekday ||
            (day + 7 > length && c->weekday_last & 1 << weekday))
            by_week |= UINT32_C(1) << day;
    }
    if (c->last_workday)
        by_day |= UINT32_C(1) << (length - (last_weekday == 6 ? 1 : last_weekday == 0 ? 2 : 0));
    return by_day & by_week;
}

/* The first value of a set that is not below `from`, or -1. */
static int first_bit(uint64_t bits, int from)
{
    bits = from < 64 ? bits >> from << from : 0;
    return bits ? __builtin_ctzll(bits) : -1;
}

/* The first second of a day that matches, not before `from`; -1: none is left. */
static int64_t second_of_day(const struct cron *c, int64_t from)
{
    int hour, minute, second, h0 = (int)(from / 3600), m0 = (int)(from / 60 % 60);

    for (hour = first_bit(c->hours, h0); hour >= 0; hour = first_bit(c->hours, hour + 1)) {
        int at_least = hour == h0 ? m0 : 0;

        for (minute = first_bit(c->minutes, at_least); minute >= 0;
             minute = first_bit(c->minutes, minute + 1)) {
            bool same = hour == h0 && minute == m0;

            second = first_bit(c->seconds, same ? (int)(from % 60) : 0);
            if (second >= 0)
                return hour * INT64_C(3600) + minute * INT64_C(60) + second;
        }
    }
    return -1;
}

/* The first local second that matches, in [from, limit); -1: none. */
static int64_t next_local(const struct cron *c, int64_t from, int64_t limit)
{
    time_t at = (time_t)from;
    struct tm tm;
    int64_t day0, today = floor_div(from, DAY);
    int year, month, day;

    if (!gmtime_r(&at, &tm))
        return -1;
    year = tm.tm_year + 1900;
    month = tm.tm_mon + 1;
    day = tm.tm_mday;
    day0 = today - day + 1; /* the month's first, in days since 1970 */
    while (day0 * DAY < limit) {
        int length = month_length(year, month), first = (int)(((day0 + 4) % 7 + 7) % 7);
        uint32_t days = c->months & 1 << month ? month_days(c, length, first) : 0;

        for (day = first_bit(days, day); day >= 0; day = first_bit(days, day + 1)) {
            int64_t date = day0 + day - 1;
            int64_t second = second_of_day(c, date == today ? from - today * DAY : 0);

            if (second >= 0)
                return date * DAY + second < limit ? date * DAY + second : -1;
        }
        day0 += length;
        day = 1;
        year += month == 12;
        month = month % 12 + 1;
    }
    return -1;
}

int64_t cron_next(const struct cron *c, struct zone *z, int64_t after_ms)
{
    int64_t t = floor_div(after_ms, 1000) + 1, limit = t + HORIZON;

    while (t < limit) {
        int64_t until, offset = zone_offset(z, t, &until);
        int64_t local = next_local(c, t + offset, limit + offset);

        if (local < 0 && until >= limit)
            return 0;
        if (local >= 0 && local - offset < until)
            return (local - offset) * 1000;
        /* Nothing matches up to then, however the clocks are changed meanwhile: no change is
         * larger than a day. Only right behind a change may earlier local times come again. */
        if (until - t > 2 * DAY && local - offset - 2 * DAY > until)
            t = local - offset - 2 * DAY;
        else
            t = until;
    }
    return 0;
}

int cron_parse(struct str text, struct cron **ret, struct err *e)
{
    AUTO(cron_free) struct cron *c = xcalloc(1, sizeof(*c));
    int64_t y2000 = INT64_C(946684800);
    int r;

    if (text.n > CRON_TEXT_MAX)
        return err_set(e, ERR_INVALID, "a cron expression has at most %d bytes", CRON_TEXT_MAX);
    for (size_t i = 0; i < LEN(nicknames); i++)
        if (str_eq_nocase(str_trim(text), str_of(nicknames[i][0])))
            text = str_of(nicknames[i][1]);
    r = fields_parse(c, text, e);
    if (r < 0)
        return r;
    if (next_local(c, y2000, y2000 + CYCLE) < 0)
        return err_set(e, ERR_INVALID, "no date fits this cron expression");
    *ret = TAKE(c);
    return 0;
}

void cron_free(struct cron *c)
{
    free(c);
}
