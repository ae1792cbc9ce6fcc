/* SPDX-License-Identifier: MIT */
/* What frames are taken for, and under which id the others are answered. */
#include "swarm/gate_int.h"

#include "test.h"

TEST(frames_are_requests_or_messages)
{
    static const struct {
        const char *text;
        enum gate_method method;
        const char *id;
        bool request;
    } cases[] = {
        { "{\"type\":\"req\",\"id\":\"1\",\"method\":\"connect\",\"params\":{}}", METHOD_CONNECT,
          "\"1\"", true },
        { "{\"type\":\"req\",\"id\":7,\"method\":\"agent.send\"}", METHOD_SEND, "7", true },
        { "{\"type\":\"req\",\"id\":1.5,\"method\":\"agent.ack\"}", METHOD_ACK, "1.5", true },
        { "{\"type\":\"req\",\"method\":\"agent.reply\",\"params\":null}", METHOD_REPLY, "", true },
        { "{\"type\":\"req\",\"id\":null,\"method\":\"agent.heartbeat\"}", METHOD_HEARTBEAT, "",
          true },
        { "{\"type\":\"req\",\"id\":\"\\\"\",\"method\":\"agent.subscribe\"}", METHOD_SUBSCRIBE,
          "\"\\\"\"", true },
        { "{\"type\":\"req\",\"id\":\"x\",\"method\":\"agent.unsubscribe\"}", METHOD_UNSUBSCRIBE,
          "\"x\"", true },
        { "{\"type\":\"req\",\"id\":\"x\",\"method\":\"agent.\"}", METHOD_UNKNOWN, "\"x\"", true },
        { "{\"type\":\"request\",\"id\":\"x\",\"method\":\"connect\"}", METHOD_DIRECT, "\"x\"",
          false },
        { "{}", METHOD_DIRECT, "", false },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        struct arena a = { 0 };
        struct gate_frame f;
        struct err e;

        CHECK_INT(gate_frame_parse(str_of(cases[i].text), &a, &f, &e), 0);
        CHECK_INT(f.method, cases[i].method);
        CHECK_INT(f.request, cases[i].request);
        CHECK(str_eq_z(f.id, cases[i].id));
        arena_done(&a);
    }
}

/* What a document says must be what is read without one. */
static void check_same(const char *text, const struct gate_frame *f, struct arena *a)
{
    const struct gate_quick *q = f->quick;
    json_t *doc = NULL, *p, *ids;
    struct err e;

    CHECK_INT(json_parse(str_of(text), GATE_DEPTH, a, &doc, NULL, &e), 0);
    p = json_object_get(doc, "params");
    ids = json_object_get(p, "messageIds");
    CHECK(!f->params && f->request);
    CHECK(str_eq(f->name, json_member_str(doc, "method")));
    CHECK(str_eq(q->session, json_member_str(p, "sessionKey")));
    CHECK(str_eq(q->message, json_member_str(p, "message")));
    CHECK(str_eq(q->key, json_member_str(p, "idempotencyKey")));
    CHECK(str_eq(q->from, json_member_str(p, "from")));
    CHECK(str_eq(q->one, json_member_str(p, "messageId")));
    CHECK(str_eq(q->response, json_member_str(p, "response")));
    CHECK_INT(q->many, ids != NULL);
    CHECK_INT(q->n_ids, json_array_size(ids));
    for (size_t i = 0; i < q->n_ids; i++)
        CHECK(str_eq_z(q->ids[i], json_string_value(json_array_get(ids, i))));
}

TEST(frequent_frames_are_read_without_a_document_and_mean_the_same)
{
    static const struct {
        const char *text;
        bool quick;
    } cases[] = {
        { "{\"type\":\"req\",\"id\":\"1\",\"method\":\"agent.send\",\"params\":{\"sessionKey\":"
          "\"s\",\"message\":\"\xc3\xa4 {}[],:\",\"idempotencyKey\":\"k\",\"from\":\"f\"}}",
          true },
        { " { \"params\" : { \"messageIds\" : [ \"a\" , \"b\" ] , \"sessionKey\" : \"s\" } ,\n"
          "\"method\":\"agent.ack\",\t\"type\":\"req\" } ",
          true },
        { "{\"type\":\"req\",\"method\":\"agent.ack\",\"params\":{\"messageIds\":[]}}", true },
        { "{\"type\":\"req\",\"method\":\"agent.reply\",\"params\":{\"messageId\":\"m\","
          "\"response\":\"\"}}",
          true },
        { "{\"type\":\"x\",\"type\":\"req\",\"method\":\"agent.send\",\"params\":{\"from\":\"f\"},"
          "\"params\":{\"message\":\"1\",\"message\":\"2\"}}",
          true },
        { "{\"type\":\"req\",\"method\":\"agent.send\",\"params\":{}}", true },
        { "{\"type\":\"req\",\"id\":7,\"method\":\"agent.send\",\"params\":{}}", false },
        { "{\"type\":\"req\",\"method\":\"agent.send\",\"params\":{\"message\":\"\\n\"}}", false },
        { "{\"type\":\"req\",\"method\":\"agent.send\",\"params\":{\"timeout\":5}}", false },
        { "{\"type\":\"req\",\"method\":\"agent.send\",\"params\":{\"message\":null}}", false },
        { "{\"type\":\"req\",\"method\":\"agent.send\",\"params\":{\"metadata\":{}}}", false },
        { "{\"type\":\"req\",\"method\":\"agent.ack\",\"params\":{\"messageIds\":[1]}}", false },
        { "{\"type\":\"req\",\"method\":\"agent.subscribe\",\"params\":{}}", false },
        { "{\"type\":\"evt\",\"method\":\"agent.send\",\"params\":{}}", false },
        { "{\"type\":\"req\",\"method\":\"agent.send\",\"params\":{}", false },
        { "{\"type\":\"req\",\"method\":\"agent.send\"}", false },
        { "{}", false },
        { "", false },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        struct arena a = { 0 };
        struct gate_frame f = { 0 };

        CHECK_INT(gate_quick_parse(str_of(cases[i].text), &a, &f), cases[i].quick);
        if (f.quick)
            check_same(cases[i].text, &f, &a);
        arena_done(&a);
    }
}

