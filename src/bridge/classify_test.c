/* SPDX-License-Identifier: MIT */
/* bridge/classify_test.c — the table of the original's rules, and the structural ones before it. */
#include "bridge/classify.h"

#include "test.h"

#include "base/time.h"

struct row {
    const char *text, *class_name;
    enum error_type want;
};

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        enum error_type got = classify_text(str_of(rows[i].text), str_of(rows[i].class_name));

        if (got != rows[i].want)
            CHECK_FAIL("\"%s\" (%s) is %s", rows[i].text, rows[i].class_name, error_type_name(got));
    }
}

TEST(texts_are_classified_by_the_original_s_rules)
{
    static const struct row rows[] = {
        { "Request timed out", "", ERROR_TIMEOUT },
        { "Connection TIMEOUT after 5s", "", ERROR_TIMEOUT },
        { "anything", "ReadTimeout", ERROR_TIMEOUT },
        { "", "TimeoutException", ERROR_TIMEOUT },
        { "429 Too Many Requests", "", ERROR_RATE_LIMIT },
        { "rate limit exceeded", "", ERROR_RATE_LIMIT },
        { "Too Many Requests", "", ERROR_RATE_LIMIT },
        { "x", "ConnectionError", ERROR_NETWORK },
        { "x", "NetworkError", ERROR_NETWORK },
        { "x", "RefusedError", ERROR_NETWORK },
        { "Connection refused", "", ERROR_NETWORK },
        { "Connection reset by peer", "", ERROR_NETWORK },
        { "No route to host", "", ERROR_NETWORK },
        { "401 Unauthorized", "", ERROR_AUTH },
        { "403 Forbidden", "", ERROR_AUTH },
        { "authentication failed", "", ERROR_AUTH },
        { "Model not found: x", "", ERROR_MODEL },
        { "invalid model", "", ERROR_MODEL },
        { "model error", "", ERROR_MODEL },
        { "HTTP 500", "", ERROR_INTERNAL },
        { "Internal Server Error", "", ERROR_INTERNAL },
        { "some random error", "ValueError", ERROR_UNKNOWN },
    };

    check_rows(rows, LEN(rows));
}

TEST(the_first_rule_that_matches_wins)
{
    static const struct row rows[] = {
        { "timeout, 429, connection refused, 401", "", ERROR_TIMEOUT },
        { "429 connection refused", "", ERROR_RATE_LIMIT },
        { "401", "ConnectionError", ERROR_NETWORK },
        { "403 internal", "", ERROR_AUTH },
    };

    check_rows(rows, LEN(rows));
}

TEST(numbers_count_only_when_they_stand_alone)
{
    static const struct row rows[] = {
        { "1429 apples", "", ERROR_UNKNOWN }, { "port 4010", "", ERROR_UNKNOWN },
        { "port 5001", "", ERROR_UNKNOWN },   { "a429", "", ERROR_UNKNOWN },
        { "(429)", "", ERROR_RATE_LIMIT },    { "status=401", "", ERROR_AUTH },
        { "'500 oops'", "", ERROR_INTERNAL }, { "4290 and 429", "", ERROR_RATE_LIMIT },
    };

    check_rows(rows, LEN(rows));
}

TEST(texts_the_original_did_not_know_stay_unknown)
{
    static const char *const texts[] = { "502",
                                         "503",
                                         "504",
                                         "408",
                                         "404",
                                         "Network is unreachable",
                                         "Broken pipe",
                                         "Name or service not known",
                                         "connection aborted",
                                         "rate_limit",
                                         "timed-out",
                                         "" };

    for (size_t i = 0; i < LEN(texts); i++)
        CHECK_INT(classify_text(str_of(texts[i]), (struct str){ 0 }), ERROR_UNKNOWN);
}

TEST(statuses_are_classified_structurally)
{
    static const struct {
        int status;
        const char *body;
        enum error_type want;
    } rows[] = {
        { 301, "", ERROR_UNKNOWN },
        { 400, "", ERROR_UNKNOWN },
        { 401, "", ERROR_AUTH },
        { 403, "", ERROR_AUTH },
        { 407, "", ERROR_AUTH },
        { 404, "nothing", ERROR_UNKNOWN },
        { 404, "{\"error\":\"model not found: x\"}", ERROR_MODEL },
        { 404, "The model `x` does not exist", ERROR_MODEL },
        { 400, "{\"code\":\"model_not_found\"}", ERROR_MODEL },
        { 408, "", ERROR_TIMEOUT },
        { 504, "", ERROR_TIMEOUT },
        { 429, "", ERROR_RATE_LIMIT },
        { 422, "model not found", ERROR_UNKNOWN },
        { 500, "", ERROR_INTERNAL },
        { 502, "", ERROR_INTERNAL },
        { 503, "", ERROR_INTERNAL },
        { 599, "", ERROR_INTERNAL },
        { 600, "", ERROR_UNKNOWN },
    };

    for (size_t i = 0; i < LEN(rows); i++)
        CHECK_INT(classify_status(rows[i].status, str_of(rows[i].body)), rows[i].want);
}

TEST(failures_without_an_answer_are_classified_structurally)
{
    CHECK_INT(classify_fail(HTTP_FAIL_TIMEOUT), ERROR_TIMEOUT);
    CHECK_INT(classify_fail(HTTP_FAIL_DNS), ERROR_NETWORK);
    CHECK_INT(classify_fail(HTTP_FAIL_CONNECT), ERROR_NETWORK);
    CHECK_INT(classify_fail(HTTP_FAIL_TLS), ERROR_NETWORK);
    CHECK_INT(classify_fail(HTTP_FAIL_RESET), ERROR_NETWORK);
    CHECK_INT(classify_fail(HTTP_FAIL_TOO_BIG), ERROR_UNKNOWN);
}

TEST(names_go_both_ways)
{
    for (int t = 0; t < ERROR_TYPES; t++)
        CHECK_INT(error_type_of(str_of(error_type_name((enum error_type)t))), t);
    CHECK_INT(error_type_of(STR("nonsense")), ERROR_NONE);
    CHECK(!error_type_name(ERROR_NONE));
}

TEST(error_objects_of_streams_are_classified_by_name_then_text)
{
    CHECK_INT(classify_named(STR("overloaded_error"), STR("Overloaded")), ERROR_INTERNAL);
    CHECK_INT(classify_named(STR("rate_limit_error"), STR("")), ERROR_RATE_LIMIT);
    CHECK_INT(classify_named(STR("odd"), STR("401 Unauthorized")), ERROR_AUTH);
}

TEST(what_may_pass_by_itself_is_retried)
{
    CHECK(error_retriable(ERROR_TIMEOUT) && error_retriable(ERROR_RATE_LIMIT) &&
          error_retriable(ERROR_NETWORK) && error_retriable(ERROR_INTERNAL));
    CHECK(!error_retriable(ERROR_AUTH) && !error_retriable(ERROR_MODEL) &&
          !error_retriable(ERROR_UNKNOWN));
}

TEST(five_thousand_classifications_take_less_than_200_ms)
{
    uint64_t began = now_ms();

    for (int i = 0; i < 5000; i++)
        CHECK_INT(classify_text(STR("a longer text about nothing in particular, port 5001"),
                                STR("ValueError")),
                  ERROR_UNKNOWN);
    CHECK(now_ms() - began < 200);
}
