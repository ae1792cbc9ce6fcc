#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write docs/reference.md, and the lists in docs/man: settings, routes, metrics and commands, as the programs themselves declare them.

    tools/gen_docs.py [--check]     CHELA_BIN: directory of the binaries (build/bin)

With --check nothing is written; exit status 1 when the checked-in copy is stale.
"""
import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("CHELA_BIN", ROOT / "build" / "bin")).resolve()
TARGET = ROOT / "docs" / "reference.md"
MAN = ROOT / "docs" / "man"
SETTING = re.compile(r"^  --([a-z_]+\.[a-z_]+)=(\S*)\s+(.*?)(?: \[(\$[^\]]*)\])?( \(live\))?$")


def output(program, *arguments):
    return subprocess.run([BIN / program, *arguments], check=True, capture_output=True, text=True).stdout


def settings():
    yield "| setting | default | variables | |"
    yield "|---|---|---|---|"
    for line in output("chelad", "--help").splitlines():
        found = SETTING.match(line)
        if found:
            name, default, doc, env, live = found.groups()
            env = (env or "").replace("$", "").replace(", ", "`, `")
            yield (f"| `{name}` | {f'`{default}`' if default else ''} | {f'`{env}`' if env else ''} |"
                   f" {doc}{' *Live.*' if live else ''} |")


def fetched(address, path):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def served():
    """The OpenAPI documents of both HTTP ports, and the metrics, of a daemon that is started for it."""
    clean = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "ASAN_OPTIONS")}
    with tempfile.TemporaryDirectory() as state:
        read, write = os.pipe()
        daemon = subprocess.Popen([BIN / "chelad", "--state", state, "--gateway.port=0", "--hub.http_port=0", "--hub.ws_port=0", f"--ready-fd={write}",
                                   "--log.level=error"], pass_fds=(write,), env=clean)
        os.close(write)
        try:
            with os.fdopen(read) as ready:
                listeners = json.loads(ready.readline())["listeners"]
            return (json.loads(fetched(listeners["gateway"], "/openapi.json")),
                    json.loads(fetched(listeners["hub"], "/openapi.json")), fetched(listeners["gateway"], "/metrics"))
        finally:
            daemon.terminate()
            daemon.wait(30)


def routes(document):
    yield "| method | path | |"
    yield "|---|---|---|"
    for path, methods in document["paths"].items():
        for method, row in methods.items():
            yield f"| {method.upper()} | `{path}` | {row.get('summary') or row.get('description', '')} |"


def metrics(printed):
    """Ours by name; the process's own are those every exporter has."""
    yield "| metric | kind | |"
    yield "|---|---|---|"
    told = dict(re.findall(r"^# HELP ((?:chela|vm_hub)_\S+) (.*)$", printed, re.M))
    for name, kind in sorted(re.findall(r"^# TYPE ((?:chela|vm_hub)_\S+) (\S+)$", printed, re.M)):
        yield f"| `{name}` | {kind} | {told[name]} |"


def roff(text):
    """Plain text in a man page: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + text if text.startswith(".") else text


def commands_of(program):
    """The names in the list of its help: one word, or two where the second is no <argument>."""
    for line in output(program, "--help").splitlines():
        if line.startswith("  ") and not line.startswith("  -"):
            yield [word for word in line[:36].split() if word.isalpha()][:2]


def man_commands():
    """Of chela: what each does, its flags, an example."""
    for words in commands_of("chela"):
        usage, _, doc, _, *rest = output("chela", *words, "--help").splitlines()
        shown = usage.removeprefix("usage: chela ").removesuffix(" [flags]").removeprefix(" ".join(words)).strip()
        own = rest[:next(n for n, line in enumerate(rest) if line.startswith("  --state="))]
        yield ".TP"
        yield f"\\fB{' '.join(words)}\\fR {roff(shown)}".rstrip()
        yield roff(doc)
        if own:
            yield "Flags: " + ", ".join(f"\\fB{roff(line.split()[0])}\\fR" for line in own) + "."


def man_settings():
    for line in output("chelad", "--help").splitlines():
        found = SETTING.match(line)
        if found:
            name, default, doc, env, live = found.groups()
            yield ".TP"
            yield f"\\fB{roff(name)}\\fR" + (f" ({roff(default)})" if default else "")
            yield roff(doc) + (f" Also {roff(env)}." if env else "") + (" Live." if live else "")


def man_page(name, section, lines):
    """The page as it stands, with the lines of one section made anew."""
    page = (MAN / name).read_text()
    head, _, rest = page.partition(f".SH {section}\n")
    _, _, tail = rest.partition(".SH ")
    return f"{head}.SH {section}\n" + "\n".join(lines) + "\n.SH " + tail


def text():
    document, hub, printed = served()
    parts = ["# Reference", "", "Generated by `tools/gen_docs.py` from what the programs declare; do not edit.", "",
             "## Settings of chelad", "", *settings(), "", "## Routes", "",
             "Bodies, parameters and answers are in `/openapi.json` and on `/docs`.", "", *routes(document), "",
             "## Routes of the hub", "", "On its own port (9091), where `/openapi.json` and `/docs` are too.", "", *routes(hub), "",
             "## Metrics", "", "On `/metrics`, beside those of the process itself.", "", *metrics(printed), "",
             "## Commands", "", "```", output("chela", "--help").rstrip(), "```", ""]
    return "\n".join(parts)


def main():
    new = {TARGET: text(), MAN / "chela.1": man_page("chela.1", "COMMANDS", man_commands()),
           MAN / "chelad.8": man_page("chelad.8", "SETTINGS", man_settings())}
    stale = [path for path, content in new.items() if not path.exists() or path.read_text() != content]
    if "--check" not in sys.argv[1:]:
        for path in stale:
            path.write_text(new[path])
        return 0
    for path in stale:
        print(f"gen_docs: {path.relative_to(ROOT)} is stale: run tools/gen_docs.py and commit it")
    if not stale:
        print(f"gen_docs: {', '.join(path.name for path in new)} are fresh")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
