/* SPDX-License-Identifier: MIT */
/* The envelope is found in the text, and goes on with the right sender. */
#include "hub/frame.h"

#include "test.h"

struct way {
    const char *in, *out; /* out NULL: as it came */
};

/* What goes on of a message by "me" at time 5; the id is cut where it was made up. */
static const char *forward(const char *text, struct arena *a)
{
    AUTO(buf_done) struct buf b = { 0 };
    struct frame f;
    struct str out;
    struct err e;

    buf_init(&b, 1 * MIB);
    if (frame_parse(str_of(text), a, &f, &e) < 0)
        return "refused";
    if (!frame_addressed(&f))
        return "not addressed";
    if (frame_forward(&f, STR("me"), 5, &b, &out, &e) < 0)
        return "failed";
    return arena_str(a, out).p;
}

TEST(what_is_right_goes_on_as_it_came)
{
    static const char *const texts[] = {
        "{\"id\":\"1\",\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1}",
        " { \"payload\" : {\"from\":\"you\",\"a\":[1,\"]\\\"}\"]} ,\"id\":7,\"from\":\"me\","
        "\"to\":\"x\" ,\"type\":\"task\",\"timestamp\":\"t\"} \n",
        "{\"x\":\"\\\\\",\"id\":\"1\",\"from\":\"me\",\"to\":\"*\",\"type\":\"error\","
        "\"timestamp\":-1e5,\"payload\":null}",
    };

    for (size_t i = 0; i < LEN(texts); i++) {
        struct arena a = { 0 };

        CHECK_STR(forward(texts[i], &a), texts[i]);
        arena_done(&a);
    }
}

TEST(a_sender_is_put_right_where_it_stands)
{
    static const struct way ways[] = {
        { "{\"id\":\"1\",\"from\":\"you\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1}",
          "{\"id\":\"1\",\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1}" },
        { "{\"timestamp\":0 ,\"from\": \"you\" ,\"to\":\"x\",\"type\":\"log\",\"id\":3}",
          "{\"timestamp\":5 ,\"from\": \"me\" ,\"to\":\"x\",\"type\":\"log\",\"id\":3}" },
        { "{\"id\":3,\"from\":\"you\",\"to\":\"x\",\"type\":\"log\"} ",
          "{\"id\":3,\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":5}" },
        { "{\"id\":3,\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":false}",
          "{\"id\":3,\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":5}" },
        /* what no database takes */
        { "{\"id\":3,\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1,"
          "\"a\":\"\\\\u0000\\u0000\\uD800\\uDBFF\\uDFFF\\udc00\\u00e4\"}",
          "{\"id\":3,\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1,"
          "\"a\":\"\\\\u0000\\ufffd\\ufffd\\uDBFF\\uDFFF\\ufffd\\u00e4\"}" },
        /* two ways to read it become one */
        { "{\"id\":3,\"from\":\"me\",\"from\":\"you\",\"to\":\"x\",\"type\":\"log\","
          "\"timestamp\":1}",
          "{\"id\":3,\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1}" },
        { "{\"id\":3,\"\\u0066rom\":\"you\",\"to\":\"\\u0078\",\"type\":\"lo\\u0067\","
          "\"timestamp\":1}",
          "{\"id\":3,\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1}" },
    };

    for (size_t i = 0; i < LEN(ways); i++) {
        struct arena a = { 0 };

        CHECK_STR(forward(ways[i].in, &a), ways[i].out);
        arena_done(&a);
    }
}

TEST(a_missing_id_is_made_up)
{
    static const char *const texts[] = {
        "{\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1}",
        "{\"id\":\"\",\"from\":\"me\",\"to\":\"x\",\"type\":\"log\",\"timestamp\":1}",
        "{\"from\":\"me\",\"to\":\"x\",\"id\":null,\"type\":\"log\",\"timestamp\":1}",
    };

    for (size_t i = 0; i < LEN(texts); i++) {
        struct arena a = { 0 };
        struct frame f;
        struct err e;

        CHECK_INT(frame_parse(str_of(forward(texts[i], &a)), &a, &f, &e), 0);
        CHECK_INT(frame_inside(f.id).n, 36);
        CHECK(str_eq_z(f.timestamp, "1"));
        arena_done(&a);
    }
}

TEST(what_is_no_message_is_told_from_one_that_is_badly_addressed)
{
    static const struct way ways[] = {
        { "", "refused" },
        { "{", "refused" },
        { "[]", "refused" },
        { "7", "refused" },
        { "null", "refused" },
        { "{}x", "refused" },
        { "{\"a\":\"\xff\"}", "refused" },
        { "{}", "not addressed" },
        { "{\"from\":\"me\",\"to\":\"x\"}", "not addressed" },
        { "{\"from\":\"me\",\"to\":\"x\",\"type\":\"nonsense\"}", "not addressed" },
        { "{\"from\":\"me\",\"to\":\"x\",\"type\":7}", "not addressed" },
        { "{\"from\":\"\",\"to\":\"x\",\"type\":\"log\"}", "not addressed" },
        { "{\"from\":7,\"to\":\"x\",\"type\":\"log\"}", "not addressed" },
        { "{\"from\":\"me\",\"to\":[\"x\"],\"type\":\"log\"}", "not addressed" },
        { "{\"from\":\"me\",\"type\":\"log\"}", "not addressed" },
        { "{\"from\":\"me\",\"to\":\"x\",\"type\":\"metadata\"}", "not addressed" },
    };

    for (size_t i = 0; i < LEN(ways); i++) {
        struct arena a = { 0 };

        CHECK_STR(forward(ways[i].in, &a), ways[i].out);
        arena_done(&a);
    }
}
