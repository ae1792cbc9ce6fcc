/* SPDX-License-Identifier: MIT */
/*
 * base/metric.c — the registry of metric rows and their text form. Reading does not stop writers: a
 * scrape may see a histogram between two of its updates, which Prometheus tolerates.
 */
#include "base/metric.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "base/log.h"
#include "base/time.h"

enum { ROWS_MAX = 256 };

static struct metric *registered[ROWS_MAX];
static size_t n_registered;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* In microseconds, from half a millisecond (an answer from memory) to a minute (a slow agent). */
/* clang-format off */
static const struct { int64_t us; const char *text; } bounds[METRIC_BUCKETS] = {
    { 500,       "0.0005" },
    { 1000,      "0.001" },
    { 2500,      "0.0025" },
    { 5000,      "0.005" },
    { 10000,     "0.01" },
    { 25000,     "0.025" },
    { 50000,     "0.05" },
    { 100000,    "0.1" },
    { 250000,    "0.25" },
    { 500000,    "0.5" },
    { 1000000,   "1" },
    { 2500000,   "2.5" },
    { 10000000,  "10" },
    { 30000000,  "30" },
    { 60000000,  "60" },
    { INT64_MAX, "+Inf" },
};
/* clang-format on */

void metric_register(struct metric *const *rows, size_t n)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n; i++) {
        bool known = false;

        for (size_t j = 0; j < n_registered; j++)
            known = known || registered[j] == rows[i];
        if (known)
            continue;
        if (n_registered == ROWS_MAX) {
            log_error("bug: more metrics than ROWS_MAX", "metric", LOG_STR(rows[i]->name));
            abort();
        }
        registered[n_registered++] = rows[i];
    }
    pthread_mutex_unlock(&lock);
}

void metric_observe(struct metric *m, unsigned label, int64_t us)
{
    size_t i = 0;

    while (us > bounds[i].us)
        i++;
    atomic_fetch_add_explicit(&m->buckets[label][i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->v[label], us, memory_order_relaxed);
}

/* Backslash, line feed and, in a label's value, the quote. */
static int print_escaped(struct buf *b, const char *z, bool label, struct err *e)
{
    int r = 0;

    for (; *z && r == 0; z++) {
        if (*z == '\n')
            r = buf_add_z(b, "\\n", e);
        else if (*z == '\\' || (label && *z == '"'))
            r = buf_printf(b, e, "\\%c", *z);
        else
            r = buf_add(b, z, 1, e);
    }
    return r;
}

static int print_head(struct buf *b, const struct metric *m, struct err *e)
{
    static const char *const types[] = { "counter", "gauge", "histogram" };
    int r;

    r = buf_printf(b, e, "# HELP %s ", m->name);
    if (r == 0)
        r = print_escaped(b, m->help, false, e);
    if (r == 0)
        r = buf_printf(b, e, "\n# TYPE %s %s\n", m->name, types[m->kind]);
    return r;
}

/* One line for each pair of values. */
static int print_pairs(struct buf *b, const struct metric *m, unsigned label, struct err *e)
{
    int r = 0;

    for (unsigned i = 0; i < METRIC_LABELS && m->values2[i] && r == 0; i++) {
        r = buf_printf(b, e, "%s{%s=\"", m->name, m->label);
        if (r == 0)
            r = print_escaped(b, m->values[label], true, e);
        if (r == 0)
            r = buf_printf(b, e, "\",%s=\"", m->label2);
        if (r == 0)
            r = print_escaped(b, m->values2[i], true, e);
        if (r == 0)
            r = buf_printf(b, e, "\"} %lld\n",
                           (long long)atomic_load_explicit(&m->v2[label][i], memory_order_relaxed));
    }
    return r;
}

/* name_suffix{label="value",le="bound"} with the parts that are there, and a space. */
static int print_series(struct buf *b, const struct metric *m, const char *suffix, unsigned label,
                        const char *le, struct err *e)
{
    int r = buf_printf(b, e, "%s%s", m->name, suffix);

    if (r == 0 && (m->label || le))
        r = buf_add_z(b, "{", e);
    if (r == 0 && m->label) {
        r = buf_printf(b, e, "%s=\"", m->label);
        if (r == 0)
            r = print_escaped(b, m->values[label], true, e);
        if (r == 0)
            r = buf_add_z(b, "\"", e);
    }
    if (r == 0 && le)
        r = buf_printf(b, e, "%sle=\"%s\"", m->label ? "," : "", le);
    if (r == 0)
        r = buf_add_z(b, m->label || le ? "} " : " ", e);
    return r;
}

static int print_histogram(struct buf *b, struct metric *m, unsigned label, struct err *e)
{
    long long count = 0, sum = atomic_load_explicit(&m->v[label], memory_order_relaxed);
    int r = 0;

    for (size_t i = 0; i < METRIC_BUCKETS && r == 0; i++) {
        count += atomic_load_explicit(&m->buckets[label][i], memory_order_relaxed);
        r = print_series(b, m, "_bucket", label, bounds[i].text, e);
        if (r == 0)
            r = buf_printf(b, e, "%lld\n", count);
    }
    if (r == 0)
        r = print_series(b, m, "_sum", label, NULL, e);
    if (r == 0)
        r = buf_printf(b, e, "%lld.%06lld\n", sum / 1000000, sum % 1000000);
    if (r == 0)
        r = print_series(b, m, "_count", label, NULL, e);
    if (r == 0)
        r = buf_printf(b, e, "%lld\n", count);
    return r;
}

static int print_row(struct buf *b, struct metric *m, struct err *e)
{
    int r = print_head(b, m, e);

    for (unsigned i = 0; i < METRIC_LABELS && r == 0; i++) {
        if (m->label ? !m->values[i] : i > 0)
            break;
        if (m->kind == METRIC_HISTOGRAM) {
            r = print_histogram(b, m, i, e);
            continue;
        }
        if (m->label2) {
            r = print_pairs(b, m, i, e);
            continue;
        }
        r = print_series(b, m, "", i, NULL, e);
        if (r == 0)
            r = buf_printf(b, e, "%lld\n",
                           (long long)atomic_load_explicit(&m->v[i], memory_order_relaxed));
    }
    return r;
}

struct process {
    long long virtual_bytes, resident_bytes, open_fds, max_fds;
    double cpu_s, start_s;
};

static long long count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    long long n = 0;

    if (!dir)
        return 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 3; /* ".", ".." and the directory itself */
}

