/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as an agent's message: no crash; what goes on is JSON, says who it is from in one way
 * only, and keeps everything else.
 */
#include <assert.h>

#include "base/json.h"
#include "fuzz.h"
#include "hub/frame.h"

static bool is_ours(const char *key)
{
    return strcmp(key, "from") == 0 || strcmp(key, "id") == 0 || strcmp(key, "timestamp") == 0;
}

/* The texts of the envelope are what a document of the same text holds. */
static void check_members(const struct frame *f, json_t *doc)
{
    struct str to = frame_inside(f->to);

    assert(!f->payload.p == !json_object_get(doc, "payload"));
    assert(!to.n || str_eq(to, json_member_str(doc, "to")));
    assert(f->type == FRAME_OTHER || frame_type_of(json_member_str(doc, "type")) == f->type);
}

static void check_forwarded(const struct frame *f, json_t *doc, struct str text, struct arena *a)
{
    json_t *sent, *v;
    const char *key;
    struct err e;
    int r = json_parse(text, FRAME_DEPTH, a, &sent, NULL, &e);

    assert(r == 0);
    (void)r;
    assert(str_eq(json_member_str(sent, "from"), STR("me")));
    assert(json_is_true(json_object_get(sent, "id")) || json_object_get(sent, "id"));
    json_object_foreach(doc, key, v)
        assert(is_ours(key) || json_equal(v, json_object_get(sent, key)));
    assert(json_object_size(sent) <= json_object_size(doc) + 2);
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size }, out;
    struct arena a = { 0 };
    struct buf b = { 0 };
    struct frame f;
    struct err e;
    json_t *doc = NULL;
    int r = frame_parse(text, &a, &f, &e);

    assert(r == 0 || r == -ERR_INVALID);
    buf_init(&b, SIZE_MAX / 2);
    if (r == 0 && json_parse(text, FRAME_DEPTH, &a, &doc, NULL, &e) == 0) {
        check_members(&f, doc);
        r = frame_forward(&f, STR("me"), 17, &b, &out, &e);
        assert(r == 0);
        if (frame_addressed(&f))
            check_forwarded(&f, doc, out, &a);
    }
    buf_done(&b);
    arena_done(&a);
    return 0;
}
