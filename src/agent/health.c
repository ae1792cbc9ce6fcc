/* SPDX-License-Identifier: MIT */
/*
 * agent/health.c — how the machine is: processors over the time since the last report, memory,
 * the disk, load. In a sandbox /proc tells of the host's processors; a memory limit of the control
 * group counts as the memory there is. What a minimal guest lacks is 0.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "agent/agent.h"
#include "agent/health_int.h"
#include "base/offload.h"
#include "base/time.h"

#define FIRST_MS 100 /* of the first look at the processors */
#define PROC_MAX (16 * KIB)

#if defined(__x86_64__)
#define NODE_ARCH "x64"
#elif defined(__aarch64__)
#define NODE_ARCH "arm64"
#elif defined(__arm__)
#define NODE_ARCH "arm"
#elif defined(__i386__)
#define NODE_ARCH "ia32"
#elif defined(__riscv) && __riscv_xlen == 64
#define NODE_ARCH "riscv64"
#elif defined(__powerpc64__)
#define NODE_ARCH "ppc64"
#elif defined(__s390x__)
#define NODE_ARCH "s390x"
#elif defined(__loongarch64)
#define NODE_ARCH "loong64"
#else
#define NODE_ARCH "unknown"
#endif

struct health {
    uint64_t born_ms;
    struct cpu_times last;
    bool looked;
};

struct health *health_new(void)
{
    struct health *h = xcalloc(1, sizeof(*h));

    h->born_ms = now_ms();
    return h;
}

void health_free(struct health *h)
{
    free(h);
}

/* --- pure --- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The number at the start of *rest, blanks before it skipped; false: there is none on this line. */
static bool take_number(struct str *rest, uint64_t *ret)
{
    uint64_t n = 0;

    while (rest->n > 0 && (*rest->p == ' ' || *rest->p == '\t')) {
        rest->p++;
        rest->n--;
    }
    if (rest->n == 0 || !is_digit(*rest->p))
        return false;
    while (rest->n > 0 && is_digit(*rest->p)) {
        n = n * 10 + (uint64_t)(*rest->p - '0');
        rest->p++;
        rest->n--;
    }
    *ret = n;
    return true;
}

bool cpu_times_parse(struct str text, struct cpu_times *ret)
{
    uint64_t v[8] = { 0 }; /* user nice system idle iowait irq softirq steal */
    size_t n = 0;

    if (!str_starts(text, STR("cpu ")))
        return false;
    text.p += 4;
    text.n -= 4;
    while (n < LEN(v) && take_number(&text, &v[n]))
        n++;
    if (n < 4)
        return false;
    ret->idle = v[3] + v[4];
    ret->busy = v[0] + v[1] + v[2] + v[5] + v[6];
    return true;
}

static double two_decimals(double v)
{
    return round(v * 100) / 100;
}

double cpu_percent(const struct cpu_times *then, const struct cpu_times *now)
{
    double busy = now->busy > then->busy ? (double)(now->busy - then->busy) : 0;
    double idle = now->idle > then->idle ? (double)(now->idle - then->idle) : 0;

    return busy > 0 ? two_decimals(100 * busy / (busy + idle)) : 0;
}

bool proc_number(struct str text, const char *key, uint64_t *ret)
{
    struct str line, name = str_of(key);

    while (str_split(&text, '\n', &line)) {
        if (!str_starts(line, name) || line.n <= name.n ||
            (line.p[name.n] != ':' && line.p[name.n] != ' '))
            continue;
        line.p += name.n + 1;
        line.n -= name.n + 1;
        return take_number(&line, ret);
    }
    return false;
}

static int64_t mib(uint64_t kib)
{
    return (int64_t)((kib + 512) / 1024);
}

void memory_usage(uint64_t total_kib, uint64_t available_kib, uint64_t limit_kib,
                  uint64_t limit_used_kib, struct usage *ret)
{
    uint64_t free_kib = available_kib < total_kib ? available_kib : total_kib;

    if (limit_kib > 0 && limit_kib < total_kib) {
        uint64_t left = limit_used_kib < limit_kib ? limit_kib - limit_used_kib : 0;

        total_kib = limit_kib;
        free_kib = left < free_kib ? left : free_kib;
    }
    *ret = (struct usage){ .total = mib(total_kib), .free = mib(free_kib) };
    ret->used = mib(total_kib - free_kib);
    if (total_kib > 0)
        ret->percent = two_decimals(100 * (double)(total_kib - free_kib) / (double)total_kib);
}

void disk_usage(uint64_t blocks_kib, uint64_t free_kib, uint64_t available_kib, struct usage *ret)
{
    uint64_t used_kib = free_kib < blocks_kib ? blocks_kib - free_kib : 0;
    uint64_t usable_kib = used_kib + available_kib;

    *ret = (struct usage){ .total = mib(blocks_kib),
                           .used = mib(used_kib),
                           .free = mib(available_kib) };
    if (usable_kib > 0)
        ret->percent = ceil(100 * (double)used_kib / (double)usable_kib);
}

/* --- looks --- */

/* What a small file of the kernel says, in out of PROC_MAX bytes; {out, 0}: nothing. */
static struct str slurp(const char *path, char *out)
{
    FILE *f = fopen(path, "re");
    struct str text = { out, 0 };

