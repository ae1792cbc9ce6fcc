/* SPDX-License-Identifier: MIT */
/*
 * durable/codec.c — the two formats of stored values that we read and write.
 *
 *   portable_json  plain JSON; arguments are {"positionalArgs":[...],"namedArgs":{...}}
 *   js_superjson   {"json":VALUE,"meta":{...},"__dbos_serializer":"superjson"}; arguments are an
 *                  array. A text without the marker is the value itself: the 4.x releases of DBOS
 *                  took it so.
 *
 * A value passes through as text: it is checked by a scan and cut out, never built, unless the
 * writer marked parts of it "undefined", which JSON has no word for. Strings of JavaScript may hold
 * U+0000 and halves of surrogate pairs: with us each is U+FFFD.
 */
#include "base/json.h"
#include "durable/durable_int.h"

#define DEPTH_MAX 512 /* of a value; what json_check() allows */

static const struct str marker_key = { "\"__dbos_serializer\"", 19 };
static const struct str marker = { "\"superjson\"", 11 };

enum wire_format wire_format_of(struct str serialization)
{
    if (serialization.n == 0 || str_eq_z(serialization, "portable_json"))
        return WIRE_PORTABLE;
    if (str_eq_z(serialization, "js_superjson"))
        return WIRE_SUPERJSON;
    return WIRE_UNKNOWN;
}

/* What is said about a row that we could not read is said in the portable format. */
const char *wire_format_name(enum wire_format format)
{
    return format == WIRE_SUPERJSON ? "js_superjson" : "portable_json";
}

int wire_check(struct str json, struct err *e)
{
    return json_check(json, DEPTH_MAX, e);
}

static int unknown(struct err *e)
{
    return err_set(e, ERR_INVALID,
                   "the value is in a format that is neither portable_json nor js_superjson");
}

/* --- cutting texts that were checked --- */

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

static struct str trimmed(struct str s)
{
    const char *p = skip_space(s.p, s.p + s.n), *end = s.p + s.n;

    while (end > p && (end[-1] == ' ' || end[-1] == '\n' || end[-1] == '\r' || end[-1] == '\t'))
        end--;
    return (struct str){ p, (size_t)(end - p) };
}

/* p is at the opening quote; behind the closing one. */
static const char *skip_string(const char *p)
{
    for (p++; *p != '"'; p++)
        p += *p == '\\';
    return p + 1;
}

/* p is where a value begins; behind it. */
static const char *skip_value(const char *p, const char *end)
{
    unsigned depth = 0;

    while (p < end) {
        switch (*p) {
        case '"':
            p = skip_string(p);
            break;
        case '{':
        case '[':
            depth++;
            p++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return p;
            depth--;
            p++;
            break;
        case ',':
            if (depth == 0)
                return p;
            p++;
            break;
        default:
            p++;
        }
    }
    return p;
}

/* The next member of a checked object: *at is behind "{" or a comma. false: there is none. */
static bool next_member(const char **at, const char *end, struct str *ret_key, struct str *ret)
{
    const char *p = skip_space(*at, end), *key = p;

    if (p == end || *p != '"')
        return false;
    p = skip_string(p);
    *ret_key = (struct str){ key, (size_t)(p - key) };
    p = skip_space(p, end) + 1; /* the colon */
    key = p;
    p = skip_value(skip_space(p, end), end);
    *ret = trimmed((struct str){ key, (size_t)(p - key) });
    p = skip_space(p, end);
    *at = p < end && *p == ',' ? p + 1 : p;
    return true;
}

struct superjson {
    struct str json, meta; /* meta {0}: none */
};

/* The parts of a checked text; false when it does not bear the mark. */
static bool open_superjson(struct str text, struct superjson *ret)
{
    const char *end = text.p + text.n, *at = skip_space(text.p, end);
    struct str key, value;
    bool marked = false;

    *ret = (struct superjson){ 0 };
    if (at == end || *at++ != '{')
        return false;
    while (next_member(&at, end, &key, &value))
        if (str_eq(key, STR("\"json\"")))
            ret->json = value;
        else if (str_eq(key, STR("\"meta\"")))
            ret->meta = value;
        else if (str_eq(key, marker_key) && str_eq(value, marker))
            marked = true;
    return marked && ret->json.p;
}

/* --- "undefined" --- */

static bool mentions_undefined(struct str meta)
{
    return meta.n && memmem(meta.p, meta.n, "undefined", 9);
}

