#!/bin/sh
# SPDX-License-Identifier: MIT
# Is the schema dbos that our migration makes the one that a DBOS SDK makes? version_123.txt is what
# listing.sql says of a database brought up by @dbos-inc/dbos-sdk 5.3.0 from npm.
#
#   tests/pg_run.sh tests/dbos_schema/run.sh
set -eu

here=$(cd "$(dirname "$0")" && pwd)
migration=$here/../../src/store/sql/0003_dbos.pg.sql
[ -n "${CHELA_TEST_PG:-}" ] || { echo "Bail out! run this through tests/pg_run.sh"; exit 1; }

have=$(mktemp)
trap 'rm -f "$have"' EXIT
n=0
ask() { psql -qAtX -v ON_ERROR_STOP=1 "$CHELA_TEST_PG" "$@"; }
check() {
    n=$((n + 1))
    ask -f "$here/listing.sql" >"$have"
    if diff "$2" "$have" | sed 's/^/# /' | grep .; then
        echo "not ok $n - $1"
    else
        echo "ok $n - $1"
    fi
}

echo 1..2
ask -1 -f "$migration"
check "the schema is that of the SDK, line by line" "$here/version_123.txt"

# A later SDK has been here: what it changed stays.
ask -c "DROP INDEX dbos.idx_workflow_topic; UPDATE dbos.dbos_migrations SET version = 130"
later=$(mktemp)
trap 'rm -f "$have" "$later"' EXIT
grep -v -e idx_workflow_topic -e '^version' "$here/version_123.txt" >"$later"
echo "version 130" >>"$later"
LC_ALL=C sort -o "$later" "$later"
ask -1 -f "$migration"
check "a later version is left as it is" "$later"
