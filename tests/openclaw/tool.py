# SPDX-License-Identifier: MIT
"""oc-tool as an object, and a proxy that loses connections."""

import json
import socket
import subprocess
import threading

PATIENCE = 400


class Refused(Exception):
    def __init__(self, answer):
        super().__init__(f"{answer['code']}: {answer['error']}")
        self.code, self.text = answer["code"], answer["error"]


class Tool:
    def __init__(self, program, *args, log):
        self.lines, self.answers, self.number = [], {}, 0
        self.changed = threading.Condition()
        self.log = log
        with open(log, "ab") as err:
            self.process = subprocess.Popen([program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for text in self.process.stdout:
            line = json.loads(text)
            with self.changed:
                if "n" in line:
                    self.answers[line["n"]] = line
                else:
                    self.lines.append(line)
                self.changed.notify_all()

    def begin(self, verb, **args):
        """Ask; take the number to result()."""
        self.number += 1
        line = {"n": self.number, "do": verb, "ms": 1000 * PATIENCE - 5000, **args}
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        self.process.stdin.flush()
        return self.number

    def result(self, number):
        with self.changed:
            assert self.changed.wait_for(lambda: number in self.answers, PATIENCE), f"no answer to {number}"
            answer = self.answers.pop(number)
        if not answer["ok"]:
            raise Refused(answer)
        return answer

    def __call__(self, verb, **args):
        return self.result(self.begin(verb, **args))

    def until(self, wanted, after=0):
        """The first line but an answer that fits, from the after-th on."""
        def find():
            return next((line for line in self.lines[after:] if wanted(line)), None)
        with self.changed:
            assert self.changed.wait_for(lambda: find() is not None, PATIENCE), f"not told: {self.lines[-3:]}"
            return find()

    def event(self, name, wanted=lambda payload: True, after=0):
        return self.until(lambda line: line.get("event") == name and wanted(line["payload"]), after)["payload"]

    def state(self, name, after=0):
        return self.until(lambda line: line.get("state") == name, after)

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            status = self.process.wait(PATIENCE)
            assert status == 0, f"oc-tool ended with {status}:\n{self.log.read_text()[-3000:]}"


class Proxy:
    """Passes bytes to a port on loopback until it is cut; while it is away nobody gets through."""

    def __init__(self, port):
        self.port, self.pairs, self.lock, self.away = port, [], threading.Lock(), False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}/"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.away:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            with self.lock:
                self.pairs.append((client, server))
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    @staticmethod
    def _pass(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        """Lose every connection there is."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()
