/* SPDX-License-Identifier: MIT */
/*
 * daemon/state_dir.h — the directory that holds everything a daemon owns: database, lock, socket,
 * admin token, master key. One daemon at a time; nobody else may look in (0700).
 */
#pragma once

#include "base/secret.h"

#define STATE_INSTANCE 33

struct state_dir {
    char *path;                     /* absolute */
    char *db;                       /* chela.db */
    char *conf;                     /* chelad.conf */
    char *socket;                   /* chelad.sock */
    int lock_fd;                    /* held as long as the daemon runs */
    char token[2 * SECRET_KEY + 1]; /* of admin.token */
    char instance[STATE_INSTANCE];  /* names this directory among those that share a database */
};

/*
 * Make the directory where it is missing, take the lock, and make the admin token on first use.
 * ERR_CONFLICT names the process that holds the lock; ERR_INVALID a directory others can enter.
 */
int state_dir_open(const char *path, struct state_dir *ret, struct err *e) MUST_CHECK;
void state_dir_close(struct state_dir *d); /* works on a zeroed struct with lock_fd -1 */
