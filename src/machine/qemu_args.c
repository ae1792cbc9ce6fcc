/* SPDX-License-Identifier: MIT */
/*
 * machine/qemu_args.c — QEMU's command line. What a guest can reach of the host is decided here:
 *
 *   network   user mode with restrict=on, so neither the host, nor others, nor the internet; two
 *             forwards: to the agents' port, and to the machine's egress proxy where it has an
 *             allow-list. Each connection is `chelad --relay SOCKET`.
 *   QEMU      runs in bubblewrap with its files, the image and nothing else of the file system, no
 *             network and no capability; and under its own seccomp filter. (That filter cannot say
 *             elevateprivileges=deny: it would stop the relays too, as they begin with setsid();
 *             bubblewrap's no_new_privs does what is lost.) Of the machine's directory it can write
 *             the disk and qmp/, and does not see what chelad itself goes by. What it wrote into
 *             the disk's header may name any file: qemu-img reads it in the same jail.
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/qemu_int.h"

/* Of x86-64-v2: what distributions ask for, without what TCG is slow at. */
#define CPU_TCG "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand"

struct words {
    struct arena *a;
    const char **p;
    size_t n, cap;
};

static void add(struct words *w, const char *word)
{
    if (w->n + 1 >= w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 64;
        const char **p = arena_alloc(w->a, cap * sizeof(*p));

        if (w->n)
            memcpy(p, w->p, w->n * sizeof(*p));
        w->p = p;
        w->cap = cap;
    }
    w->p[w->n++] = word;
    w->p[w->n] = NULL;
}

static void add2(struct words *w, const char *one, const char *two)
{
    add(w, one);
    add(w, two);
}

/* In a value of QEMU's key=value,… a comma is written twice. */
static const char *commas(struct arena *a, const char *s)
{
    char *to = arena_raw(a, 2 * strlen(s) + 1), *p = to;

    for (; *s; s++) {
        if (*s == ',')
            *p++ = ',';
        *p++ = *s;
    }
    *p = 0;
    return to;
}

/* A word of the command of guestfwd, which is split as a shell would. */
static const char *quoted(struct arena *a, const char *s)
{
    char *to = arena_raw(a, 4 * strlen(s) + 3), *p = to;

    *p++ = '\'';
    for (; *s; s++) {
        if (*s == '\'') {
            memcpy(p, "'\\'", 3);
            p += 3;
        }
        *p++ = *s;
    }
    *p++ = '\'';
    *p = 0;
    return to;
}

static const char *forward(const struct qemu_plan *p, struct arena *a, unsigned port,
                           const char *socket)
{
    const char *command = arena_printf(a, "%s --relay %s", quoted(a, p->host->program),
                                       quoted(a, arena_printf(a, "%s/run/%s", p->dir, socket)));

    return arena_printf(a, ",guestfwd=tcp:10.0.2.100:%u-cmd:%s", port, commas(a, command));
}

static void add_network(struct words *w, const struct qemu_plan *p)
{
    bool proxy = p->spec->n_allow > 0;

    add2(w, "-netdev",
         arena_printf(w->a, "user,id=net0,restrict=on,ipv6=off%s%s",
                      forward(p, w->a, 9090, "hub.sock"),
                      proxy ? forward(p, w->a, 3128, "egress.sock") : ""));
    add2(w, "-device", "virtio-net-pci,netdev=net0,mac=" QEMU_MAC ",romfile=");
}

static void add_disk(struct words *w, const struct qemu_plan *p)
{
    add2(w, "-blockdev",
         arena_printf(w->a,
                      "driver=qcow2,node-name=" QEMU_DISK_NODE
                      ",discard=unmap,file.driver=file,file.filename=%s/disk.qcow2",
                      commas(w->a, p->dir)));
    add2(w, "-device", "virtio-blk-pci,drive=" QEMU_DISK_NODE ",serial=chela-disk,bootindex=1");
}

/* Seeds are written anew between starts and are no part of snapshots: read-only. */
static void add_seed(struct words *w, const char *node, const char *file, const char *serial)
{
    add2(w, "-blockdev",
         arena_printf(w->a,
                      "driver=raw,node-name=%s,read-only=on,file.driver=file,file.filename=%s",
                      node, commas(w->a, file)));
    add2(w, "-device", arena_printf(w->a, "virtio-blk-pci,drive=%s,serial=%s", node, serial));
}

