/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/shape_decode.c, shape_coerce.c, shape_write.c and shape_schema.c.
 */
#include "base/shape.h"

#include "test.h"

static const char *const protocols[] = { "http", "https", "grpc", NULL };

struct inner {
    const char *host;
    int64_t port;
};

static const struct shape_field inner_fields[] = {
    FIELD(struct inner, host, .required = true),
    FIELD(struct inner, port, .def = "80"),
};
static const struct shape inner_shape = SHAPE(struct inner, "Inner", inner_fields);

struct thing {
    const char *name, *note, *protocol, *token;
    int64_t port, strict;
    bool flag;
    double share;
    json_t *metadata, *any;
    struct shape_strs fallbacks;
    struct shape_list list;
    const void *one;
};

static const struct shape_field thing_fields[] = {
    FIELD(struct thing, name, .required = true, .min = 1, .max = 5),
    FIELD(struct thing, note, .nullable = true),
    FIELD(struct thing, protocol, .def = "\"http\"", .one_of = protocols),
    FIELD(struct thing, token, .nullable = true, .secret = true),
    FIELD(struct thing, port, .required = true, .coerce = true, .min = 1, .max = 65535),
    FIELD(struct thing, strict, .def = "30", .doc = "Seconds."),
    FIELD(struct thing, flag),
    FIELD(struct thing, share, .decimals = 2),
    FIELD(struct thing, metadata, .nullable = true, .object = true),
    FIELD(struct thing, any, .omit = true),
    FIELD(struct thing, fallbacks, .def = "[]", .min = 0, .max = 3),
    FIELD(struct thing, list, .of = &inner_shape),
    FIELD(struct thing, one, .nullable = true, .of = &inner_shape),
};
static const struct shape thing_shape =
    SHAPE(struct thing, "Thing", thing_fields, .doc = "A thing.");

static struct arena arena;
static struct thing thing;

static const char *describe(const struct shape_issue *i)
{
    struct str input = { "none", 4 };
    char *text;

    if (i->input && json_text(i->input, 1000, &arena, &input, NULL) < 0)
        return "too long";
    text = arena_printf(&arena, "%s[%d] %s: %s <- %s", i->field ? i->field : "", i->index, i->type,
                        i->msg, input.p);
    if (!i->ctx_key)
        return text;
    return i->ctx_text ? arena_printf(&arena, "%s {%s:%s}", text, i->ctx_key, i->ctx_text)
                       : arena_printf(&arena, "%s {%s:%lld}", text, i->ctx_key, i->ctx_value);
}

/* The issues of an input, joined by newlines. */
static const char *issues_of(const char *text)
{
    struct shape_issue *issues = NULL;
    const char *all = "";
    json_t *in;

    arena_done(&arena);
    memset(&thing, 0, sizeof(thing));
    if (json_parse(str_of(text), 20, &arena, &in, NULL, NULL) < 0)
        return "not JSON";
    if (shape_decode(&thing_shape, in, &arena, &thing, &issues, NULL) == 0)
        return issues ? "issues although it succeeded" : "";
    for (; issues; issues = issues->next)
        all = arena_printf(&arena, "%s%s%s", all, *all ? "\n" : "", describe(issues));
    return all;
}

TEST(a_good_input_fills_the_struct)
{
    const struct inner *first;

    CHECK_STR(
        issues_of(
            "{\"name\":\"ada\",\"note\":\"n\",\"protocol\":\"https\",\"token\":\"t\",\"port\":80,"
            "\"strict\":7,\"flag\":true,\"share\":0.5,\"metadata\":{\"a\":1},\"any\":[1],"
            "\"fallbacks\":[\"x\",\"y\"],\"list\":[{\"host\":\"h\"}],"
            "\"one\":{\"host\":\"o\",\"port\":1},\"unknown\":1}"),
        "");
    CHECK_STR(thing.name, "ada");
    CHECK_STR(thing.note, "n");
    CHECK_STR(thing.protocol, "https");
    CHECK_STR(thing.token, "t");
    CHECK_INT(thing.port, 80);
    CHECK_INT(thing.strict, 7);
    CHECK(thing.flag);
    CHECK(thing.share == 0.5);
    CHECK(json_is_object(thing.metadata) && json_is_array(thing.any));
    CHECK_INT(thing.fallbacks.n, 2);
    CHECK_STR(thing.fallbacks.v[1], "y");
    CHECK_INT(thing.list.n, 1);
    first = thing.list.v[0];
    CHECK_STR(first->host, "h");
    CHECK_INT(first->port, 80);
    CHECK_INT(((const struct inner *)thing.one)->port, 1);
}

