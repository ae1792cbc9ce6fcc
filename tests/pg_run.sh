#!/bin/sh
# SPDX-License-Identifier: MIT
# Run a command beside a private PostgreSQL, which is gone afterwards:
#
#   tests/pg_run.sh COMMAND...
#
# The command finds in its environment CHELA_TEST_PG (the URL of an empty database),
# CHELA_TEST_PG_ADMIN (of another one, for its own CREATE DATABASE) and CHELA_TEST_PG_CTL (a
# program: "stop", "kill" and "start" do that to the server). fsync is on unless PG_FSYNC=off.
# Run as root it uses the account postgres, because the server refuses root.
set -eu

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || { echo "PostgreSQL's server programs are not installed" >&2; exit 1; }

base=$(mktemp -d "${TMPDIR:-/tmp}/chela-pg-XXXXXX")
as=
if [ "$(id -u)" = 0 ]; then
    chown postgres "$base"
    as="setpriv --reuid=postgres --regid=postgres --clear-groups"
fi
cd "$base"

cleanup() {
    $as "$bin/pg_ctl" -D "$base/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$base"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

$as "$bin/initdb" -D "$base/data" -U chela -A trust -E UTF8 --no-locale --no-sync >"$base/initdb.log" 2>&1 ||
    { cat "$base/initdb.log" >&2; exit 1; }
cat >>"$base/data/postgresql.conf" <<EOF
listen_addresses = ''
unix_socket_directories = '$base'
max_connections = 100
fsync = ${PG_FSYNC:-on}
EOF

cat >"$base/ctl" <<EOF
#!/bin/sh
cd "$base"
case \$1 in
stop) exec $as "$bin/pg_ctl" -D "$base/data" -m fast -w stop >/dev/null ;;
kill) exec $as "$bin/pg_ctl" -D "$base/data" -m immediate -w stop >/dev/null ;;
start) exec $as "$bin/pg_ctl" -D "$base/data" -l "$base/server.log" -w start >/dev/null ;;
esac
exit 2
EOF
chmod +x "$base/ctl"
"$base/ctl" start || { cat "$base/server.log" >&2; exit 1; }
"$bin/createdb" -h "$base" -U chela chela_test

CHELA_TEST_PG="postgres://chela@/chela_test?host=$base"
CHELA_TEST_PG_ADMIN="postgres://chela@/postgres?host=$base"
CHELA_TEST_PG_CTL="$base/ctl"
export CHELA_TEST_PG CHELA_TEST_PG_ADMIN CHELA_TEST_PG_CTL
cd "$OLDPWD"
r=0
"$@" || r=$?
exit "$r"
