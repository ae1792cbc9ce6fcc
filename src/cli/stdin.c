/* SPDX-License-Identifier: MIT */
/*
 * cli/stdin.c — what a command in a machine reads: our standard input, if it is a file or a pipe.
 * It goes with the task, so it is read to its end first. A pipe that nobody writes to (of a
 * service, of ssh without a terminal) must not keep the command from being run: it is waited for a
 * moment.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base64.h"
#include "base/str.h"
#include "cli/hub.h"
#include "cli/input.h"

#define INPUT_MAX (10 * MIB)
#define MOMENT_MS 1000

/* Is there something to read, or an end? */
static bool has_some(void)
{
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
    struct stat st;

    if (fstat(STDIN_FILENO, &st) < 0)
        return false;
    if (S_ISREG(st.st_mode))
        return true;
    if (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode))
        return false;
    if (poll(&p, 1, MOMENT_MS) != 0)
        return true;
    fprintf(stderr, "nothing has come on standard input: the command gets none\n");
    return false;
}

/* Agents say so with their health; those of the original protocol would run it without. */
static CO int check_agent(struct cli *cli, const char *name, struct err *e)
{
    const json_t *health;
    json_t *answer;
    int r =
        api_call(cli, HTTP_M_GET, agent_path(cli, name, "/status"), (struct str){ 0 }, &answer, e);

    if (r < 0)
        return r;
    health = json_object_get(json_object_get(answer, "agent"), "health");
    if (json_is_true(json_object_get(health, "stdin")))
        return 0;
    return err_set(e, ERR_UNAVAILABLE,
                   "agent '%s' takes no standard input, so nothing was run: with </dev/null it is",
                   name);
}

CO int stdin_give(struct cli *cli, const char *agent, json_t *task, struct err *e)
{
    struct str text;
    int r;

    if (!has_some())
        return 0;
    r = input_read(cli, "-", INPUT_MAX, &text, e);
    if (r < 0)
        return err_wrap(e, "standard input");
    if (!text.n)
        return 0;
    r = check_agent(cli, agent, e);
    if (r < 0)
        return r;
    if (!utf8_valid(text.p, text.n) || memchr(text.p, 0, text.n)) {
        text = base64_encode(text, &cli->arena);
        put_text(task, "stdinEncoding", "base64");
    }
    json_object_set_new(task, "stdin", json_stringn(text.p, text.n));
    return 0;
}
