/* SPDX-License-Identifier: MIT */
/*
 * base/time.c — clocks, and dates as text. Calendar arithmetic is done here on days since 1970
 * (proleptic Gregorian, as Python's datetime), so no time zone database or environment has a say.
 */
#include "base/time.h"

#include <stdatomic.h>
#include <time.h>

#define US_PER_S   INT64_C(1000000)
#define US_PER_DAY (86400 * US_PER_S)

static struct time_source source;
static atomic_bool source_set;

void time_set_source(const struct time_source *with)
{
    atomic_store(&source_set, false);
    if (!with)
        return;
    source = *with;
    atomic_store(&source_set, true);
}

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts); /* cannot fail with these clocks and a good pointer */
    return ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
}

uint64_t now_us(void)
{
    if (atomic_load_explicit(&source_set, memory_order_acquire))
        return source.now_us(source.arg);
    return (uint64_t)read_clock(CLOCK_MONOTONIC);
}

uint64_t now_ms(void)
{
    return now_us() / 1000;
}

int64_t wall_us(void)
{
    if (atomic_load_explicit(&source_set, memory_order_acquire))
        return source.wall_us(source.arg);
    return read_clock(CLOCK_REALTIME);
}

uint64_t deadline_in(long long ms)
{
    uint64_t now = now_ms();

    if (ms <= 0 || (uint64_t)ms >= DEADLINE_NONE - now)
        return DEADLINE_NONE;
    return now + (uint64_t)ms;
}

uint64_t deadline_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

struct civil {
    int64_t year;
    int month, day, hour, minute, second, us;
};

/* Years are counted from March, so that the leap day is a year's last. */
static int64_t days_of(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return era * 146097 + day_of_era - 719468;
}

static void civil_of(int64_t us, struct civil *c)
{
    int64_t days = us / US_PER_DAY, rest = us % US_PER_DAY;
    int64_t era, day_of_era, year_of_era, day_of_year, month;

    if (rest < 0) {
        rest += US_PER_DAY;
        days--;
    }
    days += 719468;
    era = (days >= 0 ? days : days - 146096) / 146097;
    day_of_era = days - era * 146097;
    year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    month = (5 * day_of_year + 2) / 153;
    c->day = (int)(day_of_year - (153 * month + 2) / 5 + 1);
    c->month = (int)(month < 10 ? month + 3 : month - 9);
    c->year = year_of_era + era * 400 + (c->month <= 2);
    c->us = (int)(rest % US_PER_S);
    rest /= US_PER_S;
    c->hour = (int)(rest / 3600);
    c->minute = (int)(rest / 60 % 60);
    c->second = (int)(rest % 60);
}

void time_format_naive(int64_t us, char out[TIME_TEXT])
{
    struct civil c;
    char fraction[16] = "";

    civil_of(us, &c);
    if (c.us != 0)
        fmt_z(fraction, sizeof(fraction), ".%06d", c.us);
    fmt_z(out, TIME_TEXT, "%04lld-%02d-%02dT%02d:%02d:%02d%s", (long long)c.year, c.month, c.day,
          c.hour, c.minute, c.second, fraction);
}

void time_format_z(int64_t us, char out[TIME_TEXT])
{
    struct civil c;

    civil_of(us, &c);
    fmt_z(out, TIME_TEXT, "%04lld-%02d-%02dT%02d:%02d:%02d.%03dZ", (long long)c.year, c.month,
          c.day, c.hour, c.minute, c.second, c.us / 1000);
}

static int days_in_month(int64_t year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && leap ? 29 : days[month - 1];
}

/* Is it a moment that exists? second_max is 60 where a leap second may be written. */
static bool civil_valid(const struct civil *c, int second_max)
{
    return c->year >= 1 && c->month >= 1 && c->month <= 12 && c->day >= 1 &&
           c->day <= days_in_month(c->year, c->month) && c->hour <= 23 && c->minute <= 59 &&
           c->second <= second_max;
}

static int64_t us_of(const struct civil *c)
{
    int64_t seconds =
        days_of(c->year, c->month, c->day) * 86400 + c->hour * 3600 + c->minute * 60 + c->second;

    return seconds * US_PER_S + c->us;
}

/* Cut a number of exactly n digits off the front. */
static bool take_digits(struct str *s, size_t n, int *ret)
{
    int value = 0;

    if (s->n < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9')
            return false;
        value = value * 10 + (s->p[i] - '0');
    }
    s->p += n;
    s->n -= n;
    *ret = value;
    return true;
}

