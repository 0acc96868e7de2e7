"""Two processes of one hub that share rooms through a real Redis; skips where there is none."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lucid.errors import ConfigError
from lucid.format.hub import KIND_HINT, Look
from lucid.hub.backplane import RedisBackplane
from lucid.hub.limits import Limits
from lucid.hub.metrics import Metrics
from lucid.hub.rooms import Rooms
from lucid.hub.server import Hub
from tests.hub.hubs import (
    ask,
    device,
    hear,
    hint,
    make_member,
    make_room,
    numbers,
    post,
    run,
    say,
)

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
WAIT_S = 15.0
S3 = {
    "Records": [
        {"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "log/0000000000000007"}}}
    ]
}


class Redis:
    """A server of the test's own, which can be killed and come back at its address."""

    def __init__(self, top: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._top = top
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        options = ("--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir", self._top)
        self._process = subprocess.Popen(
            [str(PROGRAM), *map(str, options)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "Ready to accept connections" in line:
                return
        raise AssertionError("redis-server does not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if PROGRAM is None:
        pytest.skip("redis-server is missing")
    server = Redis(tmp_path)
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def process(url: str) -> AsyncIterator[tuple[Hub, str]]:
    """One process of the hub, in this loop."""
    made = Hub(Limits(), entropy=numbers(7))
    backplane = RedisBackplane(url, made.rooms, made.metrics)
    made.use(backplane)
    host, port = await made.start("127.0.0.1", 0)
    try:
        yield made, f"{host}:{port}"
    finally:
        await made.close()
        await backplane.close()


async def until_heard(speaker, listener, message) -> None:  # type: ignore[no-untyped-def]
    """Says it again until it is heard: a subscription takes a moment, and nobody tells of it."""
    for _ in range(200):
        await say(speaker, message)
        try:
            assert await asyncio.wait_for(hear(listener), 0.1) == message
            return
        except asyncio.TimeoutError:
            continue
    raise AssertionError("nothing is heard through the backplane")


def test_rooms_are_shared(redis: Redis) -> None:
    async def test() -> None:
        room, other = make_room(), make_room(b"o" * 32)
        message = room.seal(make_member(), KIND_HINT, hint(3), numbers(1))
        async with (
            process(redis.url) as (_, first),
            process(redis.url) as (_, second),
            device(first, room) as a,
            device(second, room) as b,
            device(second, other) as stranger,
        ):
            await until_heard(a, b, message)
            await until_heard(b, a, message)
            path = f"/webhook/{room.name.hex()}"
            assert (await ask(first, post(path, json.dumps(S3).encode())))[0] == 204
            while not isinstance(await hear(b), Look):
                pass
            while not isinstance(await hear(a), Look):
                pass
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stranger.recv(), 0.1)

    run(test)


def test_without_its_backplane_each_process_serves_its_own(redis: Redis) -> None:
    async def test() -> None:
        room = make_room()
        message = room.seal(make_member(), KIND_HINT, hint(3), numbers(1))
        async with (
            process(redis.url) as (hub, first),
            process(redis.url) as (_, second),
            device(first, room) as a,
            device(first, room) as near,
            device(second, room) as far,
        ):
            await until_heard(a, far, message)
            redis.stop()
            while b"backplane_connected 0.0" not in hub.metrics.text():
                await asyncio.sleep(0.02)
            await until_heard(a, near, message)
            redis.start()
            await until_heard(a, far, message)

    run(test)


def test_it_is_bounded_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr("lucid.hub.backplane.QUEUE_MAX", 10)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        metrics = Metrics()
        backplane = RedisBackplane(f"redis://127.0.0.1:{port}", Rooms(Limits()), metrics)
        for number in range(1000):
            backplane.publish(bytes(32), b"%d" % number)
        assert backplane._out.qsize() == 10
        await backplane.close()
        with pytest.raises(ConfigError):
            RedisBackplane("http://host", Rooms(Limits()), metrics)

    run(test)
