"""Hubs for clients that block: a real one in a thread, and one that does what a test tells it."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from lucid.crypto.member import MemberKeys
from lucid.crypto.room import Room
from lucid.format.hub import WELCOME, Challenge, encode_frame
from lucid.hub.limits import Limits
from lucid.hub.server import Hub
from lucid.sync.hub_link import HubLink, Identity, Log
from lucid.sync.presence import Devices
from lucid.types import SystemClock, SystemEntropy
from tests.hub.hubs import make_member, make_room

WAIT_S = 15.0

Script = Callable[[ServerConnection], Coroutine[Any, Any, None]]


class Loop:
    """An asyncio loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-loop")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def loop() -> Iterator[Loop]:
    made = Loop()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def real_hub(
    limits: Limits | None = None, tls: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[str]:
    """The address of a hub."""
    with loop() as running:
        hub = Hub(limits)
        _, port = running.run(hub.start("localhost" if tls else "127.0.0.1", port, tls))
        try:
            yield f"wss://localhost:{port}" if tls else f"ws://127.0.0.1:{port}"
        finally:
            running.run(hub.close())


@contextmanager
def rogue(script: Script, port: int = 0) -> Iterator[str]:
    """The address of a hub that does with each connection what the script says."""

    async def handle(connection: ServerConnection) -> None:
        try:
            await script(connection)
        except ConnectionClosed:
            return

    async def begin() -> Server:
        return await serve(handle, "127.0.0.1", port, max_size=None)

    async def end(server: Server) -> None:
        server.close()
        await server.wait_closed()

    with loop() as running:
        server = running.run(begin())
        try:
            yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        finally:
            running.run(end(server))


async def let_in(connection: ServerConnection) -> None:
    """Challenge and welcome, whatever the answer."""
    await connection.send(encode_frame(Challenge(1, bytes(32))))
    await connection.recv()
    await connection.send(encode_frame(WELCOME))


class Machine:
    """A link with a log of its own: a number that `look` counts looks at."""

    def __init__(self, url: str, member: MemberKeys, known: dict[bytes, bytes], room: Room) -> None:
        self.head = 1
        self.looks = 0
        self.hashes: dict[int, bytes] = {}
        self.forks: list[int] = []
        self.looked = threading.Condition()
        self.written: tuple[tuple[bytes, ...], int] = ((), 0)
        device = SystemEntropy(16)
        self.devices = Devices(device, lambda _: None, SystemClock())
        self.link = HubLink(
            url,
            room=room,
            identity=Identity(member, device, 0, b"device"),
            log=Log(lambda: self.head, self._look, known.get, self.hashes.get, self.forks.append),
            devices=self.devices,
            writing=lambda: self.written,
            clock=SystemClock(),
            entropy=SystemEntropy,
            pause=random.Random(1),
        )
        self.link.start()

    def _look(self) -> None:
        with self.looked:
            self.looks += 1
            self.looked.notify_all()

    def wait_looks(self, count: int) -> None:
        with self.looked:
            assert self.looked.wait_for(lambda: self.looks >= count, WAIT_S), self.link.problem


@contextmanager
def machines(url: str, count: int = 1) -> Iterator[list[Machine]]:
    """Machines of one filespace, each another member's."""
    members = [make_member(number + 1) for number in range(count)]
    known = {member.member: member.sign_key for member in members}
    made = [Machine(url, member, known, make_room()) for member in members]
    try:
        yield made
    finally:
        for machine in made:
            machine.link.close()
