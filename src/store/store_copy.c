/* SPDX-License-Identifier: MIT */
/* Moving a database from SQLite to PostgreSQL. */
#include "store/store.h"

int store_copy(const char *from_url, const char *to_url,
               void (*progress)(const char *table, long long rows, void *arg), void *arg,
               struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "this build cannot copy to PostgreSQL yet");
}
