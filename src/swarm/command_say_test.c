/* SPDX-License-Identifier: MIT */
/* swarm/command_say_test.c — results as chat texts, keys of notifications, numbers of pull
 * requests. */
#include "swarm/command_int.h"

#include "test.h"

static const char *said_of(enum command_kind kind, struct str result)
{
    static char text[4096];
    AUTO(buf_done) struct buf b = { 0 };
    struct arena a = { 0 };
    json_t *j = NULL;
    struct err e;

    buf_init(&b, sizeof(text) - 1);
    fmt_z(text, sizeof(text), "(failed)");
    if (json_parse(result, 32, &a, &j, NULL, &e) == 0 && command_say(kind, j, &b, &e) == 0)
        fmt_z(text, sizeof(text), "%.*s", (int)b.n, b.n ? buf_str(&b).p : "");
    arena_done(&a);
    return text;
}

static const char *said(enum command_kind kind, const char *result)
{
    return said_of(kind, str_of(result));
}

TEST(what_notifications_tell_is_not_said_again)
{
    CHECK_STR(said(CMD_WORK, "{\"success\":true,\"issue_number\":5,\"agent_id\":\"a\","
                             "\"state\":\"agent_ready\"}"),
              "");
    CHECK_STR(said(CMD_WORK, "{\"success\":false,\"issue_number\":5,\"error\":\"no\","
                             "\"state\":\"failed\"}"),
              "");
}

TEST(work_that_goes_on_or_was_stopped)
{
    CHECK_STR(said(CMD_WORK, "{\"success\":true,\"issue_number\":5,\"agent_id\":null,"
                             "\"state\":\"spawning_agent\",\"existing\":true}"),
              "Issue #5 is already being worked on: spawning_agent");
    CHECK_STR(said(CMD_WORK, "{\"success\":false,\"issue_number\":5,\"state\":\"stopped\","
                             "\"error\":\"Work on issue #5 was stopped\"}"),
              "\xe2\x9d\x8c Work on issue #5 was stopped");
}

TEST(a_status_tells_what_there_is)
{
    CHECK_STR(said(CMD_STATUS,
                   "{\"success\":true,\"issue_number\":5,\"status\":\"failed\","
                   "\"workflow\":{\"agent_id\":\"a\",\"pr_url\":\"u\",\"error\":\"x\"}}"),
              "Issue #5: failed\n\nAgent ID: a\nURL: u\nError: x");
    CHECK_STR(said(CMD_STATUS, "{\"success\":true,\"issue_number\":5,\"status\":\"s\","
                               "\"workflow\":{\"agent_id\":null,\"pr_url\":\"u\"}}"),
              "Issue #5: s\n\nURL: u");
}

TEST(a_long_list_is_cut)
{
    AUTO(buf_done) struct buf b = { 0 };
    const char *text, *last;
    struct err e;

    buf_init(&b, 64 * KIB);
    CHECK(buf_add_z(&b, "{\"success\":true,\"agents\":[", &e) == 0);
    for (int i = 1; i <= 33; i++)
        CHECK(buf_printf(&b, &e, "%s{\"issue_number\":%d,\"issue_state\":\"agent_ready\"}",
                         i > 1 ? "," : "", i) == 0);
    CHECK(buf_add_z(&b, "]}", &e) == 0);
    text = said_of(CMD_LIST, buf_str(&b));
    CHECK(strncmp(text, "Active agents: 33\n\n#1 agent_ready\n#2 ", 37) == 0);
    last = strstr(text, "\n#30 agent_ready\n");
    CHECK(last && strstr(last, "and 3 more") && !strstr(text, "#31"));
    CHECK_STR(said(CMD_LIST, "{\"success\":true,\"agents\":[]}"), "No active agents");
}

TEST(a_key_is_bounded)
{
    static char much[300];
    struct arena a = { 0 };
    struct str key;

    memset(much, 'x', sizeof(much) - 1);
    CHECK(str_eq(command_key("error", 5, STR("cmd:1"), &a), STR("ntf:error:5:cmd:1")));
    key = command_key("agent_spawned", INT64_MAX, str_of(much), &a);
    CHECK(key.n < DURABLE_ID && str_starts(key, STR("ntf:agent_spawned:9223372036854775807:")));
    arena_done(&a);
}

TEST(the_number_of_a_pull_request)
{
    CHECK_INT(command_pr_of(STR("https://example.org/o/r/pull/12")), 12);
    CHECK_INT(command_pr_of(STR("https://example.org/o/r/pull/12/")), 0);
    CHECK_INT(command_pr_of(STR("https://example.org/o/r/pull/x12")), 0);
    CHECK_INT(command_pr_of(STR("/99999999999999999999")), 0);
    CHECK_INT(command_pr_of(STR("12")), 0);
    CHECK_INT(command_pr_of(STR("")), 0);
}
