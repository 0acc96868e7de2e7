"""The hub's server: takes connections, lets in who holds a room's key, relays what they seal.

One asyncio loop, one thread. It holds rooms in memory and nothing on a disk, so it can be stopped
and started at any time: clients come back by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from contextlib import suppress
from http import HTTPStatus

from lucid.crypto.room import may_enter
from lucid.errors import FormatError
from lucid.format.hub import (
    HUB_VERSION,
    WELCOME,
    Answer,
    Challenge,
    Sealed,
    decode_frame,
    encode_frame,
)
from lucid.format.limits import KEY_SIZE
from lucid.hub.connection import POLICY, RESTART, TRY_LATER, Connection
from lucid.hub.http import HEAD_MAX, Head, bears, parse_head, respond
from lucid.hub.limits import Limits
from lucid.hub.metrics import Metrics
from lucid.hub.rooms import Backplane, Rooms
from lucid.hub.webhook import entries_in, subscription_of
from lucid.types import Entropy, SystemEntropy

__all__ = ["Hub"]

log = logging.getLogger(__name__)

STOP_S = 2.0
"""How long clients get to hear that the hub goes away."""
NONCE_SIZE = 32


class Hub:
    """One process of a hub. `start`, then `close`; both in one asyncio loop."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        entropy: Entropy = SystemEntropy,
        webhook_token: str = "",
        rooms_allowed: frozenset[bytes] = frozenset(),
    ) -> None:
        """rooms_allowed: no other rooms are served; empty for any."""
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.rooms = Rooms(self.limits)
        self._entropy = entropy
        self._webhook_token = webhook_token
        self._allowed = rooms_allowed
        self._server: asyncio.Server | None = None
        self._open: set[Connection] = set()
        self._addresses: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(
        self, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Listens; the address that it got. Raises OSError."""
        # Who has not shaken hands for TLS is counted nowhere: it must be over soon.
        within = None if tls is None else self.limits.enter_s
        self._server = await asyncio.start_server(
            self._connected, host, port, ssl=tls, limit=HEAD_MAX, ssl_handshake_timeout=within
        )
        address = self._server.sockets[0].getsockname()
        return address[0], address[1]

    def use(self, backplane: Backplane) -> None:
        """Share rooms with other processes. REQUIRES: before `start`."""
        self.rooms.backplane = backplane

    async def close(self) -> None:
        """Tells everybody to come again, and ends all."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._open):
            connection.close(RESTART, "the hub is restarted")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A task of its own for each connection, within the limits."""
        peer = writer.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        task = asyncio.current_task()
        assert task is not None
        if self._is_full(address):
            writer.transport.abort()
            return
        self._tasks.add(task)
        self._addresses[address] += 1
        self.metrics.connections.set(len(self._tasks))
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            log.debug("A connection ended: %s", error)
        except Exception:
            log.exception("A connection failed; this is a bug in lucid")
        finally:
            self._tasks.discard(task)
            self._addresses[address] -= 1
            self._addresses += Counter()  # without those that are at zero
            self.metrics.connections.set(len(self._tasks))
            writer.close()
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), STOP_S)
            writer.transport.abort()  # what a client does not take is not kept for it

    def _is_full(self, address: str) -> bool:
        for reason, full in (
            ("the hub is closing", self._closing),
            ("too many connections", len(self._tasks) >= self.limits.connections),
            ("too many of one address", self._addresses[address] >= self.limits.per_address),
        ):
            if full:
                self.metrics.refused.labels(reason).inc()
                return True
        return False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wait_s = self.limits.enter_s
        try:
            data = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), wait_s)
            head = parse_head(data)
        except (FormatError, asyncio.LimitOverrunError):
            self.metrics.refused.labels("no request").inc()
            respond(writer, HTTPStatus.BAD_REQUEST, b"")
            return
        if not head.is_websocket:
            await asyncio.wait_for(self._plain(head, reader, writer), wait_s)
            return
        now = asyncio.get_running_loop().time
        connection = Connection(reader, writer, self.limits, now)
        if not connection.accept(data):
            self.metrics.refused.labels("handshake").inc()
            return
        self._open.add(connection)
        room = b""
        try:
            room = await self._enter(connection)
            while room and (message := await connection.receive()) is not None:
                if not self._relay(room, connection, message):
                    break
        finally:
            self._open.discard(connection)
            self.rooms.leave(room, connection)
            self.metrics.rooms.set(len(self.rooms))
            if connection.cut:
                self.metrics.refused.labels(connection.cut).inc()

    async def _enter(self, connection: Connection) -> bytes:
        """Challenge and answer; the room that the client is in then, or b"" where it is not."""
        nonce = self._entropy(NONCE_SIZE)
        connection.send(encode_frame(Challenge(HUB_VERSION, nonce)))
        try:
            message = await asyncio.wait_for(connection.receive(), self.limits.enter_s)
        except asyncio.TimeoutError:
            connection.close(POLICY, "no answer")
            return b""
        if message is None:
            return b""
        try:
            answer = decode_frame(message)
        except FormatError:
            answer = None
        if not isinstance(answer, Answer) or not may_enter(answer, nonce):
            connection.close(POLICY, "wrong answer")
            return b""
        if self._allowed and answer.room not in self._allowed:
            connection.close(POLICY, "another room")
            return b""
        if reason := self.rooms.enter(answer.room, connection):
            connection.close(TRY_LATER, reason)
            return b""
        self.metrics.entered.inc()
        self.metrics.rooms.set(len(self.rooms))
        connection.send(encode_frame(WELCOME))
        return answer.room

    def _relay(self, room: bytes, connection: Connection, message: bytes) -> bool:
        """Gives a sealed message to the others. False: the client was cut off."""
        self.metrics.messages.inc()
        try:
            frame = decode_frame(message)
        except FormatError:
            frame = None
        if not isinstance(frame, Sealed):
            connection.close(POLICY, "not in the format")
            return False
        self.metrics.relayed.inc(self.rooms.relay(room, connection, message))
        return True

    async def _plain(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A request of plain HTTP."""
        if head.method == "POST" and head.path.startswith("/webhook/"):
            status = await self._webhook(head, reader)
            self.metrics.webhooks.labels(str(status.value)).inc()
            respond(writer, status, b"")
        elif head.method == "GET" and head.path == "/health":
            respond(writer, HTTPStatus.OK, b"ok\n")
        elif head.method == "GET" and head.path == "/metrics":
            respond(writer, HTTPStatus.OK, self.metrics.text())
        else:
            respond(writer, HTTPStatus.NOT_FOUND, b"")
        await writer.drain()

    async def _webhook(self, head: Head, reader: asyncio.StreamReader) -> HTTPStatus:
        if self._webhook_token and not bears(head, self._webhook_token):
            return HTTPStatus.UNAUTHORIZED
        try:
            room = bytes.fromhex(head.path.removeprefix("/webhook/"))
            length = int(head.headers.get("content-length", ""))
        except ValueError:
            return HTTPStatus.BAD_REQUEST
        if len(room) != KEY_SIZE:
            return HTTPStatus.BAD_REQUEST
        if not 0 <= length <= self.limits.webhook_bytes:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        try:
            body = await reader.readexactly(length)
            told = entries_in(body)
            if address := subscription_of(body):
                log.warning("To let this topic post here, open %s", address)
        except FormatError:
            return HTTPStatus.BAD_REQUEST
        if told:
            self.rooms.look(room)
        return HTTPStatus.NO_CONTENT
