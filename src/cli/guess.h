/* SPDX-License-Identifier: MIT */
/* cli/guess.h — what a word that is unknown may have been meant as. */
#pragma once

#include "cli/cli.h"

struct guess {
    struct cli *cli;         /* its arena holds the list */
    const char *word, *mark; /* mark: before each name, "--" for flags */
    const char *list, *last;
    size_t best, found; /* best: at most so many edits */
};

/* For a word, with nothing found. */
struct guess guess_of(struct cli *cli, const char *word, const char *mark);

/* A name that exists: kept when no other was nearer. */
void guess_consider(struct guess *g, const char *name, size_t len);

/* "" or "(Did you mean list?)" behind the given space, in the arena. */
const char *guess_text(const struct guess *g, const char *space);
