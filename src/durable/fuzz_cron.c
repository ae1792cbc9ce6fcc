/* SPDX-License-Identifier: MIT */
/*
 * Any text as a cron expression, and as "EXPRESSION|ZONE": no crash, and from what is accepted
 * follow whole seconds that only go forward, as long as there is one within the horizon.
 */
#include <assert.h>

#include "durable/cron.h"
#include "fuzz.h"

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size }, name = { 0 };
    const char *bar = size ? memchr(data, '|', size) : NULL;
    struct cron *c = NULL;
    struct zone *z = NULL;
    struct err e;
    int64_t at = INT64_C(1700000000123);

    if (bar) {
        text.n = (size_t)(bar - text.p);
        name = (struct str){ bar + 1, size - text.n - 1 };
    }
    if (zone_open(name, &z, &e) == 0 && cron_parse(text, &c, &e) == 0)
        for (int i = 0; i < 20 && at != 0; i++) {
            int64_t next = cron_next(c, z, at);

            assert(next == 0 || (next > at && next % 1000 == 0));
            at = next;
        }
    cron_free(c);
    zone_free(z);
    return 0;
}
