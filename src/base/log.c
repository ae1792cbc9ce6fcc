/* SPDX-License-Identifier: MIT */
/*
 * base/log.c — building one line in a bounded buffer on the stack and writing it with one write(2),
 * so lines of several threads never mix and no lock is needed. A value that does not fit is cut and
 * the line says so; it stays valid JSON whatever bytes its values hold.
 */
#include "base/log.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/time.h"

enum { LINE_MAX_BYTES = 4096, TAIL = 32 /* kept free for the mark of a cut and the end */ };

struct line {
    char p[LINE_MAX_BYTES];
    size_t n;
    bool json, cut;
    bool muted; /* a pair there was no room for: its value is stepped over */
};

static atomic_int max_level = LOG_INFO;
static atomic_int format = LOG_AUTO; /* LOG_AUTO: not looked at stderr yet */
static atomic_bool to_journal;
static _Thread_local struct log_ctx *context;

static void (*capture)(enum log_level level, const char *line, void *arg);
static void *capture_arg;

/* Is stderr the stream systemd connected to the journal (systemd.exec(5), $JOURNAL_STREAM)? */
static bool stderr_is_journal(void)
{
    const char *want = getenv("JOURNAL_STREAM");
    struct stat st;
    char have[64];

    if (!want || fstat(STDERR_FILENO, &st) < 0)
        return false;
    fmt_z(have, sizeof(have), "%llu:%llu", (unsigned long long)st.st_dev,
          (unsigned long long)st.st_ino);
    return strcmp(have, want) == 0;
}

void log_setup(enum log_level level, enum log_format wanted)
{
    atomic_store(&to_journal, stderr_is_journal());
    if (wanted == LOG_AUTO)
        wanted = isatty(STDERR_FILENO) ? LOG_TEXT : LOG_JSON;
    atomic_store(&format, wanted);
    atomic_store(&max_level, level);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&max_level, memory_order_relaxed);
}

static const char *const level_names[] = { "error", "warn", "info", "debug" };

int log_level_parse(const char *name, enum log_level *ret, struct err *e)
{
    struct str s = str_of(name);

    for (size_t i = 0; i < LEN(level_names); i++) {
        if (str_eq_nocase(s, str_of(level_names[i]))) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    if (str_eq_nocase(s, STR("warning"))) { /* as Python spells it */
        *ret = LOG_WARN;
        return 0;
    }
    return err_set(e, ERR_INVALID, "'%s' is not a log level (error, warn, info, debug)", name);
}

void log_push(struct log_ctx *ctx, const char *key, const char *value)
{
    size_t n = 0, step;

    ctx->key = key;
    while ((step = utf8_step(value + n, strnlen(value + n, 4))) > 0 &&
           n + step < sizeof(ctx->value))
        n += step;
    memcpy(ctx->value, value, n);
    ctx->value[n] = '\0';
    ctx->up = context;
    context = ctx;
}

void log_pop(struct log_ctx *ctx)
{
    context = ctx->up;
}

struct log_ctx *log_ctx_swap(struct log_ctx *with)
{
    struct log_ctx *was = context;

    context = with;
    return was;
}

void log_capture(void (*fn)(enum log_level level, const char *line, void *arg), void *arg)
{
    capture = fn;
    capture_arg = arg;
}

static size_t room(const struct line *l)
{
    return l->muted || l->n > LINE_MAX_BYTES - TAIL ? 0 : LINE_MAX_BYTES - TAIL - l->n;
}

/* All of n bytes or none. */
static bool put(struct line *l, const char *p, size_t n)
{
    if (n > room(l)) {
        l->cut = true;
        return false;
    }
    memcpy(l->p + l->n, p, n);
    l->n += n;
    return true;
}

static bool put_z(struct line *l, const char *z)
{
    return put(l, z, strlen(z));
}

/* U+0080 to U+009F steer a terminal as ESC does; as UTF-8 they are two bytes. */
static bool is_c1(const char *p, size_t n)
{
    return n >= 2 && (unsigned char)p[0] == 0xc2 && (unsigned char)p[1] < 0xa0;
}

/* One code point, or one byte that is not part of any, as a JSON string shows it. */
static bool put_escaped(struct line *l, const char *p, size_t step)
{
    static const char plain[] = "\"\\\n\r\t";
    static const char shown[] = "\"\\nrt";
    char text[8];
    const char *at;

    if (step == 0)
        return put_z(l, "\\ufffd");
    if (is_c1(p, step))
        p++; /* its last byte is its number */
    else if (step > 1 || (*p >= ' ' && *p != '"' && *p != '\\' && *p != 0x7f))
        return put(l, p, step);
    at = *p ? strchr(plain, *p) : NULL;
    if (at)
        fmt_z(text, sizeof(text), "\\%c", shown[at - plain]);
    else
        fmt_z(text, sizeof(text), "\\u%04x", (unsigned)(unsigned char)*p);
    return put_z(l, text);
}

static void put_quoted(struct line *l, struct str s)
{
    size_t i = 0;

    if (!put(l, "\"", 1))
        return;
    while (i < s.n) {
        size_t step = utf8_step(s.p + i, s.n - i);

        if (!put_escaped(l, s.p + i, step))
            break;
        i += step ? step : 1;
    }
    l->p[l->n++] = '"'; /* TAIL has room */
}

/* In text lines only what would be mistaken for something else is quoted. */
static bool is_bare(struct str s)
{
    if (s.n == 0 || !utf8_valid(s.p, s.n))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f || is_c1(s.p + i, s.n - i))
            return false;
    }
    return true;
}

