/* SPDX-License-Identifier: MIT */
/*
 * durable/codec_test.c — texts as the npm clients write them, read; and what we write for them.
 */
#include <stdlib.h>

#include "durable/durable_int.h"
#include "test.h"

#define MARK "\"__dbos_serializer\":\"superjson\""

static char shown[1024]; /* what the last call gave, or "!" and the error */

static const char *show(int r, struct buf *b, const struct err *e)
{
    if (r < 0)
        snprintf(shown, sizeof(shown), "!%d", (int)e->code);
    else
        snprintf(shown, sizeof(shown), "%.*s", (int)b->n, b->n ? b->p + b->off : "");
    buf_done(b);
    return shown;
}

static const char *read_value(enum wire_format format, const char *text)
{
    struct buf b;
    struct err e;

    buf_init(&b, 1 * MIB);
    return show(wire_read_value(format, str_of(text), &b, &e), &b, &e);
}

static const char *write_value(enum wire_format format, const char *json)
{
    struct buf b;
    struct err e;

    buf_init(&b, 1 * MIB);
    return show(wire_write_value(format, str_of(json), &b, &e), &b, &e);
}

/* "ARGS NAMED" */
static const char *read_args(enum wire_format format, const char *text)
{
    struct arena a = { 0 };
    struct buf b;
    struct err e;
    json_t *args = NULL, *named = NULL;
    int r;

    buf_init(&b, 1 * MIB);
    r = wire_read_args(format, str_of(text), &a, &args, &named, &e);
    if (r == 0)
        r = json_write(args, &b, &e);
    if (r == 0)
        r = buf_add_z(&b, " ", &e);
    if (r == 0)
        r = json_write(named, &b, &e);
    arena_done(&a);
    return show(r, &b, &e);
}

static const char *write_args(const char *args, const char *named)
{
    struct buf b;
    struct err e;

    buf_init(&b, 1 * MIB);
    return show(wire_write_args(str_of(args), str_of(named), &b, &e), &b, &e);
}

/* "NAME|MESSAGE|CODE|DATA" */
static const char *read_error(enum wire_format format, const char *text)
{
    struct wire_error error;
    struct arena a = { 0 };
    struct buf b;
    struct err e;
    int r;

    buf_init(&b, 1 * MIB);
    r = wire_read_error(format, str_of(text), &a, &error, &e);
    if (r == 0)
        r = buf_printf(&b, &e, STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT, STR_ARG(error.name),
                       STR_ARG(error.message), STR_ARG(error.code), STR_ARG(error.data));
    arena_done(&a);
    return show(r, &b, &e);
}

static const char *write_error(enum wire_format format, const struct wire_error *error)
{
    struct buf b;
    struct err e;

    buf_init(&b, 1 * MIB);
    return show(wire_write_error(format, error, &b, &e), &b, &e);
}

TEST(formats_have_the_names_of_the_tables)
{
    CHECK_INT(wire_format_of(STR("portable_json")), WIRE_PORTABLE);
    CHECK_INT(wire_format_of(STR("js_superjson")), WIRE_SUPERJSON);
    CHECK_INT(wire_format_of((struct str){ 0 }), WIRE_PORTABLE);
    CHECK_INT(wire_format_of(STR("py_pickle")), WIRE_UNKNOWN);
    CHECK_INT(wire_format_of(STR("DBOS_JSON")), WIRE_UNKNOWN);
    CHECK_STR(wire_format_name(WIRE_PORTABLE), "portable_json");
    CHECK_STR(wire_format_name(WIRE_SUPERJSON), "js_superjson");
}

TEST(portable_arguments_are_positional_and_named)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        { "{\"positionalArgs\":[{\"when\":\"1970-01-01T00:00:00.000Z\"}],\"namedArgs\":{\"k\":1}}",
          "[{\"when\":\"1970-01-01T00:00:00.000Z\"}] {\"k\":1}" },
        { "{\"positionalArgs\":[1,\"two\"]}", "[1,\"two\"] {}" },
        { "{\"namedArgs\":{\"a\":true}}", "[] {\"a\":true}" },
        { " {\"namedArgs\" : {}, \"positionalArgs\" : [ 1 ] } ", "[1] {}" },
        { "{}", "[] {}" },
        { "[1]", "!1" },
        { "{\"positionalArgs\":{}}", "!1" },
        { "{\"namedArgs\":[]}", "!1" },
        { "gASVCgAAAAAAAABdlA==", "!1" },
        { "", "!1" },
    };

    for (size_t i = 0; i < LEN(rows); i++)
        CHECK_STR(read_args(WIRE_PORTABLE, rows[i].text), rows[i].want);
}

