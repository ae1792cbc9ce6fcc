/* SPDX-License-Identifier: MIT */
/*
 * cli/progress.c — what is going on, on stderr. On a terminal the line is drawn anew; into a pipe
 * each text is a line of its own, once.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/hub.h"

static char *text_of(const char *fmt, va_list args)
{
    char *text = NULL;

    if (vasprintf(&text, fmt, args) < 0)
        abort();
    return text;
}

/* A line that stays. */
static void say(struct progress *p, const char *mark, const char *colour, const char *text)
{
    const char *shown = harmless(p->cli, stderr, text);

    if (p->terminal)
        fprintf(stderr, "\r\033[K%s%s%s", colour, mark, *colour ? "\033[0m" : "");
    else
        fprintf(stderr, "%s", mark);
    fprintf(stderr, "%s%s\n", *mark ? " " : "", shown);
}

static void draw(struct progress *p, char *text)
{
    if (p->last && strcmp(p->last, text) == 0) {
        free(text);
        return;
    }
    free(p->last);
    p->last = text;
    if (p->cli->json)
        return;
    if (p->terminal)
        fprintf(stderr, "\r\033[K- %s", harmless(p->cli, stderr, text));
    else
        fprintf(stderr, "%s%s\n", p->cli->vm ? "- " : "", text);
    fflush(stderr);
}

void progress_start(struct progress *p, struct cli *cli, const char *fmt, ...)
{
    va_list args;

    *p = (struct progress){ .cli = cli, .terminal = isatty(STDERR_FILENO) != 0 };
    va_start(args, fmt);
    draw(p, text_of(fmt, args));
    va_end(args);
}

void progress_step(struct progress *p, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    draw(p, text_of(fmt, args));
    va_end(args);
}

void progress_end(struct progress *p)
{
    if (p->last && p->terminal && !p->cli->json)
        fprintf(stderr, "\r\033[K");
    free(TAKE(p->last));
}

/* chela says the end on stdout, by its result. */
static void end_with(struct progress *p, bool always, const char *mark, const char *colour,
                     const char *fmt, va_list args)
{
    AUTO(free) char *text = text_of(fmt, args);

    if (!p->cli->vm || p->cli->json)
        progress_end(p);
    if ((p->cli->vm || always) && !p->cli->json)
        say(p, p->cli->vm ? mark : "", colour, text);
    free(TAKE(p->last));
}

void progress_done(struct progress *p, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    end_with(p, false, "\xe2\x9c\x94", "\033[32m", fmt, args);
    va_end(args);
}

void progress_fail(struct progress *p, const char *fmt, ...)
{
    va_list args;

    if (p->cli->interrupted) { /* it has not failed; what is said ends with how it is */
        progress_end(p);
        return;
    }
    va_start(args, fmt);
    end_with(p, false, "\xe2\x9c\x96", "\033[31m", fmt, args);
    va_end(args);
}

void progress_warn(struct progress *p, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    end_with(p, true, "\xe2\x9a\xa0", "\033[33m", fmt, args);
    va_end(args);
}
