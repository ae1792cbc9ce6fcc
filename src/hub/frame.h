/* SPDX-License-Identifier: MIT */
/*
 * hub/frame.h — the envelope of an agent's message, {id, from, to, type, timestamp, payload}, found
 * in its text without building a document: most messages go on as they came. Pure.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"

enum frame_type { /* the six that are routed, in the order of the metric's values */
                  FRAME_TASK,
                  FRAME_RESPONSE,
                  FRAME_HEALTH,
                  FRAME_LOG,
                  FRAME_STATUS,
                  FRAME_ERROR,
                  FRAME_OTHER, /* a text that is none of them, or no text */
                  FRAME_METADATA,
                  FRAME_PONG,
                  FRAME_SHELL,
};

struct frame {
    struct str text; /* the whole message: what was given, or its normal form in the arena */
    /* Values as they stand in the text, {NULL, 0} where there is none. */
    struct str id, from, to, kind, timestamp, payload;
    enum frame_type type;
};

enum { FRAME_DEPTH = 64 };

/*
 * text: any bytes. Escapes of U+0000 and of halves of pairs become U+FFFD. ERR_INVALID: not JSON,
 * or no object. What could be read in two ways (escapes in the envelope, a key twice) is brought
 * into one form first, in the arena: of several values the last counts.
 */
int frame_parse(struct str text, struct arena *a, struct frame *ret, struct err *e) MUST_CHECK;

/* The text inside a value that is a plain JSON string; {NULL, 0} for anything else. */
struct str frame_inside(struct str value);

/* As the original told: has it a sender, a recipient and a type? */
bool frame_addressed(const struct frame *f);

/*
 * The text to send on: from is made `from`; an id or a timestamp (ms) that is missing, or false in
 * JavaScript's eyes, is filled in. *ret is f->text where nothing had to be changed, else in b.
 */
int frame_forward(const struct frame *f, struct str from, int64_t now, struct buf *b,
                  struct str *ret, struct err *e) MUST_CHECK;

/* A type by its name; FRAME_OTHER. */
enum frame_type frame_type_of(struct str name);
