# SPDX-License-Identifier: MIT
"""Fixtures of the tests of chela-agent and of real machines: a daemon on SQLite, the programs of this build.

    pytest tests/machines [-n 2 --dist loadgroup]     (CHELA_BIN: directory of the binaries)
"""

import os
import pathlib
import shutil
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
os.environ.setdefault("CHELA_BIN", str(HERE.parents[1] / "build" / "bin"))
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import chelad  # noqa: E402
from starter import Starter, Store  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for daemon in chelad.live:
            report.sections.append((f"standard error of {daemon.state}", daemon.log()[-6000:]))


@pytest.fixture(scope="session")
def scratch():
    """A short temporary directory: socket paths have a limit of 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="chela-m-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def store():
    return Store("sqlite")


@pytest.fixture
def start(store, scratch):
    """Start daemons of one's own; they are stopped, and must end well, after the test."""
    starter = Starter(store, scratch)
    yield starter
    starter.stop()


@pytest.fixture(scope="module")
def daemon(store, scratch):
    """The daemon a module's tests share."""
    starter = Starter(store, scratch)
    yield starter()
    starter.stop()