TEST(what_is_absent_or_null_gets_its_default)
{
    CHECK_STR(issues_of("{\"name\":\"a\",\"port\":1,\"note\":null,\"metadata\":null,\"one\":null}"),
              "");
    CHECK(thing.note == NULL && thing.token == NULL && thing.metadata == NULL && thing.one == NULL);
    CHECK_STR(thing.protocol, "http");
    CHECK_INT(thing.strict, 30);
    CHECK(!thing.flag && thing.share == 0);
    CHECK_INT(thing.fallbacks.n, 0);
    CHECK_INT(thing.list.n, 0);
}

TEST(an_input_that_is_no_object_is_one_issue)
{
    static const char *const others[] = { "[]", "1", "\"x\"", "true" };

    CHECK_STR(issues_of("null"), "[-1] missing: Field required <- null");
    for (size_t i = 0; i < LEN(others); i++)
        CHECK(strstr(issues_of(others[i]),
                     "[-1] model_attributes_type: Input should be a valid dictionary or object to "
                     "extract fields from <- "));
}

TEST(all_issues_come_in_the_order_of_the_fields)
{
    CHECK_STR(issues_of("{\"port\":\"x\",\"note\":5}"),
              "name[-1] missing: Field required <- {\"port\":\"x\",\"note\":5}\n"
              "note[-1] string_type: Input should be a valid string <- 5\n"
              "port[-1] int_parsing: Input should be a valid integer, unable to parse string as an "
              "integer <- \"x\"");
}

/* The one issue about a field of an otherwise good input. */
static const char *issue_of(const char *field, const char *value)
{
    struct arena a = { 0 };
    const char *have =
        issues_of(arena_printf(&a, "{\"name\":\"a\",\"port\":1,\"%s\":%s}", field, value));

    arena_done(&a);
    return have;
}

