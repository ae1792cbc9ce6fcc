/* SPDX-License-Identifier: MIT */
/* libchela/tracker_test.c — records of health, the filter, metrics, and the global tracker. */
#include <chela/bridge.h>
#include <pthread.h>
#include <stdlib.h>

#include "test.h"

static const struct chela_error a_timeout = { .type = CHELA_ERROR_TIMEOUT,
                                              .text = "Request timed out" };
static const struct chela_error refused = { .type = CHELA_ERROR_TYPES,
                                            .text = "Connection refused" };
static const struct chela_error other = { .type = CHELA_ERROR_UNKNOWN, .text = "oops" };

static struct chela_health status(struct chela_tracker *t, const char *id)
{
    struct chela_health h = { 0 };

    CHECK(chela_tracker_status(t, id, &h));
    return h;
}

TEST(a_new_record_is_healthy_at_100)
{
    struct chela_tracker *t = chela_tracker_new(0);
    struct chela_health h;

    CHECK(!chela_tracker_status(t, "a", &h));
    chela_tracker_register(t, "a");
    h = status(t, "a");
    CHECK_INT(h.status, CHELA_HEALTHY);
    CHECK(h.success_rate == 100 && !h.is_unhealthy);
    CHECK_INT(h.total_requests, 0);
    chela_tracker_free(t);
}

TEST(a_success_counts_and_keeps_the_rate_at_100)
{
    struct chela_tracker *t = chela_tracker_new(0);
    struct chela_health h;

    chela_tracker_success(t, "a", 12);
    h = status(t, "a");
    CHECK_INT(h.consecutive_failures, 0);
    CHECK_INT(h.total_requests, 1);
    CHECK(h.success_rate == 100);
    CHECK(h.avg_response_time_ms == 12);
    CHECK(h.last_success_us > 0 && h.last_success_us == h.last_check_us);
    CHECK_INT(h.status, CHELA_HEALTHY);
    chela_tracker_free(t);
}

TEST(a_first_failure_makes_unhealthy)
{
    struct chela_tracker *t = chela_tracker_new(0);
    struct chela_health h;

    chela_tracker_failure(t, "a", &a_timeout, 5, 0);
    h = status(t, "a");
    CHECK_INT(h.consecutive_failures, 1);
    CHECK_INT(h.total_failures, 1);
    CHECK_INT(h.status, CHELA_UNHEALTHY);
    CHECK_STR(h.last_error, "Request timed out");
    chela_tracker_free(t);
}

TEST(three_failures_in_a_row_are_unhealthy_and_a_success_ends_the_row)
{
    struct chela_tracker *t = chela_tracker_new(0);

    for (int i = 0; i < 3; i++)
        chela_tracker_failure(t, "a", &other, 0, 0);
    CHECK(status(t, "a").is_unhealthy);
    CHECK_INT(status(t, "a").status, CHELA_UNHEALTHY);
    chela_tracker_success(t, "a", 1);
    CHECK_INT(status(t, "a").consecutive_failures, 0);
    CHECK_INT(status(t, "a").status, CHELA_DEGRADED);
    chela_tracker_free(t);
}

TEST(three_network_failures_in_a_row_are_unreachable)
{
    struct chela_tracker *t = chela_tracker_new(0);

    for (int i = 0; i < 3; i++)
        chela_tracker_failure(t, "a", &refused, 0, 0);
    CHECK(chela_tracker_is_unreachable(t, "a"));
    CHECK(!chela_tracker_is_unreachable(t, "unknown"));
    chela_tracker_reset(t, "a");
    CHECK(chela_tracker_is_healthy(t, "a"));
    chela_tracker_free(t);
}

TEST(the_filter_keeps_healthy_and_unknown_ids_in_order)
{
    struct chela_tracker *t = chela_tracker_new(0);
    const char *ids[] = { "new", "bad", "good" };

    chela_tracker_success(t, "good", 1);
    for (int i = 0; i < 3; i++)
        chela_tracker_failure(t, "bad", &other, 0, 0);
    CHECK_INT(chela_tracker_filter(t, ids, 3), 2);
    CHECK_STR(ids[0], "new");
    CHECK_STR(ids[1], "good");
    chela_tracker_free(t);
}

