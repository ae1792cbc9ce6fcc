/* SPDX-License-Identifier: MIT */
/*
 * store/translate.h — the SQL that is written once, as each database wants it. Pure; results are
 * the caller's to free. Quoted text, quoted names and comments pass through untouched.
 */
#pragma once

/* ?1 becomes $1. (SQLite would take $1 as a name, numbered by first appearance.) */
char *translate_statement(const char *text);

/*
 * For SQLite, which has no schemas: the word dbos and its dot before a name go. NULL when there is
 * none, and the text serves as it is.
 */
char *translate_sqlite(const char *text);

/*
 * The words INTEGER, BLOB and REAL (in capitals) become BIGINT, BYTEA and DOUBLE PRECISION, and the
 * table options STRICT and WITHOUT ROWID go.
 */
char *translate_schema(const char *text);
