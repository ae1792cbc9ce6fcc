/* SPDX-License-Identifier: MIT */
#include "base/macro.h"
#include "net/http_client.h"
#include "test.h"

#define DAY_MS (24ll * 3600 * 1000)

TEST(retry_after_reads_seconds_and_dates)
{
    /* Sun, 06 Nov 1994 08:49:37 GMT */
    const int64_t now = 784111777ll * 1000000;
    static const struct {
        const char *in;
        long long ms;
    } cases[] = {
        { "0", 0 },
        { "1", 1000 },
        { " 120 ", 120000 },
        { "007", 7000 },
        { "86400", DAY_MS },
        { "86401", DAY_MS },
        { "99999999999999999999999999", DAY_MS },
        { "Sun, 06 Nov 1994 08:49:47 GMT", 10000 },
        { "Sun, 06 Nov 1994 08:49:37 GMT", 0 },
        { "Sunday, 06-Nov-94 08:49:47 GMT", 10000 },
        { "Sunday, 06-Nov-94 08:00:00 GMT", 0 },
        { "Saturday, 06-Nov-93 08:49:47 GMT", 0 },
        { "Sunday, 06-Nov-9x 08:49:47 GMT", 0 },
        { "Sunday, 06 Nov 94 08:49:47", 0 },
        { "Sun Nov  6 08:49:47 1994", 10000 },
        { "Sun Nov 06 08:49:47 1994", 10000 },
        { "Sun Nov  6 08:00:00 1994", 0 },
        { "Sun Foo  6 08:49:47 1994", 0 },
        { "Sun, 06 Nov 1994 08:00:00 GMT", 0 },
        { "Sun, 06 Nov 2094 08:49:37 GMT", DAY_MS },
        { "", 0 },
        { "-1", 0 },
        { "+1", 0 },
        { "1.5", 0 },
        { "soon", 0 },
        { "1, 2", 0 },
        { "Sun, 06 Nov 1994", 0 },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        long long ms = retry_after_parse(str_of(cases[i].in), now);

        if (ms != cases[i].ms)
            printf("# '%s'\n", cases[i].in);
        CHECK_INT(ms, cases[i].ms);
    }
    CHECK_INT(retry_after_parse((struct str){ 0 }, now), 0);
    CHECK_INT(retry_after_parse(STR("Sun, 06 Nov 1994 08:49:37 GMT"), now - 1500), 2);
}
