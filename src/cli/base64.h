/* SPDX-License-Identifier: MIT */
/* cli/base64.h — bytes as text for tasks that carry files (RFC 4648 §4). Pure. */
#pragma once

#include "base/arena.h"

/* Padded, in the arena. */
struct str base64_encode(struct str bytes, struct arena *a);

/* Padded or not; ERR_INVALID for anything else. In the arena. */
int base64_decode(struct str text, struct arena *a, struct str *ret, struct err *e) MUST_CHECK;
