/* SPDX-License-Identifier: MIT */
/*
 * durable/cron.h — cron expressions by the rules of DBOS, as a pure function of time.
 *
 * Five fields, or six with leading seconds, between spaces; @yearly @annually @monthly @weekly
 * @daily @midnight @hourly. In a field: * and numbers, lists, ranges (which may wrap), steps of a
 * range or of *; names of months and days, whole or of three letters; ? alone in a day field; L,
 * L-n, nW, LW for the day of the month; nL, n#m for the day of the week; Sunday is 0 or 7. Day of
 * month and day of week must both match (unlike cron(8)).
 */
#pragma once

#include <stdint.h>

#include "base/str.h"

struct cron; /* a parsed expression */
struct zone; /* a time zone */

#define CRON_TEXT_MAX 1024 /* bytes of an expression */

/* ERR_INVALID says what is wrong; an expression that no date fits is refused too. */
int cron_parse(struct str text, struct cron **ret, struct err *e) MUST_CHECK;
void cron_free(struct cron *c); /* NULL is fine */
DEFINE_AUTO(cron_free, struct cron *);

/* An IANA name; {0} or "UTC" is UTC. ERR_INVALID: unknown. */
int zone_open(struct str name, struct zone **ret, struct err *e) MUST_CHECK;
void zone_free(struct zone *z); /* NULL is fine */
DEFINE_AUTO(zone_free, struct zone *);

/* Seconds east of Greenwich at a time (seconds since 1970), and when the next change may be:
 * *ret_until is later than at, and the same offset holds in [at, *ret_until). */
int64_t zone_offset(struct zone *z, int64_t at, int64_t *ret_until);

/*
 * The first time after after_ms (ms since 1970, exclusive), or 0 when there is none within a
 * hundred years. A local time that a change of the clocks skips does not fire; one that is
 * repeated fires twice.
 */
int64_t cron_next(const struct cron *c, struct zone *z, int64_t after_ms);
