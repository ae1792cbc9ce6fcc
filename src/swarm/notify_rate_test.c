/* SPDX-License-Identifier: MIT */
/* swarm/notify_rate_test.c — the bucket, joined texts, peers, our own address, and what is heard.
 */
#include "swarm/notify_int.h"

#include "test.h"

TEST(a_bucket_holds_a_minute_and_fills_evenly)
{
    struct bucket b = { 0 };
    uint64_t wait = 0;

    for (int i = 0; i < 20; i++)
        CHECK(bucket_take(&b, 20, 1000, &wait));
    CHECK(!bucket_take(&b, 20, 1000, &wait));
    CHECK(wait >= 3000 && wait <= 3001);
    CHECK(!bucket_take(&b, 20, 3999, &wait));
    CHECK(bucket_take(&b, 20, 4001, &wait));
    CHECK(!bucket_take(&b, 20, 4001, &wait));
    bucket_give(&b);
    CHECK(bucket_take(&b, 20, 4001, &wait));
    CHECK(!bucket_full(&b, 20, 60000));
    CHECK(bucket_full(&b, 20, 64100));
    for (int i = 0; i < 20; i++)
        CHECK(bucket_take(&b, 20, 200000, &wait));
    CHECK(!bucket_take(&b, 20, 200000, &wait));
}

TEST(a_rate_that_changes_counts_at_once)
{
    struct bucket b = { 0 };
    uint64_t wait;

    CHECK(bucket_take(&b, 1, 1000, &wait));
    CHECK(!bucket_take(&b, 1, 1001, &wait));
    CHECK(bucket_take(&b, 2, 1002, &wait));
    CHECK(!bucket_take(&b, 2, 1003, &wait));
}

TEST(texts_are_joined_up_to_a_bound)
{
    static char much[NOTIFY_CHARS + 2];
    AUTO(buf_done) struct buf b = { 0 };

    buf_init(&b, 64 * KIB);
    CHECK(notify_join(&b, STR("one")));
    CHECK(notify_join(&b, STR("zwei: \xc3\xa4")));
    CHECK(str_eq(buf_str(&b), STR("one\n\nzwei: \xc3\xa4")));
    memset(much, 'x', sizeof(much));
    CHECK(!notify_join(&b, (struct str){ much, NOTIFY_CHARS - 12 - 1 }));
    CHECK(str_eq(buf_str(&b), STR("one\n\nzwei: \xc3\xa4")));
    CHECK(notify_join(&b, (struct str){ much, NOTIFY_CHARS - 12 - 2 }));
    CHECK(!notify_join(&b, STR("")));
    buf_clear(&b);
    CHECK(notify_join(&b, (struct str){ much, sizeof(much) })); /* alone it may be longer */
    CHECK(!notify_join(&b, STR("y")));
}

TEST(who_a_session_is)
{
    struct str channel = { 0 }, to = { 0 };

    CHECK(notify_peer(STR("telegram:12345"), &channel, &to));
    CHECK(str_eq(channel, STR("telegram")) && str_eq(to, STR("12345")));
    CHECK(notify_peer(STR("slack:channel:C1"), &channel, &to));
    CHECK(str_eq(to, STR("channel:C1")));
    CHECK(!notify_peer(STR("agent:main:main"), &channel, &to));
    CHECK(!notify_peer(STR("telegram"), &channel, &to));
    CHECK(!notify_peer(STR("telegram:"), &channel, &to));
    CHECK(!notify_peer(STR(":1"), &channel, &to));
    CHECK(!notify_peer(STR(""), &channel, &to));
}

TEST(our_own_address)
{
    CHECK(notify_is_self("ws://127.0.0.1:18789", 18789));
    CHECK(notify_is_self("http://localhost:18789/", 18789));
    CHECK(notify_is_self("ws://[::1]:18789/ws", 18789));
    CHECK(!notify_is_self("ws://127.0.0.1:18790", 18789));
    CHECK(!notify_is_self("ws://192.0.2.1:18789", 18789));
    CHECK(!notify_is_self("ws://127.0.0.1:18789", 0));
    CHECK(!notify_is_self("nonsense", 18789));
}

