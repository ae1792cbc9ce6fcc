/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a frame of the gateway: no crash; what is accepted is an object, and an id that is
 * echoed is JSON of a bounded length; what is read as a message has its fields; what is read
 * without a document says what the document does.
 */
#include <assert.h>

#include "fuzz.h"
#include "swarm/gate_int.h"

/* What is read without a document is what the document says. */
static void check_quick(struct str text, const struct gate_quick *q, struct arena *a)
{
    json_t *doc = NULL, *p;
    struct err e;
    int r = json_parse(text, GATE_DEPTH, a, &doc, NULL, &e);

    assert(r == 0);
    (void)r;
    p = json_object_get(doc, "params");
    assert(str_eq(q->session, json_member_str(p, "sessionKey")));
    assert(str_eq(q->message, json_member_str(p, "message")));
    assert(str_eq(q->one, json_member_str(p, "messageId")));
    assert(q->n_ids == json_array_size(json_object_get(p, "messageIds")));
}

FUZZ(const uint8_t *data, size_t size)
{
    struct arena a = { 0 };
    struct gate_frame f;
    struct mail_in in;
    struct err e;
    int r;

    r = gate_frame_parse((struct str){ (const char *)data, size }, &a, &f, &e);
    assert(r == 0 || r == -ERR_INVALID);
    assert(r == 0 || e.msg[0]);
    assert(f.id.n <= GATE_ID);
    assert(!f.id.n || json_check(f.id, 2, &e) == 0);
    assert(f.method <= METHOD_UNKNOWN && (f.request || f.method == METHOD_DIRECT));
    assert(!f.params || json_is_object(f.params));
    assert(!f.quick || (r == 0 && f.request && !f.params));
    if (f.quick)
        check_quick((struct str){ (const char *)data, size }, f.quick, &a);
    if (r == 0 && !f.request && gate_message_read(f.params, true, &a, &in, &e) == 0) {
        assert(in.id.n && in.from.n && in.to.n && in.content.n);
        assert(!in.metadata.n || json_check(in.metadata, 512, &e) == 0);
    }
    arena_done(&a);
    return 0;
}
