#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sizes of files and functions: prints the ten largest of each, fails past the refusals.

Files: aim 150-400 lines, refused from 1,000. Functions: aim under 40, refused from 121.
A directory of a room: up to 25 sources besides tests and fuzz targets is the aim; only printed.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_MAX, FUNCTION_MAX = 999, 120
NAME = re.compile(r"([A-Za-z_]\w*)\s*\(")


def functions(path):
    """(length, name) of each function: an opening brace in column 0 up to its closing one."""
    name, start = None, 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and start:
            yield number - start + 1, name
            start = 0
        elif not start and line and not line[0].isspace() and line[0] not in "/#*}":
            found = [n for n in NAME.findall(line) if n not in ("__attribute__", "MUST_CHECK")]
            name = found[0] if found else name


def main():
    files, found, bad = [], [], []
    for top in ("src", "include", "tests", "bench", "examples", "tools"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix not in (".c", ".h", ".py", ".lua"):
                continue
            rel = path.relative_to(ROOT)
            lines = len(path.read_text().splitlines())
            files.append((lines, str(rel)))
            if path.suffix == ".c":
                found += [(n, f"{rel}: {name}") for n, name in functions(path)]
    bad += [f"{where}: {n} lines, refused from {FILE_MAX + 1}" for n, where in files if n > FILE_MAX]
    bad += [f"{where}: {n} lines, refused from {FUNCTION_MAX + 1}" for n, where in found
            if n > FUNCTION_MAX]
    print("largest files:")
    for n, where in sorted(files, reverse=True)[:10]:
        print(f"  {n:5} {where}")
    print("largest functions:")
    for n, where in sorted(found, reverse=True)[:10]:
        print(f"  {n:5} {where}")
    for line in bad:
        print("REFUSED " + line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