TEST(what_is_no_frame_is_refused_under_its_id_when_it_has_one)
{
    static const struct {
        const char *text, *id, *why;
        bool request;
    } cases[] = {
        { "", "", "Invalid JSON", false },
        { "not json", "", "Invalid JSON", false },
        { "null", "", "not an object", false },
        { "[1]", "", "not an object", false },
        { "{\"id\":{}}", "", "id must be", false },
        { "{\"type\":\"req\",\"id\":\"1\"}", "\"1\"", "method is missing", true },
        { "{\"type\":\"req\",\"id\":\"1\",\"method\":7}", "\"1\"", "method is missing", true },
        { "{\"type\":\"req\",\"id\":\"1\",\"method\":\"connect\",\"params\":[]}", "\"1\"",
          "params is not", true },
        { "{\"type\":\"req\",\"id\":\"1\",\"method\":\"connect\",\"params\":{\"a\":\"\\u0000\"}}",
          "\"1\"", "Invalid JSON", true },
        { "{\"type\":\"req\",\"id\":\"2\",\"method\":\"agent.send\",\"params\":{\"message\":"
          "\"\\ud83e\"}}",
          "\"2\"", "Invalid JSON", true },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        struct arena a = { 0 };
        struct gate_frame f;
        struct err e;

        CHECK_INT(gate_frame_parse(str_of(cases[i].text), &a, &f, &e), -ERR_INVALID);
        CHECK_INT(f.request, cases[i].request);
        CHECK(str_eq_z(f.id, cases[i].id));
        if (!strstr(e.msg, cases[i].why))
            CHECK_FAIL("%s: %s", cases[i].text, e.msg);
        arena_done(&a);
    }
}

TEST(an_id_that_is_too_long_is_not_echoed)
{
    char text[2 * GATE_ID];
    struct arena a = { 0 };
    struct gate_frame f;
    struct err e;

    fmt_z(text, sizeof(text), "{\"type\":\"req\",\"id\":\"%0*d\",\"method\":\"connect\"}", GATE_ID,
          1);
    CHECK_INT(gate_frame_parse(str_of(text), &a, &f, &e), -ERR_INVALID);
    CHECK(f.request && f.id.n == 0);
    arena_done(&a);
}

static int read_message(const char *text, bool needs_id, struct arena *a, struct mail_in *ret,
                        struct err *e)
{
    struct gate_frame f;
    int r = gate_frame_parse(str_of(text), a, &f, e);

    return r < 0 ? r : gate_message_read(f.params, needs_id, a, ret, e);
}

TEST(a_message_has_its_fields)
{
    struct arena a = { 0 };
    struct mail_in in;
    struct err e;

    CHECK_INT(read_message("{\"id\":12,\"from\":\"a\",\"to\":\"b\",\"content\":\"c\","
                           "\"metadata\":{\"k\":[1, 2]}}",
                           true, &a, &in, &e),
              0);
    CHECK(str_eq_z(in.id, "12") && str_eq_z(in.from, "a") && str_eq_z(in.to, "b"));
    CHECK(str_eq_z(in.content, "c") && str_eq_z(in.metadata, "{\"k\":[1,2]}"));
    CHECK_INT(read_message("{\"from\":\"a\",\"to\":\"b\",\"content\":\"c\"}", false, &a, &in, &e),
              0);
    CHECK(!in.id.n && !in.metadata.n);
    CHECK_INT(read_message("{\"from\":\"a\",\"to\":\"b\",\"content\":\"c\"}", true, &a, &in, &e),
              -ERR_INVALID);
    CHECK_STR(e.msg, "Invalid message: missing required fields");
    CHECK_INT(read_message("{\"id\":\"1\",\"from\":\"a\",\"to\":\"\",\"content\":\"c\"}", true, &a,
                           &in, &e),
              -ERR_INVALID);
    CHECK_STR(e.msg, "Invalid message: missing required fields");
    CHECK_INT(read_message("{\"id\":\"1\",\"from\":\"a\",\"to\":[],\"content\":\"c\"}", true, &a,
                           &in, &e),
              -ERR_INVALID);
    CHECK_STR(e.msg, "Invalid message: to is not a text");
    arena_done(&a);
}
