/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/metric.c.
 */
#include "base/metric.h"

#include "test.h"

static struct metric requests = {
    .name = "t_requests_total",
    .help = "Requests, by \\ class\nand more.",
    .label = "class",
    .values = { "2xx", "5\"x\\x" },
};
static struct metric open_now = { .name = "t_open", .kind = METRIC_GAUGE, .help = "Open." };
static struct metric took = {
    .name = "t_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "Time.",
    .label = "room",
    .values = { "a", "b" },
};
static _Atomic int64_t pairs[METRIC_LABELS][METRIC_LABELS];
static struct metric by_two = {
    .name = "t_pairs_total",
    .help = "Pairs.",
    .label = "one",
    .values = { "a", "\\" },
    .label2 = "two",
    .values2 = { "x", "\"" },
    .v2 = pairs,
};
static struct metric *const rows[] = { &requests, &open_now, &took, &by_two };

static char text[65536];

static void print(void)
{
    struct buf b;

    buf_init(&b, sizeof(text) - 1);
    metric_register(rows, LEN(rows));
    text[0] = '\0';
    if (metric_print(&b, NULL) == 0) {
        memcpy(text, buf_str(&b).p, buf_str(&b).n);
        text[buf_str(&b).n] = '\0';
    }
    buf_done(&b);
}

TEST(rows_are_printed_with_their_labels_escaped)
{
    metric_add(&requests, 0, 3);
    metric_add(&requests, 1, 1);
    metric_set(&open_now, 0, -7);
    print();
    CHECK(strncmp(text,
                  "# HELP t_requests_total Requests, by \\\\ class\\nand more.\n"
                  "# TYPE t_requests_total counter\n"
                  "t_requests_total{class=\"2xx\"} 3\n"
                  "t_requests_total{class=\"5\\\"x\\\\x\"} 1\n"
                  "# HELP t_open Open.\n"
                  "# TYPE t_open gauge\n"
                  "t_open -7\n"
                  "# HELP t_seconds Time.\n"
                  "# TYPE t_seconds histogram\n",
                  200) == 0);
}

TEST(a_row_with_two_labels_has_a_line_for_each_pair)
{
    metric_add2(&by_two, 0, 1, 2);
    metric_add2(&by_two, 1, 0, 3);
    print();
    CHECK(strstr(text, "# TYPE t_pairs_total counter\n"
                       "t_pairs_total{one=\"a\",two=\"x\"} 0\n"
                       "t_pairs_total{one=\"a\",two=\"\\\"\"} 2\n"
                       "t_pairs_total{one=\"\\\\\",two=\"x\"} 3\n"
                       "t_pairs_total{one=\"\\\\\",two=\"\\\"\"} 0\n"));
}

TEST(a_histogram_counts_cumulatively)
{
    metric_observe(&took, 1, 500); /* on the first bound */
    metric_observe(&took, 1, 501);
    metric_observe(&took, 1, 90000000); /* past the last */
    print();
    CHECK(strstr(text, "t_seconds_bucket{room=\"a\",le=\"+Inf\"} 0\n"));
    CHECK(strstr(text, "t_seconds_bucket{room=\"b\",le=\"0.0005\"} 1\n"));
    CHECK(strstr(text, "t_seconds_bucket{room=\"b\",le=\"0.001\"} 2\n"));
    CHECK(strstr(text, "t_seconds_bucket{room=\"b\",le=\"60\"} 2\n"));
    CHECK(strstr(text, "t_seconds_bucket{room=\"b\",le=\"+Inf\"} 3\n"));
    CHECK(strstr(text, "t_seconds_sum{room=\"b\"} 90.001001\n"));
    CHECK(strstr(text, "t_seconds_count{room=\"b\"} 3\n"));
}

TEST(a_row_is_printed_once_however_often_it_is_registered)
{
    char *first;

    metric_register(rows, LEN(rows));
    print();
    first = strstr(text, "# TYPE t_open ");
    CHECK(first && !strstr(first + 1, "# TYPE t_open "));
}

TEST(the_process_describes_itself)
{
    static const char *const names[] = {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    };

    print();
    for (size_t i = 0; i < LEN(names); i++) {
        char line[80];
        const char *at;

        snprintf(line, sizeof(line), "\n%s ", names[i]);
        at = strstr(text, line);
        CHECK(at != NULL);
        CHECK(strtod(at + strlen(line), NULL) >= 0);
    }
    CHECK(strtod(strstr(text, "\nprocess_start_time_seconds ") + 28, NULL) > 1.7e9);
}

TEST(a_full_buffer_is_an_error)
{
    struct buf b;

    for (size_t max = 0; max < 1000; max += 7) {
        buf_init(&b, max);
        CHECK_INT(metric_print(&b, NULL), -ERR_LIMIT);
        buf_done(&b);
    }
}
