/* SPDX-License-Identifier: MIT */
/* openclaw/client.c — see openclaw.h. */
#include "openclaw/openclaw.h"

const char *oc_state_name(enum oc_state state)
{
    static const char *const names[] = { "disconnected", "connecting", "connected", "reconnecting",
                                         "failed" };

    return names[state];
}