TEST(metrics_count_each_class_with_durations_and_retries)
{
    struct chela_tracker *t = chela_tracker_new(0);
    struct chela_error_metric m;

    chela_tracker_failure(t, "a", &a_timeout, 100, 2);
    chela_tracker_failure(t, "a", &refused, 10, 1);
    chela_tracker_failure(t, "a", &refused, 20, 0);
    chela_tracker_metric(t, CHELA_ERROR_TIMEOUT, &m);
    CHECK_INT(m.count, 1);
    CHECK(m.total_duration_ms == 100 && m.avg_retry_count == 2);
    chela_tracker_metric(t, CHELA_ERROR_NETWORK, &m);
    CHECK_INT(m.count, 2);
    CHECK(m.total_duration_ms == 30 && m.avg_retry_count == 0.5);
    CHECK(m.first_us > 0 && m.last_us >= m.first_us);
    chela_tracker_metric(t, CHELA_ERROR_AUTH, &m);
    CHECK_INT(m.count, 0);
    chela_tracker_free(t);
}

TEST(the_summary_adds_up)
{
    struct chela_tracker *t = chela_tracker_new(0);
    struct chela_health_summary s;

    chela_tracker_success(t, "a", 1);
    chela_tracker_failure(t, "b", &other, 1, 0);
    chela_tracker_summary(t, &s);
    CHECK_INT(s.total_agents, 2);
    CHECK_INT(s.healthy_agents, 1);
    CHECK_INT(s.unhealthy_agents, 1);
    CHECK_INT(s.total_requests, 2);
    CHECK_INT(s.total_failures, 1);
    CHECK(s.error_rate == 50);
    CHECK_INT(s.errors[CHELA_ERROR_UNKNOWN], 1);
    CHECK_STR(s.status, "operational");
    chela_tracker_free(t);
}

TEST(records_and_the_whole_are_written_as_json)
{
    struct chela_tracker *t = chela_tracker_new(0);
    char *json;

    chela_tracker_register(t, "a");
    json = chela_tracker_status_json(t, "a");
    CHECK_STR(json, "{\"agent_id\":\"a\",\"status\":\"healthy\",\"last_check_at\":null,"
                    "\"last_success_at\":null,\"consecutive_failures\":0,\"total_failures\":0,"
                    "\"total_requests\":0,\"success_rate\":100.0,\"is_unhealthy\":false}");
    free(json);
    CHECK(!chela_tracker_status_json(t, "b"));
    json = chela_tracker_json(t);
    CHECK(strncmp(json, "{\"health_summary\":{\"total_agents\":1,", 36) == 0);
    CHECK(strstr(json, "\"agent_statuses\":{\"a\":{"));
    CHECK(strstr(json, "\"error_metrics\":{\"timeout\":{\"error_type\":\"timeout\",\"count\":0,"));
    CHECK(strstr(json, "\"timestamp\":\""));
    free(json);
    chela_tracker_free(t);
}

TEST(the_global_tracker_sees_a_success_and_then_an_error)
{
    char *json;

    chela_track_success("global-agent");
    CHECK(chela_tracker_is_healthy(chela_global_tracker(), "global-agent"));
    chela_track_error("global-agent", &other);
    CHECK_INT(status(chela_global_tracker(), "global-agent").status, CHELA_DEGRADED);
    json = chela_tracker_json(chela_global_tracker());
    CHECK(strstr(json, "\"health_summary\":") && strstr(json, "\"agent_statuses\":") &&
          strstr(json, "\"error_metrics\":") && strstr(json, "\"timestamp\":"));
    free(json);
}

static void *hammer(void *arg)
{
    for (int i = 0; i < 1000; i++)
        chela_tracker_success(arg, "a", 1);
    return NULL;
}

TEST(threads_may_share_a_tracker)
{
    struct chela_tracker *t = chela_tracker_new(0);
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, hammer, t), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(status(t, "a").total_requests, 4000);
    chela_tracker_free(t);
}
