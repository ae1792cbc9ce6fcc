#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Which room may include which, and which library belongs to which room (see ARCHITECTURE.md).

Reads the #include lines under src/ and include/; prints what breaks the table, exits 1 if any.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAY = {
    "base": {"base"},
    "net": {"base", "net"},
    "store": {"base", "store"},
    "durable": {"base", "net", "store", "durable"},
    "bridge": {"base", "net", "store", "durable", "bridge"},
    "openclaw": {"base", "net", "openclaw"},
    "swarm": {"base", "net", "store", "durable", "openclaw", "swarm"},
    "machine": {"base", "net", "machine"},
    "hub": {"base", "net", "store", "durable", "machine", "hub"},
    "daemon": {"base", "net", "store", "durable", "bridge", "openclaw", "swarm", "machine", "hub", "daemon"},
    "cli": {"base", "net", "cli"},
    "agent": {"base", "net", "agent"},
    "libchela": {"base", "net", "store", "durable", "bridge", "libchela", "chela"},
}
# A tool of the command line works on the database itself, with the daemon stopped.
ALSO = {("cli", "store")}
# library header -> the files that may include it (prefix of the path below src/)
LIBRARY = {
    "uv.h": ["base/loop"],
    "jansson.h": ["base/json"],
    "ini.h": ["base/conf"],
    "glib": ["durable/zone"],
    "openssl/ssl.h": ["net/stream_tls"],
    "openssl/": ["base/secret", "net/stream_tls"],
    "http_parser.h": ["net/http_parse"],
    "llhttp.h": ["net/http_parse"],
    "wslay/": ["net/ws"],
    "curl/": ["net/http_client"],
    "sqlite3.h": ["store/store_sqlite", "store/sqlite", "store/store_copy"],
    "libpq-fe.h": ["store/store_pg", "store/pg"],
    "libsmartcols": ["cli/table"],
    "seccomp.h": ["machine/sandbox"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def library_rule(rel, name, path):
    for prefix in sorted(LIBRARY, key=len, reverse=True):
        if name == prefix or name.startswith(prefix):
            if not any(rel.startswith(p) for p in LIBRARY[prefix]):
                return f"{path}: <{name}> belongs to {', '.join(LIBRARY[prefix])}"
            return None
    return None


def check(path, rel, room, bad):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        quote, name = found.groups()
        where = f"{path.relative_to(ROOT)}:{number}"
        rule = library_rule(rel, name, where)
        if rule and not re.search(r"(_test|fuzz_)", path.name):
            bad.append(rule)
        if quote != '"' or "/" not in name:
            continue
        target = name.split("/")[0]
        if target in MAY and target not in MAY[room] and (room, target) not in ALSO:
            bad.append(f"{where}: {room} may not include {name}")
        if name.endswith("_int.h") and target != room:
            bad.append(f"{where}: {name} is private to {target}")


def main():
    bad, files = [], 0
    for path in sorted((ROOT / "src").rglob("*.[ch]")):
        rel = str(path.relative_to(ROOT / "src"))
        room = rel.split("/")[0]
        if room not in MAY:
            bad.append(f"{rel}: room '{room}' is not in the table of tools/check_layers.py")
            continue
        files += 1
        check(path, rel, room, bad)
    for line in bad:
        print(line)
    print(f"check_layers: {files} files, {len(bad)} broken")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