TEST(each_mistake_has_its_words)
{
    static const struct {
        const char *field, *value, *want;
    } cases[] = {
        { "name", "null", "name[-1] string_type: Input should be a valid string <- null" },
        { "name", "\"\"",
          "name[-1] string_too_short: String should have at least 1 character <- \"\" "
          "{min_length:1}" },
        { "name", "\"abcdef\"",
          "name[-1] string_too_long: String should have at most 5 characters <- \"abcdef\" "
          "{max_length:5}" },
        { "name", "\"\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\"", "" }, /* five code points */
        { "protocol", "\"ftp\"",
          "protocol[-1] literal_error: Input should be 'http', 'https' or 'grpc' <- \"ftp\" "
          "{expected:'http', 'https' or 'grpc'}" },
        { "port", "0",
          "port[-1] greater_than_equal: Input should be greater than or equal to 1 <- 0 {ge:1}" },
        { "port", "65536",
          "port[-1] less_than_equal: Input should be less than or equal to 65535 <- 65536 "
          "{le:65535}" },
        { "port", "1.5",
          "port[-1] int_from_float: Input should be a valid integer, got a number with a "
          "fractional "
          "part <- 1.5" },
        { "port", "null", "port[-1] int_type: Input should be a valid integer <- null" },
        { "port", "[1]", "port[-1] int_type: Input should be a valid integer <- [1]" },
        { "port", "100000000000000000000",
          "port[-1] less_than_equal: Input should be less than or equal to 65535 <- 1e+20 "
          "{le:65535}" },
        { "port", "-100000000000000000000",
          "port[-1] greater_than_equal: Input should be greater than or equal to 1 <- -1e+20 "
          "{ge:1}" },
        { "strict", "\"5\"", "strict[-1] int_type: Input should be a valid integer <- \"5\"" },
        { "strict", "5.0", "strict[-1] int_type: Input should be a valid integer <- 5.0" },
        { "flag", "1", "flag[-1] bool_type: Input should be a valid boolean <- 1" },
        { "share", "\"x\"", "share[-1] float_type: Input should be a valid number <- \"x\"" },
        { "metadata", "[]", "metadata[-1] dict_type: Input should be a valid dictionary <- []" },
        { "fallbacks", "\"x\"", "fallbacks[-1] list_type: Input should be a valid list <- \"x\"" },
        { "fallbacks", "[\"a\",1,\"b\"]",
          "fallbacks[1] string_type: Input should be a valid string <- 1" },
        { "fallbacks", "[\"a\",\"b\",\"c\",\"d\"]",
          "fallbacks[-1] too_long: List should have at most 3 items after validation, not 4 <- "
          "[\"a\",\"b\",\"c\",\"d\"] {max_length:3}" },
        { "list", "[{\"host\":\"h\"},{\"port\":1}]",
          "list.1.host[-1] missing: Field required <- {\"port\":1}" },
        { "list", "[5]",
          "list.0[-1] model_attributes_type: Input should be a valid dictionary or object to "
          "extract "
          "fields from <- 5" },
        { "one", "{\"host\":1}", "one.host[-1] string_type: Input should be a valid string <- 1" },
    };

    for (size_t i = 0; i < LEN(cases); i++)
        CHECK_STR(issue_of(cases[i].field, cases[i].value), cases[i].want);
}

TEST(integers_are_coerced_as_pydantic_does)
{
    static const struct {
        const char *value;
        int64_t want; /* 0: int_parsing */
    } cases[] = {
        { "5000.0", 5000 }, { "1e3", 1000 },       { "true", 1 },    { "\" 5 \"", 5 },
        { "\"5.0\"", 5 },   { "\"1_000\"", 1000 }, { "\"+7\"", 7 },  { "\"007\"", 7 },
        { "\"\"", 0 },      { "\"abc\"", 0 },      { "\"1.5\"", 0 }, { "\"_1\"", 0 },
        { "\"1_\"", 0 },    { "\"1__0\"", 0 },     { "\"1e3\"", 0 }, { "\"0x1\"", 0 },
        { "\"+\"", 0 },     { "\"--1\"", 0 },      { "\"1 0\"", 0 },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        const char *issue = issue_of("port", cases[i].value);

        if (cases[i].want == 0) {
            CHECK(strstr(issue, "port[-1] int_parsing"));
            continue;
        }
        CHECK_STR(issue, "");
        CHECK_INT(thing.port, cases[i].want);
    }
}

TEST(issues_are_bounded)
{
    struct shape_issue *issues = NULL, *i;
    json_t *in = json_array();
    static const struct shape_field fields[] = { FIELD(struct thing, fallbacks) };
    static const struct shape shape = SHAPE(struct thing, "Strings", fields);
    struct thing t;
    int n = 0, r;

    arena_done(&arena);
    for (int k = 0; k < 1000; k++)
        json_array_append_new(in, json_integer(k));
    in = json_pack("{s:o}", "fallbacks", in);
    r = shape_decode(&shape, in, &arena, &t, &issues, NULL);
    for (i = issues; i; i = i->next)
        n++;
    json_decref(in);
    CHECK_INT(r, -ERR_INVALID);
    CHECK_INT(n, SHAPE_ISSUES_MAX);
}

struct query {
    int64_t hours, limit;
    bool all;
    double ratio;
    const char *after;
    struct shape_strs tag;
};

