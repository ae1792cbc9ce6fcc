/* SPDX-License-Identifier: MIT */
/*
 * swarm/command.h — commands from chat: a pure parser, and an orchestrator whose every command is a
 * durable workflow "cmd:<id of the chat message>".
 */
#pragma once

#include "swarm/command_parse.h"
#include "swarm/swarm_int.h"

struct command;

int command_new(struct swarm *s, struct command **ret, struct err *e) MUST_CHECK; /* registers */
CO int command_start(struct command *c, struct err *e) MUST_CHECK;
CO void command_stop(struct command *c);
void command_free(struct command *c);

struct command_in {
    struct str id, from, text,
        channel; /* id {0}: random. from: session that replies go to; {0}: the default */
    bool reply;  /* say the result through notify too */
};
/* Run it and wait: *out gets the original's object ({"success":…}). */
CO int command_run(struct command *c, const struct command_in *in, uint64_t deadline_ms,
                   char ret_workflow[DURABLE_ID], struct buf *out, struct err *e) MUST_CHECK;

/* Routes: POST /api/v1/commands, GET /api/v1/trackers…; their room is the struct command. */
extern const struct http_route command_routes[];
extern const size_t command_routes_len;
