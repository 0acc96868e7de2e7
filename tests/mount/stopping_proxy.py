"""A TCP proxy that stops forwarding when it is told to, as a store does that has died quietly.

Connections stay open and new ones are taken; nothing comes back. One thread owns everything.
"""

from __future__ import annotations

import selectors
import socket
import threading

__all__ = ["StoppingProxy"]

PIECE = 1 << 16
WAITING_MAX = 1 << 20
"""Bytes held for a peer that does not take them before its other side is not read any more."""


class _Side:
    """One socket of a pair, and what waits to be sent into it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.waiting = bytearray()
        self.other: _Side = self


class StoppingProxy:
    """Forwards to a port of this machine until `close`. `stop` and `go_on` from any thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._going = threading.Event()
        self._going.set()
        self._ended = threading.Event()
        self._sides: list[_Side] = []
        self._thread = threading.Thread(target=self._run, name="stopping-proxy")
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    def close(self) -> None:
        self._ended.set()
        self._going.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._ended.is_set():
                if not self._going.wait(0.1):
                    continue
                for side in self._sides:
                    events = selectors.EVENT_WRITE if side.waiting else 0
                    if len(side.other.waiting) < WAITING_MAX:
                        events |= selectors.EVENT_READ
                    _watch(selector, side, events)
                for key, events in selector.select(0.02):
                    if key.data is None:
                        self._accept()
                    elif self._going.is_set() and not _forward(key.data, events):
                        self._drop(selector, key.data)
        for side in self._sides:
            side.socket.close()
        self._listener.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._port), 5)
        except OSError:
            client.close()
            return
        near, far = _Side(client), _Side(server)
        near.other, far.other = far, near
        self._sides += [near, far]

    def _drop(self, selector: selectors.BaseSelector, side: _Side) -> None:
        for each in (side, side.other):
            if each in self._sides:
                _watch(selector, each, 0)
                self._sides.remove(each)
                each.socket.close()


def _watch(selector: selectors.BaseSelector, side: _Side, events: int) -> None:
    known = selector.get_map().get(side.socket)
    if known is None and events:
        selector.register(side.socket, events, side)
    elif known is not None and not events:
        selector.unregister(side.socket)
    elif known is not None and known.events != events:
        selector.modify(side.socket, events, side)


def _forward(side: _Side, events: int) -> bool:
    """False: the pair is to be closed."""
    try:
        if events & selectors.EVENT_READ:
            data = side.socket.recv(PIECE)
            if not data:
                return False
            side.other.waiting += data
        if events & selectors.EVENT_WRITE and side.waiting:
            del side.waiting[: side.socket.send(side.waiting)]
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True
