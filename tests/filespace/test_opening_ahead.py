"""Whoever opens a filespace far from its store does not read the log one entry at a time."""

from __future__ import annotations

import threading

import pytest

from lucid.store.memory import MemoryStore
from tests.filespace.checkpoints import EVERY, SETTINGS, connect, notes, write_until
from tests.filespace.spaces import WAIT_S, Space, open_on, parts_of


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
