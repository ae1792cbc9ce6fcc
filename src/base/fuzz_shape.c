/* SPDX-License-Identifier: MIT */
/*
 * An input decodes into a struct that can be written and decoded again, or it has issues; the same
 * bytes are also tried as a query string.
 */
#include "base/shape.h"
#include "fuzz.h"

struct part {
    const char *host;
    int64_t port;
};

struct whole {
    const char *name, *kind;
    int64_t n, strict;
    bool yes;
    double real;
    json_t *any;
    struct shape_strs strs;
    struct shape_list list;
    const void *one;
};

static const char *const kinds[] = { "a", "b", NULL };

static const struct shape_field part_fields[] = {
    FIELD(struct part, host, .required = true, .max = 9),
    FIELD(struct part, port, .coerce = true, .min = 1, .max = 65535, .def = "80"),
};
static const struct shape part_shape = SHAPE(struct part, "Part", part_fields);

static const struct shape_field whole_fields[] = {
    FIELD(struct whole, name, .required = true, .min = 1),
    FIELD(struct whole, kind, .nullable = true, .one_of = kinds),
    FIELD(struct whole, n, .coerce = true),
    FIELD(struct whole, strict, .min = -5, .max = 5),
    FIELD(struct whole, yes, .coerce = true),
    FIELD(struct whole, real, .coerce = true, .decimals = 2),
    FIELD(struct whole, any, .nullable = true, .object = true),
    FIELD(struct whole, strs, .def = "[]", .max = 4),
    FIELD(struct whole, list, .of = &part_shape, .omit = true),
    FIELD(struct whole, one, .of = &part_shape, .nullable = true),
};
static const struct shape whole_shape = SHAPE(struct whole, "Whole", whole_fields);

static void check_written(const struct whole *whole, struct arena *a)
{
    struct shape_issue *issues;
    struct whole again;
    struct buf b;
    json_t *j;

    buf_init(&b, 1 << 24);
    if (shape_write(&whole_shape, whole, &b, NULL) < 0 ||
        json_parse(buf_str(&b), 50, a, &j, NULL, NULL) < 0 ||
        shape_decode(&whole_shape, j, a, &again, &issues, NULL) < 0 || again.n != whole->n)
        abort();
    buf_done(&b);
}

static void check_issues(const struct shape_issue *issues)
{
    if (!issues)
        abort();
    for (; issues; issues = issues->next) {
        if (!issues->type || !issues->msg || issues->index < -1)
            abort();
    }
}

static size_t split_query(struct str rest, struct shape_pair *pairs, size_t max)
{
    struct str item;
    size_t n = 0;

    while (n < max && str_split(&rest, '&', &item)) {
        if (!str_split(&item, '=', &pairs[n].name))
            continue;
        pairs[n++].value = item;
    }
    return n;
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    struct shape_issue *issues = NULL;
    struct shape_pair pairs[16];
    struct arena a = { 0 };
    struct whole whole;
    json_t *j;

    if (json_parse(text, 40, &a, &j, NULL, NULL) == 0) {
        if (shape_decode(&whole_shape, j, &a, &whole, &issues, NULL) == 0)
            check_written(&whole, &a);
        else
            check_issues(issues);
    }
    if (shape_decode_pairs(&whole_shape, pairs, split_query(text, pairs, LEN(pairs)), &a, &whole,
                           &issues, NULL) < 0)
        check_issues(issues);
    arena_done(&a);
    return 0;
}
