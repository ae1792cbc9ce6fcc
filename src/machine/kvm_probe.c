/* SPDX-License-Identifier: MIT */
/*
 * machine/kvm_probe.c — does KVM really run guests here? A device that opens, and even makes
 * virtual machines, may hang at the first instruction. So a guest of one sector is run: it writes a
 * marker to its serial port and ends QEMU through a debug port. The verdict is kept until device,
 * kernel, boot or QEMU change.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/qemu_int.h"
#include "machine/shim_int.h"
#include "machine/tool.h"

#define KVM_DEVICE  "/dev/kvm"
#define PROBE_MS    5000
#define MARKER      "chela-kvm-runs"
#define SECTOR      512
#define VERDICT     "kvm.json"
#define PROBE_DISK  "kvm-probe.img"
#define VERDICT_MAX (4 * KIB)

/* 16 bits, loaded at 0x7c00. Writes the text behind it to COM1, then to QEMU's debug port. */
static const unsigned char code[] = {
    0xfc,             /*        cld                */
    0x31, 0xc0,       /*        xor  ax, ax        */
    0x8e, 0xd8,       /*        mov  ds, ax        */
    0xbe, 0x1a, 0x7c, /*        mov  si, 0x7c1a    */
    0xba, 0xf8, 0x03, /*        mov  dx, 0x3f8     */
    0xac,             /* next:  lodsb              */
    0x84, 0xc0,       /*        test al, al        */
    0x74, 0x03,       /*        jz   done          */
    0xee,             /*        out  dx, al        */
    0xeb, 0xf8,       /*        jmp  next          */
    0xb0, 0x00,       /* done:  mov  al, 0         */
    0xe6, 0xf4,       /*        out  0xf4, al      */
    0xf4,             /* stay:  hlt                */
    0xeb, 0xfd,       /*        jmp  stay          */
};

static int write_probe(const struct machine_host *host, struct err *e)
{
    unsigned char sector[SECTOR] = { 0 };

    memcpy(sector, code, sizeof(code));
    memcpy(sector + sizeof(code), MARKER "\r\n", sizeof(MARKER) + 1);
    sector[SECTOR - 2] = 0x55;
    sector[SECTOR - 1] = 0xaa;
    return shim_file_write(host->images, PROBE_DISK, (struct str){ (char *)sector, SECTOR }, false,
                           e);
}

/* 0: the guest spoke; 1: it did not. */
static CO int run_guest(const struct machine_host *host, struct arena *a, const char **ret_why,
                        struct err *e)
{
    const char *drive =
        arena_printf(a, "if=none,id=probe,format=raw,read-only=on,file.locking=off,file=%s/%s",
                     host->images, PROBE_DISK);
    const char *const argv[] = { host->qemu,
                                 "-machine",
                                 "pc,accel=kvm",
                                 "-nodefaults",
                                 "-no-user-config",
                                 "-display",
                                 "none",
                                 "-m",
                                 "32M",
                                 "-sandbox",
                                 "on,obsolete=deny,elevateprivileges=deny,spawn=deny",
                                 "-serial",
                                 "stdio",
                                 "-device",
                                 "isa-debug-exit,iobase=0xf4,iosize=1",
                                 "-drive",
                                 drive,
                                 "-device",
                                 "virtio-blk-pci,drive=probe,bootindex=1",
                                 NULL };
    const struct tool tool = { .argv = argv, .deadline_ms = deadline_in(PROBE_MS) };
    AUTO(tool_end_done) struct tool_end end = { 0 };
    int r = tool_run(&tool, &end, e);
    struct str out = buf_str(&end.out);

    if (out.n && memmem(out.p, out.n, MARKER, sizeof(MARKER) - 1))
        return 0;
    if (r == -ERR_CANCELED)
        return r;
    if (r == -ERR_TIMEOUT)
        *ret_why = arena_printf(a, "a probe guest hung for %d s", PROBE_MS / 1000);
    else if (r < 0)
        *ret_why = arena_strdup(a, e->msg);
    else
        *ret_why = arena_printf(a, "a probe guest failed: " STR_FMT,
                                STR_ARG(tool_last_words(buf_str(&end.err), 160)));
    return 1;
}

static const char *boot_id(struct arena *a)
{
    struct str id;
    struct err ignored;

    if (shim_file_read("/proc/sys/kernel/random", "boot_id", 64, a, &id, &ignored) < 0)
        return "";
    id = str_trim(id);
    return arena_strndup(a, id.p, id.n);
}

/* What the verdict holds for. */
static const char *identity(const struct machine_host *host, const struct stat *device,
                            struct arena *a)
{
    struct utsname name;
    struct stat qemu = { 0 };

    uname(&name);
    if (stat(host->qemu, &qemu) < 0)
        qemu.st_mtime = 0;
    return arena_printf(a, "%llx:%llx %s %s %s %s %lld", (unsigned long long)device->st_rdev,
                        (unsigned long long)device->st_ino, name.release, name.version, boot_id(a),
                        host->qemu, (long long)qemu.st_mtime);
}

/* 0 works, 1 does not, 2 nothing is known. */
static int remembered(const struct machine_host *host, const char *who, struct arena *a,
                      const char **ret_why)
{
    struct str text, why;
    struct err ignored;
    json_t *j;

    if (shim_file_read(host->images, VERDICT, VERDICT_MAX, a, &text, &ignored) < 0 ||
        json_parse(text, 4, a, &j, NULL, &ignored) < 0 ||
        !str_eq_z(json_member_str(j, "of"), who) || !json_is_boolean(json_object_get(j, "works")))
        return 2;
    why = json_member_str(j, "why");
    *ret_why = why.p ? arena_strndup(a, why.p, why.n) : "";
    return json_is_true(json_object_get(j, "works")) ? 0 : 1;
}

static void remember(const struct machine_host *host, const char *who, bool works, const char *why,
                     struct arena *a)
{
    AUTO(json_decref)
    json_t *j = json_pack("{s:s, s:b, s:s}", "of", who, "works", works, "why", why);
    struct str text;
    struct err e;

    if (json_text(j, VERDICT_MAX, a, &text, &e) < 0 ||
        shim_file_write(host->images, VERDICT, text, false, &e) < 0)
        log_warn("the verdict about KVM is not kept", "error", LOG_ERR(&e));
}

CO int kvm_probe(const struct machine_host *host, struct arena *a, const char **ret_why,
                 struct err *e)
{
    const char *who, *why = "";
    struct stat device;
    int r;

    *ret_why = "";
    if (stat(KVM_DEVICE, &device) < 0 || access(KVM_DEVICE, R_OK | W_OK) < 0) {
        *ret_why = arena_printf(a, KVM_DEVICE ": %s", strerror(errno));
        return 1;
    }
    who = identity(host, &device, a);
    r = remembered(host, who, a, ret_why);
    if (r < 2)
        return r;
    if (mkdir(host->images, 0755) < 0 && errno != EEXIST)
        return err_sys(e, "mkdir '%s'", host->images);
    if (write_probe(host, e) < 0)
        return err_wrap(e, "KVM probe");
    r = run_guest(host, a, &why, e);
    if (r < 0)
        return r;
    remember(host, who, r == 0, why, a);
    log_info("looked whether KVM works", "works", LOG_BOOL(r == 0), "reason", LOG_STR(why));
    *ret_why = why;
    return r;
}
