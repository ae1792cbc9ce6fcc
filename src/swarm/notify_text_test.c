/* SPDX-License-Identifier: MIT */
/* swarm/notify_text_test.c — each template of the original, whole, and what is left out of it. */
#include "swarm/notify.h"

#include "test.h"

static const char *text_of(const struct notification *n)
{
    static char text[512];
    AUTO(buf_done) struct buf b = { 0 };
    struct err e;

    buf_init(&b, sizeof(text) - 1);
    if (notify_text(n, &b, &e) == -ERR_LIMIT)
        return "(too long)";
    memcpy(text, buf_str(&b).p, b.n);
    text[b.n] = '\0';
    return text;
}

#define TEXT(...) text_of(&(const struct notification){ .issue = 7, __VA_ARGS__ })

TEST(every_template)
{
    CHECK_STR(TEXT(.event = NOTIFY_AGENT_SPAWNED, .agent = STR("a-1")),
              "✓ Agent spawned for issue #7\n\nAgent ID: a-1");
    CHECK_STR(TEXT(.event = NOTIFY_WORK_STARTED, .agent = STR("a-1"), .task = STR("mend it")),
              "🚀 Work started on issue #7\n\nAgent: a-1\nTask: mend it");
    CHECK_STR(TEXT(.event = NOTIFY_PR_CREATED, .pr = 12, .url = STR("https://x/pull/12")),
              "✓ PR #12 created for issue #7\n\nURL: https://x/pull/12");
    CHECK_STR(TEXT(.event = NOTIFY_TESTS_PASSING), "✓ All tests passing for issue #7");
    CHECK_STR(TEXT(.event = NOTIFY_TESTS_PASSING, .coverage = STR("87.5")),
              "✓ All tests passing for issue #7\n\nCoverage: 87.5%");
    CHECK_STR(TEXT(.event = NOTIFY_TESTS_FAILING), "❌ Tests failing for issue #7");
    CHECK_STR(TEXT(.event = NOTIFY_TESTS_FAILING, .error = STR("2 of 9")),
              "❌ Tests failing for issue #7\n\nError: 2 of 9");
    CHECK_STR(TEXT(.event = NOTIFY_WORK_COMPLETED, .pr = 12, .url = STR("https://x/pull/12")),
              "✅ Issue #7 completed\n\nPR #12 ready for review\nURL: https://x/pull/12");
    CHECK_STR(TEXT(.event = NOTIFY_ERROR, .error = STR("no")), "❌ Error on issue #7\n\nError: no");
}

TEST(what_is_not_known_is_left_out)
{
    CHECK_STR(TEXT(.event = NOTIFY_AGENT_SPAWNED), "✓ Agent spawned for issue #7");
    CHECK_STR(TEXT(.event = NOTIFY_WORK_STARTED, .task = STR("t")),
              "🚀 Work started on issue #7\n\nTask: t");
    CHECK_STR(TEXT(.event = NOTIFY_WORK_STARTED, .agent = STR("a")),
              "🚀 Work started on issue #7\n\nAgent: a");
    CHECK_STR(TEXT(.event = NOTIFY_PR_CREATED, .url = STR("u")),
              "✓ PR created for issue #7\n\nURL: u");
    CHECK_STR(TEXT(.event = NOTIFY_WORK_COMPLETED), "✅ Issue #7 completed");
    CHECK_STR(TEXT(.event = NOTIFY_WORK_COMPLETED, .url = STR("u")),
              "✅ Issue #7 completed\n\nURL: u");
    CHECK_STR(TEXT(.event = NOTIFY_WORK_COMPLETED, .pr = 3),
              "✅ Issue #7 completed\n\nPR #3 ready for review");
    CHECK_STR(TEXT(.event = NOTIFY_ERROR), "❌ Error on issue #7");
}

TEST(a_text_that_does_not_fit_is_an_error)
{
    static char much[600];

    memset(much, 'x', sizeof(much) - 1);
    CHECK_STR(TEXT(.event = NOTIFY_ERROR, .error = { much, sizeof(much) - 1 }), "(too long)");
}
