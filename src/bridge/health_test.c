/* SPDX-License-Identifier: MIT */
/* bridge/health_test.c — the single rule over sequences of outcomes, and the tracker's accounts. */
#include "bridge/tracker.h"

#include "test.h"

/* Outcomes in order: S success, F failure (internal), N failure (network). */
static enum health_status after(const char *outcomes, struct health *h)
{
    *h = (struct health){ 0 };
    for (const char *o = outcomes; *o; o++) {
        if (*o == 'S')
            health_success(h, 1, 2.0, 5);
        else
            health_failure(h, 1, *o == 'N' ? ERROR_NETWORK : ERROR_INTERNAL, STR("oops"));
    }
    return h->status;
}

TEST(the_status_follows_the_single_rule)
{
    static const struct {
        const char *outcomes;
        enum health_status want;
    } rows[] = {
        { "", HEALTH_HEALTHY },
        { "S", HEALTH_HEALTHY },
        { "F", HEALTH_UNHEALTHY },
        { "SF", HEALTH_DEGRADED },
        { "FS", HEALTH_DEGRADED },
        { "FSSSS", HEALTH_DEGRADED },
        { "FSSSSS", HEALTH_HEALTHY },
        { "SFSSSSS", HEALTH_HEALTHY },
        { "SSFF", HEALTH_DEGRADED },
        { "SFF", HEALTH_UNHEALTHY },
        { "SSSSFFF", HEALTH_UNHEALTHY },
        { "FFFF", HEALTH_UNHEALTHY },
        { "FFFFF", HEALTH_UNREACHABLE },
        { "FFFFFF", HEALTH_UNREACHABLE },
        { "NNN", HEALTH_UNREACHABLE },
        { "NN", HEALTH_UNHEALTHY },
        { "FNN", HEALTH_UNHEALTHY },
        { "FNNN", HEALTH_UNHEALTHY },
        { "FNNNN", HEALTH_UNREACHABLE },
        { "NNNF", HEALTH_UNHEALTHY },
        { "SSSSSSSSSNNN", HEALTH_UNREACHABLE },
        { "FFFFFS", HEALTH_DEGRADED },
        { "NNNS", HEALTH_DEGRADED },
        { "SSSSSSSSSSF", HEALTH_DEGRADED },
        { "SSSSSSSSSSFS", HEALTH_HEALTHY },
    };
    struct health h;

    for (size_t i = 0; i < LEN(rows); i++)
        if (after(rows[i].outcomes, &h) != rows[i].want)
            CHECK_FAIL("%s gives %s", rows[i].outcomes, health_status_name(h.status));
}

TEST(one_success_suffices_when_recover_after_is_one)
{
    struct health h = { 0 };

    health_failure(&h, 1, ERROR_AUTH, STR(""));
    health_success(&h, 2, 1, 1);
    CHECK_INT(h.status, HEALTH_HEALTHY);
}

TEST(rate_and_counters_are_lifetime_values)
{
    struct health h;

    after("", &h);
    CHECK(health_rate(&h) == 100);
    after("SSF", &h);
    CHECK(health_rate(&h) > 66.66 && health_rate(&h) < 66.67);
    CHECK_INT(h.requests, 3);
    CHECK_INT(h.failures, 1);
    CHECK_INT(h.consecutive, 1);
    CHECK(health_average_ms(&h) == 2);
    after("SF", &h);
    CHECK(!health_is_unhealthy(&h)); /* exactly 50 is not unhealthy */
}

TEST(the_last_ten_errors_and_the_last_text_are_kept)
{
    struct health h = { 0 };
    char text[400];

    for (int i = 1; i <= 12; i++)
        health_failure(&h, i, ERROR_AUTH, STR("x"));
    CHECK_INT(h.history[0].at_us, 12);
    CHECK_INT(h.history[HEALTH_HISTORY - 1].at_us, 3);
    memset(text, 'a', sizeof(text));
    memcpy(text + HEALTH_ERROR_TEXT - 2, "\xc3\xa9", 2); /* é across the cut */
    health_failure(&h, 13, ERROR_AUTH, (struct str){ text, sizeof(text) });
    CHECK_INT(strlen(h.last_error), HEALTH_ERROR_TEXT - 2);
}