/* "session|from|text|channel|group|mentioned", or "-" */
static const char *heard(const char *json)
{
    static char text[512];
    struct arena a = { 0 };
    json_t *payload = NULL;
    struct heard h;
    struct err e;

    fmt_z(text, sizeof(text), "-");
    if (json_parse(str_of(json), 32, &a, &payload, NULL, &e) < 0)
        fmt_z(text, sizeof(text), "not JSON: %s", e.msg);
    else if (notify_hear(payload, &a, &h) == 0)
        fmt_z(text, sizeof(text), STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT "|%d|%d",
              STR_ARG(h.in.session), STR_ARG(h.in.from), STR_ARG(h.in.id), STR_ARG(h.in.text),
              STR_ARG(h.in.channel), h.in_group, h.mentioned);
    arena_done(&a);
    return text;
}

TEST(a_direct_message_is_heard)
{
    CHECK_STR(heard("{\"sessionKey\":\"agent:main:telegram:direct:111\",\"messageId\":\"ab\","
                    "\"message\":{\"role\":\"user\",\"content\":\"status of issue 5\"}}"),
              "telegram:111|telegram:111|ab|status of issue 5|telegram|0|0");
    CHECK_STR(heard("{\"sessionKey\":\"agent:main:main\",\"messageId\":\"ab\",\"message\":{"
                    "\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"text\","
                    "\"text\":\"[Fri 2026-11-20 17:42 UTC] list\"}],\"sender\":{\"id\":\"7\"}},"
                    "\"session\":{\"deliveryContext\":{\"channel\":\"telegram\","
                    "\"to\":\"telegram:111\",\"accountId\":\"default\"}}}"),
              "telegram:111|7|ab|list|telegram|0|0");
    CHECK_STR(heard("{\"sessionKey\":\"agent:main:main\",\"messageId\":\"ab\",\"message\":{"
                    "\"role\":\"user\",\"content\":\"list\"},\"session\":{\"lastChannel\":"
                    "\"whatsapp\",\"lastTo\":\"+4912\"}}"),
              "whatsapp:+4912|whatsapp:+4912|ab|list|whatsapp|0|0");
    CHECK_STR(heard("{\"sessionKey\":\"agent:main:main\",\"messageId\":\"ab\","
                    "\"message\":{\"role\":\"user\",\"content\":\"list\"}}"),
              "agent:main:main|agent:main:main|ab|list||0|0");
}

TEST(a_group_is_told_from_a_person)
{
    CHECK_STR(heard("{\"sessionKey\":\"agent:main:telegram:group:-5\",\"messageId\":\"1\","
                    "\"message\":{\"role\":\"user\",\"content\":\"list\"}}"),
              "telegram:-5|telegram:-5|1|list|telegram|1|0");
    CHECK_STR(heard("{\"sessionKey\":\"agent:main:telegram:group:-5\",\"messageId\":\"1\","
                    "\"message\":{\"role\":\"user\",\"content\":\"@bot list\"}}"),
              "telegram:-5|telegram:-5|1|@bot list|telegram|1|1");
    CHECK_STR(heard("{\"sessionKey\":\"agent:main:slack:channel:C1\",\"messageId\":\"1\","
                    "\"message\":{\"role\":\"user\",\"content\":\"list\",\"wasMentioned\":true}}"),
              "slack:C1|slack:C1|1|list|slack|1|1");
    CHECK_STR(
        heard("{\"sessionKey\":\"agent:main:x\",\"messageId\":\"1\",\"message\":{"
              "\"role\":\"user\",\"content\":\"list\"},\"session\":{\"chatType\":\"group\"}}"),
        "agent:main:x|agent:main:x|1|list||1|0");
}

TEST(nothing_else_is_heard)
{
    CHECK_STR(heard("{\"sessionKey\":\"k\",\"messageId\":\"1\",\"message\":{\"role\":"
                    "\"assistant\",\"content\":\"list\"}}"),
              "-");
    CHECK_STR(heard("{\"sessionKey\":\"k\",\"message\":{\"role\":\"user\",\"content\":\"x\"}}"),
              "-");
    CHECK_STR(heard("{\"messageId\":\"1\",\"message\":{\"role\":\"user\",\"content\":\"x\"}}"),
              "-");
    CHECK_STR(heard("{\"sessionKey\":\"k\",\"messageId\":\"1\",\"message\":{\"role\":\"user\","
                    "\"content\":\"  \"}}"),
              "-");
    CHECK_STR(heard("{\"sessionKey\":\"k\",\"messageId\":\"1\",\"message\":{\"role\":\"user\","
                    "\"content\":7}}"),
              "-");
    CHECK_STR(heard("[]"), "-");
    CHECK_STR(heard("null"), "-");
}
