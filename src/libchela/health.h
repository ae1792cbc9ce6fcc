/* SPDX-License-Identifier: MIT */
/* libchela/health.h — records of the bridge as structs of the library. */
#pragma once

#include <chela/bridge.h>

#include "bridge/tracker.h"

void lib_health(const struct health *h, struct chela_health *ret);
void lib_summary(const struct tracker *t, struct chela_health_summary *ret);
