"""How one open filespace hears of others and is heard: its link to a hub, the feed of changes,
and waiting for a moment that another machine has named."""

from __future__ import annotations

import logging
import os
import random
import socket
from typing import TYPE_CHECKING, Any

from lucid.config import Config
from lucid.errors import HistoryFork, Stopped, TimedOut, UsageError
from lucid.filespace.changes import changes_in, path_of
from lucid.filespace.surface import Change
from lucid.format.entry import EntryBody
from lucid.format.hub import PATHS_MAX
from lucid.format.limits import ID_SIZE, LABEL_MAX
from lucid.format.ops import Take
from lucid.format.token import parse_token
from lucid.sync.feed import Feed
from lucid.sync.presence import Devices, Seen
from lucid.types import Clock, Entropy

if TYPE_CHECKING:
    from lucid.filespace.opening import Opened
    from lucid.sync.hub_link import HubLink

__all__ = ["Together"]

log = logging.getLogger(__name__)

WRITING_MAX = 1000
"""Files open for writing that are counted."""


class Together:
    """See the module. Made by composing, before the sync thread runs; any thread asks."""

    def __init__(
        self, opened: Opened, config: Config, clock: Clock, entropy: Entropy, generation: bytes
    ) -> None:
        """Raises ConfigError for the address of a hub."""
        self._opened, self._config, self._clock = opened, config, clock
        self.feed = Feed(clock, opened.parts.replica.head().sequence)
        self.link: HubLink | None = None
        if config.hub:
            self.link = self._make_link(config.hub, entropy, generation)

    def _make_link(self, url: str, entropy: Entropy, generation: bytes) -> HubLink:
        # Loads a WebSocket library, which who has no hub need not wait for.
        from lucid.crypto.room import Room
        from lucid.sync.hub_link import HubLink, Identity, Log

        opened, replica = self._opened, self._opened.parts.replica

        def member_of(session: int) -> bytes | None:
            row = replica.session(session)
            return None if row is None else row.member

        def sign_key_of(member: bytes) -> bytes | None:
            row = replica.member(member)
            return None if row is None else row.sign_key

        device = entropy(ID_SIZE)
        return HubLink(
            url,
            room=Room(opened.ring, generation),
            identity=Identity(opened.unlocked.keys, device, opened.session, _label()),
            log=Log(
                head=lambda: replica.head().sequence,
                look=lambda: opened.committer.poke(),
                sign_key=sign_key_of,
                entry_hash=replica.entry_hash,
                forked=self._forked,
            ),
            devices=Devices(device, member_of, self._clock),
            writing=self._writing,
            clock=self._clock,
            entropy=entropy,
            pause=random.Random(entropy(8)),
        )

    def begin(self) -> None:
        """Ties it to the committer, which does not run yet, and starts the link."""
        committer, link = self._opened.committer, self.link
        committer.folded = self._folded
        if link is not None:
            committer.won = link.won
            committer.is_told = lambda: link.covers
            link.start()

    def close(self) -> None:
        """Ends waits and the link. Idempotent."""
        self.feed.close()
        if self.link is not None:
            self.link.close()

    # -- changes and moments

    def changes(self, after: int, wait_s: float) -> tuple[list[Change], int, bool]:
        """(changes, where to go on, whether some were missed) after entry `after`; 0: from now on.

        Returns as soon as there are some, at most after `wait_s`. Raises Stopped.
        """
        parts = self._opened.parts
        batch = self.feed.after(after, wait_s)
        if self.feed.is_closed:
            raise Stopped("The drive is being closed.")
        return changes_in(parts, batch.entries), batch.next, batch.missed

    def wait(self, token: str, timeout_s: float) -> int:
        """Returns the head when this filespace shows all that it had where the token was made.

        Raises UsageError for another filespace's token, TimedOut, HistoryFork, Stopped.
        """
        filespace, sequence, digest = parse_token(token)
        opened, replica = self._opened, self._opened.parts.replica
        if not opened.unlocked.superblock.filespace.hex().startswith(filespace):
            raise UsageError("The token is of another filespace.")
        end = self._clock.monotonic() + timeout_s
        look_at = 0.0
        while (head := self.feed.head) < sequence:
            now = self._clock.monotonic()
            if self.feed.is_closed:
                raise Stopped("The drive is being closed.")
            if now >= end:
                raise TimedOut(f"Entry {sequence} is not here in time; the head is {head}.")
            if now >= look_at:
                look_at = now + self._config.poll_fast_s
                opened.committer.poke()
            self.feed.wait(min(end, look_at) - now)
        found = replica.entry_hash(sequence)
        if found is not None and not found.hex().startswith(digest):
            raise HistoryFork(
                f"Entry {sequence} is another one here than where the token was made: the store"
                " shows two histories."
            )
        return head

    def leases(self) -> list[dict[str, Any]]:
        """Every lease of the filespace and every wish for one, as plain data."""
        parts, found = self._opened.parts, []
        for ino, who, has in self._opened.leases.table():
            session = parts.replica.session(who.session)
            member = None if session is None else parts.replica.member(session.member)
            found.append(
                {
                    "path": os.fsdecode(path_of(parts, ino) or b""),
                    "inode": ino,
                    "member": "" if member is None else member.label.decode("utf-8", "replace"),
                    "device": who.device,
                    "session": who.session,
                    "mode": who.mode.name.lower(),
                    "state": "held" if has else "waiting",
                    "since_ns": who.since_ns,
                    "here": who.session == self._opened.session,
                }
            )
        return found

    def path(self, ino: int) -> bytes | None:
        """A path of an inode; None if it has no name."""
        return path_of(self._opened.parts, ino)

    # -- for status

    def hub_status(self) -> dict[str, Any] | None:
        """Plain data on the link; None without one."""
        link = self.link
        if link is None:
            return None
        return {
            "url": link.url,
            "connected": link.connected,
            "problem": link.problem,
            "connections": link.connections,
            "hints": link.hints,
            "refused": link.refused,
            "room": link.room.name.hex(),
        }

    def devices(self) -> tuple[dict[str, Any], ...]:
        """The other devices that are there, as plain data."""
        return tuple(map(self._shown, self.link.devices.there())) if self.link else ()

    def _shown(self, seen: Seen) -> dict[str, Any]:
        row = self._opened.parts.replica.member(seen.member)
        presence = seen.presence
        return {
            "member": "" if row is None else row.label.decode("utf-8", "replace"),
            "device": presence.label.decode("utf-8", "replace"),
            "session": presence.session,
            "age_s": round(seen.age_s, 1),
            "writing": [path.decode("utf-8", "backslashreplace") for path in presence.paths],
            "more": presence.more,
        }

    # -- for the link

    def _writing(self) -> tuple[tuple[bytes, ...], int]:
        """Paths that are open for writing here, and how many more there are."""
        parts = self._opened.parts
        inodes = sorted(self._opened.files.written_inodes())[:WRITING_MAX]
        paths = [path_of(parts, ino) for ino in inodes[:PATHS_MAX]]
        return tuple(path for path in paths if path), max(0, len(inodes) - PATHS_MAX)

    def _forked(self, sequence: int) -> None:
        """The store shows this device another entry than its author has put: writing stops."""
        error = HistoryFork(
            f"Entry {sequence} of the log is another one here than where it was written: the store"
            " shows two histories. Compare lucid status on both machines."
        )
        log.error("Writing stops: %s", error)
        self._opened.parts.order.stop(error)

    def _folded(self, sequence: int, body: EntryBody, own: bool) -> None:
        self.feed.put(sequence, body)
        self._opened.leases.folded(sequence, body, own)
        if own:
            self._opened.parts.undone.settled(self._opened.parts.replica, body.ops)
        leases = self._opened.files.leases
        if leases is not None and not own:
            for op in body.ops:
                if isinstance(op, Take):
                    leases.heard(op.ino)
        if self.link is not None and not own:
            self.link.folded(sequence)


def _label() -> bytes:
    """This machine's name, as the label of a device may be."""
    name = socket.gethostname().encode("utf-8", "replace")[:LABEL_MAX]
    return bytes(sign if 0x20 < sign < 0x7F and sign != 0x2F else 0x2D for sign in name) or b"-"
