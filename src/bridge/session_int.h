/* SPDX-License-Identifier: MIT */
/* bridge/session_int.h — what the session files share. */
#pragma once

#include "bridge/session.h"

enum { JSON_DEPTH = 512, METADATA_MAX = 16 * 1024 * 1024 };

struct message {
    int64_t at_us;
    struct str role, content, agent;
    bool interrupted;
    struct str call; /* empty: none */
};

extern const struct sql sql_message_put;
int message_put(struct store_tx *tx, int64_t sid, int64_t seq, const struct message *m,
                struct err *e) MUST_CHECK;
