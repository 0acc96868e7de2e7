"""The proxy that makes a store distant: what arrives, how late, and what it counts.

Only lower bounds of time are held: a busy machine makes everything slower, and nothing quicker.
"""

from __future__ import annotations

import hashlib
import http.client
import http.server
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.delay import DelayLine, delay_line

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")

BODY = os.urandom(1 << 20)


class Answers(http.server.BaseHTTPRequestHandler):
    """GET /N: the first N bytes of BODY. PUT: the digest of what came."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    """Head and body leave together."""

    def do_GET(self) -> None:
        self._answer(BODY[: int(self.path[1:])])

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(hashlib.sha256(body).digest())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def get(connection: http.client.HTTPConnection, size: int) -> float:
    """Seconds of a request; its body is what was sent."""
    began = time.perf_counter()
    connection.request("GET", f"/{size}")
    body = connection.getresponse().read()
    seconds = time.perf_counter() - began
    assert body == BODY[:size]
    return seconds


def connect(line: DelayLine) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(line.endpoint.removeprefix("http://"), timeout=30)


def test_every_byte_arrives_and_is_counted(port: int, tmp_path: Path) -> None:
    with delay_line(port, tmp_path, 0, 0) as line:
        connection = connect(line)
        for size in (0, 1, len(BODY)):
            get(connection, size)
        connection.request("PUT", "/", BODY)
        assert connection.getresponse().read() == hashlib.sha256(BODY).digest()
        connection.close()
        passed = line.passed()
    assert (passed.connections, passed.requests) == (1, 4)
    assert len(BODY) < passed.sent < len(BODY) + 2000
    assert len(BODY) < passed.received < len(BODY) + 2000


def test_an_answer_takes_a_round_trip_and_a_connection_one_more(port: int, tmp_path: Path) -> None:
    with delay_line(port, tmp_path, round_trip_ms=40, rate_mb_s=0) as line:
        connection = connect(line)
        assert get(connection, 1) >= 0.080
        assert get(connection, 1) >= 0.040
        connection.close()


@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_a_connection_carries_so_much_a_second(verb: str, port: int, tmp_path: Path) -> None:
    with delay_line(port, tmp_path, round_trip_ms=0, rate_mb_s=8) as line:
        connection = connect(line)
        began = time.perf_counter()
        connection.request(verb, f"/{len(BODY)}", BODY if verb == "PUT" else None)
        connection.getresponse().read()
        assert time.perf_counter() - began >= len(BODY) / 8e6 * 0.95
        connection.close()


def test_connections_do_not_wait_for_each_other(port: int, tmp_path: Path) -> None:
    """Eight round trips side by side take less than eight one after the other would."""
    with delay_line(port, tmp_path, round_trip_ms=500, rate_mb_s=0) as line:
        connections = [connect(line) for _ in range(8)]
        began = time.perf_counter()
        for connection in connections:
            connection.request("GET", "/1")
        assert all(connection.getresponse().read() == BODY[:1] for connection in connections)
        assert 1.0 <= time.perf_counter() - began < 4.0
        for connection in connections:
            connection.close()


def test_who_hangs_up_is_heard_on_the_other_side(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        with delay_line(server.getsockname()[1], tmp_path, 1, 0) as line:
            near = socket.create_connection(("127.0.0.1", int(line.endpoint.rpartition(":")[2])))
            far, _ = server.accept()
            with near, far:
                far.settimeout(30)
                near.settimeout(30)
                near.sendall(b"last words")
                near.shutdown(socket.SHUT_WR)
                heard = b""
                while piece := far.recv(100):
                    heard += piece
                assert heard == b"last words"
                far.sendall(b"goodbye")
                far.close()
                assert near.recv(100) == b"goodbye"
                assert near.recv(100) == b""
