# SPDX-License-Identifier: MIT
"""The comparator: the bridge as a good Python programmer would write it.

FastAPI + httpx + SQLite, one uvicorn process, of equal function and equal durability: register and
call with timeouts, retries and fallback, sessions in SQLite (WAL, synchronous=FULL), one commit for
the user's message before the agent is asked and one for the assistant's before the caller is
answered. Nothing is slowed down for the comparison. It has what Debian offers to make it quick:

* uvloop and httptools where installed, no access log, no middleware;
* one httpx.AsyncClient with keep-alive connections, so no TLS context or connection per call, and
  at most 64 of them: its pool slows down with more, 128 callers get 15 % less;
* one writer thread that takes all waiting writes and commits them together;
* the answer built by the quickest JSON encoder installed, without a response model;
* health counters and the sessions' owners in memory.
"""

import argparse
import asyncio
import queue
import sqlite3
import threading
import time
from typing import Any, Dict, List, Optional

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

try:
    import ujson

    def encode(value):
        return ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False).encode()
except ImportError:
    import json

    def encode(value):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

BACKOFF_S = (1.0, 2.0, 4.0)
FINAL_STATUSES = {400, 401, 403, 404, 405, 410, 413, 422}

SCHEMA = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS session (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, created_at REAL NOT NULL,
    last_activity REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY, session_id TEXT NOT NULL, at REAL NOT NULL, role TEXT NOT NULL,
    content TEXT NOT NULL, agent TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS message_of_session ON message(session_id, id);
"""


class Store:
    """SQLite behind one thread: every write waiting at that moment shares one commit."""

    def __init__(self, path):
        self.path = path
        self.waiting = queue.SimpleQueue()
        self.loop = None

    def open(self, loop):
        self.loop = loop
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        db.executescript(SCHEMA)
        owners = dict(db.execute("SELECT id, user_id FROM session"))
        threading.Thread(target=self.write_all, args=(db,), daemon=True).start()
        return owners

    def write(self, *statements):
        """A future that is done once the statements are on disk."""
        done = self.loop.create_future()
        self.waiting.put((statements, done))
        return done

    def write_all(self, db):
        while True:
            batch = [self.waiting.get()]
            while not self.waiting.empty():
                batch.append(self.waiting.get())
            db.execute("BEGIN IMMEDIATE")
            for statements, _ in batch:
                for sql, args in statements:
                    db.execute(sql, args)
            db.execute("COMMIT")
            self.loop.call_soon_threadsafe(wake, [done for _, done in batch])


def wake(futures):
    for done in futures:
        if not done.done():
            done.set_result(None)


NEW_SESSION = "INSERT OR IGNORE INTO session VALUES (?, ?, ?, ?)"
NEW_MESSAGE = "INSERT INTO message(session_id, at, role, content, agent) VALUES (?, ?, ?, ?, ?)"
TOUCH_SESSION = "UPDATE session SET last_activity = ? WHERE id = ?"


class Agent(BaseModel):
    name: str
    host: str
    port: int
    protocol: str = "http"
    auth_token: Optional[str] = None
    timeout_seconds: int = 30
    max_retries: int = 3
    fallback_agents: List[str] = []


class Call(BaseModel):
    agent_name: str
    prompt: str
    session_id: Optional[str] = None
    user_id: Optional[str] = None
    metadata: Optional[Dict[str, Any]] = None


class Peer:
    """A registered agent, what its requests look like, and how it has been doing."""

    def __init__(self, config):
        self.config = config
        self.base = f"{config.protocol}://{config.host}:{config.port}"
        self.url = httpx.URL(self.base + "/v1/messages")
        self.headers = {"Content-Type": "application/json"}
        if config.auth_token:
            self.headers["Authorization"] = f"Bearer {config.auth_token}"
        self.requests = self.failures = self.consecutive = 0

    def note(self, good):
        self.requests += 1
        if good:
            self.consecutive = 0
        else:
            self.failures += 1
            self.consecutive += 1

    @property
    def healthy(self):
        return self.consecutive < 3


class AgentError(Exception):
    def __init__(self, text, final=False):
        super().__init__(text)
        self.final = final


def text_of(answer):
    """The answer's text: a string, or the text blocks of the Messages API."""
    if not isinstance(answer, dict):
        raise AgentError("Invalid response", final=True)
    content = answer.get("content", answer.get("message"))
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(b.get("text", "") for b in content if b.get("type") == "text")
    raise AgentError("Invalid response", final=True)


class Bridge:
    def __init__(self, path):
        self.store = Store(path)
        self.peers = {}
        self.owners = {}
        self.lanes = {}
        self.client = None

    async def open(self):
        self.owners = self.store.open(asyncio.get_running_loop())
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self.client = httpx.AsyncClient(limits=limits, timeout=None, trust_env=False)

    async def attempt(self, peer, payload):
        try:
            async with asyncio.timeout(peer.config.timeout_seconds):
                answer = await self.client.post(peer.url, content=payload, headers=peer.headers)
        except TimeoutError:
            raise AgentError(f"Request timeout after {peer.config.timeout_seconds}s") from None
        except httpx.HTTPError as error:
            raise AgentError(str(error) or "All connection attempts failed") from None
        if not 200 <= answer.status_code < 300:
            raise AgentError(f"'{answer.status_code} {answer.reason_phrase}'",
                             answer.status_code in FINAL_STATUSES)
        try:
            return text_of(answer.json())
        except ValueError as error:
            raise AgentError(str(error), final=True) from None

    async def ask(self, peer, call):
        """One agent with its retries: the answer's text, or the last AgentError."""
        message = {"model": peer.config.name,
                   "messages": [{"role": "user", "content": call.prompt}]}
        if call.session_id:
            message["session_id"] = call.session_id
        payload = encode(message)
        for turn in range(peer.config.max_retries):
            try:
                text = await self.attempt(peer, payload)
                peer.note(True)
                return text
            except AgentError as error:
                last = error
            if last.final or turn + 1 == peer.config.max_retries:
                break
            await asyncio.sleep(BACKOFF_S[min(turn, 2)])
        peer.note(False)
        raise last

    async def ask_chain(self, chain, call):
        last, index = None, 0
        for index, name in enumerate(chain):
            peer = self.peers.get(name)
            if not peer:
                continue
            try:
                return name, await self.ask(peer, call), None, index
            except AgentError as error:
                last = error
        return chain[0], None, f"All agents failed. Last error: {last}", index

    async def call(self, call):
        peer = self.peers.get(call.agent_name)
        if not peer:
            return result(call.agent_name, None, f"Agent '{call.agent_name}' not registered", [])
        begin = time.perf_counter()
        chain = [call.agent_name, *peer.config.fallback_agents]
        if call.session_id:
            name, text, error, index = await self.call_in_session(chain, call)
        else:
            name, text, error, index = await self.ask_chain(chain, call)
        return result(name, text, error, chain, time.perf_counter() - begin, index)

    async def call_in_session(self, chain, call):
        session, user = call.session_id, call.user_id or "anonymous"
        if self.owners.setdefault(session, user) != user:
            raise HTTPException(403, f"Session '{session}' belongs to another user")
        async with self.lanes.setdefault(session, asyncio.Lock()):
            now = time.time()
            await self.store.write((NEW_SESSION, (session, user, now, now)),
                                   (NEW_MESSAGE, (session, now, "user", call.prompt, "")),
                                   (TOUCH_SESSION, (now, session)))
            outcome = await self.ask_chain(chain, call)
            if outcome[1] is not None:
                now = time.time()
                await self.store.write(
                    (NEW_MESSAGE, (session, now, "assistant", outcome[1], outcome[0])),
                    (TOUCH_SESSION, (now, session)))
            return outcome


def result(name, text, error, chain, took_s=0.0, index=0):
    return {"success": error is None, "agent_name": name, "response": text, "error": error,
            "fallback_chain": chain, "latency_ms": round(took_s * 1000, 2),
            "retried": index > 0, "retry_count": index}


def make_app(path):
    app = FastAPI()
    bridge = Bridge(path)
    app.add_event_handler("startup", bridge.open)

    @app.post("/api/vps/register", status_code=201)
    async def register(agent: Agent):
        bridge.peers[agent.name] = peer = Peer(agent)
        return {"status": "registered", "agent_name": agent.name, "url": peer.base}

    @app.post("/api/vps/call")
    async def call(request: Call):
        return Response(encode(await bridge.call(request)), media_type="application/json")

    @app.get("/api/vps/status")
    async def status():
        healthy = sum(peer.healthy for peer in bridge.peers.values())
        return {"status": "operational" if healthy else "degraded", "agents": len(bridge.peers),
                "healthy_agents": healthy, "unhealthy_agents": len(bridge.peers) - healthy,
                "sessions": len(bridge.owners)}

    return app


def installed(name, otherwise):
    try:
        __import__(name)
        return name
    except ImportError:
        return otherwise


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--db", required=True)
    args = parser.parse_args()
    uvicorn.run(make_app(args.db), host="127.0.0.1", port=args.port, access_log=False,
                log_level="error", lifespan="on", loop=installed("uvloop", "asyncio"),
                http=installed("httptools", "h11"))


if __name__ == "__main__":
    main()
