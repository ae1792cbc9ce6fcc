/* SPDX-License-Identifier: MIT */
/*
 * machine/qemu_image.c — images: a directory with image.json (kernel, initramfs and a disk, as
 * tools/guest_image makes it), or one file, a cloud image (qcow2 or raw). Images never change;
 * machines' disks lie over them and remember them by their real path.
 *
 *   image.json  {"kernel": "vmlinuz", "initrd": "initrd", "cmdline": "…", "disk": "root.qcow2"}
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/qemu_int.h"
#include "machine/shim_int.h"

#define IMAGE_NAME_MAX   100
#define IMAGE_JSON_MAX   (64 * KIB)
#define QCOW2_MAGIC      0x514649fbU /* "QFI\xfb" */
#define QCOW2_BACKING    8
#define QCOW2_SIZE       24
#define QCOW2_INCOMPAT   72
#define QCOW2_DATA_FILE  4U
#define QCOW2_HEADER_LEN 104

static bool name_good(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n <= IMAGE_NAME_MAX && name[0] != '.' && name[0] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-") == n;
}

static uint64_t be(const unsigned char *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* What is read here is trusted as far as an operator put it there; but an image from elsewhere must
 * not make another file of the host appear inside a guest. */
static int qcow2_check(const unsigned char *h, const char *file, struct err *e)
{
    bool newer = be(h + 4, 4) >= 3;

    if (be(h + QCOW2_BACKING, 8) != 0)
        return err_set(e, ERR_INVALID, "image '%s' names another file as its backing file", file);
    if (newer && (be(h + QCOW2_INCOMPAT, 8) & QCOW2_DATA_FILE))
        return err_set(e, ERR_INVALID, "image '%s' keeps its data in another file", file);
    return 0;
}

static int disk_open(struct qemu_image *image, struct err *e)
{
    unsigned char h[QCOW2_HEADER_LEN] = { 0 };
    AUTO(close_fd) int fd = open(image->disk, O_RDONLY | O_CLOEXEC);
    struct stat st;
    uint64_t size;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "image '%s'", image->disk);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "image '%s' is no file", image->disk);
    if (pread(fd, h, sizeof(h), 0) < 0)
        return err_sys(e, "image '%s'", image->disk);
    size = (uint64_t)st.st_size;
    image->format = "raw";
    if (be(h, 4) == QCOW2_MAGIC) {
        image->format = "qcow2";
        size = be(h + QCOW2_SIZE, 8);
        if (qcow2_check(h, image->disk, e) < 0)
            return -(int)e->code;
    }
    if (size == 0 || size > 64ULL * 1024 * 1024 * MIB)
        return err_set(e, ERR_INVALID, "image '%s' is no disk", image->disk);
    image->disk_mib = (unsigned)((size + MIB - 1) / MIB);
    return 0;
}

/* A member that names a file beside image.json. */
static int member_file(const json_t *j, const char *key, const char *dir, struct arena *a,
                       const char **ret, struct err *e)
{
    struct str name = json_member_str(j, key);

    if (!name.p || !name_good(arena_strndup(a, name.p, name.n)))
        return err_set(e, ERR_INVALID, "%s/image.json: no good '%s'", dir, key);
    *ret = arena_printf(a, "%s/" STR_FMT, dir, STR_ARG(name));
    return access(*ret, R_OK) == 0 ? 0 : err_sys(e, "image '%s'", *ret);
}

static int directory_open(struct qemu_image *image, struct arena *a, struct err *e)
{
    struct str text, cmdline;
    json_t *j;

    if (shim_file_read(image->path, "image.json", IMAGE_JSON_MAX, a, &text, e) < 0 ||
        json_parse(text, 8, a, &j, NULL, e) < 0)
        return err_wrap(e, "image '%s'", image->path);
    image->direct = true;
    if (member_file(j, "kernel", image->path, a, &image->kernel, e) < 0 ||
        member_file(j, "initrd", image->path, a, &image->initrd, e) < 0 ||
        member_file(j, "disk", image->path, a, &image->disk, e) < 0)
        return -(int)e->code;
    cmdline = json_member_str(j, "cmdline");
    image->cmdline = cmdline.p ? arena_strndup(a, cmdline.p, cmdline.n) : "";
    return disk_open(image, e);
}

int qemu_image_open(const char *path, struct arena *a, struct qemu_image *ret, struct err *e)
{
    struct qemu_image image = { .path = path };
    struct stat st;
    int r;

    if (stat(path, &st) < 0)
        return err_sys(e, "image '%s'", path);
    image.disk = path;
    r = S_ISDIR(st.st_mode) ? directory_open(&image, a, e) : disk_open(&image, e);
    if (r == 0)
        *ret = image;
    return r;
}

int qemu_image_find(const struct machine_host *host, const char *name, struct arena *a,
                    struct qemu_image *ret, struct err *e)
{
    static const char *const endings[] = { "", ".qcow2", ".img", ".raw" };
    char real[PATH_MAX];

    if (!name || !name[0])
        name = QEMU_IMAGE_DEFAULT;
    if (!name_good(name))
        return err_set(e, ERR_INVALID, "'%.80s' is no name of an image", name);
    for (size_t i = 0; i < LEN(endings); i++)
        if (realpath(arena_printf(a, "%s/%s%s", host->images, name, endings[i]), real))
            return qemu_image_open(arena_strdup(a, real), a, ret, e);
    return err_set(e, ERR_UNAVAILABLE,
                   "no image '%s' in %s: put a cloud image there, or make the minimal one "
                   "(tools/guest_image)",
                   name, host->images);
}
