/* SPDX-License-Identifier: MIT */
/*
 * base/paths.h — where things are kept when nobody says otherwise, and who may use them.
 */
#pragma once

#include "base/err.h"

/* $XDG_STATE_HOME/chela, ~/.local/state/chela, or /var/lib/chela for root. The caller frees it. */
char *path_state_default(void);

/*
 * Take the lock of a state directory (an flock on chelad.lock in it), which lasts until *ret_fd is
 * closed or the process ends; so a crash leaves nothing to clean up. The file holds our pid for the
 * message to whoever comes second. ERR_CONFLICT names the process that has it.
 */
int path_state_lock(const char *dir, int *ret_fd, struct err *e) MUST_CHECK;
