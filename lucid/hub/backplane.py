"""Several processes of one hub: what is said in a room of one is told in the others, by way of
Redis or Valkey. The hub's one thread.

Messages are as sealed there as here. While the backplane is away each process serves its own
clients, and what would have gone through it is lost: polling makes up for that.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from lucid.errors import ConfigError, FormatError
from lucid.format.hub import Look, Sealed, decode_frame
from lucid.hub.metrics import Metrics
from lucid.hub.rooms import Rooms
from lucid.types import Entropy, SystemEntropy

__all__ = ["RedisBackplane"]

log = logging.getLogger(__name__)

PREFIX = b"lucid:room:"
QUEUE_MAX = 10_000
PAUSE_S = 1.0
WAIT_S = 1.0
OWN_SIZE = 16
IDLE = PREFIX + b"none"
"""Followed always: a subscription to nothing cannot be waited for."""


class RedisBackplane:
    """Published and followed by two tasks, which come back after any fault. `close` ends them."""

    def __init__(
        self, url: str, rooms: Rooms, metrics: Metrics, entropy: Entropy = SystemEntropy
    ) -> None:
        """Raises ConfigError. REQUIRES: a running loop."""
        try:
            self._redis = Redis.from_url(
                url, socket_connect_timeout=5, socket_keepalive=True, retry=Retry(NoBackoff(), 0)
            )
        except ValueError:
            raise ConfigError(f"'{url}' is no address of Redis; write redis://host:6379.") from None
        self._rooms, self._metrics = rooms, metrics
        self._own = entropy(OWN_SIZE)
        self._out: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue(QUEUE_MAX)
        self._wanted: set[bytes] = set()
        self._changed = asyncio.Event()
        self._tasks = [asyncio.ensure_future(task()) for task in (self._publish, self._follow)]

    def publish(self, room: bytes, message: bytes) -> None:
        """To the other processes; the oldest are lost where the backplane is too slow."""
        if self._out.full():
            self._out.get_nowait()
        self._out.put_nowait((room, message))

    def follow(self, room: bytes, wanted: bool) -> None:
        if wanted:
            self._wanted.add(room)
        else:
            self._wanted.discard(room)
        self._changed.set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _publish(self) -> None:
        while True:
            room, message = await self._out.get()
            try:
                await self._redis.publish(PREFIX + room, self._own + message)
            except (RedisError, OSError) as error:
                log.warning("The backplane takes nothing: %s", error)
                await asyncio.sleep(PAUSE_S)
                while not self._out.empty():  # hints of a second ago are worth nothing
                    self._out.get_nowait()

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_once()
            except (RedisError, OSError) as error:
                log.warning("The backplane is away: %s", error)
            self._metrics.backplane.set(0)
            await asyncio.sleep(PAUSE_S)

    async def _follow_once(self) -> None:
        followed: set[bytes] = set()
        async with self._redis.pubsub(ignore_subscribe_messages=True) as listening:
            await listening.subscribe(IDLE)
            self._metrics.backplane.set(1)
            self._changed.set()
            while True:
                if self._changed.is_set():
                    self._changed.clear()
                    wanted = set(self._wanted)
                    if new := wanted - followed:
                        await listening.subscribe(*(PREFIX + room for room in new))
                    if old := followed - wanted:
                        await listening.unsubscribe(*(PREFIX + room for room in old))
                    followed = wanted
                message = await listening.get_message(timeout=0.05)
                if message is not None:
                    self._heard(message["channel"], message["data"])

    def _heard(self, channel: bytes, data: bytes) -> None:
        """What another process published; our own comes back too."""
        if data[:OWN_SIZE] == self._own:
            return
        room, message = channel[len(PREFIX) :], data[OWN_SIZE:]
        try:
            frame = decode_frame(message)
        except FormatError:
            return
        if isinstance(frame, Look):
            self._rooms.look_here(room)
        elif isinstance(frame, Sealed):
            self._metrics.relayed.inc(self._rooms.deliver(room, message))
