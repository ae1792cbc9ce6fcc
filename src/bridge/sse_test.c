/* SPDX-License-Identifier: MIT */
/* bridge/sse_test.c — events in, whole and in pieces. */
#include "bridge/sse.h"

#include "test.h"

static char seen[1024];

static int note(const char *event, struct str data, void *arg, struct err *e)
{
    size_t n = strlen(seen);

    snprintf(seen + n, sizeof(seen) - n, "[%s|%.*s]", event, STR_ARG(data));
    return 0;
}

/* All events of text, fed in pieces of n bytes. */
static int feed(const char *text, size_t n, size_t max)
{
    struct sse s;
    struct err e;
    int r = 0;

    seen[0] = '\0';
    sse_init(&s, max);
    for (size_t at = 0, left = strlen(text); left && !r; at += n, left -= n) {
        n = n < left ? n : left;
        r = sse_feed(&s, (struct str){ text + at, n }, note, NULL, &e);
    }
    sse_done(&s);
    return r;
}

TEST(events_are_read_whole_and_in_pieces_of_any_size)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        { "data: a\n\n", "[|a]" },
        { "event: x\ndata: a\n\ndata: b\n\n", "[x|a][|b]" },
        { "data: a\ndata: b\n\n", "[|a\nb]" },
        { "data\n\n", "[|]" },
        { "data:a\n\n", "[|a]" },
        { "data:  a\n\n", "[| a]" },
        { ": comment\n\nid: 1\nretry: 5\ndata: a\n\n", "[|a]" },
        { "event: x\r\ndata: a\r\n\r\ndata: b\r\r", "[x|a][|b]" },
        { "event: only\n\ndata: a\n\n", "[|a]" },
        { "\xef\xbb\xbf"
          "data: a\n\n",
          "[|a]" },
        { "\xef\xbb\xbf"
          "\ndata: a\n\n",
          "[|a]" },
        { "data: a\n\ndata: not ended\n", "[|a]" },
        { "", "" },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        for (size_t n = 1; n < 40; n += 3) {
            CHECK_INT(feed(rows[i].text, n, 1000), 0);
            CHECK_STR(seen, rows[i].want);
        }
    }
}

TEST(an_event_over_the_bound_is_refused)
{
    CHECK_INT(feed("data: 123456789012345\n\n", 100, 10), -ERR_LIMIT);
    CHECK_INT(feed("data: 1234\ndata: 1234\ndata: 1234\n\n", 100, 10), -ERR_LIMIT);
}