    if (!f)
        return text;
    text.n = fread(out, 1, PROC_MAX, f);
    (void)fclose(f); /* it was only read */
    return text;
}

static bool look_cpu(char *scratch, struct cpu_times *ret)
{
    return cpu_times_parse(slurp("/proc/stat", scratch), ret);
}

/* A number that is all a file says ("max" is none), in KiB. */
static uint64_t kib_file(const char *path, char *scratch)
{
    struct str text = slurp(path, scratch);
    uint64_t n = 0;

    return take_number(&text, &n) ? n / 1024 : 0;
}

/* What the control group uses, without files that are only cached. */
static uint64_t group_used(char *scratch)
{
    uint64_t used = kib_file("/sys/fs/cgroup/memory.current", scratch), cached = 0;

    if (!proc_number(slurp("/sys/fs/cgroup/memory.stat", scratch), "inactive_file", &cached))
        return used;
    cached /= 1024;
    return cached < used ? used - cached : 0;
}

static void look_memory(char *scratch, struct usage *ret)
{
    uint64_t total = 0, available = 0;
    uint64_t limit = kib_file("/sys/fs/cgroup/memory.max", scratch);
    uint64_t limit_used = limit > 0 ? group_used(scratch) : 0;
    struct str text = slurp("/proc/meminfo", scratch);
    struct sysinfo info;

    if (!proc_number(text, "MemTotal", &total) && sysinfo(&info) == 0) {
        total = (uint64_t)info.totalram * info.mem_unit / 1024;
        available = (uint64_t)(info.freeram + info.bufferram) * info.mem_unit / 1024;
    }
    if (text.n > 0 && !proc_number(text, "MemAvailable", &available))
        (void)proc_number(text, "MemFree", &available); /* kernels before 3.14; else 0 */
    memory_usage(total, available, limit, limit_used, ret);
}

static void look_disk(struct usage *ret)
{
    struct statvfs fs;
    uint64_t unit;

    *ret = (struct usage){ 0 };
    if (statvfs("/", &fs) < 0)
        return;
    unit = fs.f_frsize ? fs.f_frsize : fs.f_bsize;
    disk_usage((uint64_t)fs.f_blocks * unit / 1024, (uint64_t)fs.f_bfree * unit / 1024,
               (uint64_t)fs.f_bavail * unit / 1024, ret);
}

struct look {
    char scratch[PROC_MAX];
    struct cpu_times cpu;
    bool has_cpu;
    struct usage memory, disk;
    struct sysinfo info;
};

/* A remote file system may take its time: on a thread. */
static int look_all(void *arg, struct err *e)
{
    struct look *l = arg;

    l->has_cpu = look_cpu(l->scratch, &l->cpu);
    look_memory(l->scratch, &l->memory);
    look_disk(&l->disk);
    if (sysinfo(&l->info) < 0)
        l->info = (struct sysinfo){ 0 };
    return 0;
}

static json_t *usage_json(const struct usage *u)
{
    return json_pack("{s:I, s:I, s:I, s:f}", "total", (json_int_t)u->total, "used",
                     (json_int_t)u->used, "free", (json_int_t)u->free, "usagePercent", u->percent);
}

static json_t *load_json(const struct sysinfo *info)
{
    json_t *list = json_array();

    for (int i = 0; i < 3; i++)
        json_array_append_new(list, json_real(two_decimals((double)info->loads[i] / 65536)));
    return list;
}

static json_t *report_json(const struct health *h, const struct look *l, double cpu,
                           unsigned active_tasks)
{
    json_t *report = json_object();
    struct utsname name = { .nodename = "" };

    (void)uname(&name); /* it cannot fail */
    json_object_set_new(report, "cpu", json_real(cpu));
    json_object_set_new(report, "memory", usage_json(&l->memory));
    json_object_set_new(report, "disk", usage_json(&l->disk));
    json_object_set_new(report, "uptime",
                        json_integer((json_int_t)((now_ms() - h->born_ms) / 1000)));
    json_object_set_new(report, "systemUptime", json_integer(l->info.uptime));
    json_object_set_new(report, "loadAverage", load_json(&l->info));
    json_object_set_new(report, "platform", json_string("linux"));
    json_object_set_new(report, "arch", json_string(NODE_ARCH));
    json_object_set_new(report, "hostname", json_string(name.nodename));
    json_object_set_new(report, "timestamp", json_integer(wall_us() / 1000));
    json_object_set_new(report, "activeTasks", json_integer(active_tasks));
    json_object_set_new(report, "stdin", json_true()); /* tasks may have one */
    return report;
}

CO int health_report(struct health *h, unsigned active_tasks, json_t **ret, struct err *e)
{
    AUTO(free) struct look *l = xcalloc(1, sizeof(*l));
    double cpu = 0;
    int r;

    if (!h->looked && look_cpu(l->scratch, &h->last)) {
        h->looked = true;
        r = fiber_sleep(FIRST_MS, e);
        if (r < 0)
            return r;
    }
    r = offload(look_all, l, e);
    if (r < 0)
        return r;
    if (l->has_cpu) {
        cpu = cpu_percent(&h->last, &l->cpu);
        h->last = l->cpu;
    }
    *ret = report_json(h, l, cpu, active_tasks);
    return 0;
}
