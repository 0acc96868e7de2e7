"""The lean hot path: kept-alive connections to one origin, and one exchange at a time on each.

Owns the connections. It knows requests and answers and nothing of S3: s3.py signs the targets and
reads the meaning out of the statuses. Why not boto3 for this: its get_object costs about 2 ms of
CPU under the GIL, and its put_object waits a round trip for `100 Continue`.

Any thread may call. Nothing here logs, and no error text carries a target: it may be signed.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator, Sequence

from lucid.errors import Stopped, StoreError, StoreUnavailable
from lucid.store.connection import Broken, Connection, Response, why
from lucid.store.origin import Origin
from lucid.store.timeouts import Timeouts
from lucid.types import Clock

__all__ = ["HttpPool"]

IDLE_MAX = 16
IDLE_SECONDS_MAX = 30.0
"""Firewalls forget silent connections without a word, and then a request waits for its time-out."""


class HttpPool:
    """Connections to one origin. `_lock` guards the idle ones, the live ones, and `_closed`.

    How many are in use at once is the caller's affair (limit.py); at most IDLE_MAX are kept.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        clock: Clock,
        timeouts: Timeouts | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.origin = origin
        self.clock = clock
        self.timeouts = timeouts or Timeouts()
        self._tls = tls
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._live: set[Connection] = set()
        self._closed = False
        absolute = origin.proxy is not None and not origin.secure
        self._before_target = f"http://{origin.authority}" if absolute else ""
        self._fixed = f"Host: {origin.authority}\r\n"
        if absolute:
            self._fixed += origin.proxy_authorization

    @contextlib.contextmanager
    def exchange(
        self, method: str, target: str, headers: str = "", views: Sequence[memoryview] | None = None
    ) -> Iterator[Response]:
        """Send a request and give its answer; `headers` are whole lines, each with its CR LF.

        Raises StoreUnavailable for whatever the network does, Stopped once closed.
        """
        length = ""
        if views is not None:
            length = f"Content-Length: {sum(len(view) for view in views)}\r\n"
        text = (
            f"{method} {self._before_target}{target} HTTP/1.1\r\n{self._fixed}{headers}{length}\r\n"
        )
        connection, response = self._begin(text.encode("ascii"), views or ())
        try:
            yield response
        except Broken as broken:
            raise self._unavailable(str(broken)) from None
        finally:
            self._put_back(connection, response.is_reusable)

    def tls_context(self) -> ssl.SSLContext:
        """What a connection is wrapped with; made late, as it reads all certificates."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def warm(self) -> None:
        """Open a connection if none is idle. What fails here is left for the request to meet."""
        with self._lock:
            if self._closed or any(connection.is_alive() for connection in self._idle):
                return
        with contextlib.suppress(StoreUnavailable, Stopped):
            self._put_back(self._open(), True)

    def close(self) -> None:
        """Close all connections; running exchanges end with Stopped."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in self._live:
                connection.abort()
        for connection in idle:
            connection.close()

    def _begin(self, head: bytes, views: Sequence[memoryview]) -> tuple[Connection, Response]:
        """Send, and read the answer's head; once more where a kept connection had ended unseen."""
        connection = self._take_idle()
        if connection is not None:
            try:
                return connection, self._ask(connection, head, views)
            except Broken as broken:
                if not broken.clean:
                    raise self._unavailable(str(broken)) from None
        connection = self._open()
        try:
            return connection, self._ask(connection, head, views)
        except Broken as broken:
            raise self._unavailable(str(broken)) from None

    def _ask(self, connection: Connection, head: bytes, views: Sequence[memoryview]) -> Response:
        """Raises Broken with the connection closed."""
        try:
            try:
                connection.send(head, views)
            except Broken as broken:
                # A store that refuses early answers and closes; its answer may still be there.
                if broken.clean:
                    with contextlib.suppress(Broken):
                        return Response(connection, keep=False)
                raise
            return Response(connection)
        except BaseException:
            self._put_back(connection, False)
            raise

    def _take_idle(self) -> Connection | None:
        stale: list[Connection] = []
        found: Connection | None = None
        with self._lock:
            self._raise_if_closed()
            oldest = self.clock.monotonic() - IDLE_SECONDS_MAX
            while self._idle and found is None:
                connection = self._idle.pop()
                if connection.begun >= oldest and connection.is_alive():
                    found = connection
                    self._live.add(connection)
                else:
                    stale.append(connection)
        for connection in stale:
            connection.close()
        return found

    def _open(self) -> Connection:
        with self._lock:
            self._raise_if_closed()
        try:
            connection = Connection(self.origin, self.timeouts, self.clock, self.tls_context)
        except Broken as broken:
            raise self._unavailable(str(broken)) from None
        except ssl.SSLCertVerificationError as error:
            raise StoreUnavailable(
                f"{self.origin.authority} shows a certificate that is not trusted here "
                f"({error.verify_message}). Set AWS_CA_BUNDLE if it is your own."
            ) from None
        except OSError as error:
            raise StoreUnavailable(
                f"The object store at {self.origin.authority} cannot be reached: "
                f"{why(error, self.timeouts)}. Check the network and AWS_ENDPOINT_URL."
            ) from None
        with self._lock:
            self._live.add(connection)
            closed = self._closed
        if closed:
            self._put_back(connection, False)
            raise Stopped("The connection to the store is closed.")
        return connection

    def _put_back(self, connection: Connection, keep: bool) -> None:
        with self._lock:
            self._live.discard(connection)
            keep = keep and not self._closed and len(self._idle) < IDLE_MAX
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    def _unavailable(self, reason: str) -> Stopped | StoreError:
        if self._closed:
            return Stopped("The connection to the store is closed.")
        return StoreUnavailable(
            f"The object store at {self.origin.authority} failed: {reason}. "
            "Check the network, or try later."
        )

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Stopped("The connection to the store is closed.")
