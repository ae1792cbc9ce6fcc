/* SPDX-License-Identifier: MIT */
/*
 * base/shape_decode.c — JSON into C structs by a descriptor. Nothing stops at the first mistake: a
 * caller gets every issue of an input at once, in the order of the fields, in the words pydantic
 * has for it (the original VPS integration answered with those, and its clients read them).
 */
#include "base/shape.h"

#include <limits.h>

#include "base/shape_int.h"

struct decode {
    struct arena *arena;
    struct shape_issue *first, **last;
    struct shape_issue spare; /* takes what is said about those past SHAPE_ISSUES_MAX */
    unsigned n_issues;
};

/* Where a value stands, for the issues about it. */
struct place {
    const char *prefix; /* of a struct inside: "agents.0"; NULL at the top */
    const char *field;  /* NULL: the struct itself */
    int index;
};

static const char *path_of(struct decode *d, const struct place *at)
{
    if (!at->prefix || !at->field)
        return at->prefix ? at->prefix : at->field;
    return arena_printf(d->arena, "%s.%s", at->prefix, at->field);
}

static struct shape_issue *add_issue(struct decode *d, const struct place *at, const json_t *in,
                                     const char *type, const char *msg)
{
    struct shape_issue *issue;

    if (d->n_issues == SHAPE_ISSUES_MAX)
        return &d->spare;
    d->n_issues++;
    issue = arena_new(d->arena, struct shape_issue);
    issue->type = type;
    issue->msg = msg;
    issue->field = path_of(d, at);
    issue->index = at->index;
    issue->input = in;
    *d->last = issue;
    d->last = &issue->next;
    return issue;
}

static void add_bound_issue(struct decode *d, const struct place *at, const json_t *in,
                            const char *type, const char *msg, const char *key, long long bound)
{
    struct shape_issue *issue = add_issue(d, at, in, type, msg);

    issue->ctx_key = key;
    issue->ctx_value = bound;
}

static bool has_min(const struct shape_field *f)
{
    return f->min != 0 || f->max != 0;
}

static bool has_max(const struct shape_field *f)
{
    return has_min(f) && f->max >= f->min;
}

static const char *plural(long long n)
{
    return n == 1 ? "" : "s";
}

