/* SPDX-License-Identifier: MIT */
/*
 * machine/sandbox_seccomp.c — what no program in a sandbox may ask the kernel for: things that
 * need rights it does not have anyway, where a hole in the kernel would count, and things that
 * reach past its namespaces. libseccomp is included here and nowhere else.
 *
 * Calls of other ABIs (i386, x32) end the program: there the numbers mean something else.
 */
#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "machine/sandbox_int.h"

/* clang-format off */
static const char *const refused[] = { /* EPERM */
    "mount", "umount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount",
    "open_tree", "mount_setattr", "open_tree_attr", "unshare", "setns", "statmount", "listmount",
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
    "keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd", "fanotify_init",
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module",
    "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "vhangup", "uselib",
    "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "sethostname", "setdomainname",
    "iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "nfsservctl", "_sysctl", "sysfs", "ustat",
    "open_by_handle_at", "name_to_handle_at", "lookup_dcookie", "move_pages", "migrate_pages",
    "sched_setaffinity", "seccomp_unotify_addfd", "lsm_set_self_attr",
};
static const char *const unknown[] = { /* ENOSYS: programs then try an older way, which can be looked into */
    "clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_secret",
};
/* clang-format on */

static const int families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };
#define FAMILIES_END 64 /* there are fewer */

#define NAMESPACES \
    (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | \
     CLONE_NEWCGROUP)

/* A name that this libseccomp or architecture does not know has nothing to be refused. */
static int refuse_names(scmp_filter_ctx ctx, const char *const *names, size_t n, int eno)
{
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++) {
        int number = seccomp_syscall_resolve_name(names[i]);

        if (number != __NR_SCMP_ERROR)
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO((unsigned)eno), number, 0);
    }
    return r;
}

static int refuse_namespaces(scmp_filter_ctx ctx)
{
    int r = 0;

    for (unsigned bit = 0; bit < 32 && r == 0; bit++)
        if (NAMESPACES >> bit & 1)
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                 SCMP_A0(SCMP_CMP_MASKED_EQ, 1ULL << bit, 1ULL << bit));
    return r;
}

/* What puts bytes into a terminal's input: the kernel looks at the lower half only. */
static int refuse_ioctls(scmp_filter_ctx ctx)
{
    static const unsigned numbers[] = { TIOCSTI, TIOCLINUX, TIOCSETD };
    int r = 0;

    for (size_t i = 0; i < LEN(numbers) && r == 0; i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
                             SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffULL, numbers[i]));
    return r;
}

static bool is_family(int family)
{
    for (size_t i = 0; i < LEN(families); i++)
        if (families[i] == family)
            return true;
    return false;
}

/* vsock would reach the host past the network namespace; the others are only surface. */
static int refuse_families(scmp_filter_ctx ctx)
{
    int r = 0;

    for (int family = 0; family < FAMILIES_END && r == 0; family++)
        if (!is_family(family))
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                 SCMP_A0(SCMP_CMP_MASKED_EQ, 0xffffffffULL, (unsigned)family));
    if (r == 0)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                             SCMP_A0(SCMP_CMP_GE, FAMILIES_END));
    return r;
}

static void release_auto(scmp_filter_ctx *ctx)
{
    if (*ctx)
        seccomp_release(*ctx);
}

int sandbox_seccomp_write(const char *path, struct err *e)
{
    AUTO(release) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    AUTO(close_fd) int fd = -1;
    int r;

    if (!ctx)
        return err_set(e, ERR_INTERNAL, "make a seccomp filter");
    r = refuse_names(ctx, refused, LEN(refused), EPERM);
    if (r == 0)
        r = refuse_names(ctx, unknown, LEN(unknown), ENOSYS);
    if (r == 0)
        r = refuse_namespaces(ctx);
    if (r == 0)
        r = refuse_ioctls(ctx);
    if (r == 0)
        r = refuse_families(ctx);
    if (r < 0)
        return err_sysn(e, -r, "make a seccomp filter");
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, "open '%s'", path);
    r = seccomp_export_bpf(ctx, fd);
    return r < 0 ? err_sysn(e, -r, "write '%s'", path) : 0;
}
