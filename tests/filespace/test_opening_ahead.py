"""Whoever opens a filespace far from its store does not read the log one entry at a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from lucid.errors import StateForeign, WrongPassphrase
from lucid.filespace import init
from lucid.filespace.founding import change_passphrase
from lucid.format.names import FLOOR_PREFIX, LOG_PREFIX, SUPERBLOCK_KEY, log_key
from lucid.store.base import ObjectInfo
from lucid.store.memory import MemoryStore
from lucid.types import SystemEntropy
from tests.filespace.checkpoints import EVERY, SETTINGS, connect, notes, write_until
from tests.filespace.spaces import (
    PASSPHRASE,
    STRETCH,
    WAIT_S,
    Space,
    open_on,
    parts_of,
)


class InPairs(MemoryStore):
    """Entries from `first` on come only while two are asked for at once."""

    first = 1 << 62

    def __init__(self, *arguments: object, **other: object) -> None:
        super().__init__(*arguments, **other)  # type: ignore[arg-type]
        self.inside = 0
        self.changed = threading.Condition()
        self.together = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if not key.startswith("log/") or int(key[4:], 16) < self.first:
            return super().get(key, start, length)
        with self.changed:
            self.inside += 1
            self.together = max(self.together, self.inside)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.together > 1, WAIT_S)
            self.inside -= 1
        return super().get(key, start, length)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_entries_are_fetched_ahead(space: Space, checkpoints: bool) -> None:
    with connect(space) as fs:
        write_until(fs, 2 * EVERY - 1)
        end = parts_of(fs).replica.head().sequence
    store = InPairs(space.bucket, name="team")
    store.first = EVERY + 4
    settings = {**SETTINGS, "checkpoint_every": EVERY if checkpoints else 0}
    with open_on(store, space.state("b"), **settings) as other:
        assert ("Begun from" in notes(other)) == checkpoints
        assert parts_of(other).replica.head().sequence >= end
        assert store.together > 1


class InGroups(MemoryStore):
    """The requests of a group are answered when all of them are on their way, group after group."""

    def __init__(self, *arguments: object, groups: list[set[str]], **other: object) -> None:
        super().__init__(*arguments, **other)  # type: ignore[arg-type]
        self.groups = groups
        self.asked: list[str] = []
        self.alone: list[str] = []
        self._inside: set[str] = set()
        self._changed = threading.Condition()

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._meet(key)
        return super().get(key, start, length)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        self._meet(prefix)
        return super().list(prefix, start_after, limit)

    def _meet(self, label: str) -> None:
        with self._changed:
            self.asked.append(label)
            group = self.groups[0] if self.groups else set()
            if label not in group:
                return
            self._inside.add(label)
            if self._inside == group:
                self._inside = set()
                self.groups.pop(0)
                self._changed.notify_all()
            elif not self._changed.wait_for(lambda: group not in self.groups, WAIT_S):
                self.alone.append(label)


def test_who_has_been_here_asks_for_what_it_will_need_at_once(space: Space) -> None:
    """Each answer is a round trip away: three groups instead of eight requests in a row."""
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"bytes")
    head = max(int(key[4:], 16) for key in space.bucket.keys if key.startswith("log/"))
    keys = [key for key in space.bucket.keys if key.startswith(("members/", "keys/"))]
    members = {key[: key.rindex("/") + 1] for key in keys if key.startswith("members/")}
    unlocking = {SUPERBLOCK_KEY, *keys, *members}
    assert len(unlocking) == 4
    groups = [unlocking, {FLOOR_PREFIX, log_key(head)}, {FLOOR_PREFIX, LOG_PREFIX}]
    store = InGroups(space.bucket, name="team", groups=groups)
    with open_on(store, space.state("a")) as fs:
        assert fs.read_bytes("/file") == b"bytes"
    assert not store.alone
    assert not store.groups
    counts = Counter(store.asked)
    assert all(counts[label] == 1 for label in unlocking), counts


def test_another_filespace_is_found_though_its_keys_were_asked_for(space: Space) -> None:
    """What was asked ahead by what this device knows is no answer to what another one needs."""
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"bytes")
    other = MemoryStore(name="team")
    init(other.url, passphrase=PASSPHRASE, stretch=STRETCH, store=other)
    with pytest.raises(StateForeign):
        open_on(other, space.state("a"))
    with space.connect("a") as fs:
        assert fs.read_bytes("/file") == b"bytes"


def test_a_passphrase_that_was_changed_elsewhere(space: Space) -> None:
    """The newest record counts, not the one that this device knows and asked for."""
    with space.connect("a"):
        pass
    store = space.store("b")
    change_passphrase(store, PASSPHRASE, lambda: "another", entropy=SystemEntropy, stretch=STRETCH)
    with pytest.raises(WrongPassphrase):
        space.connect("a")
    with open_on(space.store("a"), space.state("a"), passphrase="another") as fs:
        assert fs.listdir("/") == []