TEST(superjson_arguments_are_an_array_and_absent_ones_are_absent)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        { "{\"json\":[{\"n\":1}]," MARK "}", "[{\"n\":1}] {}" },
        { "{" MARK ",\"json\":[]}", "[] {}" },
        { "{\"json\":[\"a\",null],\"meta\":{\"values\":{\"1\":[\"undefined\"]}}," MARK "}",
          "[\"a\"] {}" },
        { "{\"json\":[null,1,null,null],\"meta\":{\"values\":{\"0\":[\"undefined\"],\"2\":"
          "[\"undefined\"],\"3\":[\"undefined\"]}}," MARK "}",
          "[null,1] {}" },
        { "{\"json\":[{\"a\":null,\"b\":null}],\"meta\":{\"values\":{\"0.a\":[\"undefined\"]}}"
          "," MARK "}",
          "[{\"b\":null}] {}" },
        { "{\"json\":[\"1970-01-01T00:00:00.000Z\"],\"meta\":{\"values\":{\"0\":[\"Date\"]}}," MARK
          "}",
          "[\"1970-01-01T00:00:00.000Z\"] {}" },
        { "[1,2]", "[1,2] {}" }, /* unmarked, of 4.x */
        { "{\"json\":[1]}", "!1" },
        { "{\"json\":{\"a\":1}," MARK "}", "!1" },
        { "{\"json\":[1]," MARK, "!1" },
    };

    for (size_t i = 0; i < LEN(rows); i++)
        CHECK_STR(read_args(WIRE_SUPERJSON, rows[i].text), rows[i].want);
}

TEST(foreign_formats_are_refused)
{
    CHECK_STR(read_args(WIRE_UNKNOWN, "[]"), "!1");
    CHECK_STR(read_value(WIRE_UNKNOWN, "1"), "!1");
    CHECK_STR(read_error(WIRE_UNKNOWN, "{}"), "!1");
}

TEST(our_arguments_are_portable_and_checked)
{
    CHECK_STR(write_args(NULL, NULL), "{\"positionalArgs\":[],\"namedArgs\":{}}");
    CHECK_STR(write_args(" [1,{}]", "{\"k\":[1]}"),
              "{\"positionalArgs\": [1,{}],\"namedArgs\":{\"k\":[1]}}");
    CHECK_STR(write_args("{}", NULL), "!1");
    CHECK_STR(write_args("[1", NULL), "!1");
    CHECK_STR(write_args("", NULL), "!1");
    CHECK_STR(write_args(NULL, "[]"), "!1");
}

TEST(portable_values_pass_as_they_are)
{
    CHECK_STR(read_value(WIRE_PORTABLE, " {\"a\":[1, 2]}\n"), "{\"a\":[1, 2]}");
    CHECK_STR(read_value(WIRE_PORTABLE, NULL), "null");
    CHECK_STR(read_value(WIRE_PORTABLE, "{"), "!1");
    CHECK_STR(write_value(WIRE_PORTABLE, "123456789012345678901234567890"),
              "123456789012345678901234567890");
    CHECK_STR(write_value(WIRE_PORTABLE, NULL), "null");
    CHECK_STR(write_value(WIRE_PORTABLE, "nul"), "!1");
}

TEST(superjson_values_are_taken_out_of_their_wrapping)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        { "{\"json\":{\"a\":\"}\\\"]\"}," MARK "}", "{\"a\":\"}\\\"]\"}" },
        { "{\"json\": 12 , " MARK "}", "12" },
        { "{\"json\":null,\"meta\":{\"values\":[\"undefined\"]}," MARK "}", "null" },
        { "{\"json\":{\"a\":null,\"b\":[null]},\"meta\":{\"values\":{\"a\":[\"undefined\"],"
          "\"b.0\":[\"undefined\"]}}," MARK "}",
          "{\"b\":[null]}" },
        { "{\"json\":{\"x.y\":null,\"z\":1},\"meta\":{\"values\":{\"x\\\\.y\":[\"undefined\"]}}"
          "," MARK "}",
          "{\"z\":1}" },
        { "{\"json\":{\"s\":[{\"u\":null}]},\"meta\":{\"values\":{\"s\":[\"set\",{\"0.u\":"
          "[\"undefined\"]}]}}," MARK "}",
          "{\"s\":[{}]}" },
        { "{\"json\":{\"n\":\"12345678901234567890\"},\"meta\":{\"values\":{\"n\":[\"bigint\"]}}"
          "," MARK "}",
          "{\"n\":\"12345678901234567890\"}" },
        { "{\"json\":1}", "{\"json\":1}" },
        { "{\"a\":1}", "{\"a\":1}" },
        { "{\"__dbos_serializer\":\"superjson\"}", "{\"__dbos_serializer\":\"superjson\"}" },
        { "\"text\"", "\"text\"" },
        { "{\"json\":1," MARK ",}", "!1" },
        { "{\"json\":{\"a\":null},\"meta\":{\"values\":{\"nowhere.at.all\":[\"undefined\"],\"a.b\":"
          "[\"undefined\"]}}," MARK "}",
          "{\"a\":null}" },
    };

    for (size_t i = 0; i < LEN(rows); i++)
        CHECK_STR(read_value(WIRE_SUPERJSON, rows[i].text), rows[i].want);
}

TEST(superjson_values_are_written_with_the_mark)
{
    CHECK_STR(write_value(WIRE_SUPERJSON, "{\"ok\":true}"), "{\"json\":{\"ok\":true}," MARK "}");
    CHECK_STR(write_value(WIRE_SUPERJSON, NULL),
              "{\"json\":null,\"meta\":{\"values\":[\"undefined\"]}," MARK "}");
    CHECK_STR(write_value(WIRE_SUPERJSON, "{"), "!1");
}