static void add_machine(struct words *w, const struct qemu_plan *p)
{
    const struct qemu_image *image = &p->image;

    add2(w, "-name", commas(w->a, p->spec->name));
    add2(w, "-machine", arena_printf(w->a, "%s,accel=%s", p->type, p->kvm ? "kvm" : "tcg"));
    add2(w, "-cpu", p->kvm ? "host" : CPU_TCG);
    add2(w, "-smp", arena_printf(w->a, "%u", p->spec->cpus ? p->spec->cpus : 1));
    add2(w, "-m", arena_printf(w->a, "%uM", p->spec->memory_mib));
    add(w, "-nodefaults");
    add(w, "-no-user-config");
    add2(w, "-display", "none");
    add2(w, "-sandbox", "on,obsolete=deny,resourcecontrol=deny");
    add2(w, "-chardev", "stdio,id=console,signal=off");
    add2(w, "-serial", "chardev:console");
    add2(w, "-qmp",
         arena_printf(w->a, "unix:%s/" QEMU_MONITOR ",server=on,wait=off", commas(w->a, p->dir)));
    add2(w, "-object", "rng-random,id=rng0,filename=/dev/urandom");
    add2(w, "-device", "virtio-rng-pci,rng=rng0");
    add2(w, "-device", "vmgenid,guid=auto");
    if (image->direct) {
        add2(w, "-kernel", image->kernel);
        add2(w, "-initrd", image->initrd);
        add2(w, "-append", image->cmdline);
    }
}

/* /usr and what points into it. */
static void add_system(struct words *w)
{
    static const char *const names[] = { "lib", "lib64", "lib32", "bin", "sbin" };
    char target[256];

    add(w, "--ro-bind");
    add2(w, "/usr", "/usr");
    for (size_t i = 0; i < LEN(names); i++) {
        const char *path = arena_printf(w->a, "/%s", names[i]);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        struct stat st;

        if (n > 0) {
            target[n] = 0;
            add(w, "--symlink");
            add2(w, arena_strdup(w->a, target), path);
        } else if (stat(path, &st) == 0) {
            add(w, "--ro-bind");
            add2(w, path, path);
        }
    }
}

static void bind(struct words *w, const char *how, const char *path)
{
    add(w, how);
    add2(w, path, path);
}

static void add_jail(struct words *w, const struct machine_host *host)
{
    add(w, host->bwrap);
    add(w, "--unshare-all");
    add(w, "--die-with-parent");
    add2(w, "--cap-drop", "ALL");
    add(w, "--clearenv");
    add(w, "--setenv");
    add2(w, "PATH", "/usr/bin:/bin");
    add_system(w);
    add2(w, "--proc", "/proc");
    add2(w, "--dev", "/dev");
    add2(w, "--tmpfs", "/tmp");
}

static void add_own_jail(struct words *w, const struct qemu_plan *p)
{
    add_jail(w, p->host);
    if (p->kvm)
        bind(w, "--dev-bind", "/dev/kvm");
    bind(w, "--ro-bind", p->image.path);
    bind(w, "--ro-bind", p->host->program);
    if (strchr(p->host->qemu, '/'))
        bind(w, "--ro-bind", p->host->qemu);
    bind(w, "--ro-bind", p->agent);
    bind(w, "--bind", arena_printf(w->a, "%s/disk.qcow2", p->dir));
    bind(w, "--bind", arena_printf(w->a, "%s/qmp", p->dir));
    bind(w, "--ro-bind", arena_printf(w->a, "%s/run", p->dir));
    bind(w, "--ro-bind", arena_printf(w->a, "%s/seed.raw", p->dir));
    if (!p->image.direct)
        bind(w, "--ro-bind", arena_printf(w->a, "%s/seed.iso", p->dir));
    add2(w, "--chdir", "/");
    add(w, "--");
}

const char **qemu_img_argv(const struct machine_host *host, const char *image, const char *disk,
                           const char *const *words, struct arena *a)
{
    struct words w = { .a = a };

    add_jail(&w, host);
    bind(&w, "--ro-bind", image);
    bind(&w, "--bind", disk);
    add2(&w, "--chdir", "/");
    add(&w, "--");
    for (; *words; words++)
        add(&w, *words);
    return w.p;
}

const char **qemu_jail_test_argv(const struct machine_host *host, struct arena *a)
{
    struct words w = { .a = a };

    add_jail(&w, host);
    add2(&w, "--", "true");
    return w.p;
}

const char **qemu_argv(const struct qemu_plan *p, struct arena *a)
{
    struct words w = { .a = a };

    if (p->jail)
        add_own_jail(&w, p);
    add(&w, p->host->qemu);
    add_machine(&w, p);
    add_disk(&w, p);
    add_seed(&w, "seed0", arena_printf(a, "%s/seed.raw", p->dir), "chela-seed");
    if (p->image.direct)
        add_seed(&w, "seed1", p->agent, "chela-agent");
    else
        add_seed(&w, "seed1", arena_printf(a, "%s/seed.iso", p->dir), "chela-cidata");
    add_network(&w, p);
    if (p->load)
        add2(&w, "-loadvm", arena_printf(a, QEMU_TAG "%s", p->load));
    return w.p;
}