static void check_one_of(struct decode *d, const struct shape_field *f, const struct place *at,
                         const json_t *in)
{
    struct shape_issue *issue;
    char *expected = NULL;

    for (const char *const *choice = f->one_of; *choice; choice++) {
        const char *before = !expected ? "" : choice[1] ? ", " : " or ";

        if (strcmp(*choice, json_string_value(in)) == 0)
            return;
        expected = arena_printf(d->arena, "%s%s'%s'", expected ? expected : "", before, *choice);
    }
    issue = add_issue(d, at, in, f->enumeration ? "enum" : "literal_error",
                      arena_printf(d->arena, "Input should be %s", expected ? expected : "absent"));
    issue->ctx_key = "expected";
    issue->ctx_text = expected;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

/* With or without its hyphens, as Python takes them; the words of pydantic for what is wrong. */
static void check_uuid(struct decode *d, const struct place *at, const json_t *in)
{
    const char *s = json_string_value(in), *why = NULL;
    size_t n = 0, digits = 0;
    struct shape_issue *issue;

    for (; s[n] && (is_hex(s[n]) || s[n] == '-'); n++)
        digits += s[n] != '-';
    if (s[n])
        why = arena_printf(d->arena,
                           "invalid character: expected an optional prefix of `urn:uuid:` "
                           "followed by [0-9a-fA-F-], found `%.*s` at %zu",
                           (int)utf8_step(s + n, strlen(s + n)), s + n, n + 1);
    else if (n == digits && n != 32)
        why = arena_printf(d->arena,
                           "invalid length: expected length 32 for simple format, found %zu", n);
    else if (digits != 32 || (n != 32 && n != 36))
        why = "invalid group length";
    for (size_t i = 0; !why && n == 36 && i < n; i++)
        if ((s[i] == '-') != (i == 8 || i == 13 || i == 18 || i == 23))
            why = "invalid group length";
    if (!why)
        return;
    issue = add_issue(d, at, in, "uuid_parsing",
                      arena_printf(d->arena, "Input should be a valid UUID, %s", why));
    issue->ctx_key = "error";
    issue->ctx_text = why;
}

static void check_length(struct decode *d, const struct shape_field *f, const struct place *at,
                         const json_t *in)
{
    long long n = (long long)utf8_len(json_string_value(in), json_string_length(in));

    if (has_min(f) && n < f->min)
        add_bound_issue(d, at, in, "string_too_short",
                        arena_printf(d->arena, "String should have at least %lld character%s",
                                     f->min, plural(f->min)),
                        "min_length", f->min);
    else if (has_max(f) && n > f->max)
        add_bound_issue(d, at, in, "string_too_long",
                        arena_printf(d->arena, "String should have at most %lld character%s",
                                     f->max, plural(f->max)),
                        "max_length", f->max);
}

static void decode_str(struct decode *d, const struct shape_field *f, const struct place *at,
                       const json_t *in, void *slot)
{
    if (!json_is_string(in)) {
        add_issue(d, at, in, "string_type", "Input should be a valid string");
        return;
    }
    if (f->one_of)
        check_one_of(d, f, at, in);
    else if (f->uuid)
        check_uuid(d, at, in);
    else
        check_length(d, f, at, in);
    *(const char **)slot = json_string_value(in);
}

/* Is v inside the field's bounds? Compared as doubles when the value is one. */
static void check_bounds(struct decode *d, const struct shape_field *f, const struct place *at,
                         const json_t *in, bool below, bool above)
{
    if (has_min(f) && below)
        add_bound_issue(
            d, at, in, "greater_than_equal",
            arena_printf(d->arena, "Input should be greater than or equal to %lld", f->min), "ge",
            f->min);
    else if (has_max(f) && above)
        add_bound_issue(
            d, at, in, "less_than_equal",
            arena_printf(d->arena, "Input should be less than or equal to %lld", f->max), "le",
            f->max);
}

static void add_coerce_issue(struct decode *d, const struct place *at, const json_t *in,
                             enum shape_kind kind, enum coerce why)
{
    /* clang-format off */
    static const struct { const char *type, *msg; } rows[][COERCE_NOT_FINITE + 1] = {
        [SHAPE_INT] = {
            [COERCE_WRONG_TYPE] = { "int_type", "Input should be a valid integer" },
            [COERCE_UNPARSABLE] = { "int_parsing", "Input should be a valid integer, "
                                    "unable to parse string as an integer" },
            [COERCE_FRACTION]   = { "int_from_float", "Input should be a valid integer, "
                                    "got a number with a fractional part" },
            [COERCE_NOT_FINITE] = { "finite_number", "Input should be a finite number" },
        },
        [SHAPE_BOOL] = {
            [COERCE_WRONG_TYPE] = { "bool_type", "Input should be a valid boolean" },
            [COERCE_UNPARSABLE] = { "bool_parsing", "Input should be a valid boolean, "
                                    "unable to interpret input" },
        },
        [SHAPE_REAL] = {
            [COERCE_WRONG_TYPE] = { "float_type", "Input should be a valid number" },
            [COERCE_UNPARSABLE] = { "float_parsing", "Input should be a valid number, "
                                    "unable to parse string as a number" },
            [COERCE_NOT_FINITE] = { "finite_number", "Input should be a finite number" },
        },
    };
    /* clang-format on */

    add_issue(d, at, in, rows[kind][why].type, rows[kind][why].msg);
}

static void decode_int(struct decode *d, const struct shape_field *f, const struct place *at,
                       const json_t *in, void *slot)
{
    enum coerce why = COERCE_WRONG_TYPE;
    int64_t v = 0;

    if (f->coerce || json_is_integer(in))
        why = coerce_int(in, &v);
    if (why) {
        add_coerce_issue(d, at, in, SHAPE_INT, why);
        return;
    }
    check_bounds(d, f, at, in, v<f->min, v> f->max);
    *(int64_t *)slot = v;
}

static void decode_bool(struct decode *d, const struct shape_field *f, const struct place *at,
                        const json_t *in, void *slot)
{
    enum coerce why = COERCE_WRONG_TYPE;

    if (f->coerce || json_is_boolean(in))
        why = coerce_bool(in, slot);
    if (why)
        add_coerce_issue(d, at, in, SHAPE_BOOL, why);
}

static void decode_real(struct decode *d, const struct shape_field *f, const struct place *at,
                        const json_t *in, void *slot)
{
    enum coerce why = COERCE_WRONG_TYPE;
    double v = 0;

    if (f->coerce || json_is_number(in))
        why = coerce_real(in, &v);
    if (why) {
        add_coerce_issue(d, at, in, SHAPE_REAL, why);
        return;
    }
    check_bounds(d, f, at, in, v<(double)f->min, v>(double) f->max);
    *(double *)slot = v;
}

static void decode_json(struct decode *d, const struct shape_field *f, const struct place *at,
                        const json_t *in, void *slot)
{
    if (f->object && !json_is_object(in)) {
        add_issue(d, at, in, "dict_type", "Input should be a valid dictionary");
        return;
    }
    *(json_t **)slot = (json_t *)(uintptr_t)in; /* borrowed; the field's type has no const */
}

/* Is it a list of an allowed length? */
static bool check_list(struct decode *d, const struct shape_field *f, const struct place *at,
                       const json_t *in)
{
    long long n = (long long)json_array_size(in);

    if (!json_is_array(in)) {
        add_issue(d, at, in, "list_type", "Input should be a valid list");
        return false;
    }
    if (has_min(f) && n < f->min) {
        add_bound_issue(d, at, in, "too_short",
                        arena_printf(d->arena,
                                     "List should have at least %lld item%s after validation, "
                                     "not %lld",
                                     f->min, plural(f->min), n),
                        "min_length", f->min);
        return false;
    }
    if (has_max(f) && n > f->max) {
        add_bound_issue(d, at, in, "too_long",
                        arena_printf(d->arena,
                                     "List should have at most %lld item%s after validation, "
                                     "not %lld",
                                     f->max, plural(f->max), n),
                        "max_length", f->max);
        return false;
    }
    return true;
}

static void decode_strs(struct decode *d, const struct shape_field *f, const struct place *at,
                        const json_t *in, void *slot)
{
    struct shape_strs *list = slot;
    struct place inside = *at;

    if (!check_list(d, f, at, in))
        return;
    list->n = json_array_size(in);
    list->v = arena_alloc(d->arena, (list->n + 1) * sizeof(*list->v));
    for (size_t i = 0; i < list->n; i++) {
        const json_t *member = json_array_get(in, i);

        inside.index = (int)i;
        list->v[i] = json_string_value(member);
        if (!json_is_string(member))
            add_issue(d, &inside, member, "string_type", "Input should be a valid string");
        else if (f->one_of)
            check_one_of(d, f, &inside, member);
    }
}

static void decode_struct(struct decode *d, const struct shape *shape, const struct place *at,
                          const json_t *in, void *out);

static void decode_list(struct decode *d, const struct shape_field *f, const struct place *at,
                        const json_t *in, void *slot)
{
    struct shape_list *list = slot;
    const char *path = path_of(d, at);

    if (!check_list(d, f, at, in))
        return;
    list->n = json_array_size(in);
    list->v = arena_alloc(d->arena, (list->n + 1) * sizeof(*list->v));
    for (size_t i = 0; i < list->n; i++) {
        void *member = arena_alloc(d->arena, f->of->size);
        struct place inside = { .prefix = arena_printf(d->arena, "%s.%zu", path, i), .index = -1 };

        decode_struct(d, f->of, &inside, json_array_get(in, i), member);
        list->v[i] = member;
    }
}

static void decode_obj(struct decode *d, const struct shape_field *f, const struct place *at,
                       const json_t *in, void *slot)
{
    struct place inside = { .prefix = path_of(d, at), .index = -1 };
    void *member = arena_alloc(d->arena, f->of->size);

    decode_struct(d, f->of, &inside, in, member);
    *(const void **)slot = member;
}

static void decode_value(struct decode *d, const struct shape_field *f, const struct place *at,
                         const json_t *in, void *slot)
{
    static void (*const by_kind[])(struct decode * d, const struct shape_field *f,
                                   const struct place *at, const json_t *in, void *slot) = {
        [SHAPE_STR] = decode_str,   [SHAPE_INT] = decode_int,   [SHAPE_BOOL] = decode_bool,
        [SHAPE_REAL] = decode_real, [SHAPE_JSON] = decode_json, [SHAPE_STRS] = decode_strs,
        [SHAPE_LIST] = decode_list, [SHAPE_OBJ] = decode_obj,
    };

    by_kind[f->kind](d, f, at, in, slot);
}

/* in is NULL when the field is absent; whole is what it is absent from. */
static void decode_field(struct decode *d, const struct shape_field *f, const struct place *at,
                         const json_t *in, const json_t *whole, void *slot)
{
    json_t *value;

    if (in && !(f->nullable && json_is_null(in))) {
        decode_value(d, f, at, in, slot);
        return;
    }
    if (!in && f->required) {
        add_issue(d, at, whole, "missing", "Field required");
        return;
    }
    if (f->def && json_parse(str_of(f->def), 8, d->arena, &value, NULL, NULL) == 0 &&
        !json_is_null(value))
        decode_value(d, f, at, value, slot);
}

static void decode_struct(struct decode *d, const struct shape *shape, const struct place *at,
                          const json_t *in, void *out)
{
    struct place inside = *at;

    if (!json_is_object(in)) {
        add_issue(d, at, in, "model_attributes_type",
                  "Input should be a valid dictionary or object to extract fields from");
        return;
    }
    for (size_t i = 0; i < shape->n; i++) {
        const struct shape_field *f = &shape->fields[i];

        inside.field = f->name;
        decode_field(d, f, &inside, json_object_get(in, f->name), in, (char *)out + f->offset);
    }
}

/* Hand out what was decoded, or what is wrong with it. */
static int finish(struct decode *d, const struct shape *shape, const void *decoded, void *ret,
                  struct shape_issue **ret_issues, struct err *e)
{
    const struct shape_issue *first = d->first;

    if (ret_issues)
        *ret_issues = d->first;
    if (!first) {
        memcpy(ret, decoded, shape->size);
        return 0;
    }
    if (!first->field)
        return err_set(e, ERR_INVALID, "%s", first->msg);
    if (first->index >= 0)
        return err_set(e, ERR_INVALID, "%s[%d]: %s", first->field, first->index, first->msg);
    return err_set(e, ERR_INVALID, "%s: %s", first->field, first->msg);
}

int shape_decode(const struct shape *shape, const json_t *in, struct arena *a, void *ret,
                 struct shape_issue **ret_issues, struct err *e)
{
    struct decode d = { .arena = a, .last = &d.first };
    struct place top = { .index = -1 };
    void *decoded = arena_alloc(a, shape->size);

    if (!in || json_is_null(in)) /* an empty body */
        add_issue(&d, &top, in, "missing", "Field required");
    else
        decode_struct(&d, shape, &top, in, decoded);
    return finish(&d, shape, decoded, ret, ret_issues, e);
}

static void drop(void *value)
{
    json_decref(value);
}

/* The value of a pair as JSON; NULL when it is not text. */
static json_t *json_of_pair(struct decode *d, const struct shape_pair *pair)
{
    struct str s = pair->value;
    json_t *value = s.n > 0 && memchr(s.p, '\0', s.n) ? NULL : json_stringn(s.n ? s.p : "", s.n);

    if (value)
        arena_on_free(d->arena, drop, value);
    return value;
}

/* All pairs of the name for a list, else the last one; NULL when there is none. */
static json_t *gather_pairs(struct decode *d, const struct shape_field *f, const struct place *at,
                            const struct shape_pair *pairs, size_t n)
{
    json_t *value = NULL, *one;

    for (size_t i = 0; i < n; i++) {
        if (!str_eq_z(pairs[i].name, f->name))
            continue;
        one = json_of_pair(d, &pairs[i]);
        if (!one) {
            add_issue(
                d, at, NULL, "string_unicode",
                "Input should be a valid string, unable to parse raw data as a unicode string");
            return NULL;
        }
        if (f->kind != SHAPE_STRS) {
            value = one;
            continue;
        }
        if (!value) {
            value = json_array();
            arena_on_free(d->arena, drop, value);
        }
        json_array_append(value, one);
    }
    return value;
}

int shape_decode_pairs(const struct shape *shape, const struct shape_pair *pairs, size_t n,
                       struct arena *a, void *ret, struct shape_issue **ret_issues, struct err *e)
{
    struct decode d = { .arena = a, .last = &d.first };
    void *decoded = arena_alloc(a, shape->size);

    for (size_t i = 0; i < shape->n; i++) {
        struct shape_field f = shape->fields[i];
        struct place at = { .field = f.name, .index = -1 };
        struct shape_issue **before = d.last;
        json_t *in = gather_pairs(&d, &f, &at, pairs, n);

        f.coerce = true; /* text is all a query has */
        if (d.last == before)
            decode_field(&d, &f, &at, in, NULL, (char *)decoded + f.offset);
    }
    return finish(&d, shape, decoded, ret, ret_issues, e);
}
