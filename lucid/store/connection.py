"""One HTTP/1.1 connection: a request out, an answer in, its body straight into a caller's buffer.

Owns a socket. It knows no pool, no retry and nothing of S3. A connection belongs to one thread at a
time; only `abort` may come from another. No error text carries a target: it may be signed.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Callable, Sequence

from lucid.store.base import OnData
from lucid.store.origin import Origin
from lucid.store.timeouts import Timeouts
from lucid.types import Clock

__all__ = ["Broken", "Connection", "Response", "why"]

HEAD_SIZE_MAX = 16 << 10
"""Status line and headers of an answer; S3 stays under 2 KiB."""
TEXT_SIZE_MAX = 64 << 10
"""Body of an error answer that is read for its sentence."""
STEP = 128 << 10
"""Bytes for which one call into the kernel waits: one crossing of the GIL, one on_data."""
SLOWEST_RATE = 16 << 10
"""Bytes a second below which a body counts as hung, although single bytes still come."""
SEND_STEP = 1 << 20
"""Bytes sent between two looks at the clock."""
TLS_APPLICATION_DATA = b"\x17"
SMALL_BODY = 16 << 10
"""Up to here head and body leave in one piece, in one packet where they fit."""


class Broken(Exception):
    """The connection failed. `clean` if it ended before a byte of the answer came."""

    def __init__(self, why: str, *, clean: bool = False) -> None:
        super().__init__(why)
        self.clean = clean


class Connection:
    """One socket and what was read ahead of it with a head. Used by one thread at a time."""

    def __init__(
        self, origin: Origin, timeouts: Timeouts, clock: Clock, tls: Callable[[], ssl.SSLContext]
    ) -> None:
        """Connect. Raises OSError (also for TLS) and Broken (the proxy's answer)."""
        self._timeouts = timeouts
        self._clock = clock
        self._receives = 0
        self._head = bytearray(HEAD_SIZE_MAX)
        self._begin = self._end = 0
        self.begun = clock.monotonic()
        """When it was last given something to do; a little before it was idle."""
        self._deadline = self.begun + timeouts.read_s
        self._sock = _connect(origin.proxy or origin, self._timeouts)
        try:
            if origin.secure:
                if origin.proxy is not None:
                    self._adopt()
                    self._tunnel(origin)
                    self._sock.settimeout(self._timeouts.connect_s)
                self._sock = tls().wrap_socket(self._sock, server_hostname=origin.host)
            self._adopt()
        except BaseException:
            self._sock.close()
            raise

    def _adopt(self) -> None:
        self._is_tls = isinstance(self._sock, ssl.SSLSocket)
        if self._is_tls:
            self._sock.settimeout(self._timeouts.read_s)
            return
        # A Python time-out would make the socket non-blocking: a poll before each recv, and no
        # MSG_WAITALL. The kernel's own time-outs leave one call for each step.
        self._sock.settimeout(None)
        limit = _timeval(self._timeouts.read_s)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _tunnel(self, origin: Origin) -> None:
        target = f"{origin.host}:{origin.port}"
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{origin.proxy_authorization}\r\n"
        self.send(head.encode("ascii"), ())
        status, _ = self.read_head()
        if status != 200:
            raise Broken(f"the proxy refused the connection with status {status}")

    def allow(self, size: int) -> None:
        """Let the exchange take as much longer as `size` bytes need on a slow line."""
        self._deadline += size / SLOWEST_RATE

    def send(self, head: bytes, views: Sequence[memoryview]) -> None:
        """Send a request. Raises Broken; an early answer may still be there to read."""
        size = sum(len(view) for view in views)
        self._begin = self._end = 0
        self._receives = 0
        self.begun = self._clock.monotonic()
        self._deadline = self.begun + self._timeouts.read_s + size / SLOWEST_RATE
        if size <= SMALL_BODY:
            self._send_all(b"".join((head, *views)))
            return
        self._send_all(head)
        for view in views:
            for at in range(0, len(view), SEND_STEP):
                self._in_time()
                with view[at : at + SEND_STEP] as step:
                    self._send_all(step)

    def _send_all(self, data: bytes | memoryview) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise self._broken(error) from None

    def _receive(self, view: memoryview, flags: int = 0) -> int:
        # The kernel bounds each wait; only many of them one after the other need the clock.
        self._receives += 1
        if self._receives > 2:
            self._in_time()
        try:
            return self._sock.recv_into(view, 0, 0 if self._is_tls else flags)
        except OSError as error:
            raise self._broken(error) from None

    def _broken(self, error: OSError) -> Broken:
        is_cut = isinstance(error, (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError))
        return Broken(why(error, self._timeouts), clean=is_cut and not self._end)

    def _in_time(self) -> None:
        if self._clock.monotonic() > self._deadline:
            raise Broken("it was too slow")

    def read_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (names in lower case) of the next answer that is not a 1xx."""
        while True:
            end = self._find_head_end()
            text = self._head[self._begin : end].decode("latin-1")
            self._begin = end + 4
            status, headers = _parse_head(text)
            if status >= 200:
                return status, headers

    def _find_head_end(self) -> int:
        while True:
            end = self._head.find(b"\r\n\r\n", self._begin, self._end)
            if end >= 0:
                return end
            if self._end == HEAD_SIZE_MAX:
                raise Broken("the answer's head is too long")
            with memoryview(self._head) as whole, whole[self._end :] as rest:
                got = self._receive(rest)
            if not got:
                raise Broken("the connection was closed", clean=self._end == 0)
            self._end += got

    def read_line(self) -> bytes:
        """A line of the body, without its end; for the sizes of chunks."""
        line = bytearray()
        with memoryview(bytearray(1)) as one:
            while not line.endswith(b"\r\n"):
                if len(line) > 256:
                    raise Broken("the body's framing cannot be read")
                if not self.read_into(one):
                    raise Broken("the connection was closed inside the body")
                line += one
        return bytes(line[:-2])

    def read_into(self, view: memoryview) -> int:
        """Fill `view` as far as one call goes; 0 at the end of the connection."""
        held = min(self._end - self._begin, len(view))
        if held:
            with memoryview(self._head) as whole:
                view[:held] = whole[self._begin : self._begin + held]
            self._begin += held
            return held
        with view[:STEP] as step:
            return self._receive(step, socket.MSG_WAITALL)

    @property
    def is_drained(self) -> bool:
        """Whether nothing is left of what came with the last head."""
        return self._begin == self._end

    def is_alive(self) -> bool:
        """Whether an idle connection still stands. Does not wait."""
        if not _is_readable(self._sock):
            return True
        try:
            # Past the TLS layer on purpose: a pending session ticket is no reason to close.
            ahead = socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        except OSError:
            return False
        return self._is_tls and ahead == TLS_APPLICATION_DATA

    def abort(self) -> None:
        """Wake whoever waits on this socket. May be called by any thread."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()


class Response:
    """An answer whose body is still to be read. Belongs to one `HttpPool.exchange` block."""

    def __init__(self, connection: Connection, *, keep: bool = True) -> None:
        self._connection = connection
        self.status, self.headers = connection.read_head()
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        self.length: int | None = None
        """Bytes of the body, or None if the answer does not tell."""
        if self.status in (204, 304):
            self.length, self._chunked = 0, False
        elif length is not None and not self._chunked:
            if not (length.isascii() and length.isdigit()):
                raise Broken("the answer's length cannot be read")
            self.length = int(length)
        self._left = 0 if self.length is None else self.length
        self._ended = self.length == 0
        self._keep = keep and "close" not in self.headers.get("connection", "").lower()
        connection.allow(self._left)

    def read_into(self, view: memoryview, on_data: OnData | None = None) -> int:
        """Read the body into `view` until it is full or the body ends."""
        got = 0
        while got < len(view) and not self._ended:
            if not self._left and not self._next_part():
                break
            want = min(len(view) - got, self._left) if self._left > 0 else len(view) - got
            with view[got : got + want] as rest:
                count = self._connection.read_into(rest)
            if not count:
                self._end_of_connection()
                break
            got += count
            self._took(count)
            if on_data is not None:
                on_data(got)
        return got

    def read_all(self, size_max: int | None = None) -> bytes:
        """The rest of the body, or its first `size_max` bytes."""
        if self.length is not None:
            size = self._left if size_max is None else min(self._left, size_max)
            buffer = bytearray(size)
            with memoryview(buffer) as view:
                self.read_into(view)
            return bytes(buffer)
        parts = bytearray()
        with memoryview(bytearray(STEP)) as step:
            while (size_max is None or len(parts) < size_max) and (got := self.read_into(step)):
                parts += step[:got]
        return bytes(parts[:size_max])

    def text(self) -> str:
        """The body of an error answer, as far as it is worth reading."""
        return self.read_all(TEXT_SIZE_MAX).decode("utf-8", "replace")

    @property
    def is_reusable(self) -> bool:
        """Whether the connection stands at the beginning of the next answer."""
        return self._ended and self._keep and self._connection.is_drained

    def _next_part(self) -> bool:
        """Go to the next chunk; False at the end. Without framing the body ends with the socket."""
        if not self._chunked:
            self._left = -1
            self._keep = False
            return True
        line = self._connection.read_line()
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError:
            raise Broken("the body's framing cannot be read") from None
        if self._left:
            self._connection.allow(self._left)
            return True
        while self._connection.read_line():
            pass
        self._ended = True
        return False

    def _took(self, count: int) -> None:
        if self._left < 0:
            return
        self._left -= count
        if self._left:
            return
        if self._chunked:
            self._connection.read_line()
        else:
            self._ended = True

    def _end_of_connection(self) -> None:
        if self._left > 0:
            raise Broken("the connection was closed inside the body")
        self._ended = True


def _connect(origin: Origin, timeouts: Timeouts) -> socket.socket:
    sock = socket.create_connection((origin.host, origin.port), timeouts.connect_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _is_readable(sock: socket.socket) -> bool:
    """Whether a read would not wait. Not by MSG_DONTWAIT: with a time-out Python waits before."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def why(error: OSError, timeouts: Timeouts) -> str:
    if isinstance(error, (BlockingIOError, TimeoutError)):
        return f"no answer for {timeouts.read_s:g} s"
    if isinstance(error, ConnectionResetError):
        return "the connection was reset"
    return error.strerror or type(error).__name__


def _parse_head(text: str) -> tuple[int, dict[str, str]]:
    lines = text.split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise Broken("the answer is not HTTP/1.1")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if parts[0] == "HTTP/1.0" and "connection" not in headers:
        headers["connection"] = "close"
    return int(parts[1]), headers