static bool is_undefined(const json_t *annotation)
{
    const json_t *kind = json_array_get(annotation, 0);

    return json_is_string(kind) && strcmp(json_string_value(kind), "undefined") == 0;
}

/* Cut the first segment off a path ("a.b\.c": "a", then "b.c") into out. */
static const char *next_segment(const char *path, char *out)
{
    while (*path && *path != '.') {
        if (*path == '\\' && (path[1] == '.' || path[1] == '\\'))
            path++;
        *out++ = *path++;
    }
    *out = '\0';
    return *path ? path + 1 : path;
}

static json_t *child_of(json_t *value, const char *segment)
{
    long long index;

    if (json_is_object(value))
        return json_object_get(value, segment);
    if (json_is_array(value) &&
        int_parse(str_of(segment), 0, (long long)JSON_VALUES_MAX, &index, NULL) == 0)
        return json_array_get(value, (size_t)index);
    return NULL;
}

/* Take out what the annotation says at a path below value: an object's member goes, an element of
 * an array stays the null that it is, as JSON.stringify has it. */
static void apply(json_t *value, const json_t *annotations, struct arena *a, int depth);

static void apply_at(json_t *value, const char *path, const json_t *annotation, struct arena *a,
                     int depth)
{
    char *segment = arena_raw(a, strlen(path) + 1);
    json_t *parent = NULL;

    while (*path && value) {
        path = next_segment(path, segment);
        parent = value;
        value = child_of(value, segment);
    }
    if (!value)
        return;
    if (!is_undefined(annotation))
        apply(value, annotation, a, depth + 1);
    else if (json_is_object(parent))
        json_object_del(parent, segment);
}

static void apply(json_t *value, const json_t *annotations, struct arena *a, int depth)
{
    const json_t *paths = annotations;
    const char *path;
    json_t *annotation;

    if (json_is_array(annotations)) /* [kind] or [kind, {paths}] */
        paths = json_array_get(annotations, 1);
    if (depth > DEPTH_MAX || !json_is_object(paths))
        return;
    json_object_foreach((json_t *)(uintptr_t)paths, path, annotation)
        apply_at(value, path, annotation, a, depth);
}

/* The last arguments of a call that were left out are undefined elements of the array. */
static void drop_undefined_tail(json_t *args, const json_t *annotations)
{
    char index[24];
    size_t n;

    while ((n = json_array_size(args)) > 0) {
        fmt_z(index, sizeof(index), "%zu", n - 1);
        if (!is_undefined(json_object_get(annotations, index)))
            return;
        json_array_remove(args, n - 1);
    }
}

/* The value with its undefined parts gone, as a document of the arena. */
static int build(const struct superjson *s, struct arena *a, json_t **ret, struct err *e)
{
    json_t *value, *meta, *annotations;
    int r;

    r = json_parse(s->json, DEPTH_MAX, a, &value, NULL, e);
    if (r < 0)
        return r;
    if (mentions_undefined(s->meta)) {
        r = json_parse(s->meta, DEPTH_MAX, a, &meta, NULL, e);
        if (r < 0)
            return r;
        annotations = json_object_get(meta, "values");
        apply(value, annotations, a, 0);
        if (json_is_array(value))
            drop_undefined_tail(value, annotations);
    }
    *ret = value;
    return 0;
}

/* --- arguments --- */

static void drop(void *document)
{
    json_decref(document);
}

static json_t *owned(json_t *fresh, struct arena *a)
{
    arena_on_free(a, drop, fresh);
    return fresh;
}

static int read_portable_args(struct str text, struct arena *a, json_t **ret_args,
                              json_t **ret_named, struct err *e)
{
    json_t *all, *args, *named;
    int r;

    r = json_parse(text, DEPTH_MAX, a, &all, NULL, e);
    if (r < 0)
        return err_wrap(e, "arguments");
    if (!json_is_object(all))
        return err_set(e, ERR_INVALID, "portable arguments are not an object");
    args = json_object_get(all, "positionalArgs");
    named = json_object_get(all, "namedArgs");
    if (args && !json_is_null(args) && !json_is_array(args))
        return err_set(e, ERR_INVALID, "positionalArgs is not an array");
    if (named && !json_is_null(named) && !json_is_object(named))
        return err_set(e, ERR_INVALID, "namedArgs is not an object");
    *ret_args = json_is_array(args) ? args : owned(json_array(), a);
    *ret_named = json_is_object(named) ? named : owned(json_object(), a);
    return 0;
}