static const struct shape_field query_fields[] = {
    FIELD(struct query, hours, .def = "24", .min = 0, .max = INT64_MAX),
    FIELD(struct query, limit, .def = "100", .min = 1, .max = 1000),
    FIELD(struct query, all),
    FIELD(struct query, ratio),
    FIELD(struct query, after, .nullable = true),
    FIELD(struct query, tag),
};
static const struct shape query_shape = SHAPE(struct query, "Query", query_fields);
static struct query query;

static const char *query_issues(const char *name, const char *value)
{
    struct shape_pair pairs[] = { { STR("limit"), STR("5") }, { str_of(name), str_of(value) } };
    struct shape_issue *issues = NULL;
    int r;

    arena_done(&arena);
    memset(&query, 0, sizeof(query));
    r = shape_decode_pairs(&query_shape, pairs, LEN(pairs), &arena, &query, &issues, NULL);
    return r == 0 ? "" : describe(issues);
}

TEST(a_query_is_decoded_from_text)
{
    CHECK_STR(query_issues("hours", " 1.0 "), "");
    CHECK_INT(query.hours, 1);
    CHECK_INT(query.limit, 5);
    CHECK_STR(query_issues("limit", "7"), ""); /* the last one wins */
    CHECK_INT(query.limit, 7);
    CHECK_INT(query.hours, 24);
    CHECK(query.after == NULL);
    CHECK_STR(query_issues("hours", "99999999999999999999"), ""); /* as large as fits */
    CHECK_INT(query.hours, INT64_MAX);
    CHECK_STR(query_issues("all", "Yes"), "");
    CHECK(query.all);
    CHECK_STR(query_issues("ratio", "2.5e1"), "");
    CHECK(query.ratio == 25);
    CHECK_STR(query_issues("after", ""), "");
    CHECK_STR(query.after, "");
    CHECK_STR(query_issues("hours", ""), "hours[-1] int_parsing: Input should be a valid integer, "
                                         "unable to parse string as an integer <- \"\"");
    CHECK_STR(query_issues("hours", "-1"), "hours[-1] greater_than_equal: Input should be greater "
                                           "than or equal to 0 <- \"-1\" {ge:0}");
    CHECK(strstr(query_issues("ratio", "inf"), "finite_number"));
    CHECK(strstr(query_issues("ratio", "0x10"), "float_parsing"));
    CHECK(strstr(query_issues("all", "2"), "bool_parsing"));
    CHECK(strstr(query_issues("after", "\xff"), "string_unicode"));
}

TEST(a_repeated_name_is_a_list_where_a_list_is_wanted)
{
    struct shape_pair pairs[] = { { STR("tag"), STR("a") }, { STR("tag"), STR("b") } };

    arena_done(&arena);
    CHECK_INT(shape_decode_pairs(&query_shape, pairs, 2, &arena, &query, NULL, NULL), 0);
    CHECK_INT(query.tag.n, 2);
    CHECK_STR(query.tag.v[0], "a");
    CHECK_STR(query.tag.v[1], "b");
}

TEST(a_failed_decode_leaves_the_struct_alone)
{
    struct thing kept = { .port = 42 };
    struct err e;
    json_t *in;

    arena_done(&arena);
    CHECK_INT(
        json_parse(STR("{\"name\":\"a\",\"port\":0,\"fallbacks\":[1]}"), 9, &arena, &in, NULL, &e),
        0);
    CHECK_INT(shape_decode(&thing_shape, in, &arena, &kept, NULL, &e), -ERR_INVALID);
    CHECK_STR(e.msg, "port: Input should be greater than or equal to 1");
    CHECK(kept.port == 42 && !kept.name);
}

static const char *written(const struct shape *shape, const void *value)
{
    struct buf b;
    char *text = NULL;

    buf_init(&b, 10000);
    if (shape_write(shape, value, &b, NULL) == 0)
        text = arena_strndup(&arena, buf_str(&b).p, buf_str(&b).n);
    buf_done(&b);
    return text;
}

