/* SPDX-License-Identifier: MIT */
/* agent/health_test.c — what /proc says, counted as df and Node count it. */
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/health_int.h"
#include "base/offload.h"
#include "in_fiber.h"

TEST(processors_are_counted_between_two_looks)
{
    struct cpu_times then, now;

    CHECK(cpu_times_parse(STR("cpu  100 10 50 800 40 0 0 5 0 0\ncpu0 1 2 3 4\n"), &then));
    CHECK_INT(then.busy, 160);
    CHECK_INT(then.idle, 840);
    CHECK(cpu_times_parse(STR("cpu 200 10 50 900 40"), &now));
    CHECK_INT(cpu_percent(&then, &now) * 100, 5000);
    CHECK_INT(cpu_percent(&now, &now), 0);
    CHECK_INT(cpu_percent(&now, &then), 0); /* counters of a guest may go back */
    CHECK(!cpu_times_parse(STR("intr 5"), &now));
    CHECK(!cpu_times_parse(STR("cpu 1 2 3"), &now));
    CHECK(!cpu_times_parse(STR(""), &now));
}

TEST(a_percentage_has_two_decimals)
{
    struct cpu_times then = { 0, 0 }, now = { 1, 2 };

    CHECK_INT(cpu_percent(&then, &now) * 10000, 333300);
}

TEST(numbers_are_found_by_their_key)
{
    struct str text =
        STR("MemTotal:       2048000 kB\nMemFree:  5 kB\nMemAvailable:\t1024000 kB\n");
    uint64_t n = 7;

    CHECK(proc_number(text, "MemAvailable", &n));
    CHECK_INT(n, 1024000);
    CHECK(proc_number(text, "MemTotal", &n));
    CHECK_INT(n, 2048000);
    CHECK(!proc_number(text, "Mem", &n));
    CHECK(proc_number(STR("anon 1\ninactive_file 4096\n"), "inactive_file", &n));
    CHECK_INT(n, 4096);
    CHECK(!proc_number(STR("MemTotal: kB"), "MemTotal", &n));
}

TEST(memory_is_what_is_available)
{
    struct usage u;

    memory_usage(4096 * 1024, 1024 * 1024, 0, 0, &u);
    CHECK(u.total == 4096 && u.free == 1024 && u.used == 3072 && u.percent == 75);
    memory_usage(4096 * 1024, 3072 * 1024, 1024 * 1024, 256 * 1024, &u);
    CHECK(u.total == 1024 && u.free == 768 && u.used == 256 && u.percent == 25);
    memory_usage(1024, 9999999, 0, 0, &u); /* never more free than there is */
    CHECK(u.total == 1 && u.free == 1 && u.used == 0);
    memory_usage(0, 0, 0, 0, &u);
    CHECK(u.total == 0 && u.percent == 0);
}

TEST(the_disk_is_counted_as_df_counts)
{
    struct usage u;

    disk_usage(1000 * 1024, 400 * 1024, 350 * 1024, &u); /* 50 MiB are reserved */
    CHECK(u.total == 1000 && u.used == 600 && u.free == 350);
    CHECK(u.percent == 64); /* 600 of 950 is 63.2: up */
    disk_usage(0, 0, 0, &u);
    CHECK(u.percent == 0);
}

static bool is_percent(const json_t *v)
{
    return json_is_number(v) && json_number_value(v) >= 0 && json_number_value(v) <= 100;
}

static bool is_usage(const json_t *v)
{
    return json_is_integer(json_object_get(v, "total")) &&
           json_is_integer(json_object_get(v, "used")) &&
           json_is_integer(json_object_get(v, "free")) &&
           is_percent(json_object_get(v, "usagePercent"));
}

CO_TEST(a_report_has_every_member)
{
    struct health *h = health_new();
    json_t *report = NULL;

    CO_CHECK(health_report(h, 3, &report, e) == 0);
    CO_CHECK(is_percent(json_object_get(report, "cpu")));
    CO_CHECK(is_usage(json_object_get(report, "memory")));
    CO_CHECK(json_integer_value(json_object_get(json_object_get(report, "memory"), "total")) > 0);
    CO_CHECK(is_usage(json_object_get(report, "disk")));
    CO_CHECK(json_integer_value(json_object_get(report, "uptime")) < 60);
    CO_CHECK(json_integer_value(json_object_get(report, "systemUptime")) > 0);
    CO_CHECK(json_array_size(json_object_get(report, "loadAverage")) == 3);
    CO_CHECK(json_string_length(json_object_get(report, "arch")) > 0);
    CO_CHECK(json_string_length(json_object_get(report, "hostname")) > 0);
    CO_CHECK(json_integer_value(json_object_get(report, "timestamp")) > 1600000000000);
    CO_CHECK(json_integer_value(json_object_get(report, "activeTasks")) == 3);
    CO_CHECK(json_is_true(json_object_get(report, "stdin")));
    json_decref(report);
    CO_CHECK(health_report(h, 0, &report, e) == 0);
    json_decref(report);
    health_free(h);
    offload_shutdown();
    return 0;
}