static int read_superjson_args(struct str text, struct arena *a, json_t **ret_args,
                               json_t **ret_named, struct err *e)
{
    struct superjson s;
    json_t *args;
    int r;

    r = wire_check(text, e);
    if (r < 0)
        return err_wrap(e, "arguments");
    if (!open_superjson(text, &s))
        s = (struct superjson){ .json = text };
    r = build(&s, a, &args, e);
    if (r < 0)
        return err_wrap(e, "arguments");
    if (!json_is_array(args))
        return err_set(e, ERR_INVALID, "the arguments are not an array");
    *ret_args = args;
    *ret_named = owned(json_object(), a);
    return 0;
}

static int read_args(enum wire_format format, struct str text, struct arena *a, json_t **ret_args,
                     json_t **ret_named, struct err *e)
{
    switch (format) {
    case WIRE_PORTABLE:
        return read_portable_args(text, a, ret_args, ret_named, e);
    case WIRE_SUPERJSON:
        return read_superjson_args(text, a, ret_args, ret_named, e);
    case WIRE_UNKNOWN:
        break;
    }
    return unknown(e);
}

int wire_read_args(enum wire_format format, struct str text, struct arena *a, json_t **ret_args,
                   json_t **ret_named, struct err *e)
{
    int r = read_args(format, text, a, ret_args, ret_named, e);
    struct str mended = r == -ERR_INVALID ? json_mend(text, a) : (struct str){ 0 };

    return mended.p ? read_args(format, mended, a, ret_args, ret_named, e) : r;
}

static int add_checked(struct buf *out, struct str json, char bracket, const char *otherwise,
                       struct err *e)
{
    int r;

    if (!json.p)
        return buf_add_z(out, otherwise, e);
    r = wire_check(json, e);
    if (r < 0)
        return r;
    if (trimmed(json).p[0] != bracket)
        return err_set(e, ERR_INVALID, "it is not %s", bracket == '[' ? "an array" : "an object");
    return buf_add_str(out, json, e);
}

int wire_write_args(struct str args, struct str named, struct buf *out, struct err *e)
{
    int r;

    r = buf_add_z(out, "{\"positionalArgs\":", e);
    if (r < 0)
        return r;
    r = add_checked(out, args, '[', "[]", e);
    if (r < 0)
        return err_wrap(e, "arguments");
    r = buf_add_z(out, ",\"namedArgs\":", e);
    if (r < 0)
        return r;
    r = add_checked(out, named, '{', "{}", e);
    if (r < 0)
        return err_wrap(e, "named arguments");
    return buf_add_z(out, "}", e);
}

/* --- values --- */

static int read_superjson(struct str text, struct buf *out, struct err *e)
{
    struct arena a = { 0 };
    struct superjson s;
    json_t *value;
    int r;

    if (!open_superjson(text, &s))
        return buf_add_str(out, trimmed(text), e);
    if (!mentions_undefined(s.meta))
        return buf_add_str(out, s.json, e);
    r = build(&s, &a, &value, e);
    if (r == 0)
        r = json_write(value, out, e);
    arena_done(&a);
    return r;
}

/* The text that passes the check: itself, or mended in the arena. */
static int checked(struct str *text, struct arena *a, struct err *e)
{
    int r = wire_check(*text, e);
    struct str mended = r < 0 ? json_mend(*text, a) : (struct str){ 0 };

    if (!mended.p)
        return r;
    *text = mended;
    return wire_check(mended, e);
}

int wire_read_value(enum wire_format format, struct str text, struct buf *out, struct err *e)
{
    struct arena a = { 0 };
    int r;

    if (format == WIRE_UNKNOWN)
        return unknown(e);
    if (!text.p) /* nothing was stored: nothing was returned */
        return buf_add_z(out, "null", e);
    r = checked(&text, &a, e);
    if (r < 0)
        r = err_wrap(e, "stored value");
    else if (format == WIRE_PORTABLE)
        r = buf_add_str(out, trimmed(text), e);
    else
        r = read_superjson(text, out, e);
    arena_done(&a);
    return r;
}