TEST(a_struct_is_written_in_the_order_of_its_fields)
{
    struct inner in = { "h", 1 };
    const void *list[] = { &in, &in };
    const char *strs[] = { "x", "y\"z" };
    struct thing t = {
        .name = "gr\xc3\xbc\xc3\x9f",
        .token = "hush",
        .port = -5,
        .share = 123.456,
        .one = &in,
        .list = { list, 2 },
        .fallbacks = { strs, 2 },
    };

    arena_done(&arena);
    CHECK_STR(
        written(&thing_shape, &t),
        "{\"name\":\"gr\xc3\xbc\xc3\x9f\",\"note\":null,\"protocol\":null,\"port\":-5,\"strict\":0,"
        "\"flag\":false,\"share\":123.46,\"metadata\":null,\"fallbacks\":[\"x\",\"y\\\"z\"],"
        "\"list\":[{\"host\":\"h\",\"port\":1},{\"host\":\"h\",\"port\":1}],"
        "\"one\":{\"host\":\"h\",\"port\":1}}");
}

TEST(reals_are_rounded_as_python_rounds)
{
    static const struct {
        double v;
        const char *want;
    } cases[] = {
        { 0, "0.0" },      { 123.45, "123.45" },   { 2.675, "2.67" },
        { 0.125, "0.12" }, { 100, "100.0" },       { 0.004, "0.0" },
        { 1e20, "1e+20" }, { 33.333333, "33.33" }, { 1e300, "1e+300" },
    };
    static const struct shape_field fields[] = { FIELD(struct thing, share, .decimals = 2) };
    static const struct shape shape = SHAPE(struct thing, "One", fields);

    for (size_t i = 0; i < LEN(cases); i++) {
        struct thing t = { .share = cases[i].v };

        CHECK_STR(written(&shape, &t), arena_printf(&arena, "{\"share\":%s}", cases[i].want));
    }
}

TEST(a_struct_of_nothing_is_an_empty_object)
{
    static const struct shape_field fields[] = { FIELD(struct thing, token, .secret = true),
                                                 FIELD(struct thing, any, .omit = true) };
    static const struct shape shape = SHAPE(struct thing, "None", fields);
    struct thing t = { .token = "hush" };

    CHECK_STR(written(&shape, &t), "{}");
}

TEST(the_schema_says_what_the_decoder_checks)
{
    json_t *schema = shape_schema(&thing_shape);
    struct str text = { "", 0 };
    int r;

    arena_done(&arena);
    r = json_text(schema, 10000, &arena, &text, NULL);
    json_decref(schema);
    CHECK_INT(r, 0);
    CHECK(strstr(text.p, "{\"type\":\"object\",\"title\":\"Thing\",\"description\":\"A thing.\""));
    CHECK(strstr(text.p, "\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":5}"));
    CHECK(strstr(text.p, "\"note\":{\"type\":[\"string\",\"null\"]}"));
    CHECK(strstr(text.p, "\"protocol\":{\"type\":\"string\",\"enum\":[\"http\",\"https\",\"grpc\"],"
                         "\"default\":\"http\"}"));
    CHECK(strstr(text.p, "\"token\":{\"type\":[\"string\",\"null\"],\"writeOnly\":true}"));
    CHECK(strstr(text.p, "\"port\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":65535}"));
    CHECK(strstr(text.p,
                 "\"strict\":{\"type\":\"integer\",\"default\":30,\"description\":\"Seconds.\"}"));
    CHECK(strstr(text.p, "\"any\":{}"));
    CHECK(strstr(
        text.p,
        "\"list\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Inner\"}}"));
    CHECK(strstr(
        text.p,
        "\"one\":{\"anyOf\":[{\"$ref\":\"#/components/schemas/Inner\"},{\"type\":\"null\"}]}"));
    CHECK(strstr(text.p, "\"required\":[\"name\",\"port\"]"));
}
