# SPDX-License-Identifier: MIT
"""Readings of the machine: the disk's commit latency, CPU time, memory, sizes, versions."""

import os
import pathlib
import platform
import sqlite3
import statistics
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    """User and system time of all threads of these processes so far."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_kib(pid):
    """{"RssAnon": kiB, "VmRSS": kiB} of a process."""
    found = {}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "VmRSS"):
            found[name] = int(value.split()[0])
    return found


def fdatasync_us(directory, seconds):
    """Latencies of appending a 4 KiB page to a file and waiting for the disk."""
    path, page, took = pathlib.Path(directory) / "fdatasync", os.urandom(4096), []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            os.write(fd, page)
            os.fdatasync(fd)
            took.append((time.perf_counter() - begin) * 1e6)
    finally:
        os.close(fd)
        os.unlink(path)
    return took


def sqlite_commit_us(directory, seconds):
    """Latencies of one INSERT and its COMMIT in SQLite (WAL, synchronous=FULL)."""
    path, took = pathlib.Path(directory) / "commit.db", []
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                         "CREATE TABLE m (id INTEGER PRIMARY KEY, text TEXT);")
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            db.execute("INSERT INTO m(text) VALUES (?)", ("x" * 100,))
            took.append((time.perf_counter() - begin) * 1e6)
    finally:
        db.close()
        for end in ("", "-wal", "-shm"):
            pathlib.Path(f"{path}{end}").unlink(missing_ok=True)
    return took


def disk(directory, seconds):
    return {"fdatasync_us": statistics.median(fdatasync_us(directory, seconds)),
            "sqlite_commit_us": statistics.median(sqlite_commit_us(directory, seconds))}


def stripped_bytes(program, directory):
    made = pathlib.Path(directory) / "stripped"
    subprocess.run(["strip", "-o", made, program], check=True)
    return made.stat().st_size


def starts_ms(start, n):
    """Times from spawn to the ready line of n starts; each is stopped before the next."""
    took = []
    for _ in range(n):
        server = start()
        took.append(server.ready_ms)
        server.stop()
    return took


def version_of(*argv):
    try:
        told = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    return (told.stdout + told.stderr).strip().splitlines()[0]


def python_versions():
    found = {"python": platform.python_version()}
    for name in ("fastapi", "uvicorn", "httpx", "uvloop", "httptools", "ujson"):
        try:
            found[name] = __import__(name).__version__
        except (ImportError, AttributeError):
            found[name] = "not installed"
    return found


def machine():
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "load_before": os.getloadavg()[0], "nginx": version_of("nginx", "-v"),
            **python_versions()}
