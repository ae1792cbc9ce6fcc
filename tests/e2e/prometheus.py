"""A small, strict reader of the Prometheus text format: it raises where a scraper would."""

import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?,?\}})? (\S+)(?: \d+)?")
KINDS = ("counter", "gauge", "histogram", "summary", "untyped")


def number(text):
    value = float(text.replace("+Inf", "inf"))
    assert "_" not in text
    return value


def parse(text):
    """{family: {"type", "help", "samples": {(name, labels): value}}}, checked as it is read."""
    assert text.endswith("\n")
    families, current = {}, None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, _, explanation = line[7:].partition(" ")
            assert name not in families, f"{name} comes twice"
            current = families[name] = {"type": None, "help": explanation, "samples": {}}
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert kind in KINDS
            current = families.setdefault(name, {"type": None, "help": None, "samples": {}})
            assert current["type"] is None and not current["samples"]
            current["type"] = kind
        elif line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, f"no sample: {line!r}"
            labels = tuple(sorted(re.findall(LABEL, match[2] or "")))
            family = families[family_of(match[1], families)]
            assert family is current, f"{line!r} stands apart from its family"
            assert (match[1], labels) not in family["samples"], f"twice: {line!r}"
            family["samples"][match[1], labels] = number(match[3])
    for name, family in families.items():
        assert family["help"] and family["type"], name
        if family["type"] == "histogram":
            check_histogram(name, family["samples"])
        if family["type"] == "counter":
            assert all(value >= 0 for value in family["samples"].values())
    return families


def family_of(name, families):
    for suffix in ("", "_bucket", "_sum", "_count"):
        if name.endswith(suffix) and name[:len(name) - len(suffix)] in families:
            return name[:len(name) - len(suffix)]
    raise AssertionError(f"{name} has no # TYPE")


def check_histogram(name, samples):
    """Buckets rise with le, end in +Inf, and the last equals the count."""
    series = {}
    for (sample, labels), value in samples.items():
        if sample == f"{name}_bucket":
            bound = [label for label in labels if label.startswith("le=")]
            assert len(bound) == 1
            rest = tuple(label for label in labels if label not in bound)
            series.setdefault(rest, []).append((number(bound[0][4:-1]), value))
    for labels, buckets in series.items():
        bounds = [bound for bound, _ in buckets]
        counts = [count for _, count in buckets]
        assert bounds == sorted(bounds) and bounds[-1] == float("inf")
        assert counts == sorted(counts)
        assert samples[f"{name}_count", labels] == counts[-1]
        assert samples[f"{name}_sum", labels] >= 0