TEST(errors_are_written_for_both_kinds_of_clients)
{
    const struct wire_error full = { STR("OutOfStock"), STR("no \"bolts\""), STR("409"),
                                     STR("{\"left\":0}") };
    const struct wire_error bare = { .message = STR("oops") };
    const struct wire_error bad = { .message = STR("oops"), .data = STR("{") };

    CHECK_STR(write_error(WIRE_PORTABLE, &full),
              "{\"name\":\"OutOfStock\",\"message\":\"no \\\"bolts\\\"\",\"code\":409,"
              "\"data\":{\"left\":0}}");
    CHECK_STR(write_error(WIRE_SUPERJSON, &full),
              "{\"json\":{\"name\":\"OutOfStock\",\"message\":\"no \\\"bolts\\\"\",\"stack\":\"\","
              "\"code\":409,\"data\":{\"left\":0}}," MARK "}");
    CHECK_STR(write_error(WIRE_PORTABLE, &bare), "{\"name\":\"Error\",\"message\":\"oops\"}");
    CHECK_STR(write_error(WIRE_PORTABLE, &bad), "!1");
    CHECK_STR(write_error(WIRE_UNKNOWN, &bare), "{\"name\":\"Error\",\"message\":\"oops\"}");
}

TEST(errors_of_both_kinds_are_read)
{
    CHECK_STR(read_error(WIRE_PORTABLE, "{\"name\":\"N\",\"message\":\"m\",\"code\":\"c\","
                                        "\"data\":[1]}"),
              "N|m|\"c\"|[1]");
    CHECK_STR(read_error(WIRE_PORTABLE, "{\"name\":\"N\",\"message\":\"m\",\"code\":null}"),
              "N|m||");
    CHECK_STR(read_error(WIRE_SUPERJSON, "{\"json\":{\"name\":\"TypeError\",\"message\":\"m\","
                                         "\"stack\":\"at x\",\"code\":7}," MARK "}"),
              "TypeError|m|7|");
    CHECK_STR(read_error(WIRE_SUPERJSON, "{\"name\":\"E\",\"message\":\"4.x\"}"), "E|4.x||");
    CHECK_STR(read_error(WIRE_PORTABLE, "\"thrown\""), "Error|thrown||");
    CHECK_STR(read_error(WIRE_PORTABLE, "[7]"), "Error|[7]||");
    CHECK_STR(read_error(WIRE_PORTABLE, "{}"), "Error|||");
    CHECK_STR(read_error(WIRE_PORTABLE, "x"), "!1");
}

TEST(an_error_gets_its_code_back_by_its_name)
{
    const struct wire_error invalid = { .name = STR("invalid"), .message = STR("no") };
    const struct wire_error own = { .name = STR("OutOfStock"), .message = STR("none left") };
    const struct wire_error canceled = { .name = STR("canceled"), .message = STR("x") };
    struct err e;

    CHECK_INT(wire_error_to_err(&invalid, &e), -ERR_INVALID);
    CHECK_STR(e.msg, "no");
    CHECK_INT(wire_error_to_err(&own, &e), -ERR_INTERNAL);
    CHECK_STR(e.msg, "none left");
    CHECK_INT(wire_error_to_err(&canceled, &e), -ERR_INTERNAL);
}

TEST(strings_that_only_javascript_has_are_mended)
{
    CHECK_STR(read_args(WIRE_PORTABLE, "{\"positionalArgs\":[\"a\\u0000b\",\"\\ud83d\"]}"),
              "[\"a\xef\xbf\xbd"
              "b\",\"\xef\xbf\xbd\"] {}");
    CHECK_STR(read_args(WIRE_SUPERJSON, "{\"json\":[\"\\udc00\\ud83d\\ude00\"]," MARK "}"),
              "[\"\xef\xbf\xbd\xf0\x9f\x98\x80\"] {}");
    CHECK_STR(read_value(WIRE_PORTABLE, " \"\\ud83dx\""), "\"\\ufffdx\"");
    CHECK_STR(read_value(WIRE_SUPERJSON, "{\"json\":\"\\u0000\"," MARK "}"), "\"\\ufffd\"");
    CHECK_STR(read_error(WIRE_PORTABLE, "{\"name\":\"E\",\"message\":\"\\ud800\"}"),
              "E|\xef\xbf\xbd||");
    CHECK_STR(read_value(WIRE_PORTABLE, "\"\\ud83d"), "!1"); /* and it must be JSON */
    CHECK_STR(read_args(WIRE_PORTABLE, "{\"positionalArgs\":[\"\\u0000\"}"), "!1");
}

TEST(a_value_nested_deeper_than_the_bound_is_refused)
{
    char deep[1200];

    memset(deep, '[', 600);
    memset(deep + 600, ']', 599);
    deep[1199] = '\0';
    CHECK_STR(read_value(WIRE_PORTABLE, deep), "!1");
    CHECK_STR(write_value(WIRE_SUPERJSON, deep), "!1");
}
