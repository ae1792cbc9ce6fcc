/* SPDX-License-Identifier: MIT */
/*
 * machine/cloud_seed.c — see cloud_seed.h.
 *
 * user-data is JSON, which is YAML too. The agent's program is copied from the disk at every boot,
 * so it is as new as the daemon. Its configuration stays on the seed disk (serial "chela-seed"),
 * which udev lets the agent's user read: a machine that goes back to a snapshot finds its new token
 * there.
 */
#include "machine/cloud_seed.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/offload.h"
#include "machine/qemu_int.h"
#include "machine/shim_int.h"

#define SECTOR        2048
#define SECTOR_PVD    16
#define SECTOR_END    17
#define SECTOR_PATH_L 18
#define SECTOR_PATH_M 19
#define SECTOR_ROOT   20
#define SECTOR_FILES  21
#define PATH_TABLE    10 /* bytes of a path table with the root alone */
#define NAME_MAX_ISO  30
#define ISO_MAX       (256 * MIB)
#define DIRECTORY     2 /* flag of a record */
#define USER_DATA_MAX (1 * MIB)

/* --- ISO 9660 --- */

static void both32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        p[i] = (unsigned char)(v >> (8 * i));
        p[7 - i] = (unsigned char)(v >> (8 * i));
    }
}

static void both16(unsigned char *p, unsigned v)
{
    p[0] = p[3] = (unsigned char)v;
    p[1] = p[2] = (unsigned char)(v >> 8);
}

/* A directory's record; its length. */
static size_t record(unsigned char *p, uint32_t extent, size_t size, unsigned char flags,
                     const char *name, size_t name_n)
{
    size_t n = (33 + name_n + 1) & ~(size_t)1;

    memset(p, 0, n);
    p[0] = (unsigned char)n;
    both32(p + 2, extent);
    both32(p + 10, (uint32_t)size);
    p[18] = 100; /* 2000-01-01: the same content is the same disk */
    p[19] = p[20] = 1;
    p[25] = flags;
    both16(p + 28, 1);
    p[32] = (unsigned char)name_n;
    memcpy(p + 33, name, name_n);
    return n;
}

static void descriptor(unsigned char *p, const char *label, uint32_t sectors)
{
    static const char app[] = "CHELA";

    p[0] = 1;
    memcpy(p + 1, "CD001\1", 6);
    memset(p + 8, ' ', 64);
    memcpy(p + 40, label, strlen(label));
    both32(p + 80, sectors);
    both16(p + 120, 1);
    both16(p + 124, 1);
    both16(p + 128, SECTOR);
    both32(p + 132, PATH_TABLE);
    p[140] = SECTOR_PATH_L;
    p[151] = SECTOR_PATH_M;
    record(p + 156, SECTOR_ROOT, SECTOR, DIRECTORY, "\0", 1);
    memset(p + 190, ' ', 813 - 190);
    memcpy(p + 574, app, sizeof(app) - 1);
    for (int i = 0; i < 4; i++)
        memset(p + 813 + 17 * i, '0', 16);
    p[881] = 1;
}

static void tables(unsigned char *image, const char *label, uint32_t sectors)
{
    unsigned char *path;

    descriptor(image + SECTOR_PVD * SECTOR, label, sectors);
    memcpy(image + SECTOR_END * SECTOR, "\377CD001\1", 7);
    path = image + SECTOR_PATH_L * SECTOR;
    path[0] = 1;
    path[2] = SECTOR_ROOT;
    path[6] = 1;
    path = image + SECTOR_PATH_M * SECTOR;
    path[0] = 1;
    path[5] = SECTOR_ROOT;
    path[7] = 1;
}

static size_t sectors_of(size_t bytes)
{
    return (bytes + SECTOR - 1) / SECTOR;
}

int iso_write(const char *label, const struct seed_file *files, size_t n, struct buf *ret,
              struct err *e)
{
    size_t total = SECTOR_FILES, at = SECTOR_FILES, used = 0;
    unsigned char *image, *root;
    char *room;

