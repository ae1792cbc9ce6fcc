/* SPDX-License-Identifier: MIT */
/*
 * machine/sandbox_disk.c — what a sandbox may write: an ext4 image of the size that was asked for,
 * which is an exact limit; or, where none can be mounted, directories that are measured now and
 * then. Snapshots are copies, made beside their name and renamed: there whole or not at all.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/time.h"
#include "machine/sandbox_int.h"
#include "machine/shim.h"
#include "machine/tool.h"

#define SETTLE_MS  20     /* between looks */
#define MEASURE_MS 120000 /* for a look at all of a tree */
#define OUTSIDE    12     /* of measure()'s words: where those behind bwrap's begin */

static const char *const parts[] = { "home", "work", "tmp", "var" };

/* --- programs --- */

CO static int hear(struct proc *p, uint64_t deadline_ms, char *text, size_t size, struct err *e)
{
    char rest[256];
    size_t n = 0;
    ssize_t got;

    do {
        bool room = n + 1 < size;

        got = fiber_read(p->err, room ? text + n : rest, room ? size - 1 - n : sizeof(rest),
                         deadline_ms, e);
        if (got > 0 && room)
            n += (size_t)got;
    } while (got > 0);
    text[n] = '\0';
    return got < 0 ? (int)got : proc_wait(p, deadline_ms, e);
}

CO int sandbox_tool(const char *const *argv, uint64_t deadline_ms, struct err *e)
{
    const struct proc_spec spec = {
        .argv = argv, .in = PROC_NULL, .out = PROC_NULL, .err = PROC_PIPE
    };
    struct proc p = { .pidfd = -1, .in = -1, .out = -1, .err = -1 };
    char text[400];
    int code, r;

    r = proc_start(&spec, &p, e);
    if (r < 0)
        return r;
    r = hear(&p, deadline_ms, text, sizeof(text), e);
    proc_end(&p, 0);
    code = proc_exit_code(&p);
    proc_done(&p);
    if (r < 0 || code == 0)
        return r;
    return err_set(e, ERR_INTERNAL, "%s: %.*s", argv[0], (int)strcspn(text, "\n"), text);
}

/* --- making it --- */

static unsigned disk_mib(const struct machine_spec *spec)
{
    return spec->disk_mib ? spec->disk_mib : SANDBOX_DISK_MIB;
}

bool sandbox_can_image(void)
{
    static const char *const tools[] = { "/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4" };
    AUTO(close_fd) int control = -1;

    if (geteuid() != 0)
        return false;
    control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    return control >= 0 && (access(tools[0], X_OK) == 0 || access(tools[1], X_OK) == 0);
}

static int make_parts(const char *dir, unsigned uid, struct arena *a, struct err *e)
{
    for (size_t i = 0; i < LEN(parts); i++) {
        const char *path = arena_printf(a, "%s/%s", dir, parts[i]);

        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return err_sys(e, "make '%s'", path);
        if (uid && chown(path, uid, uid) < 0)
            return err_sys(e, "chown '%s'", path);
    }
    return 0;
}

CO static int make_image(const struct machine_job *job, const struct sandbox *s, struct arena *a,
                         struct err *e)
{
    const char *path = machine_path(job, a, "disk" SHIM_IMAGE);
    const char *fresh = machine_path(job, a, ".disk.new");
    const char *skeleton = machine_path(job, a, ".skeleton");
    const char *extended = arena_printf(
        a, "root_owner=%u:%u,nodiscard,lazy_itable_init=1,lazy_journal_init=1", s->uid, s->uid);
    const char *size = arena_printf(a, "%uM", disk_mib(job->spec));
    /* clang-format off */
    const char *const argv[] = { /* few and large groups: it is made in a third of the time */
        "/sbin/mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", "-I", "256", "-i", "32768", "-G", "64",
        "-O", "^resize_inode", "-E", extended, "-d", skeleton, fresh, size, NULL
    };
    /* clang-format on */
    int r;

    if (access(path, F_OK) == 0)
        return 0;
    if (unlink(fresh) < 0 && errno != ENOENT)
        return err_sys(e, "remove '%s'", fresh);
    if (mkdir(skeleton, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "make '%s'", skeleton);
    r = make_parts(skeleton, s->uid, a, e);
    if (r == 0)
        r = sandbox_tool(argv, job->deadline_ms, e);
    if (r < 0)
        return r;
    if (rename(fresh, path) < 0)
        return err_sys(e, "rename '%s'", fresh);
    for (size_t i = 0; i < LEN(parts); i++)
        (void)rmdir(arena_printf(a, "%s/%s", skeleton, parts[i])); /* they are empty */
    (void)rmdir(skeleton);
    return 0;
}

CO int sandbox_disk_make(const struct machine_job *job, const struct sandbox *s, struct arena *a,
                         struct err *e)
{
    const char *tree = machine_path(job, a, "tree");