/* Seconds since 1970 at which the process began, from its start in ticks since boot. */
static double start_time(unsigned long long ticks)
{
    struct timespec boot;
    double now = (double)wall_us() / 1e6;

    clock_gettime(CLOCK_BOOTTIME, &boot);
    return now - ((double)boot.tv_sec + (double)boot.tv_nsec / 1e9) +
           (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* proc(5), /proc/self/stat: field 14 is utime; the name before may hold spaces and brackets. */
static bool read_stat(struct process *p)
{
    unsigned long long user, system, started, virtual_bytes;
    long long pages;
    char text[1024];
    const char *at;
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n;

    if (!f)
        return false;
    n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = '\0';
    at = strrchr(text, ')');
    if (!at || sscanf(at + 1,
                      " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d "
                      "%*d %llu %llu %lld",
                      &user, &system, &started, &virtual_bytes, &pages) != 5)
        return false;
    p->cpu_s = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    p->start_s = start_time(started);
    p->virtual_bytes = (long long)virtual_bytes;
    p->resident_bytes = pages * sysconf(_SC_PAGESIZE);
    return true;
}

static int print_number(struct buf *b, const char *name, const char *type, const char *help,
                        double value, struct err *e)
{
    return buf_printf(b, e, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name, type, name,
                      value);
}

static int print_process(struct buf *b, struct err *e)
{
    struct process p = { 0 };
    struct rlimit fds = { 0 };
    int r;

    if (!read_stat(&p))
        return 0; /* no /proc here: leave them out */
    p.open_fds = count_fds();
    if (getrlimit(RLIMIT_NOFILE, &fds) == 0)
        p.max_fds = (long long)fds.rlim_cur;
    r = print_number(b, "process_cpu_seconds_total", "counter",
                     "User and system CPU time spent, in seconds.", p.cpu_s, e);
    if (r == 0)
        r = print_number(b, "process_resident_memory_bytes", "gauge", "Memory in use, in bytes.",
                         (double)p.resident_bytes, e);
    if (r == 0)
        r = print_number(b, "process_virtual_memory_bytes", "gauge", "Address space, in bytes.",
                         (double)p.virtual_bytes, e);
    if (r == 0)
        r = print_number(b, "process_open_fds", "gauge", "Open file descriptors.",
                         (double)p.open_fds, e);
    if (r == 0)
        r = print_number(b, "process_max_fds", "gauge", "Limit of open file descriptors.",
                         (double)p.max_fds, e);
    if (r == 0)
        r = print_number(b, "process_start_time_seconds", "gauge",
                         "Start of the process, in seconds since 1970.", p.start_s, e);
    return r;
}

int metric_print(struct buf *b, struct err *e)
{
    int r = 0;
    size_t n;

    pthread_mutex_lock(&lock);
    n = n_registered; /* rows are only ever added */
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < n && r == 0; i++)
        r = print_row(b, registered[i], e);
    return r < 0 ? r : print_process(b, e);
}
