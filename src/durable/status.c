/* SPDX-License-Identifier: MIT */
/*
 * The states of a workflow as the tables name them.
 */
#include "durable/durable_int.h"

static const char *const names[DURABLE_STATUSES] = {
    [DURABLE_ENQUEUED] = "ENQUEUED",
    [DURABLE_DELAYED] = "DELAYED",
    [DURABLE_PENDING] = "PENDING",
    [DURABLE_SUCCESS] = "SUCCESS",
    [DURABLE_ERROR] = "ERROR",
    [DURABLE_CANCELLED] = "CANCELLED",
    [DURABLE_DEAD] = "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
};

const char *durable_status_name(enum durable_status status)
{
    return names[status];
}

int durable_status_parse(struct str name, enum durable_status *ret, struct err *e)
{
    for (int i = 0; i < DURABLE_STATUSES; i++) {
        if (str_eq_z(name, names[i])) {
            *ret = (enum durable_status)i;
            return 0;
        }
    }
    return err_set(
        e, ERR_INVALID,
        "'%.*s' is no status of a workflow: ENQUEUED, DELAYED, PENDING, SUCCESS, ERROR, CANCELLED"
        " or MAX_RECOVERY_ATTEMPTS_EXCEEDED",
        (int)(name.n < 60 ? name.n : 60), name.p);
}
