/* SPDX-License-Identifier: MIT */
/*
 * durable/cron.h — cron expressions by the rules of DBOS, as a pure function of time.
 *
 * Five fields, or six with leading seconds; @yearly @annually @monthly @weekly @daily @midnight
 * @hourly; lists, ranges (wrapping), steps, names of months and days, ? in day fields, L, L-n, nW,
 * LW, nL, n#m; Sunday is 0 or 7. Day of month and day of week must both match (unlike cron(8)).
 */
#pragma once

#include <stdint.h>

#include "base/str.h"

struct cron; /* a parsed expression */
struct zone; /* a time zone */

int cron_parse(struct str text, struct cron **ret, struct err *e) MUST_CHECK;
void cron_free(struct cron *c); /* NULL is fine */

/* An IANA name; {0} or "UTC" is UTC. ERR_INVALID: unknown. */
int zone_open(struct str name, struct zone **ret, struct err *e) MUST_CHECK;
void zone_free(struct zone *z);

/*
 * The first time after after_ms (ms since 1970, exclusive), or 0 when there is none within eight
 * years (the longest gap is a leap day across a century that has none). A local time that a change
 * of the clocks skips does not fire; one that is repeated fires twice.
 */
int64_t cron_next(const struct cron *c, const struct zone *z, int64_t after_ms);
