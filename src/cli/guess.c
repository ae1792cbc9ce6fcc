/* SPDX-License-Identifier: MIT */
/*
 * cli/guess.c — names that are near to a word nobody knows: as near as the original's parser
 * (commander) found them, so that both command lines suggest the same.
 */
#include "cli/guess.h"

#include <string.h>

enum { NAME_MAX_LEN = 32, EDITS_MAX = 3 };

static unsigned char least(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;

    return (unsigned char)(ab < c ? ab : c);
}

/* Edits between two words, neighbours that changed places counting once. */
static size_t edits_between(const char *a, size_t n, const char *b, size_t m)
{
    unsigned char d[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1];

    if (n > NAME_MAX_LEN || m > NAME_MAX_LEN)
        return NAME_MAX_LEN;
    for (size_t i = 0; i <= n; i++)
        d[i][0] = (unsigned char)i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned char)j;
    for (size_t i = 1; i <= n; i++)
        for (size_t j = 1; j <= m; j++) {
            d[i][j] =
                least(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1, SIZE_MAX);
        }
    return d[n][m];
}

struct guess guess_of(struct cli *cli, const char *word, const char *mark)
{
    return (struct guess){
        .cli = cli, .word = word, .mark = mark, .list = "", .last = "", .best = EDITS_MAX
    };
}

void guess_consider(struct guess *g, const char *name, size_t len)
{
    size_t n = strlen(g->word), longer = len > n ? len : n;
    size_t edits = edits_between(g->word, n, name, len);

    if (edits > g->best || (double)(longer - edits) / (double)longer <= 0.4)
        return;
    if (strlen(g->last) >= len && strncmp(g->last, name, len) == 0)
        return; /* another of its group */
    if (edits < g->best) {
        g->list = "";
        g->found = 0;
    }
    g->best = edits;
    g->last = name;
    g->list = arena_printf(&g->cli->arena, "%s%s%s%.*s", g->list, g->found++ ? ", " : "", g->mark,
                           (int)len, name);
}

const char *guess_text(const struct guess *g, const char *space)
{
    if (!g->found)
        return "";
    return arena_printf(&g->cli->arena, "%s(Did you mean %s%s?)", space,
                        g->found > 1 ? "one of " : "", g->list);
}
