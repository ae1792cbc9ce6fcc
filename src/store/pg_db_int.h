/* SPDX-License-Identifier: MIT */
/*
 * store/pg_db_int.h — the inside of a connection, for pg_db.c (transactions),
 * pg_statement.c and pg_connect.c.
 */
#pragma once

#include "store/pg_db.h"
#include "store/pg_lib.h"

struct slot;

struct pg_db {
    struct store_tx tx;
    const struct pg_lib *pg;
    PGconn *conn;
    char *name;
    int stop_fd; /* while connecting: readable, give up; -1: none */
    struct slot *slots;
    size_t n_slots, used;
    uint64_t *known; /* statements prepared on this connection */
    size_t n_known;
    atomic_bool *unprepared, own_unprepared; /* statements are to be sent with their texts */
    PGresult *taken;                         /* by pg_db_take(), so far */
    bool open;                               /* a transaction, */
    bool reading;                            /* of the kind that may not write */
    bool pooled;                             /* the server's connection is not ours alone */
    bool lazy; /* the server would not wait for the disk, and cannot be told for good */
    enum pg_verdict verdict;
    struct pg_xid xid;
};

/* Fill in what runs statements, and free what they left. */
void pg_db_statements_init(struct pg_db *db);
void pg_db_statements_done(struct pg_db *db);

/* The error of a call, with the verdict kept; result may be NULL. */
int pg_fail(struct pg_db *db, const PGresult *result, const char *what, struct err *e);
bool pg_good(const struct pg_db *db, const PGresult *result);

bool pg_db_unprepared(const struct pg_db *db);

/* Run a text without parameters and forget its rows. */
int pg_simple(struct pg_db *db, const char *what, const char *text, struct err *e);

/* libpq ends its texts with a newline and goes on over several lines: the length of the first. */
int pg_first_line(const char *text);
