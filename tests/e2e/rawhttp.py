"""A small, strict HTTP/1.1 client over a plain socket, for what a proper client refuses to send."""

import re
import socket


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return values[0] if values else None


class Connection:
    def __init__(self, daemon, timeout=20, source=None):
        self.sock = socket.create_connection(
            daemon.address, timeout, source_address=(source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())
        return self

    def request(self, method, target, headers=(), body=None, host="127.0.0.1"):
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return self.send(("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b""))

    def _more(self):
        piece = self.sock.recv(65536)
        if not piece:
            raise EOFError(f"connection closed after {self.buffer!r}")
        self.buffer += piece

    def _line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def _take(self, count):
        while len(self.buffer) < count:
            self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read(self, method="GET"):
        """One response. A malformed one is an error of the server, and raises."""
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) ([ -~]*)", self._line())
        assert match, "not a status line"
        status, headers = int(match[1]), []
        while line := self._line():
            assert re.fullmatch(r"[!#-'*+.0-9A-Z^-z|~-]+:[ \t]*[^\x00-\x08\x0a-\x1f]*", line), line
            name, value = line.split(":", 1)
            headers.append((name, value.strip()))
        response = Response(status, headers, b"")
        if method != "HEAD" and status >= 200 and status not in (204, 304):
            response.body = self._body(response)
        return response

    def _body(self, response):
        if (response.header("transfer-encoding") or "").lower() == "chunked":
            assert response.header("content-length") is None
            pieces = []
            while size := int(self._line(), 16):
                pieces.append(self._take(size))
                assert self._take(2) == b"\r\n"
            assert self._line() == ""
            return b"".join(pieces)
        if response.header("content-length") is not None:
            return self._take(int(response.header("content-length")))
        try:
            while True:
                self._more()
        except EOFError:
            body, self.buffer = self.buffer, b""
            return body

    def closed(self):
        """Wait until the server has closed the connection; True if it said nothing more."""
        try:
            while piece := self.sock.recv(65536):
                self.buffer += piece
        except ConnectionResetError:
            pass
        return self.buffer == b""


def ask(daemon, method, target, headers=(), body=None, host="127.0.0.1"):
    """One request on one connection, and its answer."""
    with Connection(daemon) as connection:
        return connection.request(method, target, headers, body, host).read(method)