    for (size_t i = 0; i < n; i++) {
        if (strlen(files[i].name) > NAME_MAX_ISO || n > 16 || strlen(label) > 32)
            return err_set(e, ERR_LIMIT, "seed disk: '%s' does not fit", files[i].name);
        total += sectors_of(files[i].bytes.n);
    }
    if (buf_reserve(ret, total * SECTOR, &room, e) < 0)
        return err_wrap(e, "seed disk");
    memset(room, 0, total * SECTOR);
    image = (unsigned char *)room;
    tables(image, label, (uint32_t)total);
    root = image + SECTOR_ROOT * SECTOR;
    used += record(root, SECTOR_ROOT, SECTOR, DIRECTORY, "\0", 1);
    used += record(root + used, SECTOR_ROOT, SECTOR, DIRECTORY, "\1", 1);
    for (size_t i = 0; i < n; i++) {
        used += record(root + used, (uint32_t)at, files[i].bytes.n, 0, files[i].name,
                       strlen(files[i].name));
        if (files[i].bytes.n)
            memcpy(image + at * SECTOR, files[i].bytes.p, files[i].bytes.n);
        at += sectors_of(files[i].bytes.n);
    }
    buf_commit(ret, total * SECTOR);
    return 0;
}

/* --- cloud-init --- */

static const char unit[] = "[Unit]\n"
                           "Description=chela's agent\n"
                           "After=network.target\n"
                           "StartLimitIntervalSec=0\n"
                           "[Service]\n"
                           "User=vm-agent\n"
                           "WorkingDirectory=/home/vm-agent\n"
                           "Environment=AGENT_CONFIG=/dev/disk/by-id/virtio-chela-seed\n"
                           "ExecStart=/usr/local/bin/chela-agent\n"
                           "Restart=always\n"
                           "RestartSec=2\n"
                           "StateDirectory=vm-agent\n"
                           "LogsDirectory=vm-agent\n"
                           "NoNewPrivileges=yes\n"
                           "StandardOutput=journal+console\n"
                           "StandardError=journal+console\n"
                           "[Install]\n"
                           "WantedBy=multi-user.target\n";

static const char rule[] = "SUBSYSTEM==\"block\", ATTR{serial}==\"chela-seed\", "
                           "GROUP=\"vm-agent\", MODE=\"0440\"\n";

static const char install[] =
    "#!/bin/sh\n"
    "# Run at every boot: the agent is as new as the daemon that made this disk.\n"
    "set -e\n"
    "cp /run/chela-seed/chela-agent /usr/local/bin/.chela-agent.new\n"
    "chmod 0755 /usr/local/bin/.chela-agent.new\n"
    "mv /usr/local/bin/.chela-agent.new /usr/local/bin/chela-agent\n";

static const char boot_command[] =
    "mkdir -p /run/chela-seed && mount -o ro LABEL=cidata /run/chela-seed && "
    "sh /run/chela-seed/install.sh; umount /run/chela-seed";

static json_t *file_of(const char *path, const char *mode, const char *text)
{
    return json_pack("{s:s, s:s, s:s}", "path", path, "permissions", mode, "content", text);
}

static json_t *base_of(const struct machine_spec *spec)
{
    return json_pack(
        "{s:s, s:b, s:b, s:b, s:[{s:s, s:s, s:b}], s:[o, o], s:[[s, s, s]], s:[[s, s, s], "
        "[s, s, s], [s, s], [s, s], [s, s, s, s]]}",
        "hostname", spec->name, "ssh_pwauth", 0, "disable_root", 1, "package_update", 0, "users",
        "name", "vm-agent", "shell", "/bin/bash", "lock_passwd", 1, "write_files",
        file_of("/etc/systemd/system/vm-agent.service", "0644", unit),
        file_of("/etc/udev/rules.d/60-chela.rules", "0644", rule), "bootcmd", "sh", "-c",
        boot_command, "runcmd", "udevadm", "control", "--reload", "udevadm", "trigger",
        "--subsystem-match=block", "udevadm", "settle", "systemctl", "daemon-reload", "systemctl",
        "enable", "--now", "vm-agent.service");
}

