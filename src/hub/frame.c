/* SPDX-License-Identifier: MIT */
/* hub/frame.c — see frame.h. The text is checked whole first; then its top level is walked by the
 * shape of JSON alone. */
#include "hub/frame.h"

#include "base/id.h"
#include "base/json.h"

static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')
        p++;
    return p;
}

/* p is at an opening quote; behind the closing one. */
static const char *skip_string(const char *p)
{
    for (p++; *p != '"'; p++)
        p += *p == '\\';
    return p + 1;
}

/* p is at the first byte of a value of good JSON; behind its last. */
static const char *skip_value(const char *p, const char *end)
{
    size_t depth = 0;

    do {
        if (*p == '"') {
            p = skip_string(p);
            continue;
        }
        if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            depth--;
            p++;
        } else if (depth) {
            p++;
        } else {
            while (p < end && *p != ',' && *p != '}' && *p != ']' && (unsigned char)*p > ' ')
                p++;
        }
    } while (depth);
    return p;
}

static struct str *slot_of(struct frame *f, struct str key)
{
    if (str_eq(key, STR("id")))
        return &f->id;
    if (str_eq(key, STR("from")))
        return &f->from;
    if (str_eq(key, STR("to")))
        return &f->to;
    if (str_eq(key, STR("type")))
        return &f->kind;
    if (str_eq(key, STR("timestamp")))
        return &f->timestamp;
    return str_eq(key, STR("payload")) ? &f->payload : NULL;
}

static bool escaped(struct str s)
{
    return s.n && memchr(s.p, '\\', s.n);
}

/* Find the members. False: something can be read in two ways. */
static bool walk(struct frame *f)
{
    const char *p = skip_space(f->text.p), *end = f->text.p + f->text.n;
    bool plain = true;

    p = skip_space(p + 1);
    while (*p != '}') {
        const char *start = p, *behind = skip_string(p);
        struct str key = { start + 1, (size_t)(behind - start) - 2 }, *slot = slot_of(f, key);

        plain = plain && !escaped(key) && !(slot && slot->p);
        start = skip_space(skip_space(behind) + 1); /* past the colon */
        p = skip_value(start, end);
        if (slot)
            *slot = (struct str){ start, (size_t)(p - start) };
        p = skip_space(p);
        if (*p == ',')
            p = skip_space(p + 1);
    }
    return plain && !escaped(f->from) && !escaped(f->to) && !escaped(f->kind);
}

static int normal_form(struct str text, struct arena *a, struct frame *ret, struct err *e)
{
    json_t *doc;
    int r = json_parse(text, FRAME_DEPTH, a, &doc, NULL, e);

    *ret = (struct frame){ 0 };
    if (r == 0)
        r = json_text(doc, SIZE_MAX / 2, a, &ret->text, e);
    if (r == 0)
        (void)walk(ret); /* what is escaped still has no other form */
    return r;
}

int frame_parse(struct str text, struct arena *a, struct frame *ret, struct err *e)
{
    struct frame f = { .text = text };
    struct str mended;
    int r = json_check(text, FRAME_DEPTH, e);

    if (r < 0) {
        mended = json_mend(text, a);
        return mended.n ? frame_parse(mended, a, ret, e) : r;
    }
    if (*skip_space(text.p) != '{')
        return err_set(e, ERR_INVALID, "a message must be a JSON object");
    if (!walk(&f)) {
        r = normal_form(text, a, &f, e);
        if (r < 0)
            return r;
    }
    f.type = frame_type_of(frame_inside(f.kind));
    *ret = f;
    return 0;
}

struct str frame_inside(struct str value)
{
    if (value.n < 2 || value.p[0] != '"' || escaped(value))
        return (struct str){ 0 };
    return (struct str){ value.p + 1, value.n - 2 };
}

enum frame_type frame_type_of(struct str name)
{
    static const struct {
        const char *name;
        enum frame_type type;
    } rows[] = {
        { "task", FRAME_TASK },   { "response", FRAME_RESPONSE }, { "health", FRAME_HEALTH },
        { "log", FRAME_LOG },     { "status", FRAME_STATUS },     { "error", FRAME_ERROR },
        { "shell", FRAME_SHELL }, { "metadata", FRAME_METADATA }, { "pong", FRAME_PONG },
    };

    for (size_t i = 0; i < LEN(rows); i++)
        if (str_eq_z(name, rows[i].name))
            return rows[i].type;
    return FRAME_OTHER;
}

bool frame_addressed(const struct frame *f)
{
    return frame_inside(f->from).n && frame_inside(f->to).n && f->type <= FRAME_ERROR;
}

/* Missing, or what JavaScript takes for false. */
static bool is_false(struct str value)
{
    return !value.n || str_eq(value, STR("null")) || str_eq(value, STR("false")) ||
           str_eq(value, STR("\"\"")) || str_eq(value, STR("0"));
}

struct change {
    struct str old; /* in the text; {NULL, 0}: added at its end */
    const char *key;
    char value[160];
};

static int add_changed(const struct frame *f, struct change *c, size_t n, struct buf *b,
                       struct err *e)
{
    const char *at = f->text.p, *end = f->text.p + f->text.n;
    int r = 0;

    while (end[-1] != '}')
        end--;
    for (size_t i = 0; i < n && r == 0; i++) { /* in the order of the text */
        if (!c[i].old.p)
            continue;
        r = buf_add(b, at, (size_t)(c[i].old.p - at), e);
        if (r == 0)
            r = buf_add_z(b, c[i].value, e);
        at = c[i].old.p + c[i].old.n;
    }
    if (r == 0)
        r = buf_add(b, at, (size_t)(end - 1 - at), e);
    for (size_t i = 0; i < n && r == 0; i++)
        if (!c[i].old.p) /* there is a member before it: type at least */
            r = buf_printf(b, e, ",\"%s\":%s", c[i].key, c[i].value);
    return r < 0 ? r : buf_add(b, "}", 1, e);
}

/* What is added comes last. */
static bool comes_before(const struct change *a, const struct change *b)
{
    return a->old.p && (!b->old.p || a->old.p < b->old.p);
}

static void sort(struct change *c, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && comes_before(&c[j], &c[j - 1]); j--) {
            struct change swap = c[j];

            c[j] = c[j - 1];
            c[j - 1] = swap;
        }
}

int frame_forward(const struct frame *f, struct str from, int64_t now, struct buf *b,
                  struct str *ret, struct err *e)
{
    struct change changes[3];
    char uuid[UUID_TEXT];
    size_t n = 0;
    int r;

    if (!str_eq(frame_inside(f->from), from)) {
        changes[n] = (struct change){ .old = f->from, .key = "from" };
        fmt_z(changes[n++].value, sizeof(changes->value), "\"" STR_FMT "\"", STR_ARG(from));
    }
    if (is_false(f->id)) {
        uuid_v4(uuid);
        changes[n] = (struct change){ .old = f->id, .key = "id" };
        fmt_z(changes[n++].value, sizeof(changes->value), "\"%s\"", uuid);
    }
    if (is_false(f->timestamp)) {
        changes[n] = (struct change){ .old = f->timestamp, .key = "timestamp" };
        fmt_z(changes[n++].value, sizeof(changes->value), "%lld", (long long)now);
    }
    if (!n) {
        *ret = f->text;
        return 0;
    }
    sort(changes, n);
    r = add_changed(f, changes, n, b, e);
    if (r == 0)
        *ret = buf_str(b);
    return r;
}