    if (s->image)
        return make_image(job, s, a, e);
    if (mkdir(tree, 0755) < 0 && errno != EEXIST)
        return err_sys(e, "make '%s'", tree);
    return make_parts(tree, s->uid, a, e);
}

CO int sandbox_disk_settle(const struct machine_job *job, struct arena *a, struct err *e)
{
    const char *path = machine_path(job, a, "disk" SHIM_IMAGE);

    while (shim_image_busy(path)) {
        int r;

        if (now_ms() >= job->deadline_ms)
            return err_set(e, ERR_TIMEOUT, "the disk of '%s' is still in use", job->spec->name);
        r = fiber_sleep(SETTLE_MS, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- how full a tree is --- */

/*
 * By du: it walks by descriptors, so no depth of directories hides anything from it, and counts
 * what has several names once. Where we are not root, it is one within a namespace of users, for
 * the sandbox may have shut a directory against its own user, which is ours.
 */
static CO int measure(const struct machine_job *job, const char *path, long long *ret,
                      struct err *e)
{
    /* clang-format off */
    const char *const argv[] = {
        job->host->bwrap, "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add",
        "CAP_DAC_READ_SEARCH", "--dev-bind", "/", "/", "--",
        "du", "-skx", "--", path, NULL,
    };
    /* clang-format on */
    const struct tool tool = { .argv = geteuid() == 0 ? argv + OUTSIDE : argv,
                               .deadline_ms = deadline_in(MEASURE_MS),
                               .quiet = true }; /* files that go while it looks */
    AUTO(tool_end_done) struct tool_end end = { 0 };
    struct str number = { 0 }, rest;
    long long kib;
    int r = tool_run(&tool, &end, e);

    if (r < 0)
        return r;
    rest = buf_str(&end.out); /* with another status too: files go while it looks */
    if (!str_split(&rest, '\t', &number) || int_parse(number, 0, INT64_MAX / KIB, &kib, e) < 0)
        return err_set(e, ERR_INTERNAL, "the size of '%s' could not be told", path);
    *ret = kib * (long long)KIB;
    return 0;
}

CO int sandbox_disk_over(const struct machine_job *job, const struct sandbox *s, long long *ret,
                         struct err *e)
{
    struct arena a = { 0 };
    long long bytes = 0;
    int r = 0;

    if (!s->image)
        r = measure(job, machine_path(job, &a, "tree"), &bytes, e);
    arena_done(&a);
    if (r == 0)
        *ret = bytes > disk_mib(job->spec) * (long long)MIB ? bytes : 0;
    return r;
}

/* --- snapshots --- */

static const char *disk_of(const struct machine_job *job, const struct sandbox *s, struct arena *a)
{
    return machine_path(job, a, s->image ? "disk" SHIM_IMAGE : "tree");
}

CO static int copy(const char *from, const char *to, uint64_t deadline_ms, struct err *e)
{
    const char *const argv[] = { "cp", "-a", "--reflink=auto", "--sparse=always", "--", from,
                                 to,   NULL };

    return sandbox_tool(argv, deadline_ms, e);
}

CO static int snapshot_in(const struct machine_job *job, const char *snapshot, struct arena *a,
                          struct err *e)
{
    const char *to = arena_printf(a, "%s/%s", machine_path(job, a, "snapshots"), snapshot);
    const char *fresh = arena_printf(a, "%s/.%s.new", machine_path(job, a, "snapshots"), snapshot);
    struct sandbox s;
    int r;

    r = sandbox_load(job, a, &s, e);
    if (r < 0)
        return r;
    if (access(to, F_OK) == 0)
        return 0; /* done before it was cut off; that names are new is fleet's to see to */
    r = tool_remove(fresh, job->deadline_ms, e);
    if (r == 0)
        r = sandbox_disk_settle(job, a, e);
    if (r == 0 && mkdir(fresh, 0700) < 0)
        return err_sys(e, "make '%s'", fresh);
    if (r == 0)
        r = copy(disk_of(job, &s, a),
                 arena_printf(a, "%s/%s", fresh, s.image ? "disk.img" : "tree"), job->deadline_ms,
                 e);
    if (r == 0 && rename(fresh, to) < 0)
        return err_sys(e, "rename '%s'", fresh);
    return r;
}

CO int sandbox_snapshot(const struct machine_job *job, const char *snapshot, struct err *e)
{
    struct arena a = { 0 };
    int r = snapshot_in(job, snapshot, &a, e);

    arena_done(&a);
    return r;
}

/* The present disk is moved aside, so that there is one at every moment that a start would find. */
CO static int put_back(const struct machine_job *job, const char *from, const char *disk,
                       struct arena *a, struct err *e)
{
    const char *fresh = machine_path(job, a, ".restore.new");
    const char *aside = machine_path(job, a, ".restore.old");
    int r;

    r = tool_remove(fresh, job->deadline_ms, e);
    if (r == 0)
        r = tool_remove(aside, job->deadline_ms, e);
    if (r == 0)
        r = copy(from, fresh, job->deadline_ms, e);
    if (r < 0)
        return r;
    if (rename(disk, aside) < 0 && errno != ENOENT)
        return err_sys(e, "rename '%s'", disk);
    if (rename(fresh, disk) < 0)
        return err_sys(e, "rename '%s'", fresh);
    return tool_remove(aside, job->deadline_ms, e);
}

CO static int restore_in(const struct machine_job *job, const char *snapshot, struct arena *a,
                         struct err *e)
{
    struct sandbox s;
    const char *from;
    int r;

    r = sandbox_load(job, a, &s, e);
    if (r < 0)
        return r;
    from = arena_printf(a, "%s/%s/%s", machine_path(job, a, "snapshots"), snapshot,
                        s.image ? "disk.img" : "tree");
    if (access(from, F_OK) < 0)
        return err_set(e, ERR_NOT_FOUND, "'%s' has no snapshot '%s'", job->spec->name, snapshot);
    r = sandbox_disk_settle(job, a, e);
    if (r == 0)
        r = put_back(job, from, disk_of(job, &s, a), a, e);
    if (r == 0)
        r = sandbox_config_write(job, &s, a, e);
    return r;
}

CO int sandbox_restore(const struct machine_job *job, const char *snapshot, struct err *e)
{
    struct arena a = { 0 };
    int r = restore_in(job, snapshot, &a, e);

    arena_done(&a);
    return r;
}

CO int sandbox_drop_snapshot(const struct machine_job *job, const char *snapshot, struct err *e)
{
    struct arena a = { 0 };
    const char *dir = machine_path(job, &a, "snapshots");
    const char *path = arena_printf(&a, "%s/%s", dir, snapshot);
    const char *gone = arena_printf(&a, "%s/.%s.gone", dir, snapshot);
    int r = tool_remove(gone, job->deadline_ms, e);

    if (r == 0 && rename(path, gone) < 0 && errno != ENOENT)
        r = err_sys(e, "rename '%s'", path);
    if (r == 0)
        r = tool_remove(gone, job->deadline_ms, e);
    arena_done(&a);
    return r;
}

/* How large it is; one that cannot be measured is there all the same. */
static CO struct machine_snapshot snapshot_of(const struct machine_job *job, const char *path,
                                              const char *name, int64_t made, struct arena *a)
{
    struct machine_snapshot one = { arena_strdup(a, name), made, 0, false };
    long long bytes;
    struct err e;

    if (measure(job, path, &bytes, &e) == 0)
        one.bytes = bytes;
    return one;
}

CO int sandbox_snapshots(const struct machine_job *job, struct arena *a,
                         struct machine_snapshot **ret, size_t *ret_n, struct err *e)
{
    const char *dir = machine_path(job, a, "snapshots");
    struct dirent **entries = NULL;
    int found = scandir(dir, &entries, NULL, alphasort);
    struct machine_snapshot *list;
    size_t n = 0;

    if (found < 0 && errno != ENOENT)
        return err_sys(e, "read '%s'", dir);
    list = arena_alloc(a, (size_t)(found > 0 ? found : 1) * sizeof(*list));
    for (int i = 0; i < found; i++) {
        const char *path = arena_printf(a, "%s/%s", dir, entries[i]->d_name);
        struct stat st;

        if (entries[i]->d_name[0] != '.' && stat(path, &st) == 0)
            list[n++] = snapshot_of(job, path, entries[i]->d_name, st.st_mtim.tv_sec * 1000, a);
        free(entries[i]);
    }
    free(entries);
    *ret = list;
    *ret_n = n;
    return 0;
}
