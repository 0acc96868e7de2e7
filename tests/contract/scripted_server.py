"""A small S3 on a real socket that does wrong what it is told to do wrong.

It knows ranged GET and conditional PUT on one bucket, path addressing, and checks no signature.
`server.script(...)` says how the next requests are answered, one each; then all goes well again.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field

__all__ = ["Request", "ScriptedServer"]

BUCKET = "bucket"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
REASONS = {
    200: "OK",
    206: "Partial",
    404: "Not Found",
    409: "Conflict",
    412: "Failed",
    416: "Range",
}


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class _Answer:
    status: int
    body: bytes = b""
    headers: list[str] = field(default_factory=list)


class ScriptedServer:
    """Serves until `close`; one thread a connection, all of them joined there.

    Steps of a script: a status ("503", "409", "403", ...: nothing is done), "stored 503" and
    "stored cut" (done, then the answer is lost), "cut" (closed without an answer), "truncated" and
    "reset" (half of the body), "hang" (no answer until `release`), "chunked", "no length" (the body
    ends with the connection), "whole" (the Range is ignored), "other range", "short" (a 206 that is
    too short and says so), "close after" (well, and then closed without a word), "early 503"
    (answered and closed before the body is read), "rubbish", "continue" (a 100 first).
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """With `tls`, HTTPS; and after a CONNECT, as a proxy to itself."""
        self._tls = tls
        self.is_proxy = False
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self._steps: list[str] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="scripted-accept")]
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def script(self, *steps: str) -> None:
        """Say how the next requests are answered."""
        with self._lock:
            self._steps.extend(steps)

    def release(self) -> None:
        """Answer what hangs."""
        self._released.set()

    def close(self) -> None:
        """Cut all connections and join the threads."""
        self.release()
        with self._lock:
            self._listener.shutdown(socket.SHUT_RDWR)
            for each in self._sockets:
                _cut(each)
        for thread in list(self._threads):
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                number = len(self._threads) - 1
                self._sockets.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection, number))
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self.is_proxy and self._tls is not None:
                self._open_tunnel(connection, number)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._sockets.append(connection)
            with connection.makefile("rb") as reader:
                while self._one(connection, reader, number):
                    pass
        except OSError:
            return
        finally:
            connection.close()

    def _open_tunnel(self, connection: socket.socket, number: int) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:-2]}
        self._note(lines[0].split(), headers, b"", number)
        connection.sendall(b"HTTP/1.1 200 Established\r\n\r\n")

    def _one(self, connection: socket.socket, reader, number: int) -> bool:  # type: ignore[no-untyped-def]
        """Answer one request; false if the connection is to be closed."""
        line = reader.readline().decode("latin-1").split()
        if len(line) != 3:
            return False
        headers = {}
        while header := reader.readline().decode("latin-1").strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        with self._lock:
            step = self._steps.pop(0) if self._steps else ""
        if step == "early 503":
            self._note(line, headers, b"", number)
            connection.sendall(_head(_Answer(503), 0))
            connection.shutdown(socket.SHUT_WR)
            return False
        body = reader.read(int(headers.get("content-length", 0)))
        request = self._note(line, headers, body, number)
        return self._answer(connection, request, step)

    def _note(self, line: list[str], headers: dict[str, str], body: bytes, number: int) -> Request:
        request = Request(line[0], line[1], headers, body, number)
        with self._lock:
            self.requests.append(request)
        return request

    def _answer(self, connection: socket.socket, request: Request, step: str) -> bool:
        if step.isdigit():
            return self._send(connection, _error(int(step)))
        if step == "cut":
            return False
        if step == "hang":
            self._released.wait(60)
            return False
        if step == "rubbish":
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            return False
        if step == "expired":
            return self._send(connection, _error(400, "ExpiredToken"))
        answer = self._do(request, step)
        if step == "stored 503":
            return self._send(connection, _error(503))
        if step == "stored cut":
            return False
        return self._deliver(connection, answer, step)

    def _deliver(self, connection: socket.socket, answer: _Answer, step: str) -> bool:
        half = answer.body[: len(answer.body) // 2]
        if step in ("truncated", "reset"):
            connection.sendall(_head(answer, len(answer.body)) + half)
            if step == "reset":
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        if step == "chunked":
            parts = [half, answer.body[len(half) :]]
            framed = b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts if part)
            connection.sendall(_head(answer, None, "Transfer-Encoding: chunked") + framed)
            connection.sendall(b"0\r\nX-Trailer: 1\r\n\r\n")
            return True
        if step == "no length":
            connection.sendall(_head(answer, None) + answer.body)
            return False
        if step == "short":
            return self._send(connection, _Answer(answer.status, half, answer.headers))
        if step == "continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._send(connection, answer)
        return step != "close after"

    def _send(self, connection: socket.socket, answer: _Answer) -> bool:
        connection.sendall(_head(answer, len(answer.body)) + answer.body)
        return True

    def _do(self, request: Request, step: str) -> _Answer:
        key = request.target.partition("?")[0].partition(f"/{BUCKET}/")[2]
        with self._lock:
            if request.method == "PUT":
                if key in self.objects:
                    return _error(412, "PreconditionFailed")
                self.objects[key] = request.body
                return _Answer(200)
            data = self.objects.get(key)
        if data is None:
            return _error(404, "NoSuchKey")
        asked = _RANGE.fullmatch(request.headers.get("range", ""))
        if asked is None or step == "whole":
            return _Answer(200, data)
        first = int(asked[1])
        last = min(int(asked[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return _error(416, "InvalidRange")
        shown = first + 1 if step == "other range" else first
        where = f"Content-Range: bytes {shown}-{last}/{len(data)}"
        return _Answer(206, data[first : last + 1], [where])


def _error(status: int, code: str = "") -> _Answer:
    names = {403: "SignatureDoesNotMatch", 503: "SlowDown", 409: "ConditionalRequestConflict"}
    code = code or names.get(status, "Error")
    return _Answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode())


def _head(answer: _Answer, length: int | None, *more: str) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} Whatever",
        "Date: Sun, 22 Nov 2026 10:15:00 GMT",
        *answer.headers,
        *more,
    ]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
