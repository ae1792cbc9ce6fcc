/* SPDX-License-Identifier: MIT */
/*
 * What json_scan accepts jansson accepts, and what was written reads back and is written the same.
 */
#include "base/json_int.h"
#include "fuzz.h"

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size }, once, twice;
    struct arena a = { 0 };
    struct json_fail fail;
    size_t n_big;
    json_t *j;
    int r;

    r = json_scan(text, 40, &n_big, &fail, NULL);
    if ((json_parse(text, 40, &a, &j, &fail, NULL) < 0) != (r < 0))
        abort();
    if (r < 0 && fail.offset > size)
        abort();
    if (r == 0) {
        if (json_text(j, 1 << 24, &a, &once, NULL) < 0 ||
            json_parse(once, 40, &a, &j, NULL, NULL) < 0 ||
            json_text(j, 1 << 24, &a, &twice, NULL) < 0 || !str_eq(once, twice))
            abort();
    }
    arena_done(&a);
    return 0;
}