TEST(the_tracker_registers_on_first_mention_and_keeps_the_order)
{
    struct tracker t = { 0 };
    struct tracked *a = tracker_get(&t, STR("a")), *b = tracker_get(&t, STR("b"));

    CHECK(tracker_get(&t, STR("a")) == a && t.first == a && a->next == b && t.last == b);
    CHECK(!tracker_find(&t, STR("c")));
    tracker_remove(&t, a);
    CHECK(!tracker_find(&t, STR("a")) && t.first == b && t.last == b);
    tracker_done(&t);
}

TEST(a_change_of_state_is_told)
{
    struct tracker t = { 0 };
    struct tracked *a = tracker_get(&t, STR("a"));

    CHECK(!tracker_success(&t, a, 1));
    CHECK(a->dirty);
    CHECK(tracker_failure(&t, a, ERROR_TIMEOUT, STR("x"), 5, 2));
    CHECK(!tracker_failure(&t, a, ERROR_TIMEOUT, STR("x"), 5, 0) ||
          a->health.status == HEALTH_UNHEALTHY);
    tracker_done(&t);
}

TEST(summary_and_metrics_are_written_as_the_original_s)
{
    struct tracker t = { 0 };
    struct arena arena = { 0 };
    struct str text;
    struct out o;
    struct err e;

    tracker_success(&t, tracker_get(&t, STR("good")), 1);
    tracker_failure(&t, tracker_get(&t, STR("bad")), ERROR_TIMEOUT, STR("x"), 10.256, 2);
    tracker_failure(&t, tracker_get(&t, STR("bad")), ERROR_NETWORK, STR("x"), 5, 0);
    tracker_failure(&t, tracker_get(&t, STR("bad")), ERROR_NETWORK, STR("x"), 5, 1);
    out_init(&o, 1 << 16);
    tracker_write_summary(&t, &o);
    CHECK_INT(out_take(&o, &arena, &text, &e), 0);
    CHECK_STR(text.p, "{\"total_agents\":2,\"healthy_agents\":1,\"degraded_agents\":0,"
                      "\"unhealthy_agents\":1,\"unreachable_agents\":0,\"total_requests\":4,"
                      "\"total_failures\":3,\"error_metrics\":{\"timeout\":1,\"network\":2}}");
    t.metrics[ERROR_NETWORK].first_us = 1000000;
    t.metrics[ERROR_NETWORK].last_us = 1500000;
    error_metric_write(&t.metrics[ERROR_NETWORK], ERROR_NETWORK, &o);
    CHECK_INT(out_take(&o, &arena, &text, &e), 0);
    CHECK_STR(text.p, "{\"error_type\":\"network\",\"count\":2,"
                      "\"last_occurred_at\":\"1970-01-01T00:00:01.500000\","
                      "\"first_occurred_at\":\"1970-01-01T00:00:01\","
                      "\"total_duration_ms\":10.0,\"avg_retry_count\":0.5}");
    out_done(&o);
    tracker_done(&t);
    arena_done(&arena);
}

TEST(a_record_is_written_with_the_original_s_nine_keys)
{
    struct arena arena = { 0 };
    struct health h = { 0 };
    struct str text;
    struct out o;
    struct err e;

    out_init(&o, 1 << 16);
    health_write(&h, STR("a"), &o);
    CHECK_INT(out_take(&o, &arena, &text, &e), 0);
    CHECK_STR(text.p, "{\"agent_id\":\"a\",\"status\":\"healthy\",\"last_check_at\":null,"
                      "\"last_success_at\":null,\"consecutive_failures\":0,\"total_failures\":0,"
                      "\"total_requests\":0,\"success_rate\":100.0,\"is_unhealthy\":false}");
    out_done(&o);
    arena_done(&arena);
}
