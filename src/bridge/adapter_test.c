/* SPDX-License-Identifier: MIT */
/* bridge/adapter_test.c — requests byte by byte, answers of every shape, events of every dialect.
 */
#include "bridge/adapter.h"

#include "test.h"

static struct str body_of(enum agent_api api, const struct ask *ask, struct arena *a)
{
    struct str text = { 0 };
    struct out o;
    struct err e;

    out_init(&o, 1 << 16);
    adapters[api].body(ask, &o);
    if (out_take(&o, a, &text, &e) < 0)
        text = STR("(failed)");
    out_done(&o);
    return text;
}

TEST(requests_are_the_documented_ones)
{
    static const struct ask_turn earlier[] = { { STR("user"), STR("a") },
                                               { STR("assistant"), STR("b") } };
    struct ask plain = { .model = STR("m"), .prompt = STR("say \"hi\"\n") };
    struct ask session = { .model = STR("m"), .prompt = STR("p"), .session_id = STR("s") };
    struct ask full = { .model = STR("m"),
                        .prompt = STR("p"),
                        .session_id = STR("s"),
                        .earlier = earlier,
                        .n_earlier = 2,
                        .stream = true };
    struct arena a = { 0 };

    CHECK_STR(
        body_of(API_MESSAGES, &plain, &a).p,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"say \\\"hi\\\"\\n\"}]}");
    CHECK_STR(body_of(API_MESSAGES, &full, &a).p,
              "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
              "{\"role\":\"assistant\",\"content\":\"b\"},{\"role\":\"user\",\"content\":\"p\"}],"
              "\"session_id\":\"s\",\"stream\":true}");
    CHECK_STR(
        body_of(API_OPENAI, &session, &a).p,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"p\"}],\"user\":\"s\"}");
    CHECK_STR(body_of(API_RESPONSES, &session, &a).p,
              "{\"model\":\"m\",\"input\":\"p\",\"user\":\"s\"}");
    CHECK_STR(
        body_of(API_RESPONSES, &full, &a).p,
        "{\"model\":\"m\",\"input\":[{\"type\":\"message\",\"role\":\"user\",\"content\":\"a\"},"
        "{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"b\"},"
        "{\"type\":\"message\",\"role\":\"user\",\"content\":\"p\"}],\"stream\":true}");
    arena_done(&a);
}

struct answer_row {
    const char *body, *want; /* want NULL: an invalid response */
};

static void check_answers(enum agent_api api, const struct answer_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct arena a = { 0 };
        struct str text = { 0 };
        struct err e;
        int r = adapter_read(&adapters[api], str_of(rows[i].body), &a, &text, &e);

        if (!rows[i].want) {
            CHECK_INT(r, -ERR_INVALID);
            CHECK(str_starts(str_of(e.msg), STR("Invalid response: ")));
        } else {
            CHECK_INT(r, 0);
            CHECK_STR(text.p, rows[i].want);
        }
        arena_done(&a);
    }
}

TEST(answers_to_messages_are_read_generously)
{
    static const struct answer_row rows[] = {
        { "{\"content\":\"x\"}", "x" },
        { "{\"message\":\"m\",\"content\":\"c\"}", "c" },
        { "{\"message\":\"m\"}", "m" },
        { "{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_use\"},"
          "{\"type\":\"text\",\"text\":\"b\"}]}",
          "ab" },
        { "{\"content\":{\"text\":\"x\"}}", "x" },
        { "{\"content\":{\"content\":\"x\"}}", "x" },
        { "{\"message\":{\"role\":\"assistant\",\"content\":\"x\"}}", "x" },
        { "{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}}", "a" },
        { "{\"message\":{\"text\":\"x\"}}", "x" },
        { "{\"content\":5}", "5" },
        { "{\"content\":9007199254740993}", "9007199254740993" },
        { "{\"content\":1.5}", "1.5" },
        { "{\"content\":true}", "true" },
        { "{\"content\":[1,2]}", "[1,2]" },
        { "{\"foo\":1,\"bar\":[true,null,\"x\"]}", "{\"foo\":1,\"bar\":[true,null,\"x\"]}" },
        { "{}", "{}" },
        { "\xef\xbb\xbf{\"content\":\"x\"}", "x" },
        { "{\"content\":\"a\\u0000b\"}", "a\xef\xbf\xbd"
                                         "b" },
        { "{\"content\":\"cut \\ud83e\"}", "cut \xef\xbf\xbd" },
        { "{\"content\":\"\\ud83e\\udd9e \\\\u0000\"}", "\xf0\x9f\xa6\x9e \\u0000" },
        { "{\"content\":null}", NULL },
        { "{\"message\":null}", NULL },
        { "[]", NULL },
        { "\"x\"", NULL },
        { "5", NULL },
        { "null", NULL },
        { "", NULL },
        { " \n", NULL },
        { "<html>", NULL },
        { "{\"content\":\"x\"", NULL },
        { "{\"content\":\"x\"} y", NULL },
        { "{\"content\":\"\xff\"}", NULL },
        { "{\"content\":\"\\ud83e\xff\"}", NULL },
        { "{\"content\":\"\\u0000\"", NULL },
    };

    check_answers(API_MESSAGES, rows, LEN(rows));
}

