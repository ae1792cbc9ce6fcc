/* SPDX-License-Identifier: MIT */
/*
 * base/shape.h — how a C struct looks as JSON. One descriptor serves decoding, validation,
 * encoding, redaction and OpenAPI. The field's C type picks its kind:
 *
 *   const char *         string          int64_t   integer        bool      boolean
 *   double               number          json_t *  any value      struct shape_strs   strings
 *   struct shape_list    a list of structs of shape .of (elements are pointers)
 *   const void *         one struct of shape .of
 *
 * Absent or null: NULL, 0, false, unless .def says otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"

enum shape_kind {
    SHAPE_STR,
    SHAPE_INT,
    SHAPE_BOOL,
    SHAPE_REAL,
    SHAPE_JSON,
    SHAPE_STRS,
    SHAPE_LIST,
    SHAPE_OBJ,
};

struct shape_strs {
    const char **v;
    size_t n;
};

struct shape_list {
    const void **v; /* each a struct of the field's .of shape */
    size_t n;
};

struct shape;

struct shape_field {
    const char *name;
    size_t offset;
    enum shape_kind kind;
    bool required;
    bool nullable; /* an explicit null counts as absent instead of being a wrong type */
    bool secret;   /* never encoded, never logged; OpenAPI says writeOnly */
    bool object;   /* SHAPE_JSON: must be an object */
    bool omit;     /* encode: leave the key out when NULL (default: print null) */
    bool coerce;   /* numbers, booleans: also accept strings, whole floats, as pydantic does */
    long long min; /* of the number; of the string's length in code points; of the list's length */
    long long max; /* both 0: unbounded; below min: no upper bound. Coerced numbers beyond 64 bits
                      count as the nearest one that fits */
    int decimals;  /* SHAPE_REAL, encode: Python's round() to so many places; 0: as it is */
    const char *def;           /* default in JSON syntax: "30", "\"http\"", "[]" */
    const char *const *one_of; /* NULL-terminated allowed strings */
    bool enumeration;          /* of one_of: pydantic's words for an Enum, not for a Literal */
    bool uuid;                 /* SHAPE_STR: must be a UUID */
    const struct shape *of;    /* SHAPE_OBJ, SHAPE_LIST */
    const char *doc;
};

struct shape {
    const char *name; /* the schema's name in OpenAPI */
    size_t size;      /* of the struct */
    const struct shape_field *fields;
    size_t n;
    const char *doc;
};

#define SHAPE_KIND(type, member) \
    _Generic(((type *)0)->member, \
        char *: SHAPE_STR, \
        const char *: SHAPE_STR, \
        int64_t: SHAPE_INT, \
        bool: SHAPE_BOOL, \
        double: SHAPE_REAL, \
        json_t *: SHAPE_JSON, \
        struct shape_strs: SHAPE_STRS, \
        struct shape_list: SHAPE_LIST, \
        const void *: SHAPE_OBJ)

#define FIELD(type, member, ...) \
    { \
        .name = #member, .offset = offsetof(type, member), .kind = SHAPE_KIND(type, member), \
        __VA_ARGS__ \
    }

/* const struct shape x = SHAPE(struct x, "X", x_fields); */
#define SHAPE(type, schema, array, ...) \
    { \
        .name = schema, .size = sizeof(type), .fields = array, .n = LEN(array), __VA_ARGS__ \
    }

/* Issues gathered from one input; those past it are left out. */
#define SHAPE_ISSUES_MAX 100

/* One thing wrong with an input, in pydantic's words; the place is told from the input down. */
struct shape_issue {
    struct shape_issue *next;
    const char *type; /* "missing", "string_type", "less_than_equal", ... */
    const char *msg;
    const char *field;   /* NULL: the value itself; "agents.0.host" inside lists and structs */
    int index;           /* in a list, or -1 */
    const char *ctx_key; /* "ge", "le", "min_length", ..., or NULL */
    long long ctx_value;
    const char *ctx_text; /* instead of ctx_value when set */
    const json_t *input;  /* the offending value; for "missing" the whole object */
};

/*
 * Fill *ret (shape->size bytes, caller's) from in. Strings and lists point into in or the arena;
 * in must outlive *ret. Unknown keys are ignored. All issues are gathered, in the order of the
 * fields; any makes it -ERR_INVALID with the first one in e. ret_issues may be NULL. in as null (or
 * NULL, an empty body) is one issue, "missing".
 */
int shape_decode(const struct shape *shape, const json_t *in, struct arena *a, void *ret,
                 struct shape_issue **ret_issues, struct err *e) MUST_CHECK;

/* The same from a query string: every value is text first; of a repeated name the last one wins,
 * or all make up the list. */
struct shape_pair {
    struct str name, value;
};
int shape_decode_pairs(const struct shape *shape, const struct shape_pair *pairs, size_t n,
                       struct arena *a, void *ret, struct shape_issue **ret_issues, struct err *e)
    MUST_CHECK;

/* Append value as compact JSON, fields in declared order, secret ones left out. */
int shape_write(const struct shape *shape, const void *value, struct buf *b, struct err *e)
    MUST_CHECK;

/* JSON Schema (OpenAPI 3.1 flavour) of the shape; a new reference. Nested shapes become
 * "#/components/schemas/<name>". */
json_t *shape_schema(const struct shape *shape);
