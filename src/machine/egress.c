/* SPDX-License-Identifier: MIT */
/* machine/egress.c — see egress.h. */
#include "machine/egress.h"
