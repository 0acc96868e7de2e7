"""The little HTTP beside the WebSocket: heads of requests, and plain answers. The hub's thread."""

from __future__ import annotations

import asyncio
import hmac
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from lucid.errors import FormatError

__all__ = ["HEAD_MAX", "Head", "bears", "parse_head", "respond"]

HEAD_MAX = 16 << 10


class Head(NamedTuple):
    """A request without its body. Header names are in small letters, the last of a name counts."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def is_websocket(self) -> bool:
        return self.method == "GET" and self.headers.get("upgrade", "").lower() == "websocket"


def parse_head(data: bytes) -> Head:
    """Raises FormatError for what is no head of HTTP/1.1."""
    try:
        first, *lines = data.decode("ascii", "strict").split("\r\n")
        method, target, _ = first.split(" ")
        split = urlsplit(target)
        fields = [line.partition(":") for line in lines if line]
    except ValueError:
        raise FormatError("This is no request of HTTP.") from None
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    return Head(method, split.path, parse_qs(split.query), headers)


def bears(head: Head, token: str) -> bool:
    """Whether a request shows the token: as MinIO does, or in its address as SNS must."""
    shown = head.headers.get("authorization", "").removeprefix("Bearer ").strip()
    candidates = [shown, *head.query.get("token", ())]
    return any(hmac.compare_digest(each.encode(), token.encode()) for each in candidates)


def respond(
    writer: asyncio.StreamWriter, status: HTTPStatus, body: bytes, kind: str = "text/plain"
) -> None:
    """One answer; the connection is to be closed after it."""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode("ascii") + body)
