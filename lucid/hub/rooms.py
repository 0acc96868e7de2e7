"""Who is in which room, and giving messages to the others. The hub's one thread."""

from __future__ import annotations

import asyncio
from typing import Protocol

from lucid.format.hub import LOOK, encode_frame
from lucid.hub.limits import Limits, Rate

__all__ = ["Backplane", "Member", "Rooms"]


class Member(Protocol):
    """Somebody in a room."""

    def send(self, message: bytes) -> None: ...


class Backplane(Protocol):
    """Carries messages between the processes of one hub."""

    def publish(self, room: bytes, message: bytes) -> None:
        """To the other processes; must not block, may lose it."""
        ...

    def follow(self, room: bytes, wanted: bool) -> None:
        """Somebody is in this room here, or nobody any more."""
        ...


class _Room:
    """One room that somebody is in."""

    def __init__(self, looks: Rate) -> None:
        self.members: set[Member] = set()
        self.looks = looks
        self.later: asyncio.TimerHandle | None = None


class Rooms:
    """All rooms of one process. `backplane` may be set before the first client comes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rooms: dict[bytes, _Room] = {}
        self.backplane: Backplane | None = None

    def __len__(self) -> int:
        return len(self._rooms)

    def enter(self, name: bytes, member: Member) -> str:
        """Empty, or why this cannot be."""
        room = self._rooms.get(name)
        if room is None:
            if len(self._rooms) >= self._limits.rooms:
                return "too many rooms"
            now = asyncio.get_running_loop().time
            room = self._rooms[name] = _Room(Rate(self._limits.looks_per_s, 2.0, now))
            if self.backplane is not None:
                self.backplane.follow(name, True)
        if len(room.members) >= self._limits.per_room:
            return "the room is full"
        room.members.add(member)
        return ""

    def leave(self, name: bytes, member: Member) -> None:
        """Forget a member, and the room with its last one. May be called for who never entered."""
        room = self._rooms.get(name)
        if room is None:
            return
        room.members.discard(member)
        if not room.members:
            if room.later is not None:
                room.later.cancel()
            del self._rooms[name]
            if self.backplane is not None:
                self.backplane.follow(name, False)

    def relay(self, name: bytes, sender: Member, message: bytes) -> int:
        """To all others in the room, here and behind the backplane; how many of them are here."""
        if self.backplane is not None:
            self.backplane.publish(name, message)
        return self.deliver(name, message, sender)

    def deliver(self, name: bytes, message: bytes, sender: Member | None = None) -> int:
        """To all in the room here but the sender."""
        room = self._rooms.get(name)
        others = [] if room is None else [each for each in room.members if each is not sender]
        for member in others:
            member.send(message)
        return len(others)

    def look(self, name: bytes) -> None:
        """The store says that something changed: tell everybody in the room, at a bounded rate."""
        if self.backplane is not None:
            self.backplane.publish(name, encode_frame(LOOK))
        self.look_here(name)

    def look_here(self, name: bytes) -> None:
        """The same in this process. What comes too soon is told once, a little later."""
        room = self._rooms.get(name)
        if room is None or room.later is not None:
            return
        if room.looks.take():
            self.deliver(name, encode_frame(LOOK))
        else:
            loop = asyncio.get_running_loop()
            room.later = loop.call_later(1 / self._limits.looks_per_s, self._look_now, name)

    def _look_now(self, name: bytes) -> None:
        room = self._rooms.get(name)
        if room is not None:
            room.later = None
            self.deliver(name, encode_frame(LOOK))
