#!/bin/sh
# SPDX-License-Identifier: MIT
# Run a command beside a private PostgreSQL, which is gone afterwards:
#
#   tests/pg_run.sh COMMAND...
#
# The command finds in its environment CHELA_TEST_PG (the URL of an empty database),
# CHELA_TEST_PG_ADMIN (of another one, for its own CREATE DATABASE) and CHELA_TEST_PG_CTL (a
# program: "stop", "kill" and "start" do that to the server). fsync is on unless PG_FSYNC=off.
# With PG_BOUNCER=on there is PgBouncer too, in transaction mode over three connections: its URL of
# the first database is CHELA_TEST_PG_BOUNCER.
# Run as root it uses the account postgres, because the server refuses root.
set -eu

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || { echo "PostgreSQL's server programs are not installed" >&2; exit 1; }

# Without fsync the files may as well be in memory, if there is room: each test's database is hundreds of them.
parent=${TMPDIR:-/tmp}
room=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
[ "${PG_FSYNC:-on}" = on ] || [ "${room:-0}" -lt 2000000 ] || [ ! -w /dev/shm ] || parent=/dev/shm
base=$(mktemp -d "$parent/chela-pg-XXXXXX")
as=
if [ "$(id -u)" = 0 ]; then
    chown postgres "$base"
    as="setpriv --reuid=postgres --regid=postgres --clear-groups"
fi
cd "$base"

cleanup() {
    [ ! -s "$base/bouncer.pid" ] || kill "$(cat "$base/bouncer.pid")" 2>/dev/null || true
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
max_wal_size = 256MB
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

if [ "${PG_BOUNCER:-off}" = on ]; then
    command -v pgbouncer >/dev/null || { echo "pgbouncer is not installed" >&2; exit 1; }
    cat >"$base/bouncer.ini" <<EOF
[databases]
chela_test = host=$base user=chela
[pgbouncer]
listen_port = 6432
unix_socket_dir = $base
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
logfile = $base/bouncer.log
pidfile = $base/bouncer.pid
EOF
    $as pgbouncer -q -d "$base/bouncer.ini" || { cat "$base/bouncer.log" >&2; exit 1; }
    CHELA_TEST_PG_BOUNCER="postgres://chela@/chela_test?host=$base&port=6432"
    export CHELA_TEST_PG_BOUNCER
fi
cd "$OLDPWD"
r=0
"$@" || r=$?
exit "$r"
