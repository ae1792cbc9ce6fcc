/* SPDX-License-Identifier: MIT */
/*
 * Whatever stands in a row: what is read is JSON, and what is written of it reads back the same.
 */
#include "durable/durable_int.h"
#include "fuzz.h"

static void must(int ok)
{
    if (!ok)
        abort();
}

static void value(enum wire_format format, struct str text)
{
    struct buf json, wire, again;

    buf_init(&json, 8 * MIB);
    buf_init(&wire, 8 * MIB);
    buf_init(&again, 8 * MIB);
    if (wire_read_value(format, text, &json, NULL) == 0) {
        must(wire_check(buf_str(&json), NULL) == 0);
        /* the wrapping is one level of nesting more */
        if (wire_write_value(WIRE_SUPERJSON, buf_str(&json), &wire, NULL) == 0 &&
            wire_read_value(WIRE_SUPERJSON, buf_str(&wire), &again, NULL) == 0)
            must(str_eq(buf_str(&json), buf_str(&again)));
    }
    buf_done(&json);
    buf_done(&wire);
    buf_done(&again);
}

static void arguments(enum wire_format format, struct str text)
{
    struct arena a = { 0 };
    json_t *args = NULL, *named = NULL;
    int r = wire_read_args(format, text, &a, &args, &named, NULL);

    must(r < 0 || (json_is_array(args) && json_is_object(named)));
    arena_done(&a);
}

static void error(enum wire_format format, struct str text)
{
    struct wire_error have, again;
    struct arena a = { 0 };
    struct buf wire;
    struct err e;

    buf_init(&wire, 8 * MIB);
    if (wire_read_error(format, text, &a, &have, NULL) == 0) {
        must(wire_write_error(format, &have, &wire, NULL) == 0);
        if (wire_read_error(format, buf_str(&wire), &a, &again, NULL) == 0)
            must(str_eq(have.name, again.name) && str_eq(have.message, again.message));
        must(wire_error_to_err(&have, &e) < 0);
    }
    buf_done(&wire);
    arena_done(&a);
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };

    for (enum wire_format format = WIRE_PORTABLE; format <= WIRE_UNKNOWN; format++) {
        value(format, text);
        arguments(format, text);
        error(format, text);
    }
    return 0;
}
