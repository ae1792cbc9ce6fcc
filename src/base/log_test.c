/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/log.c.
 */
#include "base/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "test.h"

static char last[8192];
static int n_lines;

static void keep(enum log_level level, const char *line, void *arg)
{
    snprintf(last, sizeof(last), "%s", line);
    n_lines++;
}

static void begin(enum log_level level, enum log_format format)
{
    log_setup(level, format);
    log_capture(keep, NULL);
    last[0] = '\0';
    n_lines = 0;
}

/* The line behind its time. */
static const char *tail(void)
{
    const char *at = strstr(last, "Z");

    return at ? at + 1 : last;
}

TEST(a_line_is_json_with_typed_pairs)
{
    struct str slice = { "slice!", 5 };

    begin(LOG_INFO, LOG_JSON);
    log_info("agent registered", "agent", LOG_STR("a\"b\n\x01"), "port", LOG_INT(80), "ok",
             LOG_BOOL(true), "share", LOG_REAL(0.5), "part", LOG_SLICE(slice), "none",
             LOG_STR(NULL), "token", LOG_SECRET("hush"));
    CHECK_STR(tail(),
              "\",\"level\":\"info\",\"msg\":\"agent registered\",\"agent\":\"a\\\"b\\n\\u0001\","
              "\"port\":80,\"ok\":true,\"share\":0.5,\"part\":\"slice\",\"none\":null,"
              "\"token\":\"***\"}");
}

TEST(on_a_terminal_a_line_is_text_quoted_where_needed)
{
    begin(LOG_INFO, LOG_TEXT);
    log_warn("odd", "plain", LOG_STR("x/1"), "spaced", LOG_STR("a b"), "empty", LOG_STR(""), "sum",
             LOG_STR("a=b"));
    CHECK_STR(tail(), " warn  odd plain=x/1 spaced=\"a b\" empty=\"\" sum=\"a=b\"");
}

TEST(nothing_in_a_line_steers_a_terminal)
{
    for (int format = LOG_TEXT; format <= LOG_JSON; format++) {
        begin(LOG_INFO, (enum log_format)format);
        log_info("x", "a", LOG_STR("\033[2J"), "b",
                 LOG_STR("\xc2\x9b"
                         "2J"),
                 "c", LOG_STR("\x7f"), "d", LOG_STR("\xc2\xa0"));
        CHECK(strstr(last, "\\u001b[2J"));
        CHECK(strstr(last, "\\u009b2J"));
        CHECK(strstr(last, "\\u007f"));
        CHECK(strstr(last, "\xc2\xa0"));
    }
}

TEST(levels_are_filtered_and_named)
{
    enum log_level level;
    struct err e;

    begin(LOG_WARN, LOG_JSON);
    log_info("no");
    log_debug("no");
    CHECK_INT(n_lines, 0);
    log_warn("yes");
    log_error("yes");
    CHECK_INT(n_lines, 2);
    CHECK(strstr(last, "\"at\":\"base/log_test.c:") || strstr(last, "log_test.c:"));
    CHECK(log_enabled(LOG_ERROR) && !log_enabled(LOG_INFO));
    CHECK_INT(log_level_parse("DEBUG", &level, &e), 0);
    CHECK_INT(level, LOG_DEBUG);
    CHECK_INT(log_level_parse("warning", &level, &e), 0);
    CHECK_INT(level, LOG_WARN);
    CHECK_INT(log_level_parse("loud", &level, &e), -ERR_INVALID);
}

TEST(every_line_carries_the_context)
{
    struct log_ctx conn, req, *was;

    begin(LOG_INFO, LOG_TEXT);
    log_push(&conn, "conn", "17");
    log_push(&req, "req", "r1");
    log_info("a", "k", LOG_INT(1));
    CHECK_STR(tail(), " info  a conn=17 req=r1 k=1");
    was = log_ctx_swap(NULL);
    log_info("b");
    CHECK_STR(tail(), " info  b");
    (void)log_ctx_swap(was);
    log_pop(&req);
    log_info("c");
    CHECK_STR(tail(), " info  c conn=17");
    log_pop(&conn);
    log_info("d");
    CHECK_STR(tail(), " info  d");
}

TEST(a_long_context_is_cut_between_code_points)
{
    struct log_ctx ctx;
    char text[200];

    for (size_t i = 0; i + 3 < sizeof(text); i += 3)
        memcpy(text + i, "\xe2\x82\xac", 4);
    log_push(&ctx, "k", text);
    CHECK(utf8_valid(ctx.value, strlen(ctx.value)));
    CHECK_INT(strlen(ctx.value), 63);
    log_pop(&ctx);
}

static void check_is_json(void)
{
    struct arena a = { 0 };
    json_t *line;
    int r = json_parse(str_of(last), 10, &a, &line, NULL, NULL);

    arena_done(&a);
    CHECK_INT(r, 0);
    CHECK(strlen(last) < 4096);
}

TEST(whatever_the_values_are_a_line_is_bounded_json)
{
    static char text[9000];

    begin(LOG_INFO, LOG_JSON);
    for (size_t n = 3800; n < 4300; n++) {
        memset(text, 'x', n);
        text[n] = '\0';
        log_info("long", "text", LOG_STR(text), "more", LOG_STR(text), "last", LOG_INT(1));
        check_is_json();
        CHECK(n < 4100 || strstr(last, "\"cut\":true"));
    }
    for (int c = 1; c < 256; c++) {
        memset(text, c, 5000);
        text[5000] = '\0';
        log_error("bytes", "text", LOG_STR(text));
        check_is_json();
        text[5] = '\0';
        log_error("bytes", "text", LOG_STR(text));
        check_is_json();
        CHECK(!strstr(last, "cut"));
    }
}

TEST(a_pair_there_is_no_room_for_does_not_confuse_the_next)
{
    static char text[5000];

    begin(LOG_INFO, LOG_TEXT);
    memset(text, 'y', sizeof(text) - 1);
    log_info("m", "a", LOG_STR(text), "b", LOG_REAL(1.5), "c", LOG_SLICE(STR("zz")), "d",
             LOG_BOOL(1));
    CHECK(strstr(last, "cut=true"));
    CHECK(!strstr(last, "zz"));
}

/* What arrives on a file in place of stderr. */
static void write_one(const char *journal, char *out, size_t size)
{
    char path[] = "/tmp/log_test_XXXXXX", id[64];
    int fd = mkstemp(path), saved = dup(STDERR_FILENO);
    struct stat st;
    ssize_t n;

    fstat(fd, &st);
    snprintf(id, sizeof(id), "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", journal ? journal : id, 1);
    dup2(fd, STDERR_FILENO);
    log_capture(NULL, NULL);
    log_setup(LOG_INFO, LOG_AUTO);
    log_warn("to the journal");
    dup2(saved, STDERR_FILENO);
    close(saved);
    n = pread(fd, out, size - 1, 0);
    out[n > 0 ? n : 0] = '\0';
    close(fd);
    unlink(path);
    unsetenv("JOURNAL_STREAM");
}

TEST(the_journal_gets_a_priority_and_others_do_not)
{
    char text[512];

    write_one(NULL, text, sizeof(text));
    CHECK(strncmp(text, "<4>{\"time\":", 11) == 0);
    CHECK(text[strlen(text) - 1] == '\n');
    write_one("1:2", text, sizeof(text));
    CHECK(strncmp(text, "{\"time\":", 8) == 0);
}
