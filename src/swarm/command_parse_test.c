/* SPDX-License-Identifier: MIT */
/* swarm/command_parse_test.c — the verified table of the original's grammar, row by row, what its
 * documents add to it, and edges. */
#include "swarm/command_parse.h"

#include "test.h"

#define UNKNOWN_END \
    "'. Supported commands: work on issue #N, status of issue #N, stop work on issue #N, list " \
    "agents"
#define BAD(x)     "Invalid issue number: '" x "'. Issue numbers must be positive integers"
#define UNKNOWN(x) "Unknown command: '" x UNKNOWN_END
#define EMPTY      "Command cannot be empty"

struct row {
    const char *text;
    enum command_kind kind;
    int64_t issue;
    const char *error;
};

static void check(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct row *row = &rows[i];
        struct command_parsed p;
        struct buf why;
        char text[512] = "";
        struct err e;

        buf_init(&why, 4096);
        printf("# row %zu\n", i);
        CHECK_INT(command_look(str_of(row->text), &p) == CMD_FINE, !row->error);
        CHECK_INT(command_fault_text(&p, &why, &e), 0);
        memcpy(text, buf_str(&why).p ? buf_str(&why).p : "", why.n);
        buf_done(&why);
        CHECK_STR(text, row->error ? row->error : "");
        CHECK_INT(command_parse(str_of(row->text), &p, &e), row->error ? -ERR_INVALID : 0);
        if (row->error) {
            CHECK_INT(strncmp(e.msg, row->error, sizeof(e.msg) - 1), 0);
            continue;
        }
        CHECK_INT(p.kind, row->kind);
        CHECK_INT(p.issue, row->issue);
    }
}

TEST(the_verified_table)
{
    static const struct row rows[] = {
        { "work on issue #1234", CMD_WORK, 1234, NULL },
        { "WORK ON ISSUE 7", CMD_WORK, 7, NULL },
        { "  work  on   issue   #9  please", CMD_WORK, 9, NULL },
        { "work on issue123", CMD_WORK, 123, NULL },
        { "work on issue +5", CMD_WORK, 5, NULL },
        { "work on issue #12abc", CMD_WORK, 12, NULL },
        { "work on issue", 0, 0, BAD("") },
        { "work on issue #", 0, 0, BAD("") },
        { "work on issue # 5", 0, 0, BAD("") },
        { "work on issue abc", 0, 0, BAD("abc") },
        { "work on issues 5", 0, 0, BAD("s") },
        { "work on issue #0", 0, 0, BAD("0") },
        { "work on issue -5", 0, 0, BAD("-5") },
        { "status of issue #3", CMD_STATUS, 3, NULL },
        { "status issue 3", CMD_STATUS, 3, NULL },
        { "check status of issue 3", CMD_STATUS, 3, NULL },
        { "stop work 5", 0, 0, UNKNOWN("stop work 5") },
        { "status", 0, 0, UNKNOWN("status") },
        { "list agents", CMD_LIST, 0, NULL },
        { "show active agents now", CMD_LIST, 0, NULL },
        { "list agentsx", CMD_LIST, 0, NULL },
        { "please work on issue 5", 0, 0, UNKNOWN("please work on issue 5") },
        { "", 0, 0, EMPTY },
        { " \t\n ", 0, 0, EMPTY },
        { "stop issue #4", CMD_STOP, 4, NULL },
        { "stop work issue 4", CMD_STOP, 4, NULL },
        { "cancel work on issue #5", CMD_STOP, 5, NULL },
        { "cancel issue 5", CMD_STOP, 5, NULL },
    };

    check(rows, LEN(rows));
}

TEST(what_the_documents_add)
{
    static const struct row rows[] = {
        { "@openclaw work on issue 5", CMD_WORK, 5, NULL },
        { "@4912345  list agents", CMD_LIST, 0, NULL },
        { "@openclaw", 0, 0, EMPTY },
        { "@ work on issue 5", 0, 0, UNKNOWN("@ work on issue 5") },
        { "@a @b list", 0, 0, UNKNOWN("@a @b list") },
        { "@a hello", 0, 0, UNKNOWN("@a hello") },
        { "status #123", CMD_STATUS, 123, NULL },
        { "Status  #12 now", CMD_STATUS, 12, NULL },
        { "status 12", 0, 0, UNKNOWN("status 12") },
        { "status #", 0, 0, BAD("") },
        { "stop #123", CMD_STOP, 123, NULL },
        { "cancel #1", CMD_STOP, 1, NULL },
        { "stop #x", 0, 0, BAD("x") },
        { "list", CMD_LIST, 0, NULL },
        { "LIST  ", CMD_LIST, 0, NULL },
        { "list files", 0, 0, UNKNOWN("list files") },
        { "/status", CMD_LIST, 0, NULL },
        { "/status 7", CMD_STATUS, 7, NULL },
        { "/status@bot of issue #7", CMD_STATUS, 7, NULL },
        { "/stop", 0, 0, BAD("") },
        { "/stop #7", CMD_STOP, 7, NULL },
        { "/stop work on issue 7", CMD_STOP, 7, NULL },
        { "/work 8", CMD_WORK, 8, NULL },
        { "/work on issue #8", CMD_WORK, 8, NULL },
        { "/list openclaw/backend", CMD_LIST, 0, NULL },
        { "/HELP", CMD_HELP, 0, NULL },
        { "/helpful", 0, 0, UNKNOWN("/helpful") },
        { "/", 0, 0, UNKNOWN("/") },
        { "/start x", 0, 0, UNKNOWN("/start x") },
    };

    check(rows, LEN(rows));
}

TEST(edges)
{
    static const struct row rows[] = {
        { "work on issue 9223372036854775807", CMD_WORK, INT64_MAX, NULL },
        { "work on issue 9223372036854775808", 0, 0, BAD("9223372036854775808") },
        { "work on issue 99999999999999999999999", 0, 0, BAD("99999999999999999999999") },
        { "work on issue 0007", CMD_WORK, 7, NULL },
        { "work on issue ##5", 0, 0, BAD("#5") },
        { "work on issue +5x", 0, 0, BAD("+5x") },
        { "work\ton\nissue\r#5", CMD_WORK, 5, NULL },
        { "workon issue 5", 0, 0, UNKNOWN("workon issue 5") },
        { "work onissue 5", 0, 0, UNKNOWN("work onissue 5") },
        { "status ofissue 5", 0, 0, UNKNOWN("status ofissue 5") },
        { "check list agents", 0, 0, UNKNOWN("check list agents") },
        { "show agents", CMD_LIST, 0, NULL },
        { "show", 0, 0, UNKNOWN("show") },
        { "work on issue #5\xe2\x9c\x93", CMD_WORK, 5, NULL },
        { "work on issue \xd9\xa3", 0, 0, BAD("\xd9\xa3") },
    };

    check(rows, LEN(rows));
}

TEST(the_text_is_lent_and_trimmed)
{
    struct command_parsed p;
    struct err e;

    CHECK_INT(command_parse(STR("  Work on Issue #5 please "), &p, &e), 0);
    CHECK(str_eq(p.raw, STR("Work on Issue #5 please")));
    CHECK(str_eq(p.number, STR("5")));
    CHECK_INT(command_look((struct str){ NULL, 0 }, &p), CMD_EMPTY);
    CHECK_STR(command_names[CMD_WORK], "work_on_issue");
    CHECK_STR(command_names[CMD_LIST], "list_agents");
}
