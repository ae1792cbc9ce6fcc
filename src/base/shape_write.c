/* SPDX-License-Identifier: MIT */
/*
 * base/shape_write.c — C structs as JSON text, straight into a buffer, since every answer takes
 * this way; and shapes as JSON Schema for the OpenAPI document.
 */
#include <stdio.h>

#include "base/shape.h"

/* Python's round(v, decimals): the nearest decimal, then the nearest double to that. */
static double round_decimal(double v, int decimals)
{
    char text[400]; /* 309 digits of the largest double and the decimals */
    int n = snprintf(text, sizeof(text), "%.*f", decimals, v);

    return n > 0 && (size_t)n < sizeof(text) ? strtod(text, NULL) : v;
}

static int write_strs(const struct shape_strs *list, struct buf *b, struct err *e)
{
    int r = buf_add(b, "[", 1, e);

    for (size_t i = 0; r == 0 && i < list->n; i++) {
        if (i > 0)
            r = buf_add(b, ",", 1, e);
        if (r == 0)
            r = json_write_str(b, str_of(list->v[i]), e);
    }
    return r < 0 ? r : buf_add(b, "]", 1, e);
}

static int write_list(const struct shape *of, const struct shape_list *list, struct buf *b,
                      struct err *e)
{
    int r = buf_add(b, "[", 1, e);

    for (size_t i = 0; r == 0 && i < list->n; i++) {
        if (i > 0)
            r = buf_add(b, ",", 1, e);
        if (r == 0)
            r = shape_write(of, list->v[i], b, e);
    }
    return r < 0 ? r : buf_add(b, "]", 1, e);
}

static bool is_null(const struct shape_field *f, const void *slot)
{
    switch (f->kind) {
    case SHAPE_STR:
        return !*(const char *const *)slot;
    case SHAPE_JSON:
        return !*(json_t *const *)slot;
    case SHAPE_OBJ:
        return !*(const void *const *)slot;
    case SHAPE_STRS:
        return f->omit && !((const struct shape_strs *)slot)->v;
    case SHAPE_LIST:
        return f->omit && !((const struct shape_list *)slot)->v;
    default:
        return false;
    }
}

/* The slot is not null. */
static int write_value(const struct shape_field *f, const void *slot, struct buf *b, struct err *e)
{
    double real;

    switch (f->kind) {
    case SHAPE_STR:
        return json_write_str(b, str_of(*(const char *const *)slot), e);
    case SHAPE_INT:
        return json_write_int(b, *(const int64_t *)slot, e);
    case SHAPE_BOOL:
        return buf_add_z(b, *(const bool *)slot ? "true" : "false", e);
    case SHAPE_REAL:
        real = *(const double *)slot;
        return json_write_real(b, f->decimals > 0 ? round_decimal(real, f->decimals) : real, e);
    case SHAPE_JSON:
        return json_write(*(json_t *const *)slot, b, e);
    case SHAPE_STRS:
        return write_strs(slot, b, e);
    case SHAPE_LIST:
        return write_list(f->of, slot, b, e);
    case SHAPE_OBJ:
        break;
    }
    return shape_write(f->of, *(const void *const *)slot, b, e);
}

static int write_key(const char *name, bool first, struct buf *b, struct err *e)
{
    size_t n = strlen(name);
    char *p;
    int r;

    r = buf_reserve(b, n + 4, &p, e);
    if (r < 0)
        return r;
    *p = first ? '{' : ',';
    p[1] = '"';
    memcpy(p + 2, name, n); /* a C identifier: nothing to escape */
    p[n + 2] = '"';
    p[n + 3] = ':';
    buf_commit(b, n + 4);
    return 0;
}

int shape_write(const struct shape *shape, const void *value, struct buf *b, struct err *e)
{
    bool first = true;
    int r;

    for (size_t i = 0; i < shape->n; i++) {
        const struct shape_field *f = &shape->fields[i];
        const void *slot = (const char *)value + f->offset;
        bool null = is_null(f, slot);

        if (f->secret || (null && f->omit))
            continue;
        r = write_key(f->name, first, b, e);
        if (r == 0)
            r = null ? buf_add(b, "null", 4, e) : write_value(f, slot, b, e);
        if (r < 0)
            return r;
        first = false;
    }
    return buf_add(b, first ? "{}" : "}", first ? 2 : 1, e);
}
