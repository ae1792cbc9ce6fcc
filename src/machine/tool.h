/* SPDX-License-Identifier: MIT */
/*
 * machine/tool.h — running the programs that drivers need (qemu-img, multipass) to their end: argv,
 * never a shell; what they say is kept, bounded, for the error that a failure becomes.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/fiber.h"

#define TOOL_OUTPUT_MAX (4 * MIB)

struct tool {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    const char *const *env;  /* NULL: ours */
    struct str input;        /* for its standard input */
    uint64_t deadline_ms;    /* it is ended then */
    bool quiet;              /* nobody wants its standard error */
};

struct tool_end {
    struct buf out, err; /* standard output and error; tool_end_done() */
    int code;            /* 0..255, 128 + signal */
};

/* Run it to its end, whatever its exit status. ERR_UNAVAILABLE: it is not installed; ERR_TIMEOUT,
 * ERR_CANCELED: it was ended; ERR_LIMIT: it says more than TOOL_OUTPUT_MAX. *ret is to be released
 * in any case. */
CO int tool_run(const struct tool *tool, struct tool_end *ret, struct err *e) MUST_CHECK;
void tool_end_done(struct tool_end *t);

/* The same, and another status than 0 is ERR_INTERNAL with the last words of the program. out (may
 * be NULL) gets what it printed; it is the caller's, initialised. */
CO int tool_must(const struct tool *tool, struct buf *out, struct err *e) MUST_CHECK;

/* Remove a directory with all below it, however deep and whoever's it is; nothing there is fine. */
CO int tool_remove(const char *path, uint64_t deadline_ms, struct err *e) MUST_CHECK;

/* The end of a text, cut to whole lines and to n bytes, on one line: for error messages. */
struct str tool_last_words(struct str text, size_t n);

/* Is this program there (a path, or a name in PATH)? ERR_UNAVAILABLE names the package. */
int tool_find(const char *program, const char *package, struct err *e) MUST_CHECK;

static inline void tool_end_done_auto(struct tool_end *t)
{
    tool_end_done(t);
}
