/* SPDX-License-Identifier: MIT */
/*
 * store/pg_lib.h — libpq, loaded when the first PostgreSQL store is opened, so that a program that
 * uses SQLite neither needs it nor pays for it (it brings Kerberos and LDAP along).
 *
 * pg->exec(...) is PQexec(...): every function we use is a row of PG_FUNCTIONS.
 */
#pragma once

#include <libpq-fe.h>

#include "base/err.h"

/* clang-format off */
#define PG_FUNCTIONS(X) \
    X(backendPID) X(clear) X(cmdStatus) X(cmdTuples) X(conninfoFree) X(conninfoParse) \
    X(connectPoll) X(connectStartParams) X(consumeInput) X(db) X(errorMessage) \
    X(escapeIdentifier) X(exec) X(execParams) X(execPrepared) X(finish) X(freemem) X(fsize) X(ftype) X(getResult) \
    X(getisnull) X(getlength) X(getvalue) X(host) X(isBusy) X(nfields) X(notifies) X(ntuples) \
    X(parameterStatus) X(ping) X(port) X(prepare) X(putCopyData) X(putCopyEnd) \
    X(resultErrorField) X(resultErrorMessage) X(resultStatus) X(sendQueryParams) X(sendQueryPrepared) X(serverVersion) \
    X(setNoticeProcessor) X(socket) X(status)
/* clang-format on */

struct pg_lib {
#define PG_MEMBER(name) __typeof__(PQ##name) *name;
    PG_FUNCTIONS(PG_MEMBER)
#undef PG_MEMBER
};

/* Load the library, once; ERR_UNAVAILABLE when it is not installed. It stays loaded. */
int pg_lib_load(const struct pg_lib **ret, struct err *e) MUST_CHECK;
