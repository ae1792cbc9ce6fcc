/* SPDX-License-Identifier: MIT */
/*
 * swarm/command_parse.h — the grammar of commands from chat. Pure.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"

enum command_kind { CMD_WORK, CMD_STATUS, CMD_STOP, CMD_LIST, CMD_HELP, CMD_KINDS };
extern const char *const command_names[CMD_KINDS]; /* "work_on_issue" ... */

enum command_fault { CMD_FINE, CMD_EMPTY, CMD_BAD_NUMBER, CMD_UNKNOWN };

struct command_parsed { /* raw and number are lent from the text parsed */
    enum command_kind kind;
    enum command_fault fault;
    struct str raw;    /* without the blanks around it */
    struct str number; /* as it was written */
    int64_t issue;     /* 0: none */
};

/* What does it ask for? *ret is always filled; without CMD_FINE its kind says nothing. */
enum command_fault command_look(struct str text, struct command_parsed *ret);

/* Why it is none, in the original's words, whole. Nothing for CMD_FINE. */
int command_fault_text(const struct command_parsed *p, struct buf *out, struct err *e) MUST_CHECK;

/* The same as an error: ERR_INVALID with that text, as much of it as fits. */
int command_parse(struct str text, struct command_parsed *ret, struct err *e) MUST_CHECK;
