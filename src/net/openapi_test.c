/* SPDX-License-Identifier: MIT */
/* The document says of each row what the row says of itself, and every reference in it leads
 * somewhere. */
#include "net/http.h"

#include "test.h"

struct part {
    const char *name;
};
static const struct shape_field part_fields[] = { FIELD(struct part, name) };
static const struct shape part_shape = SHAPE(struct part, "Part", part_fields);

struct whole {
    int64_t id;
    struct shape_list parts;
};
static const struct shape_field whole_fields[] = {
    FIELD(struct whole, id, .required = true, .min = 1, .max = 9),
    FIELD(struct whole, parts, .of = &part_shape),
};
static const struct shape whole_shape = SHAPE(struct whole, "Whole", whole_fields);

struct page {
    int64_t limit;
};
static const struct shape_field page_fields[] = { FIELD(struct page, limit, .def = "10") };
static const struct shape page_shape = SHAPE(struct page, "Page", page_fields);

static int run(struct http_req *req, struct err *e)
{
    return 0;
}

/* clang-format off */
static const struct http_route rows[] = {
    { HTTP_M_GET,    "/a/{x}/b/{y}", run, .need = NEED_READ, .query = &page_shape, .out = &whole_shape, .doc = "Get it.", .tag = "things" },
    { HTTP_M_POST,   "/a/{x}/b/{y}", run, .need = NEED_READ, .in = &whole_shape, .status = 201, .doc = "Make it." },
    { HTTP_M_GET,    "/stream",      run, .need = NEED_NONE, .flags = ROUTE_STREAM, .doc = "Follow it." },
    { HTTP_M_DELETE, "/hidden",      run, .need = NEED_NONE, .flags = ROUTE_HIDDEN, .doc = "Nothing to see." },
};
/* clang-format on */
static const struct http_table table = { "/", &dialect_fastapi, rows, LEN(rows), NULL };
static const struct http_table *const tables[] = { &table };

/* The value at a path of keys separated by spaces; a key of digits is an index. */
static const json_t *at(const json_t *j, const char *path)
{
    struct str rest = str_of(path), key;
    struct err ignored;
    long long i;

    while (j && str_split(&rest, ' ', &key))
        j = json_is_array(j) && int_parse(key, 0, 1000, &i, &ignored) == 0
                ? json_array_get(j, (size_t)i)
                : json_object_getn(j, key.p, key.n);
    return j;
}

static const char *text_at(const json_t *j, const char *path)
{
    return json_string_value(at(j, path));
}

static bool refs_resolve(const json_t *doc, const json_t *j)
{
    const char *key;
    json_t *value;
    size_t i;

    if (json_is_array(j)) {
        json_array_foreach(j, i, value) if (!refs_resolve(doc, value)) return false;
        return true;
    }
    json_object_foreach((json_t *)(uintptr_t)j, key, value)
    {
        const char *prefix = "#/components/schemas/", *to = json_string_value(value);

        if (strcmp(key, "$ref") == 0 &&
            (strncmp(to, prefix, strlen(prefix)) != 0 ||
             !json_object_get(at(doc, "components schemas"), to + strlen(prefix))))
            return false;
        if (!refs_resolve(doc, value))
            return false;
    }
    return true;
}

TEST(every_row_is_described)
{
    json_t *doc = http_openapi(tables, 1, "title", "1.2.3");

    CHECK_STR(text_at(doc, "openapi"), "3.1.0");
    CHECK_STR(text_at(doc, "info title"), "title");
    CHECK_STR(text_at(doc, "info version"), "1.2.3");
    CHECK_STR(text_at(doc, "paths /a/{x}/b/{y} get summary"), "Get it.");
    CHECK_STR(text_at(doc, "paths /a/{x}/b/{y} get tags 0"), "things");
    CHECK_STR(text_at(doc, "paths /a/{x}/b/{y} get parameters 0 name"), "x");
    CHECK_STR(text_at(doc, "paths /a/{x}/b/{y} get parameters 1 name"), "y");
    CHECK_STR(text_at(doc, "paths /a/{x}/b/{y} get parameters 1 in"), "path");
    CHECK_STR(text_at(doc, "paths /a/{x}/b/{y} get parameters 2 name"), "limit");
    CHECK_STR(text_at(doc, "paths /a/{x}/b/{y} get parameters 2 in"), "query");
    CHECK_INT(json_integer_value(at(doc, "paths /a/{x}/b/{y} get parameters 2 schema default")),
              10);
    CHECK_STR(
        text_at(doc, "paths /a/{x}/b/{y} get responses 200 content application/json schema $ref"),
        "#/components/schemas/Whole");
    CHECK_STR(
        text_at(doc, "paths /a/{x}/b/{y} post requestBody content application/json schema $ref"),
        "#/components/schemas/Whole");
    CHECK_STR(text_at(doc, "paths /a/{x}/b/{y} post responses 201 description"), "Created");
    CHECK(at(doc, "paths /a/{x}/b/{y} post responses 422"));
    CHECK(at(doc, "paths /stream get responses 200 content text/event-stream"));
    CHECK(json_array_size(at(doc, "paths /stream get security")) == 0);
    CHECK(!at(doc, "paths /stream get responses 401"));
    CHECK(!at(doc, "paths /hidden"));
    CHECK(at(doc, "components schemas Part"));
    CHECK(refs_resolve(doc, doc));
    json_decref(doc);
}

TEST(operations_have_names_of_their_own)
{
    json_t *doc = http_openapi(tables, 1, "t", "v");
    const char *get = text_at(doc, "paths /a/{x}/b/{y} get operationId");
    const char *post = text_at(doc, "paths /a/{x}/b/{y} post operationId");

    CHECK(get && post && strcmp(get, post) != 0);
    json_decref(doc);
}
