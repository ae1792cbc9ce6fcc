/* SPDX-License-Identifier: MIT */
/* bridge/fuzz_answer.c — what an agent answers, read by every adapter and as one event of a stream.
 */
#include "bridge/adapter.h"
#include "fuzz.h"

FUZZ(const uint8_t *data, size_t size)
{
    struct str bytes = { (const char *)data, size };
    struct arena a = { 0 };
    struct delta delta;
    struct str text;
    struct err e;

    for (int api = 0; api < API_KINDS; api++) {
        if (adapter_read(&adapters[api], bytes, &a, &text, &e) < 0)
            continue;
        if (text.p[text.n] != '\0' || !utf8_valid(text.p, text.n))
            abort();
    }
    if (delta_read(bytes, &a, &delta) != DELTA_NONE)
        (void)classify_text(delta.text, bytes);
    (void)classify_status(404, bytes);
    arena_done(&a);
    return 0;
}