int wire_write_value(enum wire_format format, struct str json, struct buf *out, struct err *e)
{
    int r;

    if (!json.p) /* void */
        return buf_add_z(out,
                         format == WIRE_SUPERJSON
                             ? "{\"json\":null,\"meta\":{\"values\":[\"undefined\"]},"
                               "\"__dbos_serializer\":\"superjson\"}"
                             : "null",
                         e);
    r = wire_check(json, e);
    if (r < 0)
        return r;
    if (format != WIRE_SUPERJSON)
        return buf_add_str(out, json, e);
    r = buf_add_z(out, "{\"json\":", e);
    if (r == 0)
        r = buf_add_str(out, json, e);
    if (r == 0)
        r = buf_add_z(out, ",\"__dbos_serializer\":\"superjson\"}", e);
    return r;
}

/* --- errors --- */

static int add_extra(struct buf *out, const char *key, struct str json, struct err *e)
{
    int r;

    if (!json.p)
        return 0;
    r = wire_check(json, e);
    if (r < 0)
        return err_wrap(e, "%s of an error", key);
    r = buf_printf(out, e, ",\"%s\":", key);
    return r < 0 ? r : buf_add_str(out, json, e);
}

static int add_error(const struct wire_error *error, const char *between, struct buf *out,
                     struct err *e)
{
    int r;

    r = buf_add_z(out, "{\"name\":", e);
    if (r == 0)
        r = json_write_str(out, error->name.n ? error->name : STR("Error"), e);
    if (r == 0)
        r = buf_add_z(out, ",\"message\":", e);
    if (r == 0)
        r = json_write_str(out, error->message, e);
    if (r == 0)
        r = buf_add_z(out, between, e);
    if (r == 0)
        r = add_extra(out, "code", error->code, e);
    if (r == 0)
        r = add_extra(out, "data", error->data, e);
    return r < 0 ? r : buf_add_z(out, "}", e);
}

int wire_write_error(enum wire_format format, const struct wire_error *error, struct buf *out,
                     struct err *e)
{
    int r;

    if (format != WIRE_SUPERJSON)
        return add_error(error, "", out, e);
    r = buf_add_z(out, "{\"json\":", e);
    if (r == 0)
        r = add_error(error, ",\"stack\":\"\"", out, e);
    return r < 0 ? r : buf_add_z(out, ",\"__dbos_serializer\":\"superjson\"}", e);
}

static int extra_of(const json_t *object, const char *key, struct arena *a, struct str *ret,
                    struct err *e)
{
    const json_t *member = json_object_get(object, key);

    if (!member || json_is_null(member))
        return 0;
    return json_text(member, 64 * MIB, a, ret, e);
}

int wire_read_error(enum wire_format format, struct str text, struct arena *a,
                    struct wire_error *ret, struct err *e)
{
    struct wire_error error = { 0 };
    struct superjson s;
    json_t *value;
    int r;

    if (format == WIRE_UNKNOWN)
        return unknown(e);
    r = checked(&text, a, e);
    if (r < 0 || format != WIRE_SUPERJSON || !open_superjson(text, &s))
        s = (struct superjson){ .json = text };
    if (r == 0)
        r = build(&s, a, &value, e);
    if (r < 0)
        return err_wrap(e, "stored error");
    if (json_is_object(value)) {
        error.name = json_member_str(value, "name");
        error.message = json_member_str(value, "message");
        r = extra_of(value, "code", a, &error.code, e);
        if (r == 0)
            r = extra_of(value, "data", a, &error.data, e);
    } else if (json_is_string(value)) { /* in JavaScript anything can be thrown */
        error.message = (struct str){ json_string_value(value), json_string_length(value) };
    } else {
        r = json_text(value, 64 * MIB, a, &error.message, e);
    }
    if (r < 0)
        return err_wrap(e, "stored error");
    if (!error.name.n)
        error.name = STR("Error");
    if (!error.message.p)
        error.message = STR("");
    *ret = error;
    return 0;
}

/* A recorded error is never the end of a run: that is said by ERR_CANCELED and ERR_PARKED, which
 * are not recorded. */
int wire_error_to_err(const struct wire_error *error, struct err *e)
{
    enum err_code code = ERR_INTERNAL;

    for (enum err_code c = ERR_INVALID; c < ERR_CANCELED; c++)
        if (str_eq_z(error->name, err_name(c)))
            code = c;
    return err_set(e, code, STR_FMT, (int)(error->message.n < 1024 ? error->message.n : 1024),
                   error->message.p);
}
