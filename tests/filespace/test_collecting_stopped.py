"""A collection that is stopped at each of its calls that change the store, before and after it
took effect (S-605): nothing is wrong then, and the next one does the rest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from lucid.errors import LucidError, StoreUnavailable
from lucid.filespace.fsck import check
from lucid.store.base import Body
from lucid.store.memory import Bucket, MemoryStore
from tests.filespace.checkpoints import EVERY, connect, write_until
from tests.filespace.spaces import PASSPHRASE, Space, some_bytes
from tests.filespace.test_collecting import age, gc, rewrite

MOST = 200
"""Calls that a collection of this size never makes."""


class Stopping(MemoryStore):
    """Goes away at its call number `at` that changes something: before it, or just after."""

    def __init__(self, bucket: Bucket, at: int, after: bool) -> None:
        super().__init__(bucket)
        self._left = at
        self._after = after

    def put_if_absent(self, key: str, body: Body) -> None:
        self._call(lambda: super(Stopping, self).put_if_absent(key, body))

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self._call(lambda key=key: super(Stopping, self).delete([key]))

    def _call(self, work: object) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise StoreUnavailable("The store went away.")
        assert callable(work)
        work()
        if self._left == 0:
            raise StoreUnavailable("The store went away.")


def copy_of(bucket: Bucket) -> Bucket:
    copied = Bucket()
    copied.objects = dict(bucket.objects)
    copied.keys = sorted(copied.objects)
    return copied


def ready(space: Space) -> None:
    """Something of each kind can go; the checkpoint that is needed is not there yet."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", *range(1, EVERY + 6))
    age(space, 8)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_stopped_at_each_call(space: Space, tmp_path: Path, after: bool) -> None:
    ready(space)
    kinds = set()
    for at in range(1, MOST):
        place = Space(tmp_path / str(at), copy_of(space.bucket))
        try:
            gc(place, store=Stopping(place.bucket, at, after), delete=True)
            break
        except LucidError as error:
            assert "went away" in str(error)
        kinds.update(
            key.partition("/")[0] for key in set(space.bucket.keys) ^ set(place.bucket.keys)
        )
        found = check("memory://team", PASSPHRASE, store=MemoryStore(place.bucket))
        assert not found.problems, (at, found.problems)
        gc(place, delete=True)
        assert gc(place, delete=True).freed_objects == 0
        found = check("memory://team", PASSPHRASE, store=MemoryStore(place.bucket), read_data=True)
        assert not found.problems, (at, found.problems)
        assert found.first_entry > EVERY
    else:
        pytest.fail("It makes more calls than that.")
    assert kinds >= {"log", "data", "checkpoint", "floor"}
    with connect(place, "new") as fs:
        assert fs.read_bytes("/plan") == some_bytes(EVERY + 5, 5000)
        write_until(fs, 3 * EVERY)