/* Cut one character out of `set` off the front. */
static bool take_char(struct str *s, const char *set)
{
    if (s->n == 0 || s->p[0] == '\0' || !strchr(set, s->p[0]))
        return false;
    s->p++;
    s->n--;
    return true;
}

/* An optional fraction of a second; digits past microseconds are dropped. */
static bool take_fraction(struct str *s, int *ret_us)
{
    int scale = 100000, us = 0;
    size_t digits = 0;

    if (take_char(s, ".,")) {
        for (; s->n > 0 && s->p[0] >= '0' && s->p[0] <= '9'; s->p++, s->n--, digits++) {
            us += (s->p[0] - '0') * scale;
            scale /= 10;
        }
        if (digits == 0 || digits > 9)
            return false;
    }
    *ret_us = us;
    return true;
}

/* What is left is a zone: nothing, Z, or an offset. */
static bool take_zone(struct str *s, int *ret_seconds)
{
    int sign, hour, minute = 0;

    *ret_seconds = 0;
    if (s->n == 0)
        return true;
    if (take_char(s, "Zz"))
        return s->n == 0;
    sign = s->p[0] == '-' ? -1 : 1;
    if (!take_char(s, "+-") || !take_digits(s, 2, &hour))
        return false;
    (void)take_char(s, ":"); /* +hhmm is as good */
    if (!take_digits(s, 2, &minute) || s->n != 0 || hour > 23 || minute > 59)
        return false;
    *ret_seconds = sign * (hour * 3600 + minute * 60);
    return true;
}

int time_parse(struct str s, int64_t *ret_us, struct err *e)
{
    struct civil c = { 0 };
    struct str rest = s;
    int year, zone;
    bool ok;

    ok = take_digits(&rest, 4, &year) && take_char(&rest, "-") && take_digits(&rest, 2, &c.month) &&
         take_char(&rest, "-") && take_digits(&rest, 2, &c.day) && take_char(&rest, "Tt ") &&
         take_digits(&rest, 2, &c.hour) && take_char(&rest, ":") &&
         take_digits(&rest, 2, &c.minute) && take_char(&rest, ":") &&
         take_digits(&rest, 2, &c.second) && take_fraction(&rest, &c.us) && take_zone(&rest, &zone);
    c.year = ok ? year : 0;
    if (!ok || !civil_valid(&c, 59))
        return err_set(e, ERR_INVALID, "'" STR_FMT "' is not a date and time", STR_ARG(s));
    *ret_us = us_of(&c) - zone * US_PER_S;
    return 0;
}

/* Cut one of n three-letter names off the front; its index. */
static bool take_name(struct str *s, const char *names, int n, int *ret)
{
    if (s->n < 3)
        return false;
    for (int i = 0; i < n; i++) {
        if (memcmp(s->p, names + (size_t)(3 * i), 3) == 0) {
            s->p += 3;
            s->n -= 3;
            *ret = i;
            return true;
        }
    }
    return false;
}

int time_parse_http(struct str s, int64_t *ret_us, struct err *e)
{
    struct civil c = { 0 };
    struct str rest = s;
    int weekday, month = 0, year;
    bool ok;

    ok = take_name(&rest, "SunMonTueWedThuFriSat", 7, &weekday) && take_char(&rest, ",") &&
         take_char(&rest, " ") && take_digits(&rest, 2, &c.day) && take_char(&rest, " ") &&
         take_name(&rest, "JanFebMarAprMayJunJulAugSepOctNovDec", 12, &month) &&
         take_char(&rest, " ") && take_digits(&rest, 4, &year) && take_char(&rest, " ") &&
         take_digits(&rest, 2, &c.hour) && take_char(&rest, ":") &&
         take_digits(&rest, 2, &c.minute) && take_char(&rest, ":") &&
         take_digits(&rest, 2, &c.second) && str_eq(rest, STR(" GMT"));
    c.month = month + 1;
    c.year = ok ? year : 0;
    if (!ok || !civil_valid(&c, 60))
        return err_set(e, ERR_INVALID, "'" STR_FMT "' is not an HTTP date", STR_ARG(s));
    *ret_us = us_of(&c); /* the weekday says nothing new and is not held against the sender */
    return 0;
}