static void put_str(struct line *l, struct str s)
{
    if (!l->json && is_bare(s) && s.n < LINE_MAX_BYTES / 4)
        (void)put(l, s.p, s.n); /* a cut is marked by put */
    else
        put_quoted(l, s);
}

/* The key of a pair; false when there is no room for it and a value. */
static bool put_key(struct line *l, const char *key)
{
    size_t n = strlen(key);

    if (n + 2 * TAIL > room(l)) {
        l->cut = true;
        return false;
    }
    if (l->json)
        l->n += (size_t)snprintf(l->p + l->n, LINE_MAX_BYTES - l->n, ",\"%s\":", key);
    else
        l->n += (size_t)snprintf(l->p + l->n, LINE_MAX_BYTES - l->n, " %s=", key);
    return true;
}

static void put_real(struct line *l, double v)
{
    char text[32];

    if (!isfinite(v)) {
        (void)put_z(l, "null");
        return;
    }
    fmt_z(text, sizeof(text), "%.15g", v);
    (void)put_z(l, text);
}

/* The value of one pair, taken from the arguments. */
static void put_value(struct line *l, va_list *ap)
{
    const char *z;
    char text[32];
    int n;

    switch ((enum log_kind)va_arg(*ap, int)) {
    case LOG_K_INT:
        fmt_z(text, sizeof(text), "%lld", va_arg(*ap, long long));
        (void)put_z(l, text);
        break;
    case LOG_K_STR:
        z = va_arg(*ap, const char *);
        if (z)
            put_str(l, str_of(z));
        else
            (void)put_z(l, "null");
        break;
    case LOG_K_SLICE:
        n = va_arg(*ap, int);
        put_str(l, (struct str){ va_arg(*ap, const char *), (size_t)n });
        break;
    case LOG_K_REAL:
        put_real(l, va_arg(*ap, double));
        break;
    case LOG_K_BOOL:
        (void)put_z(l, va_arg(*ap, int) ? "true" : "false");
        break;
    case LOG_K_SECRET:
        put_str(l, STR("***"));
        break;
    case LOG_K_END:
        break;
    }
}

static void put_start(struct line *l, enum log_level level, const char *msg)
{
    static const char *const priority[] = { "<3>", "<4>", "<6>", "<7>" };
    bool journal = !capture && atomic_load_explicit(&to_journal, memory_order_relaxed);
    char when[TIME_TEXT];

    time_format_z(wall_us(), when);
    l->n = (size_t)snprintf(l->p, LINE_MAX_BYTES,
                            l->json ? "%s{\"time\":\"%s\",\"level\":\"%s\",\"msg\":" : "%s%s %-5s ",
                            journal ? priority[level] : "", when, level_names[level]);
    if (l->json)
        put_quoted(l, str_of(msg));
    else
        (void)put_z(l, msg);
}

/* Outermost pair first, so that lines of one connection begin alike. */
static void put_context(struct line *l, const struct log_ctx *ctx)
{
    if (!ctx)
        return;
    put_context(l, ctx->up);
    if (put_key(l, ctx->key))
        put_str(l, str_of(ctx->value));
}

/* Where the line comes from, of those a developer will want to find. */
static void put_origin(struct line *l, const char *file, int line)
{
    const char *src = strstr(file, "src/");
    char text[96];

    snprintf(text, sizeof(text), "%s:%d", src ? src + 4 : file, line);
    if (put_key(l, "at"))
        put_str(l, str_of(text));
}

static void put_end(struct line *l)
{
    const char *mark = !l->cut ? "" : l->json ? ",\"cut\":true" : " cut=true";

    l->n += (size_t)snprintf(l->p + l->n, LINE_MAX_BYTES - l->n, "%s%s", mark, l->json ? "}" : "");
}

static void emit(enum log_level level, struct line *l)
{
    if (capture) {
        capture(level, l->p, capture_arg);
        return;
    }
    l->p[l->n++] = '\n';
    while (write(STDERR_FILENO, l->p, l->n) < 0 && errno == EINTR)
        ; /* any other failure: there is nobody to tell */
}

void log_write(enum log_level level, const char *file, int line, const char *msg, ...)
{
    int saved = errno;
    const char *key;
    struct line l;
    va_list ap;

    if (!log_enabled(level))
        return;
    if (atomic_load_explicit(&format, memory_order_relaxed) == LOG_AUTO)
        log_setup((enum log_level)atomic_load(&max_level), LOG_AUTO);
    l.json = atomic_load_explicit(&format, memory_order_relaxed) == LOG_JSON;
    l.cut = l.muted = false;

    put_start(&l, level, msg);
    put_context(&l, context);
    va_start(ap, msg);
    while ((key = va_arg(ap, const char *))) {
        l.muted = !put_key(&l, key);
        put_value(&l, &ap);
        l.muted = false;
    }
    va_end(ap);
    if (level == LOG_ERROR || level == LOG_DEBUG)
        put_origin(&l, file, line);
    put_end(&l);
    emit(level, &l);
    errno = saved;
}
