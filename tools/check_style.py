#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Lints that no compiler makes: waits that hide, comments and calls we refuse.

- A function that calls a CO function is itself marked CO (in its declaration or definition), unless
  it only hands it over by name. Fiber bodies are called by the switch, not by our code.
- A variable that AUTO() releases has a value before the function can be left.
- No `//` comments, no unfinished marks, no shell, no unbounded string functions, no SQL built by printf.
- Every file opens with its SPDX line; every header has #pragma once.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFUSED = [
    (re.compile(r"(^|[^:\"'])//(?![^\n]*\*/)"), "a // comment"),
    (re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"), "an unfinished mark"),
    (re.compile(r"\b(system|popen|strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof)\s*\("),
     "a call we refuse"),
    (re.compile(r"printf\([^;]*\"[^\"]*\b(SELECT|INSERT INTO|DELETE FROM|UPDATE)\b[^\"]*%"),
     "SQL built by printf"),
]
DECLARED = re.compile(r"^(static\s+)?CO\s+(static\s+)?[\w\s\*]*?\b([a-z_]\w*)\s*\(", re.M)
DEFINED = re.compile(
    r"^(?P<head>[A-Za-z_][^;{}#()=]*?\b(?P<name>[a-z_]\w*)\s*\([^;{}]*\))\s*\n\{(?P<body>.*?)^\}", re.M | re.S)

UNSET = re.compile(r"\bAUTO\(\w+\)\s+[^;=(){}]*?\b(\w+);")
LEAVES = re.compile(r"\b(return|CO_CHECK|CHECK|CHECK_INT|CHECK_STR)\b")


def left_unset(body):
    """(offset, name) of variables that AUTO() would release before anything was put into them."""
    for found in UNSET.finditer(body):
        used = re.compile(rf"\b{found[1]}\b").search(body, found.end())
        leaves = LEAVES.search(body, found.end(), used.start() if used else len(body))
        if leaves:
            yield found.start(), found[1]


def strip(text):
    """Blank out comments, strings and character constants, keeping line breaks."""
    pattern = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def main():
    bad = []
    sources = sorted((ROOT / "src").rglob("*.[ch]")) + sorted((ROOT / "include").rglob("*.h"))
    text = {p: p.read_text() for p in sources}
    bare = {p: strip(t) for p, t in text.items()}
    everywhere, own = set(), {p: set() for p in sources}  # a static name counts in its file alone
    for path, t in bare.items():
        for before, after, name in DECLARED.findall(t):
            (own[path] if before or after else everywhere).add(name)
    for path in sources:
        rel = path.relative_to(ROOT)
        if not text[path].startswith("/* SPDX-License-Identifier: MIT */"):
            bad.append(f"{rel}:1: no SPDX line")
        once = "#ifndef CHELA_" if rel.parts[0] == "include" else "#pragma once"  # others' compilers
        if path.suffix == ".h" and once not in text[path]:
            bad.append(f"{rel}:1: no {once}")
        for number, line in enumerate(bare[path].splitlines(), 1):
            for pattern, what in REFUSED[:1] + REFUSED[2:3]:
                if pattern.search(line):
                    bad.append(f"{rel}:{number}: {what}")
        for number, line in enumerate(text[path].splitlines(), 1):
            for pattern, what in (REFUSED[1], REFUSED[3]):
                if pattern.search(line):
                    bad.append(f"{rel}:{number}: {what}")
        for found in DEFINED.finditer(bare[path]):
            for offset, name in left_unset(found["body"]):
                line = bare[path][: found.start("body") + offset].count("\n") + 1
                bad.append(f"{rel}:{line}: {name} is released without a value when the function is left early")
        if path.suffix != ".c" or path.name.endswith("_test.c"):
            continue
        static = set(re.findall(r"^static\s[\w\s\*]*?\b([a-z_]\w*)\s*\(", bare[path], re.M))
        waits = own[path] | (everywhere - static)
        for found in DEFINED.finditer(bare[path]):
            name = found["name"]
            if name in waits:
                continue
            calls = set(re.findall(r"\b([a-z_]\w*)\s*\(", found["body"])) & waits
            if calls:
                line = bare[path][: found.start()].count("\n") + 1
                bad.append(f"{rel}:{line}: {name}() waits in {', '.join(sorted(calls))}() but is not marked CO")
    for line in bad:
        print(line)
    print(f"check_style: {len(sources)} files, {len(everywhere) + sum(map(len, own.values()))} CO functions, {len(bad)} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
