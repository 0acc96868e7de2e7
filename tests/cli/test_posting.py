"""`lucid watch --webhook`: signed, in order, again until taken. A real server, no real waiting."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from lucid.cli.posting import PAUSES_S, Poster, signature
from lucid.errors import UsageError

CHANGES: list[dict[str, Any]] = [{"sequence": 7, "kind": "write", "path": "/a"}]


class Receiver(HTTPServer):
    """Keeps what is posted, and answers what it was told to, then 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("Location", receiver.url)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def poster(url: str, waited: list[float], secret: str = "") -> Poster:
    def pause(seconds: float) -> bool:
        waited.append(seconds)
        return False

    return Poster(url, secret, pause=pause)


def test_what_is_posted_is_signed(receiver: Receiver) -> None:
    poster(receiver.url, [], "hush").post(CHANGES)
    ((headers, body),) = receiver.got
    assert json.loads(body) == {"changes": CHANGES}
    signed = headers["X-Lucid-Time"].encode() + b"." + body
    right = hmac.new(b"hush", signed, hashlib.sha256).hexdigest()
    assert headers["X-Lucid-Signature"] == f"sha256={right}"
    assert headers["X-Lucid-Delivery"] == "7"
    assert signature("other", int(headers["X-Lucid-Time"]), body) != right


def test_no_secret_no_signature(receiver: Receiver) -> None:
    poster(receiver.url, []).post(CHANGES)
    assert "X-Lucid-Signature" not in receiver.got[0][0]


def test_it_is_tried_again_until_it_is_taken(
    receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [500, 503, 429]
    waited: list[float] = []
    poster(receiver.url, waited).post(CHANGES)
    assert len(receiver.got) == 4
    assert len({body for _, body in receiver.got}) == 1
    assert waited == list(PAUSES_S[:3])
    assert capsys.readouterr().err == ""


def test_what_will_not_be_taken_is_told(
    receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [400]
    poster(receiver.url, []).post(CHANGES)
    assert len(receiver.got) == 1
    assert "1 change was not taken by the webhook: it answers 400" in capsys.readouterr().err
    waited: list[float] = []
    receiver.answers = [500] * 100
    poster(receiver.url, waited).post(CHANGES * 2)
    assert waited == list(PAUSES_S)
    assert "2 changes were not taken" in capsys.readouterr().err


def test_a_redirect_is_not_followed(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    receiver.answers = [302]
    poster(receiver.url, []).post(CHANGES)
    assert len(receiver.got) == 1
    assert "it answers 302" in capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    waited: list[float] = []
    poster(f"http://127.0.0.1:{server.server_address[1]}/", waited).post(CHANGES)
    assert waited == list(PAUSES_S)
    assert "refused" in capsys.readouterr().err


def test_what_is_no_address() -> None:
    for wrong in ("file:///etc/passwd", "example.org", "ftp://x"):
        with pytest.raises(UsageError, match="no webhook"):
            Poster(wrong, "")