TEST(answers_of_chat_completions_must_have_text)
{
    static const struct answer_row rows[] = {
        { "{\"choices\":[{\"message\":{\"content\":\"x\"}}]}", "x" },
        { "{\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}}]}", "x" },
        { "{\"choices\":[{\"message\":{\"content\":null}}]}", NULL },
        { "{\"choices\":[{\"message\":{}}]}", NULL },
        { "{\"choices\":[]}", NULL },
        { "{\"choices\":5}", NULL },
        { "{}", NULL },
    };

    check_answers(API_OPENAI, rows, LEN(rows));
}

TEST(answers_of_responses_must_have_text)
{
    static const struct answer_row rows[] = {
        { "{\"output\":[{\"type\":\"reasoning\"},{\"type\":\"message\",\"content\":["
          "{\"type\":\"output_text\",\"text\":\"a\"},{\"type\":\"output_text\",\"text\":\"b\"}]}]}",
          "ab" },
        { "{\"output\":[{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":"
          "\"a\"}]},"
          "{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"c\"}]}]}",
          "ac" },
        { "{\"output\":[{\"type\":\"reasoning\"}]}", NULL },
        { "{\"output\":[]}", NULL },
        { "{\"output\":\"x\"}", NULL },
        { "{}", NULL },
    };

    check_answers(API_RESPONSES, rows, LEN(rows));
}

TEST(events_of_all_dialects_are_known)
{
    static const struct {
        const char *data;
        enum delta_kind kind;
        const char *text;
        enum error_type type;
    } rows[] = {
        { "[DONE]", DELTA_END, NULL, ERROR_NONE },
        { "{\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}", DELTA_NONE, NULL, ERROR_NONE },
        { "{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}", DELTA_TEXT, "x", ERROR_NONE },
        { "{\"choices\":[{\"delta\":{\"content\":\"\\ud83e\"}}]}", DELTA_TEXT, "\xef\xbf\xbd",
          ERROR_NONE },
        { "{\"choices\":[]}", DELTA_NONE, NULL, ERROR_NONE },
        { "{\"type\":\"message_start\"}", DELTA_BEGIN, NULL, ERROR_NONE },
        { "{\"type\":\"response.created\",\"response\":{}}", DELTA_BEGIN, NULL, ERROR_NONE },
        { "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}",
          DELTA_TEXT, "x", ERROR_NONE },
        { "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"input_json_delta\","
          "\"partial_json\":\"x\"}}",
          DELTA_NONE, NULL, ERROR_NONE },
        { "{\"type\":\"message_stop\"}", DELTA_END, NULL, ERROR_NONE },
        { "{\"type\":\"response.output_text.delta\",\"delta\":\"x\"}", DELTA_TEXT, "x",
          ERROR_NONE },
        { "{\"type\":\"response.output_text.done\",\"text\":\"x\"}", DELTA_NONE, NULL, ERROR_NONE },
        { "{\"type\":\"response.completed\",\"response\":{}}", DELTA_END, NULL, ERROR_NONE },
        { "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}"
          "}",
          DELTA_ERROR, "Overloaded", ERROR_INTERNAL },
        { "{\"error\":{\"message\":\"slow down\",\"code\":\"rate_limit_exceeded\"}}", DELTA_ERROR,
          "slow down", ERROR_RATE_LIMIT },
        { "{\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\","
          "\"message\":\"m\"}}}",
          DELTA_ERROR, "m", ERROR_INTERNAL },
        { "not json", DELTA_ERROR, "Invalid response: an event is not JSON", ERROR_UNKNOWN },
        { "5", DELTA_NONE, NULL, ERROR_NONE },
        { "{}", DELTA_NONE, NULL, ERROR_NONE },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        struct arena a = { 0 };
        struct delta d;

        CHECK_INT(delta_read(str_of(rows[i].data), &a, &d), rows[i].kind);
        CHECK_INT(d.type, rows[i].type);
        if (rows[i].text)
            CHECK(str_eq_z(d.text, rows[i].text));
        arena_done(&a);
    }
}