int cloud_user_data(const struct machine_spec *spec, struct arena *a, struct str *ret,
                    struct err *e)
{
    AUTO(json_decref) json_t *j = base_of(spec);
    AUTO(buf_done) struct buf text = { 0 };

    if (!j)
        return err_set(e, ERR_INTERNAL, "user-data cannot be made");
    if (spec->n_allow)
        json_object_set_new(
            j, "apt", json_pack("{s:s, s:s}", "http_proxy", QEMU_PROXY, "https_proxy", QEMU_PROXY));
    buf_init(&text, USER_DATA_MAX);
    if (buf_add_z(&text, "#cloud-config\n", e) < 0 || json_write(j, &text, e) < 0 ||
        buf_add_z(&text, "\n", e) < 0)
        return err_wrap(e, "user-data");
    *ret = arena_str(a, buf_str(&text));
    return 0;
}

/* The address is fixed, as all of QEMU's user network is; there is no way out but the hub's. */
static const char network[] =
    "{\"version\": 2, \"ethernets\": {\"eth0\": {\"match\": {\"macaddress\": \"" QEMU_MAC "\"}, "
    "\"set-name\": \"eth0\", \"addresses\": [\"10.0.2.15/24\"]}}}\n";

struct writing { /* what the other thread needs */
    const char *path, *agent;
    struct str user_data, meta_data;
};

static int read_agent(const char *path, struct buf *ret, struct err *e)
{
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;
    char *room;

    if (fd < 0)
        return err_set(e, ERR_UNAVAILABLE,
                       "%s: %s; a virtual machine needs an agent without libraries "
                       "(tools/static_agent)",
                       path, strerror(errno));
    do {
        if (buf_reserve(ret, 256 * KIB, &room, e) < 0)
            return err_wrap(e, "%s", path);
        n = read(fd, room, 256 * KIB);
        if (n < 0)
            return err_sys(e, "read '%s'", path);
        buf_commit(ret, (size_t)n);
    } while (n > 0);
    return 0;
}

static int write_disk(void *arg, struct err *e)
{
    const struct writing *w = arg;
    AUTO(buf_done) struct buf agent, image;
    AUTO(free) char *dir = xstrdup(w->path);
    struct seed_file files[] = {
        { "user-data", w->user_data },
        { "meta-data", w->meta_data },
        { "network-config", { network, sizeof(network) - 1 } },
        { "install.sh", { install, sizeof(install) - 1 } },
        { "chela-agent", { NULL, 0 } },
    };

    buf_init(&agent, ISO_MAX);
    buf_init(&image, ISO_MAX);
    if (read_agent(w->agent, &agent, e) < 0)
        return -(int)e->code;
    files[4].bytes = buf_str(&agent);
    if (iso_write("cidata", files, LEN(files), &image, e) < 0)
        return -(int)e->code;
    *strrchr(dir, '/') = 0;
    return shim_file_write(dir, strrchr(w->path, '/') + 1, buf_str(&image), false, e);
}

CO int cloud_seed_write(const struct machine_job *job, const char *path, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct writing w = { .path = path };

    w.agent = arena_printf(&a, "%s-static", job->host->agent);
    if (cloud_user_data(job->spec, &a, &w.user_data, e) < 0)
        return -(int)e->code;
    w.meta_data = str_of(arena_printf(&a,
                                      "{\"instance-id\": \"chela-%s\", \"local-hostname\": "
                                      "\"%s\"}\n",
                                      job->spec->name, job->spec->name));
    return offload(write_disk, &w, e);
}
