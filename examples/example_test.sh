#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the build into a scratch directory, compiles the example as a stranger would, against the
# installed headers and by pkg-config, and runs it against a real agent.
#
#     example_test.sh BUILD-DIRECTORY SOURCE-FILE CHELA-AGENT COMPILER [FLAG...]
set -eu
build=$1 source=$2 agent=$3
shift 3

dest=$(mktemp -d)
pid=
cleanup()
{
    if [ -n "$pid" ]; then
        kill "$pid"
        wait "$pid" || true
    fi
    rm -rf "$dest"
}
trap cleanup EXIT

meson install -C "$build" --no-rebuild --quiet --destdir "$dest" >"$dest/install.log"
pc=$(find "$dest" -name chela.pc)
export PKG_CONFIG_PATH="${pc%/*}" PKG_CONFIG_SYSROOT_DIR="$dest"
test "$(pkg-config --modversion chela)" = "0.1.0"
# shellcheck disable=SC2046 # words are what is wanted
"$@" -Wall -Wextra -Werror "$source" $(pkg-config --cflags --libs chela) -o "$dest/example"

mkfifo "$dest/ready"
"$agent" http --port 0 --ready-fd 3 -- cat 3>"$dest/ready" &
pid=$!
port=$(sed -n 's/.*"port":\([0-9]*\).*/\1/p; s/.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$dest/ready" | head -n 1)

LD_LIBRARY_PATH=$(dirname "$(find "$dest" -name libchela.so.0)")
export LD_LIBRARY_PATH
"$dest/example" "$port" "Hello, chela" >"$dest/out"
cat >"$dest/want" <<END
answer: Hello, chela
agent: backup, pieces: 1, failed over: yes
user: Hello, chela
assistant: Hello, chela
main is unhealthy
backup is healthy
END
diff "$dest/want" "$dest/out"
