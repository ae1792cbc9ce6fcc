/* SPDX-License-Identifier: MIT */
/* libchela/bridge_int.h — the bridge of the library. */
#pragma once

#include "libchela/lib.h"

struct chela_bridge {
    struct engine *engine;
};
