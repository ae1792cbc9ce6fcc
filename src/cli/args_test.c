/* SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "test.h"

static CO int nothing(struct cli *cli, const struct args *args, struct err *e)
{
    return 0;
}

static const struct cli_flag flags[] = { { "session", "ID", "" }, { "stream", NULL, "" } };
static const struct cli_flag exec_flags[] = { { "stream", "NAME", "" } };
static const struct cli_cmd call = {
    .name = "agent call",
    .words = "<name> <prompt>",
    .min = 2,
    .max = 2,
    CLI_FLAGS(flags),
    .run = nothing,
};
static const struct cli_cmd state = { .name = "status", .words = "", .run = nothing };
static const struct cli_cmd exec = {
    .name = "machine exec",
    .words = "<name> <command>...",
    .min = 2,
    .max = SIZE_MAX,
    .rest = 1,
    CLI_FLAGS(exec_flags),
    .run = nothing,
};
const struct cli_cmd *const cli_commands[] = { &call, &state, &exec, NULL };

#define ARGV(...) \
    char *argv[] = { (char[]){ "chela" }, __VA_ARGS__, NULL }; \
    int argc = (int)LEN(argv) - 1
#define W(text) ((char[]){ text })

TEST(flags_stand_before_or_after_the_command)
{
    ARGV(W("--json"), W("agent"), W("call"), W("--session"), W("s1"), W("bob"), W("hi"),
         W("--state=/x"), W("--stream"));
    const struct cli_cmd *cmd;
    struct cli cli = { 0 };
    struct args args = { 0 };
    struct err e;

    CHECK_INT(args_parse(&cli, argc, argv, &cmd, &args, &e), 0);
    CHECK(cmd == &call && cli.json);
    CHECK_STR(cli.state, "/x");
    CHECK_INT(args.n_words, 2);
    CHECK_STR(args.words[0], "bob");
    CHECK_STR(args.words[1], "hi");
    CHECK_STR(args_flag(cmd, &args, "session"), "s1");
    CHECK(args_flag(cmd, &args, "stream"));
    arena_done(&cli.arena);
}

TEST(two_dashes_end_the_flags)
{
    ARGV(W("agent"), W("call"), W("bob"), W("--"), W("--stream"));
    const struct cli_cmd *cmd;
    struct cli cli = { 0 };
    struct args args = { 0 };
    struct err e;

    CHECK_INT(args_parse(&cli, argc, argv, &cmd, &args, &e), 0);
    CHECK_STR(args.words[1], "--stream");
    CHECK(!args_flag(cmd, &args, "stream"));
    arena_done(&cli.arena);
}

TEST(a_command_of_others_keeps_its_own_flags)
{
    ARGV(W("machine"), W("exec"), W("--stream"), W("s1"), W("box"), W("ls"), W("--stream"), W("-l"),
         W("--"), W("--help"));
    const struct cli_cmd *cmd;
    struct cli cli = { 0 };
    struct args args = { 0 };
    struct err e;

    CHECK_INT(args_parse(&cli, argc, argv, &cmd, &args, &e), 0);
    CHECK_STR(args_flag(cmd, &args, "stream"), "s1"); /* a value here, a switch of `agent call` */
    CHECK_INT(args.n_words, 6);
    CHECK_STR(args.words[0], "box");
    CHECK_STR(args.words[2], "--stream");
    CHECK_STR(args.words[4], "--");
    CHECK_STR(args.words[5], "--help");
    arena_done(&cli.arena);
}

TEST(help_is_asked_for_in_four_ways)
{
    static const char *const ways[][4] = { { "--help", "agent", "call" },
                                           { "agent", "call", "-h" },
                                           { "help", "agent", "call" },
                                           { "agent", "--help", "call" } };

    for (size_t i = 0; i < LEN(ways); i++) {
        char *argv[5] = { W("chela") }, copies[3][32];
        const struct cli_cmd *cmd;
        struct cli cli = { 0 };
        struct args args = { 0 };
        struct err e;

        for (size_t k = 0; k < 3; k++) {
            snprintf(copies[k], sizeof(copies[0]), "%s", ways[i][k]);
            argv[k + 1] = copies[k];
        }
        CHECK_INT(args_parse(&cli, 4, argv, &cmd, &args, &e), ARGS_HELP);
        CHECK(cmd == &call);
        arena_done(&cli.arena);
    }
}

TEST(what_cannot_be_meant_is_refused)
{
    static const char *const bad[][4] = {
        { "agent", "fly", NULL },       { "agent", "call", "bob", NULL },
        { "status", "--stream", NULL }, { "status", "--nonsense", NULL },
        { "status", "extra", NULL },    { "status", "--state", NULL },
        { "status", "--json=1", NULL }, { "agent", NULL },
    };

    for (size_t i = 0; i < LEN(bad); i++) {
        char *argv[6] = { W("chela") }, copies[4][32];
        const struct cli_cmd *cmd;
        struct cli cli = { 0 };
        struct args args = { 0 };
        struct err e;
        int argc = 1;

        for (; bad[i][argc - 1]; argc++) {
            snprintf(copies[argc - 1], sizeof(copies[0]), "%s", bad[i][argc - 1]);
            argv[argc] = copies[argc - 1];
        }
        CHECK_INT(args_parse(&cli, argc, argv, &cmd, &args, &e), -ERR_INVALID);
        arena_done(&cli.arena);
    }
}
