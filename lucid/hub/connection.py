"""One client of the hub: its WebSocket, on asyncio's streams. Used by the hub's one thread.

The protocol's rules are the library's; what may wait in memory, and for how long, is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from lucid.format.hub import HUB_MESSAGE_MAX
from lucid.hub.limits import Limits, Rate

__all__ = ["GOING_AWAY", "POLICY", "RESTART", "TRY_LATER", "Connection"]

# Close codes of RFC 6455 and its registry.
GOING_AWAY = 1001
POLICY = 1008
RESTART = 1012
TRY_LATER = 1013

READ_BYTES = 65_536


class Connection:
    """A WebSocket whose head was read already. `receive` until None, then forget it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: Limits,
        now: Callable[[], float],
    ) -> None:
        self._reader, self._writer, self._limits, self._now = reader, writer, limits, now
        # No page of a browser has business here: whoever sends an Origin is refused.
        self._protocol = ServerProtocol(origins=[None], max_size=HUB_MESSAGE_MAX)
        self._rate = Rate(limits.messages_per_s, limits.messages_burst, now)
        self._heard = now()
        self._waiting: list[bytes] = []
        self._is_over = False
        self.cut = ""
        """Why the hub has ended it; empty when it did not."""

    def accept(self, head: bytes) -> bool:
        """The opening handshake. False: it was refused, and told so."""
        self._protocol.receive_data(head)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
                self._flush()
        return self._protocol.state is OPEN

    async def receive(self) -> bytes | None:
        """The next message; None when the connection has ended, or was cut."""
        while not self._waiting:
            if self._is_over:
                return None
            try:
                data = await asyncio.wait_for(
                    self._reader.read(READ_BYTES), self._limits.quiet_s / 3
                )
            except asyncio.TimeoutError:
                if not self._is_there():
                    return None
                continue
            except OSError:
                return None
            self._is_over = not self._take(data)
        return self._waiting.pop(0)

    def send(self, message: bytes) -> None:
        """Sends, or cuts off a client that does not read."""
        if self._protocol.state is OPEN:
            self._protocol.send_binary(message)
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Says why, and ends it; the client need not answer."""
        self.cut = self.cut or reason
        with suppress(WebSocketException):
            if self._protocol.state is OPEN:
                self._protocol.send_close(code, reason)
        self._flush()
        self._writer.close()

    def _is_there(self) -> bool:
        """Nothing came for a while: ask, and give up after quiet_s."""
        if self._now() - self._heard >= self._limits.quiet_s:
            self.cut = "quiet"
            self._writer.transport.abort()
            return False
        if self._protocol.state is OPEN:
            self._protocol.send_ping(b"")
            self._flush()
        return True

    def _take(self, data: bytes) -> bool:
        """What the client sent. False: nothing will come any more."""
        if self.cut:
            return False
        self._heard = self._now()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and not self._take_frame(event):
                return False
        self._flush()
        return bool(data) and not self._protocol.close_expected()

    def _take_frame(self, frame: Frame) -> bool:
        if not self._rate.take():
            self.close(POLICY, "too many messages")
            return False
        if frame.opcode is Opcode.BINARY and frame.fin:
            self._waiting.append(bytes(frame.data))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self.close(POLICY, "not in the format")
            return False
        return True

    def _flush(self) -> None:
        """Gives to the transport what the protocol wants to send."""
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
            elif self._writer.can_write_eof():
                with suppress(OSError):
                    self._writer.write_eof()
        if self._writer.transport.get_write_buffer_size() > self._limits.backlog_bytes:
            self.cut = "reads too slowly"
            self._writer.transport.abort()
