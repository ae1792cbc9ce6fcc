# SPDX-License-Identifier: MIT
"""From measured rounds to tables and verdicts. Nothing here knows a result in advance."""

import statistics

TIMES_FASTAPI = 15
TIMES_NGINX = 2.5
RSS_ANON_MAX = 6_000_000
START_MAX_MS = 50
STRIPPED_MAX = 2_000_000

LABELS = {
    "agent": "agent, direct",
    "nginx": "nginx → agent",
    "chela": "chela, no session",
    "chela_session": "chela, session",
    "fastapi_session": "FastAPI, session",
}


def values(rounds, target, callers, key):
    return [r[key] for r in rounds if r["target"] == target and r["callers"] == callers]


def median(numbers):
    return statistics.median(numbers) if numbers else None


def added_us(rounds, target, callers):
    """Median over the rounds of what the target adds to the agent's own p50 in the same round."""
    direct = values(rounds, "agent", callers, "p50_us")
    through = values(rounds, target, callers, "p50_us")
    return median([t - d for t, d in zip(through, direct)])


def spread(numbers, digits=0):
    if not numbers:
        return "-"
    low, mid, high = min(numbers), statistics.median(numbers), max(numbers)
    return f"{mid:,.{digits}f} [{low:,.{digits}f}–{high:,.{digits}f}]"


def aim(name, value, bound, unit, at_least=False):
    """One line of the verdict; value or bound None: a part of it was not measured."""
    met = None
    if value is not None and bound is not None:
        met = value >= bound if at_least else value <= bound
    return {"aim": name, "value": value, "bound": bound, "unit": unit,
            "relation": "≥" if at_least else "≤", "met": met}


def throughput_aims(rounds, callers_list):
    for callers in callers_list:
        if callers == 1:
            continue
        ours = median(values(rounds, "chela_session", callers, "calls_per_s"))
        theirs = median(values(rounds, "fastapi_session", callers, "calls_per_s"))
        ratio = ours / theirs if ours and theirs else None
        yield aim(f"calls/s with a session over FastAPI's, {callers} callers", ratio,
                  TIMES_FASTAPI, "×", at_least=True)


def latency_aims(rounds, callers_list, disk):
    for callers in callers_list:
        nginx = added_us(rounds, "nginx", callers)
        bound = TIMES_NGINX * nginx if nginx is not None else None
        yield aim(f"added p50 without a session, {callers} callers",
                  added_us(rounds, "chela", callers), bound, "µs")
        session = added_us(rounds, "chela_session", callers)
        for key, name in (("sqlite_commit_us", "SQLite commits"), ("fdatasync_us", "fdatasyncs")):
            commits = 2 * disk[key] if disk else None
            yield aim(f"added p50 with a session, {callers} callers (two {name})", session,
                      bound + commits if bound is not None and commits else None, "µs")


def aims(result):
    rounds, callers = result["rounds"], result["settings"]["callers"]
    size, start, idle = result["stripped_bytes"], result["start_ms"], result["idle_kib"]
    return [
        *throughput_aims(rounds, callers),
        *latency_aims(rounds, callers, result["disk"]),
        aim("idle anonymous memory", idle["RssAnon"] * 1024 / 1e6, RSS_ANON_MAX / 1e6, "MB"),
        aim("start to ready, existing state (median)", median(start["existing"]), START_MAX_MS,
            "ms"),
        aim("start to ready, fresh state (median)", median(start["fresh"]), START_MAX_MS, "ms"),
        aim("chelad, stripped", size["chelad"] / 1e6, STRIPPED_MAX / 1e6, "MB"),
    ]


def table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(row, widths))).rstrip()


def print_rounds(result):
    rounds = result["rounds"]
    print("\nCalls, median [min–max] of the rounds")
    rows = [("", "callers", "calls/s", "p50 µs", "p99 µs", "CPU µs/call")]
    for callers in result["settings"]["callers"]:
        for target, label in LABELS.items():
            if not values(rounds, target, callers, "p50_us"):
                continue
            rows.append((label, str(callers),
                         spread(values(rounds, target, callers, "calls_per_s")),
                         spread(values(rounds, target, callers, "p50_us")),
                         spread(values(rounds, target, callers, "p99_us")),
                         spread(values(rounds, target, callers, "cpu_us_per_call"), 1)))
    print("\n".join(table(rows)))


def print_facts(result):
    disk, idle, loaded = result["disk"], result["idle_kib"], result["loaded_kib"]
    start = result["start_ms"]
    print("\nThe disk and the daemon")
    rows = [("what", "measured")]
    if disk:
        rows += [("fdatasync of an appended 4 KiB page, median", f"{disk['fdatasync_us']:.0f} µs"),
                 ("SQLite commit, WAL, synchronous=FULL, median",
                  f"{disk['sqlite_commit_us']:.0f} µs")]
    rows += [("chelad idle: RssAnon, total resident",
              f"{idle['RssAnon']:,} kiB, {idle['VmRSS']:,} kiB"),
             ("chelad after the load: RssAnon, total resident",
              f"{loaded['RssAnon']:,} kiB, {loaded['VmRSS']:,} kiB"),
             ("start to ready, existing state directory", spread(start["existing"], 1) + " ms"),
             ("start to ready, fresh state directory", spread(start["fresh"], 1) + " ms"),
             ("start to ready, the load's own state directory", spread(start["used"], 1) + " ms")]
    rows += [(f"{name}, stripped", f"{size:,} bytes")
             for name, size in result["stripped_bytes"].items()]
    print("\n".join(table(rows)))


def print_aims(result):
    print("\nAims")
    rows = [("aim", "measured", "bound", "")]
    for a in result["aims"]:
        word = {True: "met", False: "NOT MET", None: "not measured"}[a["met"]]
        value = "-" if a["value"] is None else f"{a['value']:,.2f} {a['unit']}"
        bound = "-" if a["bound"] is None else f"{a['relation']} {a['bound']:,.2f} {a['unit']}"
        rows.append((a["aim"], value, bound, word))
    print("\n".join(table(rows)))


def print_all(result):
    m = result["machine"]
    print(f"{m['cpus']} CPUs ({m['cpu']}), Linux {m['kernel']}, load before {m['load_before']:.2f}; "
          f"chelad {result['build']}")
    print(f"{m['nginx']}; Python {m['python']}, FastAPI {m['fastapi']}, uvicorn {m['uvicorn']}, "
          f"httpx {m['httpx']}, uvloop {m['uvloop']}, httptools {m['httptools']}")
    print_rounds(result)
    print_facts(result)
    print_aims(result)
    for problem in result["problems"]:
        print(f"PROBLEM: {problem}")
