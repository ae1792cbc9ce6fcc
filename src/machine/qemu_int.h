/* SPDX-License-Identifier: MIT */
/*
 * machine/qemu_int.h — what the files of the QEMU driver share. In a machine's directory:
 *
 *   qemu.json     the image it was made of, by its real path
 *   disk.qcow2    its disk, an overlay over the image's; snapshots are inside
 *   seed.raw      the agent's configuration with its token, a disk of its own (0600)
 *   seed.iso      for images with cloud-init: user-data and the agent's program (no secret)
 *   now.json      what the running QEMU was started with: accelerator, type of machine
 *   snap-X.json   the same of snapshot X, where it holds the memory too
 *   qmp/          sock, QEMU's monitor; QEMU's own to write, as the disk is: no link made in it is
 *                 followed
 *   run/          hub.sock and egress.sock: the ways out
 */
#pragma once

#include "machine/machine.h"

struct qemu_image {
    const char *path; /* real path of its directory or file */
    bool direct;      /* kernel and initramfs from the host; else firmware and a boot loader */
    const char *kernel, *initrd, *cmdline;
    const char *disk, *format; /* base of the machine's disk: file, qcow2 or raw */
    unsigned disk_mib;         /* its size; the machine's is not smaller */
};

/* --- qemu_image.c --- */
/* The image of that name in host->images; "": the minimal one. Texts in the arena. ERR_UNAVAILABLE
 * says how to get one. Blocking, short. */
int qemu_image_find(const struct machine_host *host, const char *name, struct arena *a,
                    struct qemu_image *ret, struct err *e) MUST_CHECK;
/* By the path that a machine remembers. */
int qemu_image_open(const char *path, struct arena *a, struct qemu_image *ret, struct err *e)
    MUST_CHECK;
#define QEMU_IMAGE_DEFAULT "minimal"

/* --- qemu_args.c: the command line. Pure but for looks at /usr --- */
struct qemu_plan {
    const struct machine_host *host;
    const struct machine_spec *spec;
    const char *dir;
    const char *agent; /* the program without libraries: a disk of images that boot directly */
    struct qemu_image image;
    const char *type; /* of machine: "q35", or a versioned one */
    const char *load; /* tag of a snapshot to go on from; NULL: boot */
    bool kvm;
    bool jail; /* inside bubblewrap: no files and no network but what it needs */
};
const char **qemu_argv(const struct qemu_plan *p, struct arena *a);
const char **qemu_jail_test_argv(const struct machine_host *host, struct arena *a);
/* `qemu-img …` (words, ended by NULL) in a jail that has the disk and the image under it alone. */
const char **qemu_img_argv(const struct machine_host *host, const char *image, const char *disk,
                           const char *const *words, struct arena *a);
#define QEMU_MONITOR   "qmp/sock"
#define QEMU_DISK_NODE "disk0"
#define QEMU_TAG       "chela-" /* before a snapshot's name inside the image */
#define QEMU_HUB       "10.0.2.100:9090"
#define QEMU_MAC       "52:54:00:12:34:56"
#define QEMU_PROXY     "http://10.0.2.100:3128"

/* --- qemu_start.c --- */
/* Start QEMU and wait until its guest runs. from: a snapshot with memory, or NULL. */
CO int qemu_boot(const struct machine_job *job, const char *from, struct err *e) MUST_CHECK;
/* The disk(s) that tell the guest's agent who it is, if spec has a token; an error if there are
 * none and it has none. */
CO int qemu_write_seed(const struct machine_job *job, const struct qemu_image *image, struct err *e)
    MUST_CHECK;
CO int qemu_reseed(const struct machine_job *job, struct err *e) MUST_CHECK; /* of its own image */
/* A file of the machine's directory that is a JSON object. ERR_NOT_FOUND. */
int qemu_note_read(const struct machine_job *job, const char *file, struct arena *a, json_t **ret,
                   struct err *e) MUST_CHECK;
/* Takes note. Whole or not at all; 0600. */
int qemu_note_write(const struct machine_job *job, const char *file, json_t *note, struct err *e)
    MUST_CHECK;
/* The image that the machine was made of. */
int qemu_own_image(const struct machine_job *job, struct arena *a, struct qemu_image *ret,
                   struct err *e) MUST_CHECK;
/* Does bubblewrap work here? If not, a warning says so. */
CO bool qemu_jail_works(const struct machine_host *host);
/* The agents' port inside the machine's run/, whatever inode it has now. */
int qemu_link_hub(const struct machine_job *job, struct err *e) MUST_CHECK;

/* --- qemu_snapshot.c --- */
CO int qemu_snapshot(const struct machine_job *job, const char *name, struct err *e) MUST_CHECK;
CO int qemu_restore(const struct machine_job *job, const char *name, struct err *e) MUST_CHECK;
CO int qemu_drop_snapshot(const struct machine_job *job, const char *name, struct err *e)
    MUST_CHECK;
CO int qemu_snapshots(const struct machine_job *job, struct arena *a, struct machine_snapshot **ret,
                      size_t *ret_n, struct err *e) MUST_CHECK;
/* ERR_INVALID: letters, digits, '.', '_' and '-', at most 64, a letter or digit first. */
int qemu_snapshot_name_check(const char *name, struct err *e) MUST_CHECK;
/* What `qemu-img info --output=json` says, as our list. Pure. */
int qemu_snapshots_parse(struct str text, struct arena *a, struct machine_snapshot **ret,
                         size_t *ret_n, struct err *e) MUST_CHECK;

/* --- kvm_probe.c --- */
/* Does a guest really run under KVM here? 0, or 1: no, and *ret_why (in the arena) says why. The
 * verdict is kept in the directory of images as long as device, kernel and QEMU stay the same. */
CO int kvm_probe(const struct machine_host *host, struct arena *a, const char **ret_why,
                 struct err *e) MUST_CHECK;

/* --- seed.c --- */
/* The agent's config.json, in the arena. */
int seed_agent_config(const struct machine_spec *spec, const char *hub_url, const char *proxy,
                      struct arena *a, struct str *ret, struct err *e) MUST_CHECK;
