/* SPDX-License-Identifier: MIT */
/* Any bytes as a Retry-After value: a wait between 0 and 24 h comes out. */
#include <assert.h>

#include "fuzz.h"
#include "net/http_client.h"

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    long long ms = retry_after_parse(text, 784111777ll * 1000000);

    assert(ms >= 0 && ms <= 24ll * 3600 * 1000);
    return 0;
}
