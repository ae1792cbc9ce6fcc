/* SPDX-License-Identifier: MIT */
/*
 * agent/file_int.h — the work of file:* tasks, on a thread of the pool: the task's fiber waits, so
 * the task's arena is the thread's meanwhile.
 *
 *   file.c        the tasks: what they say and get; reading
 *   file_place.c  where a path leads; the agent's root is kept by the kernel (RESOLVE_BENEATH)
 *   file_write.c  writing whole files, and what writing in parts shares with it
 *   file_dir.c    list, stat, delete
 *   transfer.c    writing in parts
 */
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include "agent/task.h"
#include "agent/text.h"

#define FILE_READ_MAX   ((size_t)10 * MIB)
#define FILE_PART_MAX   ((long long)(8 * MIB)) /* of a read with offset */
#define FILE_PART_DEF   ((long long)(1 * MIB))
#define FILE_TEXT_MAX   ((size_t)24 * MIB) /* of content as JSON, so that it fits into a message */
#define FILE_LIST_MAX   10000
#define FILE_DELETE_MAX 1000000
#define FILE_DEPTH_MAX  128

/* Where a path leads, seen from an open directory. */
struct place {
    const char *shown; /* the path as it was given */
    int dirfd;         /* AT_FDCWD, or ours */
    bool beneath;      /* nothing above dirfd may be reached */
    const char *rel;
};

/* ret is in place; place_done() it always. The path is checked, nothing is opened but the root or
 * the working directory. */
int place_find(struct task *t, const char *path, struct place *ret, struct err *e) MUST_CHECK;
void place_done(struct place *p);

/* open(2) below it; -1 and errno, of which EXDEV says that rel leaves the root. */
int place_open(const struct place *p, const char *rel, int flags, mode_t mode);

/* Open the directory that holds rel and tell the last name; 0, or an errno. The name "" or ".."
 * means that rel cannot name anything but a directory. */
int place_parent(const struct place *p, struct arena *a, const char *rel, int *ret_dirfd,
                 const char **ret_name) MUST_CHECK;

/* Make the directories above rel that are missing; 0, or an errno. */
int place_mkdirs(const struct place *p, struct arena *a, const char *rel) MUST_CHECK;

/* rel of the absolute path, as the kernel names it, below the same directory; NULL: not below. */
const char *place_rel(const struct place *p, struct arena *a, const char *absolute);

/* What readlink(2) says of /proc/self/fd/FD, or NULL. */
char *fd_path(struct arena *a, int fd);

/* Fail in Node's words: "ENOENT: no such file or directory, open '<path>'". path NULL: none. */
int node_fail(struct task *t, int eno, const char *call, const char *path, struct err *e);

/* --- writing --- */

/* What is to be written: a directory and a name in it. */
struct target {
    int dirfd; /* of the directory, or -1 */
    const char *name;
    bool exists, in_place; /* in_place: cannot be replaced by a rename */
    struct stat st;        /* when it exists */
};
/* Find it, following links of an existing file; with parents, missing ones are made. */
int target_find(struct task *t, const struct place *p, bool parents, struct target *ret,
                struct err *e) MUST_CHECK;
void target_done(struct target *target);

/* The mode as it was asked for, that of the file that is replaced, or -1: as umask has it. */
int target_mode(const struct target *target, int asked);

/* Give a new file the owner and the mode of what it replaces, flush it and put it there; an errno.
 */
int target_replace(const struct target *target, int fd, const char *temporary, int mode) MUST_CHECK;
/* SHA-256 of a file as 64 hex digits, and its length; 0, or an errno. */
int file_sum(int fd, char ret_hex[65], long long *ret_size) MUST_CHECK;
int write_at(int fd, struct str bytes, off_t offset) MUST_CHECK; /* 0, or an errno */

struct write_job {
    struct task *t;
    const char *path;
    struct str text; /* content */
    enum text_encoding encoding;
    int mode; /* -1: none was asked for */
    json_t *result;
    /* in parts: */
    const char *transfer; /* NULL: the whole file at once */
    long long offset;
    bool final;
    const char *sha256; /* or NULL */
};
int write_whole(void *job, struct err *e);
int transfer_part(void *job, struct err *e);

/* --- list, stat, delete --- */
struct dir_job {
    struct task *t;
    const char *path;
    bool recursive;
    json_t *result;
};

/* Remove a file, or a directory with all that is in it, following no link; 0, or an errno. */
int tree_remove(int dirfd, const char *name) MUST_CHECK;
