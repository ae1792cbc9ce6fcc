/* SPDX-License-Identifier: MIT */
#include "store/translate.h"

#include <stdlib.h>

#include "base/macro.h"
#include "test.h"

struct pair {
    const char *in, *out;
};

static void check(char *(*translate)(const char *text), const struct pair *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        AUTO(free) char *have = translate(cases[i].in);

        CHECK_STR(have, cases[i].out);
    }
}

TEST(parameters_become_those_of_postgresql)
{
    static const struct pair cases[] = {
        { "", "" },
        { "SELECT 1", "SELECT 1" },
        { "SELECT ?1", "SELECT $1" },
        { "SELECT ?2, ?1, ?2", "SELECT $2, $1, $2" },
        { "INSERT INTO t VALUES (?1,?12)", "INSERT INTO t VALUES ($1,$12)" },
        { "SELECT a ? 'b'", "SELECT a ? 'b'" },
    };

    check(translate_statement, cases, LEN(cases));
}

TEST(what_is_quoted_or_a_comment_is_left_alone)
{
    static const struct pair cases[] = {
        { "SELECT '?1', ?1", "SELECT '?1', $1" },
        { "SELECT 'it''s ?1', ?1", "SELECT 'it''s ?1', $1" },
        { "SELECT '''', ?1, '?2'", "SELECT '''', $1, '?2'" },
        { "SELECT \"a?1\" FROM t", "SELECT \"a?1\" FROM t" },
        { "SELECT \"a\"\"?1\", ?1", "SELECT \"a\"\"?1\", $1" },
        { "SELECT 1 -- ?1\n, ?1", "SELECT 1 -- ?1\n, $1" },
        { "SELECT 1 /* '?1 */, ?1", "SELECT 1 /* '?1 */, $1" },
        { "SELECT 1 -- it's\n, ?1", "SELECT 1 -- it's\n, $1" },
        { "SELECT 3 - 1 / ?1", "SELECT 3 - 1 / $1" },
        { "SELECT 'open ?1", "SELECT 'open ?1" },
        { "SELECT 1 /* open ?1", "SELECT 1 /* open ?1" },
    };

    check(translate_statement, cases, LEN(cases));
}

TEST(the_schema_of_a_table_goes_where_there_are_no_schemas)
{
    static const struct pair cases[] = {
        { "SELECT a FROM dbos.t", "SELECT a FROM t" },
        { "dbos.t", "t" },
        { "SELECT dbos.t.a FROM dbos.t,dbos.u", "SELECT t.a FROM t,u" },
        { "INSERT INTO dbos.\"odd dbos.x\" VALUES ('dbos.y')",
          "INSERT INTO \"odd dbos.x\" VALUES ('dbos.y')" },
        { "SELECT 'dbos.t', dbos.t.a -- dbos.t\n/* dbos.t */",
          "SELECT 'dbos.t', t.a -- dbos.t\n/* dbos.t */" },
        { "SELECT mydbos.t, x.dbos.t, _dbos.t, dbos.1",
          "SELECT mydbos.t, x.dbos.t, _dbos.t, dbos.1" },
        { "SELECT dbos .t, dbos.", "SELECT dbos .t, dbos." },
        { "REFERENCES dbos.t(a)", "REFERENCES t(a)" },
    };
    AUTO(free) char *same = translate_sqlite("SELECT dbos, bdos.x FROM t");

    CHECK(!same);
    check(translate_sqlite, cases, LEN(cases));
}

TEST(types_of_the_schema_become_those_of_postgresql)
{
    static const struct pair cases[] = {
        { "CREATE TABLE t (a INTEGER, b TEXT, c BLOB, d REAL);",
          "CREATE TABLE t (a BIGINT, b TEXT, c BYTEA, d DOUBLE PRECISION);" },
        { "a INTEGERS, BLOBBY x, MY_REAL", "a INTEGERS, BLOBBY x, MY_REAL" },
        { "integer real", "integer real" },
        { "DEFAULT 'INTEGER' -- a REAL one\n", "DEFAULT 'INTEGER' -- a REAL one\n" },
        { "\"BLOB\" BLOB", "\"BLOB\" BYTEA" },
    };

    check(translate_schema, cases, LEN(cases));
}

TEST(table_options_of_sqlite_go)
{
    static const struct pair cases[] = {
        { "CREATE TABLE t (a TEXT) STRICT;", "CREATE TABLE t (a TEXT);" },
        { "CREATE TABLE t (a TEXT)\n  STRICT, WITHOUT ROWID;\n", "CREATE TABLE t (a TEXT);\n" },
        { "CREATE TABLE t (a TEXT) WITHOUT ROWID, STRICT; x", "CREATE TABLE t (a TEXT); x" },
        { "CREATE TABLE t (a TEXT) -- why\n STRICT;", "CREATE TABLE t (a TEXT);" },
        { "CREATE TABLE t (a TEXT CHECK (a IN ('x', 'y')) ) STRICT;",
          "CREATE TABLE t (a TEXT CHECK (a IN ('x', 'y')) );" },
        { "CREATE TABLE STRICT (STRICT TEXT);", "CREATE TABLE STRICT (STRICT TEXT);" },
        { "SELECT f(a) WITHOUT b", "SELECT f(a) WITHOUT b" },
        { "SELECT (')') STRICTLY", "SELECT (')') STRICTLY" },
    };

    check(translate_schema, cases, LEN(cases));
}
