/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a frame of the gateway: no crash; what is accepted is an object, and an id that is
 * echoed is JSON of a bounded length; what is read as a message has its fields.
 */
#include <assert.h>

#include "fuzz.h"
#include "swarm/gate_int.h"

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
    if (r == 0 && !f.request && gate_message_read(f.params, true, &a, &in, &e) == 0) {
        assert(in.id.n && in.from.n && in.to.n && in.content.n);
        assert(!in.metadata.n || json_check(in.metadata, 512, &e) == 0);
    }
    arena_done(&a);
    return 0;
}
