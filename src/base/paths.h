/* SPDX-License-Identifier: MIT */
/*
 * base/paths.h — where things are kept when nobody says otherwise.
 */
#pragma once

/* $XDG_STATE_HOME/chela, ~/.local/state/chela, or /var/lib/chela for root. The caller frees it. */
char *path_state_default(void);
