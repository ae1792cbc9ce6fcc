/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a frame of an OpenClaw gateway: no crash, and what is read of it keeps its promises
 * (texts terminated and UTF-8, bounds within ours).
 */
#include "fuzz.h"
#include "openclaw/openclaw_int.h"

static void must(int ok)
{
    if (!ok)
        abort();
}

static bool text_good(const char *text, size_t size)
{
    size_t n = strnlen(text, size);

    return n < size && utf8_valid(text, n);
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    struct arena a = { 0 };
    struct oc_refusal why;
    struct oc_frame frame;
    struct oc_peer peer;

    if (oc_frame_parse(text, &a, &frame, NULL) == 0) {
        must(frame.seq >= -1);
        must(frame.kind != OC_FRAME_EVENT || frame.name);
        oc_refusal_read(frame.error, &why);
        must(why.code > 0 && text_good(why.name, sizeof(why.name)));
        must(text_good(why.detail, sizeof(why.detail)) && text_good(why.text, sizeof(why.text)));
        if (oc_peer_read(frame.payload, &peer, NULL) == 0)
            must(peer.protocol > 0 && peer.max_payload > 0 && peer.max_payload <= OC_FRAME_MAX &&
                 text_good(peer.version, sizeof(peer.version)));
    }
    arena_done(&a);
    return 0;
}
