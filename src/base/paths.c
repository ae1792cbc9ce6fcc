/* SPDX-License-Identifier: MIT */
#include "base/paths.h"

#include "base/err.h"

char *path_state_default(void)
{
    const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (xdg && xdg[0] == '/')
        return xasprintf("%s/chela", xdg);
    if (geteuid() == 0 || !home || home[0] != '/')
        return xstrdup("/var/lib/chela");
    return xasprintf("%s/.local/state/chela", home);
}
