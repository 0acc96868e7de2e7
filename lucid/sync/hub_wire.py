"""The wire to a hub: a WebSocket of one thread, every wait of which can be ended from outside.

Bytes come in bounded pieces and wait in bounded buffers. What is said over it is `hub_link`'s.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Callable

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import CONNECTING, OPEN
from websockets.uri import WebSocketURI, parse_uri

from lucid.errors import ConfigError
from lucid.format.hub import HUB_MESSAGE_MAX

__all__ = ["HubGone", "Wake", "Wire", "parse_hub"]

READ_BYTES = 65_536
UNSENT_MAX = 256 << 10
MESSAGES_MAX = 1000
"""Of one piece of READ_BYTES; whoever sends more in it floods."""


class HubGone(Exception):
    """The connection has ended. `code` is the hub's, 0 where it gave none."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class Wake:
    """Ends a wait of the wire's thread. Any thread may call `set`; `close` when all is over."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.fd)


def parse_hub(url: str) -> WebSocketURI:
    """Where a hub is. Raises ConfigError."""
    try:
        return parse_uri(url)
    except InvalidURI:
        raise ConfigError(f"'{url}' is no hub; write wss://host or ws://host:port.") from None


def _why(error: OSError | WebSocketException) -> str:
    """What went wrong, without numbers of errors and places in a library."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"Its certificate is not accepted: {error.verify_message}."
    if isinstance(error, socket.gaierror):
        return "Its address is not found."
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


class Wire:
    """One connection. `open` it, then `send` and `receive` from one thread, then `close`."""

    def __init__(
        self, url: str, wake: Wake, is_closing: Callable[[], bool], now: Callable[[], float]
    ) -> None:
        self._uri = parse_hub(url)
        self._wake, self._is_closing, self._now = wake, is_closing, now
        self._socket: socket.socket | None = None
        self._protocol = ClientProtocol(self._uri, max_size=HUB_MESSAGE_MAX)
        self._unsent = bytearray()
        self._early: list[Frame] = []
        """What came together with the end of the handshake."""

    def open(self, timeout_s: float) -> None:
        """Connects, with TLS where the address says so, up to the end of the handshake.

        Raises HubGone.
        """
        until = self._now() + timeout_s
        try:
            self._connect(until)
            self._protocol.send_request(self._protocol.connect())
            while self._protocol.state is CONNECTING:
                self._early += self._exchange(until - self._now())[0]
                if self._protocol.handshake_exc is not None:
                    raise HubGone(f"It is no hub: {self._protocol.handshake_exc}.")
                if self._now() >= until:
                    raise HubGone("It does not answer.")
        except (OSError, WebSocketException) as error:
            raise HubGone(_why(error)) from None

    def send(self, message: bytes) -> None:
        """Queues a message; `receive` sends it. Raises HubGone for a hub that takes nothing."""
        if self._protocol.state is OPEN:
            self._protocol.send_binary(message)
        if len(self._unsent) > UNSENT_MAX:
            raise HubGone("It takes no more messages.")

    def ping(self) -> None:
        """Asks for a sign of life, which `heard` tells of."""
        if self._protocol.state is OPEN:
            self._protocol.send_ping(b"")

    def receive(self, timeout_s: float) -> tuple[list[bytes], bool]:
        """Messages that came, and whether the hub was heard at all; returns when some came, when
        it was woken, or after `timeout_s`. Raises HubGone."""
        early, self._early = self._early, []
        try:
            frames, heard = self._exchange(0.0 if early else timeout_s)
        except (OSError, WebSocketException) as error:
            raise HubGone(_why(error)) from None
        frames = early + frames
        messages = []
        for frame in frames:
            if frame.opcode is Opcode.BINARY and frame.fin:
                messages.append(bytes(frame.data))
            elif frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                raise HubGone("It speaks another language.")
        if len(frames) > MESSAGES_MAX:
            raise HubGone("It floods.")
        if not messages and self._protocol.state is not OPEN:
            code = self._protocol.close_code or 0
            raise HubGone(self._protocol.close_reason or "It has closed the connection.", code)
        return messages, heard

    def close(self, last: bytes | None = None) -> None:
        """Says good-bye as far as that goes without waiting, and ends."""
        if self._socket is None:
            return
        try:
            if self._protocol.state is OPEN:
                if last is not None:
                    self._protocol.send_binary(last)
                self._protocol.send_close(1000)
                self._write()
        except (OSError, WebSocketException):
            self._unsent.clear()
        self._socket.close()
        self._socket = None

    # -- bytes

    def _connect(self, until: float) -> None:
        found = socket.getaddrinfo(self._uri.host, self._uri.port, type=socket.SOCK_STREAM)
        error: OSError = OSError("It has no address.")
        for family, kind, number, _, address in found:
            made = socket.socket(family, kind, number)
            made.setblocking(False)
            try:
                made.connect_ex(address)
                self._ready(made, select.POLLOUT, until)
                code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket = self._secured(made, until)
                return
            except OSError as failed:
                made.close()
                error = failed
            except BaseException:
                made.close()
                raise
        raise error

    def _secured(self, made: socket.socket, until: float) -> socket.socket:
        if not self._uri.secure:
            return made
        context = ssl.create_default_context()
        secured = context.wrap_socket(
            made, server_hostname=self._uri.host, do_handshake_on_connect=False
        )
        try:
            while True:
                try:
                    secured.do_handshake()
                    return secured
                except ssl.SSLWantReadError:
                    self._ready(secured, select.POLLIN, until)
                except ssl.SSLWantWriteError:
                    self._ready(secured, select.POLLOUT, until)
        except BaseException:
            secured.close()
            raise

    def _ready(self, made: socket.socket, events: int, until: float) -> None:
        """Waits for a socket that is being made. Raises HubGone, OSError."""
        waiting = select.poll()
        waiting.register(made, events)
        waiting.register(self._wake.fd, select.POLLIN)
        while True:
            if self._is_closing():
                raise HubGone("The drive is being closed.")
            left = until - self._now()
            if left <= 0:
                raise OSError("It does not answer.")
            if any(fd == made.fileno() for fd, _ in waiting.poll(left * 1000)):
                return
            self._wake.clear()

    def _exchange(self, timeout_s: float) -> tuple[list[Frame], bool]:
        """Writes what can be written, waits, reads once: (frames, whether anything came)."""
        assert self._socket is not None
        self._write()
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        waiting.register(self._wake.fd, select.POLLIN)
        # What TLS has decrypted already does not show on the descriptor.
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        waiting.poll(0 if pending else max(0.0, timeout_s) * 1000)
        self._wake.clear()
        if self._is_closing():
            raise HubGone("The drive is being closed.")
        heard = self._read()
        self._write()
        events = self._protocol.events_received()
        return [event for event in events if isinstance(event, Frame)], heard

    def _read(self) -> bool:
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        return True

    def _write(self) -> None:
        assert self._socket is not None
        self._unsent += b"".join(self._protocol.data_to_send())
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._unsent[:sent]
