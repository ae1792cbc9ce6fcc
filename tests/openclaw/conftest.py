# SPDX-License-Identifier: MIT
"""Fixtures of the tests against real OpenClaw gateways: one of each release, a client, a daemon.

    pytest tests/openclaw [-n 2 --dist loadgroup]     (CHELA_BUILD_DIR: where oc-tool and chelad are)

A release stays with one process of pytest-xdist, so that both run side by side. CHELA_OPENCLAW and
CHELA_NPM name the folders of tools/npm_cache when they are known already.
"""

import os
import pathlib
import shutil
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("CHELA_BUILD_DIR") or HERE.parents[1] / "build")
os.environ.setdefault("CHELA_BIN", str(BUILD / "bin"))
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import chelad  # noqa: E402
from fakes import Provider, Telegram  # noqa: E402
from gateway import RELEASES, TOKEN, Gateway, packages  # noqa: E402
from tool import Proxy, Tool  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for value in item.funcargs.values():
        if isinstance(value, Gateway):
            report.sections.append((f"output of {value.release}", value.log[-4000:]))
    for daemon in chelad.live:
        report.sections.append((f"standard error of {daemon.state}", daemon.log()[-4000:]))


@pytest.fixture(scope="session")
def scratch():
    path = pathlib.Path(tempfile.mkdtemp(prefix="chela-oc-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session", params=[pytest.param(r, marks=pytest.mark.xdist_group(r)) for r in RELEASES])
def gateway(request, scratch):
    """A real gateway of a release, with a model and a Telegram that are scripted."""
    openclaw, node = packages("openclaw", "CHELA_OPENCLAW"), packages("dbos", "CHELA_NPM")
    one = Gateway(request.param, scratch / request.param, Provider(), Telegram(), openclaw, node)
    try:
        yield one.start().ready()
    finally:
        one.stop()
        one.provider.stop()
        one.telegram.stop()


@pytest.fixture
def proxy(gateway):
    """Between a client and the gateway, to be cut."""
    with Proxy(gateway.port) as one:
        yield one


@pytest.fixture(scope="module")
def way(gateway):
    """The daemon's own proxy."""
    with Proxy(gateway.port) as one:
        yield one


@pytest.fixture(scope="module")
def daemon(gateway, way, scratch):
    """A chelad that is a client of the gateway, and obeys what is written in its Telegram."""
    one = chelad.Daemon(scratch / f"chelad-{gateway.release}", (
        f"--openclaw.url={way.url}", "--openclaw.commands=agent:main:telegram:*", "--messages.redeliver=100ms",
        "--openclaw.route=agent:main:*,telegram:*"), {"OPENCLAW_GATEWAY_TOKEN": TOKEN})
    one.start()
    yield one
    one.stop()


@pytest.fixture
def make_tool(gateway, tmp_path):
    made = []

    def make(url=None, token=TOKEN, *more):
        made.append(Tool(BUILD / "src" / "openclaw" / "oc-tool", url or gateway.url, token, *more,
                         log=tmp_path / f"tool-{len(made)}.stderr"))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def tool(make_tool, proxy):
    """A client that is connected through the proxy."""
    one = make_tool(proxy.url)
    one("wait")
    return one
