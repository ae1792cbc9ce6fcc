/* SPDX-License-Identifier: MIT */
/* machine/sandbox_test.c — the driver alone: a script is the agent, this program the shim. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/time.h"
#include "in_fiber.h"
#include "machine/machine.h"
#include "machine/sandbox_int.h"
#include "machine/shim.h"
#include "net/stream.h"

#define SOON 30000

/* glibc hands constructors what main() gets. */
__attribute__((constructor)) static void as_shim(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--shim") == 0)
        exit(shim_main(argv[2]));
}

struct room {
    char dir[64], program[256], machines[96], agent[96], socket[96];
    int listener;
    struct machine_host host;
    struct machine_spec spec;
    struct machine_job job;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static bool write_script(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    return f && fprintf(f, "#!/bin/sh\n%s\n", text) > 0 && fclose(f) == 0 && chmod(path, 0755) == 0;
}

/* false: sandboxes cannot be made here; the reason is printed. */
CO static bool room_init(struct room *r, const char *script)
{
    ssize_t n = readlink("/proc/self/exe", r->program, sizeof(r->program) - 1);
    struct err e;

    r->program[n > 0 ? n : 0] = '\0';
    fmt_z(r->dir, sizeof(r->dir), "/tmp/sandbox_test.XXXXXX");
    if (!mkdtemp(r->dir))
        abort();
    fmt_z(r->machines, sizeof(r->machines), "%s/machines", r->dir);
    fmt_z(r->agent, sizeof(r->agent), "%s/agent", r->dir);
    fmt_z(r->socket, sizeof(r->socket), "%s/agents.sock", r->dir);
    if (listen_unix(r->socket, &r->listener, &e) < 0 || !write_script(r->agent, script))
        abort();
    r->host = (struct machine_host){
        .loop = fiber_loop(),
        .dir = r->machines,
        .program = r->program,
        .agent = r->agent,
        .hub_socket = r->socket,
        .bwrap = "bwrap",
    };
    r->spec = (struct machine_spec){
        .name = "box", .cpus = 1, .memory_mib = 256, .disk_mib = 64, .token = "0123456789abcdef"
    };
    r->job = (struct machine_job){ &r->host, &r->spec, deadline_in(SOON), NULL, NULL };
    if (machine_sandbox.probe(&r->host, &e) == 0)
        return true;
    printf("# skipped: %s\n", e.msg);
    return false;
}

static void room_done_auto(struct room *r)
{
    struct err e;

    if (machine_sandbox.destroy(&r->job, &e) < 0)
        printf("# destroy: %s\n", e.msg);
    close(r->listener);
    nftw(r->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

CO static bool says(struct room *r, const char *text)
{
    for (int i = 0; i < SOON / 10; i++) {
        AUTO(buf_done) struct buf log;
        struct err e;

        buf_init(&log, 64 * KIB);
        if (machine_sandbox.logs(&r->job, 32 * KIB, &log, &e) == 0 && buf_str(&log).n > 0 &&
            memmem(buf_str(&log).p, buf_str(&log).n, text, strlen(text)))
            return true;
        if (fiber_sleep(10, &e) < 0)
            return false;
        if (i == SOON / 10 - 1)
            printf("# it says: " STR_FMT "\n", STR_ARG(buf_str(&log)));
    }
    return false;
}

CO static int make(struct room *r, struct err *e)
{
    int n;

    r->job.deadline_ms = deadline_in(SOON);
    n = machine_sandbox.create(&r->job, e);
    if (n == 0)
        n = machine_sandbox.start(&r->job, e);
    if (n < 0)
        printf("# %s\n", e->msg);
    return n;
}

CO_TEST(a_sandbox_lives_and_keeps_its_disk)
{
    AUTO(room_done) struct room r = { .listener = -1 };
    AUTO(arena_done) struct arena a = { 0 };
    struct machine_snapshot *snapshots;
    struct machine_look look;
    const char **names;
    size_t n;

    if (!room_init(&r,
                   "trap 'echo bye; exit 0' TERM; cat /work/mark; echo one >> /work/mark; id -u; "
                   "hostname; grep -c token /etc/vm-agent/config.json; ls /run/chela; echo up; "
                   "while :; do sleep 0.05; done"))
        return 0;
    CO_CHECK(machine_sandbox.look(&r.job, &a, &look, e) == 0 && look.power == MACHINE_ABSENT);
    CO_CHECK(make(&r, e) == 0);
    CO_CHECK(says(&r, "1000\nbox\n1\nhub.sock\nup\n"));
    CO_CHECK(make(&r, e) == 0); /* again: nothing is left to do */
    CO_CHECK(machine_sandbox.look(&r.job, &a, &look, e) == 0 && look.power == MACHINE_ON);
    CO_CHECK(look.memory > 0 && look.started_at > 0);
    CO_CHECK(machine_sandbox.list(&r.host, &a, &names, &n, e) == 0 && n == 1);
    CO_CHECK(strcmp(names[0], "box") == 0);
    CO_CHECK(machine_sandbox.stop(&r.job, false, e) == 0 && says(&r, "bye"));
    CO_CHECK(machine_sandbox.look(&r.job, &a, &look, e) == 0 && look.power == MACHINE_OFF);
    CO_CHECK(machine_sandbox.snapshot(&r.job, "first", e) == 0);
    CO_CHECK(machine_sandbox.snapshot(&r.job, "first", e) == 0);
    CO_CHECK(machine_sandbox.snapshots(&r.job, &a, &snapshots, &n, e) == 0 && n == 1);
    CO_CHECK(strcmp(snapshots[0].name, "first") == 0 && snapshots[0].bytes > 0);
    r.spec.token = NULL; /* that of before stays */
    CO_CHECK(make(&r, e) == 0 && says(&r, "one\n1000\nbox\n1\nhub.sock\nup\n"));
    CO_CHECK(machine_sandbox.stop(&r.job, true, e) == 0);
    CO_CHECK(make(&r, e) == 0 && says(&r, "one\none\n1000\nbox\n1\nhub.sock\nup\n"));
    CO_CHECK(machine_sandbox.stop(&r.job, true, e) == 0);
    CO_CHECK(machine_sandbox.restore(&r.job, "second", e) == -ERR_NOT_FOUND);
    CO_CHECK(machine_sandbox.restore(&r.job, "first", e) == 0);
    CO_CHECK(make(&r, e) == 0 && says(&r, "up\none\n1000\nbox\n1\nhub.sock\nup\n"));
    CO_CHECK(machine_sandbox.drop_snapshot(&r.job, "first", e) == 0);
    CO_CHECK(machine_sandbox.drop_snapshot(&r.job, "first", e) == 0);
    CO_CHECK(machine_sandbox.destroy(&r.job, e) == 0);
    CO_CHECK(machine_sandbox.look(&r.job, &a, &look, e) == 0 && look.power == MACHINE_ABSENT);
    CO_CHECK(machine_sandbox.list(&r.host, &a, &names, &n, e) == 0 && n == 0);
    return 0;
}

/* Each line is an attempt that must fail; what works is said with "ESCAPED". */
static const char attempts[] =
    "no() { \"$@\" > /tmp/out 2>&1 && echo \"ESCAPED: $*\"; }\n"
    "no ls /root; no ls /etc/shadow; no ls /sys; no touch /usr/x; no touch /etc/x; no touch /x\n"
    "no touch /run/chela/x; no mount -t tmpfs none /tmp; no umount /tmp; no unshare -U true\n"
    "no unshare -r true; no mknod /tmp/null c 1 3; no mknod /tmp/vda b 254 0; no cat /proc/kcore\n"
    "no dmesg; no sh -c 'echo 1 > /proc/sysrq-trigger'; no hostname other; no chroot / true\n"
    "no sh -c 'echo x > /proc/sys/kernel/core_pattern'; no nsenter -t 1 -n true; no su -c true\n"
    "no setpriv --reuid 0 true; no test -e /proc/1/root/etc/shadow; no date -s 2001-01-01\n"
    "test \"$(ls -d /proc/[0-9]* | wc -l)\" -lt 12 || echo ESCAPED: processes\n"
    "test \"$(ls /sys/class/net 2>/dev/null)\" = '' || echo ESCAPED: sys\n"
    "test \"$(wc -l < /proc/net/dev)\" = 3 || echo ESCAPED: links\n"
    "grep -q 'CapBnd:.0000000000000000' /proc/self/status || echo ESCAPED: capabilities\n"
    "grep -q 'NoNewPrivs:.1' /proc/self/status || echo ESCAPED: privileges\n"
    "grep -q 'Seccomp:.2' /proc/self/status || echo ESCAPED: seccomp\n"
    "echo tried; sleep 1000";

CO_TEST(what_is_not_its_own_is_out_of_reach)
{
    AUTO(room_done) struct room r = { .listener = -1 };
    AUTO(buf_done) struct buf log;

    buf_init(&log, 64 * KIB);
    if (!room_init(&r, attempts))
        return 0;
    CO_CHECK(make(&r, e) == 0 && says(&r, "tried\n"));
    CO_CHECK(machine_sandbox.logs(&r.job, 32 * KIB, &log, e) == 0);
    if (memmem(buf_str(&log).p, buf_str(&log).n, "ESCAPED", 7))
        printf("# " STR_FMT "\n", STR_ARG(buf_str(&log)));
    CO_CHECK(!memmem(buf_str(&log).p, buf_str(&log).n, "ESCAPED", 7));
    return 0;
}

/* Exact with an image, which needs root and loop devices; a tree is measured. */
CO_TEST(the_disk_has_an_end)
{
    AUTO(room_done) struct room r = { .listener = -1 };
    AUTO(arena_done) struct arena a = { 0 };
    const char *reason = NULL;
    struct stat st;

    if (!room_init(&r, "echo up; head -c 200m /dev/zero > /work/big; echo full; sleep 1000"))
        return 0;
    CO_CHECK(make(&r, e) == 0 && says(&r, "up\n"));
    if (stat(machine_path(&r.job, &a, "disk.img"), &st) == 0) {
        CO_CHECK(says(&r, "No space left"));
        return 0;
    }
    CO_CHECK(machine_sandbox.watch(&r.job, &a, &reason, e) == 0);
    CO_CHECK(reason && strstr(reason, "MiB on a disk of 64"));
    return 0;
}

/* Directories in each other until a path to the innermost is longer than PATH_MAX, and there a file
 * of 3 MiB. */
static bool dig(const char *top)
{
    static const char zeros[64 * KIB];
    AUTO(close_fd) int at = open(top, O_DIRECTORY | O_CLOEXEC), file = -1;
    char name[201];

    memset(name, 'd', 200);
    name[200] = '\0';
    for (int i = 0; i < 30 && at >= 0; i++) {
        int next = mkdirat(at, name, 0755) == 0 ? openat(at, name, O_DIRECTORY | O_CLOEXEC) : -1;

        close(at);
        at = next;
    }
    if (at >= 0)
        file = openat(at, "big", O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    for (int i = 0; i < 48; i++)
        if (file < 0 || write(file, zeros, sizeof(zeros)) != (ssize_t)sizeof(zeros))
            return false;
    return true;
}

CO_TEST(no_depth_hides_from_a_trees_limit)
{
    AUTO(room_done) struct room r = { .listener = -1 };
    AUTO(arena_done) struct arena a = { 0 };
    const struct sandbox tree = { .image = false };
    long long over = 0;

    if (!room_init(&r, "exit 0"))
        return 0;
    CO_CHECK(machine_sandbox.create(&r.job, e) == 0);
    r.spec.disk_mib = 2;
    CO_CHECK(mkdir(machine_path(&r.job, &a, "tree"), 0755) == 0 || errno == EEXIST);
    CO_CHECK(sandbox_disk_over(&r.job, &tree, &over, e) == 0 && over == 0);
    CO_CHECK(dig(machine_path(&r.job, &a, "tree")));
    CO_CHECK(sandbox_disk_over(&r.job, &tree, &over, e) == 0);
    CO_CHECK(over > 3 * (long long)MIB && over < 6 * (long long)MIB);
    return 0;
}

CO_TEST(one_that_ends_by_itself_is_noticed)
{
    AUTO(room_done) struct room r = { .listener = -1 };
    AUTO(arena_done) struct arena a = { 0 };
    const char *reason = NULL;
    struct machine_look look;

    if (!room_init(&r, "exit 5"))
        return 0;
    CO_CHECK(make(&r, e) == 0);
    CO_CHECK(machine_sandbox.watch(&r.job, &a, &reason, e) == 0);
    CO_CHECK(reason && strcmp(reason, "its agent ended with exit code 5") == 0);
    CO_CHECK(machine_sandbox.look(&r.job, &a, &look, e) == 0 && look.power == MACHINE_OFF);
    CO_CHECK(look.reason && strstr(look.reason, "exit code 5"));
    return 0;
}
