/* SPDX-License-Identifier: MIT */
/*
 * agent/pty.h — a program on a terminal of its own.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

struct pty_spec {
    const char *command;    /* for /bin/sh -c; NULL: the user's login shell */
    const char *const *env; /* "NAME=value", NULL-terminated */
    const char *cwd;        /* NULL: the user's home, failing that / */
    unsigned cols, rows;
};

struct pty {
    int fd; /* the master's end, non-blocking */
    pid_t pid;
    int pidfd;
};

/* Start it as the leader of a session whose terminal is the pty. It gets SIGHUP when fd is closed.
 * The caller closes both descriptors and reaps. */
int pty_start(const struct pty_spec *spec, struct pty *ret, struct err *e) MUST_CHECK;

int pty_resize(int fd, unsigned cols, unsigned rows); /* 0 or -1 and errno */

/* Who we are, by /etc/passwd; without an entry: home "/", shell /bin/sh, name "user" or "root". */
struct pty_user {
    char *name, *home, *shell;
};
void pty_user(struct pty_user *ret);
void pty_user_done(struct pty_user *u);

/* The same of a line of passwd, for tests; false: it is not of that uid, or not one at all. */
bool pty_user_parse(struct str line, uid_t uid, struct pty_user *ret);
