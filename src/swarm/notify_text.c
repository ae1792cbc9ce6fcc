/* SPDX-License-Identifier: MIT */
/* swarm/notify_text.c — the texts of notifications, byte for byte those of the original. */
#include <inttypes.h>

#include "swarm/notify.h"

#define TICK   "\xe2\x9c\x93"     /* U+2713 */
#define DONE   "\xe2\x9c\x85"     /* U+2705 */
#define CROSS  "\xe2\x9d\x8c"     /* U+274C */
#define ROCKET "\xf0\x9f\x9a\x80" /* U+1F680 */

const char *const notify_event_names[NOTIFY_EVENTS] = {
    "agent_spawned", "work_started",   "pr_created", "tests_passing",
    "tests_failing", "work_completed", "error",
};

/* A line behind the heading, when there is something to say. */
static int line(const char *before, const char *label, struct str value, struct buf *out,
                struct err *e)
{
    return value.n ? buf_printf(out, e, "%s%s: " STR_FMT, before, label, STR_ARG(value)) : 0;
}

static int spawned(const struct notification *n, struct buf *out, struct err *e)
{
    int r = buf_printf(out, e, TICK " Agent spawned for issue #%" PRId64, n->issue);

    return r < 0 ? r : line("\n\n", "Agent ID", n->agent, out, e);
}

static int started(const struct notification *n, struct buf *out, struct err *e)
{
    int r = buf_printf(out, e, ROCKET " Work started on issue #%" PRId64, n->issue);

    if (r == 0)
        r = line("\n\n", "Agent", n->agent, out, e);
    return r < 0 ? r : line(n->agent.n ? "\n" : "\n\n", "Task", n->task, out, e);
}

static int pr_created(const struct notification *n, struct buf *out, struct err *e)
{
    int r;

    if (n->pr)
        r = buf_printf(out, e, TICK " PR #%" PRId64 " created for issue #%" PRId64, n->pr,
                       n->issue);
    else
        r = buf_printf(out, e, TICK " PR created for issue #%" PRId64, n->issue);
    return r < 0 ? r : line("\n\n", "URL", n->url, out, e);
}

static int passing(const struct notification *n, struct buf *out, struct err *e)
{
    int r = buf_printf(out, e, TICK " All tests passing for issue #%" PRId64, n->issue);

    if (r == 0 && n->coverage.n)
        r = buf_printf(out, e, "\n\nCoverage: " STR_FMT "%%", STR_ARG(n->coverage));
    return r;
}

static int failing(const struct notification *n, struct buf *out, struct err *e)
{
    int r = buf_printf(out, e, CROSS " Tests failing for issue #%" PRId64, n->issue);

    return r < 0 ? r : line("\n\n", "Error", n->error, out, e);
}

static int completed(const struct notification *n, struct buf *out, struct err *e)
{
    int r = buf_printf(out, e, DONE " Issue #%" PRId64 " completed", n->issue);

    if (r == 0 && n->pr)
        r = buf_printf(out, e, "\n\nPR #%" PRId64 " ready for review", n->pr);
    return r < 0 ? r : line(n->pr ? "\n" : "\n\n", "URL", n->url, out, e);
}

static int failed(const struct notification *n, struct buf *out, struct err *e)
{
    int r = buf_printf(out, e, CROSS " Error on issue #%" PRId64, n->issue);

    return r < 0 ? r : line("\n\n", "Error", n->error, out, e);
}

int notify_text(const struct notification *n, struct buf *out, struct err *e)
{
    static int (*const texts[NOTIFY_EVENTS])(const struct notification *n, struct buf *out,
                                             struct err *e) = {
        [NOTIFY_AGENT_SPAWNED] = spawned, [NOTIFY_WORK_STARTED] = started,
        [NOTIFY_PR_CREATED] = pr_created, [NOTIFY_TESTS_PASSING] = passing,
        [NOTIFY_TESTS_FAILING] = failing, [NOTIFY_WORK_COMPLETED] = completed,
        [NOTIFY_ERROR] = failed,
    };

    return texts[n->event](n, out, e);
}
