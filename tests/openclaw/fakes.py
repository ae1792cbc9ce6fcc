# SPDX-License-Identifier: MIT
"""What cannot be had for real: a model provider and Telegram's Bot API, scripted, on loopback.

The model obeys the last mark in what users have said: {{say WORDS}}, {{slow SECONDS WORDS}},
{{wait NAME WORDS}} (answers once provider.open(NAME) was called), {{fail}}.
"""

import collections
import http.server
import json
import re
import threading
import time

MARK = re.compile(r"\{\{(say|slow|wait|fail)\s*([^}]*)\}\}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            return json.loads(text) if text else {}
        except ValueError:
            return {}

    def answer(self, document, status=200):
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.server.owner.handle(self)

    do_POST = do_GET


class Server:
    def __init__(self):
        self.lock = threading.Condition()
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.owner = self
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def handle(self, request):
        try:
            self.serve(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the gateway was killed

    def stop(self):
        with self.lock:
            self.stopped = True
            self.lock.notify_all()
        self.http.shutdown()
        self.http.server_close()


def user_texts(messages):
    for message in reversed(messages):
        if message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, list):
            content = " ".join(part.get("text", "") for part in content if isinstance(part, dict))
        yield content or ""


class Provider(Server):
    """POST /v1/chat/completions of an OpenAI-compatible provider, streamed or whole."""

    def __init__(self):
        self.turns = collections.Counter()  # how often a mark was answered, or begun
        self.gates = set()
        self.stopped = False
        super().__init__()

    def open(self, name):
        with self.lock:
            self.gates.add(name)
            self.lock.notify_all()

    def serve(self, request):
        ask = request.body()
        verb, words = "say", "nothing was asked"
        for text in user_texts(ask.get("messages", [])):
            found = MARK.findall(text)
            if found:
                verb, words = found[-1]
                break
        with self.lock:
            self.turns[f"{verb} {words}"] += 1
        if verb == "fail":
            request.answer({"error": {"message": "the model was told to fail", "type": "invalid_request_error"}}, 400)
            return
        if verb == "slow":
            seconds, _, words = words.partition(" ")
            time.sleep(float(seconds))
        if verb == "wait":
            name, _, words = words.partition(" ")
            with self.lock:
                self.lock.wait_for(lambda: name in self.gates or self.stopped, 60)
        if ask.get("stream"):
            self.stream(request, words)
        else:
            request.answer({"id": "c1", "object": "chat.completion", "model": "fake-1", "choices": [
                {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})

    @staticmethod
    def stream(request, words):
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "fake-1"}
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in re.split(r"(?<= )", words))]
        for delta in deltas:
            line = {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            request.wfile.write(b"data: " + json.dumps(line).encode() + b"\n\n")
            request.wfile.flush()
        end = {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {**chunk, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        for line in (end, usage):
            request.wfile.write(b"data: " + json.dumps(line).encode() + b"\n\n")
        request.wfile.write(b"data: [DONE]\n\n")
        request.close_connection = True


class Telegram(Server):
    """The Bot API: updates go in by say(), what the bot sends is in sent."""

    def __init__(self):
        self.updates, self.sent, self.calls = [], [], collections.Counter()
        self.next_update, self.next_message = 1000, 5000
        self.failing = False
        self.stopped = False
        super().__init__()

    def say(self, user, text):
        """A private message from a user; returns its message id."""
        with self.lock:
            self.next_update += 1
            self.next_message += 1
            who = {"id": user, "is_bot": False, "first_name": "Ada", "username": "ada"}
            self.updates.append({"update_id": self.next_update, "message": {
                "message_id": self.next_message, "date": int(time.time()), "text": text, "from": who,
                "chat": {"id": user, "type": "private", "first_name": "Ada", "username": "ada"}}})
            self.lock.notify_all()
            return self.next_message

    def texts(self, chat):
        with self.lock:
            return [message["text"] for message in self.sent if str(message["chat_id"]) == str(chat)]

    def serve(self, request):
        method = request.path.partition("?")[0].rsplit("/", 1)[-1]
        args = request.body()
        with self.lock:
            self.calls[method] += 1
        if method == "getMe":
            result = {"id": 4242, "is_bot": True, "first_name": "Bot", "username": "chela_test_bot",
                      "can_join_groups": True, "can_read_all_group_messages": False,
                      "supports_inline_queries": False}
        elif method == "getUpdates":
            result = self.poll(int(args.get("offset") or 0), float(args.get("timeout") or 0))
        elif method == "getWebhookInfo":
            result = {"url": "", "has_custom_certificate": False, "pending_update_count": 0}
        elif method == "sendMessage":
            result = self.take(args)
            if result is None:
                request.answer({"ok": False, "error_code": 500, "description": "told to fail"}, 500)
                return
        elif method == "getChat":
            result = {"id": int(args.get("chat_id") or 0), "type": "private", "first_name": "Ada"}
        elif method == "editMessageText":
            result = {"message_id": args.get("message_id"), "date": 1, "text": args.get("text"),
                      "chat": {"id": int(args.get("chat_id") or 0), "type": "private"}}
        else:
            result = True
        request.answer({"ok": True, "result": result})

    def poll(self, offset, timeout):
        with self.lock:
            self.updates = [u for u in self.updates if u["update_id"] >= offset]
            self.lock.wait_for(lambda: self.updates or self.stopped, min(timeout, 2))
            return list(self.updates)

    def take(self, args):
        with self.lock:
            if self.failing:
                return None
            self.next_message += 1
            self.sent.append(args)
            return {"message_id": self.next_message, "date": int(time.time()), "text": args.get("text"),
                    "chat": {"id": int(args["chat_id"]), "type": "private", "first_name": "Ada"}}
