"""A hub in an asyncio loop of the test's own, and devices that speak to it by another library's
client. Also a hub in a thread, for clients that block, and hubs that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys
from lucid.crypto.room import Room
from lucid.format.hub import (
    Challenge,
    Frame,
    Hint,
    Look,
    Sealed,
    Welcome,
    decode_frame,
    encode_frame,
    encode_hint,
)
from lucid.hub.limits import Limits
from lucid.hub.server import Hub

FILESPACE, GENERATION = b"f" * 16, b"g" * 16
WAIT_S = 10.0


def numbers(seed: int) -> Callable[[int], bytes]:
    """Bytes that differ from call to call, and are the same in each run."""
    state = seed

    def take(size: int) -> bytes:
        nonlocal state
        state += 1
        return (state.to_bytes(8, "big") * (size // 8 + 1))[:size]

    return take


def make_room(key: bytes = b"k" * 32) -> Room:
    ring = KeyRing(FILESPACE, 1)
    ring.add(GENERATION, key)
    return Room(ring, GENERATION)


def make_member(seed: int = 1) -> MemberKeys:
    return MemberKeys.create(numbers(1000 * seed))


def hint(sequence: int = 1) -> bytes:
    return encode_hint(Hint(0, sequence, b"h" * 32))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test in a loop of its own, not for ever."""
    asyncio.run(asyncio.wait_for(test(), 6 * WAIT_S))


@asynccontextmanager
async def hub(limits: Limits | None = None, **more: Any) -> AsyncIterator[tuple[Hub, str]]:
    """A hub and its address; `host:port`."""
    made = Hub(limits, entropy=numbers(7), **more)
    host, port = await made.start("127.0.0.1", 0)
    try:
        yield made, f"{host}:{port}"
    finally:
        await made.close()


@asynccontextmanager
async def client(address: str, **more: Any) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://{address}/", proxy=None, max_queue=None, **more) as connection:
        yield connection


async def hear(connection: ClientConnection) -> Frame:
    data = await asyncio.wait_for(connection.recv(), WAIT_S)
    assert isinstance(data, bytes)
    return decode_frame(data)


async def enter(connection: ClientConnection, room: Room) -> None:
    """Answers the challenge as a device does."""
    challenge = await hear(connection)
    assert isinstance(challenge, Challenge)
    await connection.send(encode_frame(room.answer(challenge.nonce)))
    assert isinstance(await hear(connection), Welcome)


@asynccontextmanager
async def device(address: str, room: Room) -> AsyncIterator[ClientConnection]:
    """A device in the room."""
    async with client(address) as connection:
        await enter(connection, room)
        yield connection


async def say(connection: ClientConnection, sealed: Sealed) -> None:
    await connection.send(encode_frame(sealed))


async def ends(connection: ClientConnection) -> int:
    """Waits until the hub has ended the connection; the code that it gave."""
    await asyncio.wait_for(connection.wait_closed(), WAIT_S)
    return connection.close_code or 0


async def ask(address: str, request: bytes) -> tuple[int, bytes]:
    """Plain HTTP: (status, body)."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, body


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: hub", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


__all__ = [
    "Look", "ask", "client", "device", "ends", "enter", "hear", "hint", "hub", "make_member",
    "make_room", "numbers", "post", "run", "say",
]  # fmt: skip
