"""The pool of opened blocks against an OrderedDict, and what an export protects."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lucid.engine.pool import Pool, PooledBlock
from tests.engine.rig import BLOCK, EXAMPLES

SLOT_BITS = 22


def token(slot: int, serial: int = 1) -> int:
    return serial << SLOT_BITS | slot


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK])
def test_what_is_put_is_got(length: int) -> None:
    pool = Pool(BLOCK, 2 * BLOCK)
    data = bytes(range(256)) * (BLOCK // 256)
    assert pool.put(token(1), 5, data[:length])
    got = pool.get(token(1), 5)
    assert got is not None
    assert len(got) == length
    assert bytes(got) == data[:length]
    assert memoryview(got).readonly
    assert pool.get(token(1), 6) is None
    assert pool.get(token(2), 5) is None
    # A new tenant of the slot number is someone else.
    assert pool.get(token(1, 2), 5) is None


def test_a_block_too_long_and_a_bad_size_are_refused() -> None:
    pool = Pool(BLOCK, 2 * BLOCK)
    with pytest.raises(ValueError, match="more than a block"):
        pool.put(token(1), 0, bytes(BLOCK + 1))
    with pytest.raises(BufferError):
        pool.put(token(1), 0, memoryview(bytes(8))[::2])
    for block_size, arena in [(BLOCK, BLOCK - 1), (BLOCK - 1, BLOCK), (2**21, 2**24), (BLOCK, 0)]:
        with pytest.raises(ValueError, match="block"):
            Pool(block_size, arena)
    with pytest.raises(TypeError):
        PooledBlock()


def test_an_exported_block_is_never_reused() -> None:
    pool = Pool(BLOCK, 2 * BLOCK)
    assert pool.put(token(1), 0, b"one")
    kept = pool.get(token(1), 0)
    assert kept is not None
    view = memoryview(kept)
    del kept
    assert pool.put(token(1), 1, b"two")
    assert pool.put(token(1), 2, b"six")
    assert bytes(view) == b"one"
    assert pool.stats()["pinned"] == 1
    other = pool.get(token(1), 2)
    # Both frames are in use now.
    assert not pool.put(token(1), 3, b"ten")
    assert pool.drop(1) == 2
    assert bytes(view) == b"one"
    assert pool.get(token(1), 0) is None
    del other
    assert pool.put(token(1), 0, b"new")
    assert bytes(view) == b"one"
    view.release()
    assert pool.stats()["pinned"] == 0
    assert pool.put(token(1), 9, b"two")
    again = pool.get(token(1), 0)
    assert again is not None
    assert bytes(again) == b"new"


def test_a_block_that_is_there_is_not_put_twice() -> None:
    pool = Pool(BLOCK, 2 * BLOCK)
    assert pool.put(token(1), 0, b"one")
    assert not pool.put(token(1), 0, b"two")
    got = pool.get(token(1), 0)
    assert got is not None
    assert bytes(got) == b"one"


class PoolWalk(RuleBasedStateMachine):
    """Least recently used first out, pinned ones excepted."""

    FRAMES = 4

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(BLOCK, self.FRAMES * BLOCK)
        # Oldest first.  A pinned block is in `pinned`, too, once for each pin.
        self.model: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self.pinned: list[tuple[tuple[int, int], bytes, PooledBlock]] = []
        self.doomed = 0

    def pins_of(self, key: tuple[int, int]) -> int:
        return sum(key == other and self.model.get(key) is data for other, data, _ in self.pinned)

    def frames_out(self) -> int:
        return len({id(data) for _, data, _ in self.pinned})

    @rule(slot=st.integers(0, 2), ordinal=st.integers(0, 3), data=st.binary(max_size=8))
    def put(self, slot: int, ordinal: int, data: bytes) -> None:
        key = (slot, ordinal)
        data = bytes(bytearray(data))  # An object of its own, so that `is` tells tenants apart.
        idle = [other for other in self.model if self.pins_of(other) == 0]
        orphans = {id(held) for other, held, _ in self.pinned if self.model.get(other) is not held}
        free = self.FRAMES - len(self.model) - len(orphans)
        expected = key not in self.model and (free > 0 or bool(idle))
        assert self.pool.put(token(slot), ordinal, data) == expected
        if expected:
            if free == 0:
                del self.model[idle[0]]
            self.model[key] = data

    @rule(slot=st.integers(0, 2), ordinal=st.integers(0, 3), keep=st.booleans())
    def get(self, slot: int, ordinal: int, keep: bool) -> None:
        key = (slot, ordinal)
        got = self.pool.get(token(slot), ordinal)
        assert (got is not None) == (key in self.model)
        if got is None:
            return
        assert bytes(got) == self.model[key]
        if keep:
            self.pinned.append((key, self.model[key], got))
        elif self.pins_of(key) == 0:
            self.model.move_to_end(key)

    @rule(which=st.integers(0, 20))
    def unpin(self, which: int) -> None:
        if not self.pinned:
            return
        key, data, block = self.pinned.pop(which % len(self.pinned))
        assert bytes(block) == data
        del block
        if self.model.get(key) is data and self.pins_of(key) == 0:
            self.model.move_to_end(key)

    @rule(slot=st.integers(0, 2))
    def drop(self, slot: int) -> None:
        keys = [key for key in self.model if key[0] == slot]
        assert self.pool.drop(slot) == len(keys)
        for key in keys:
            del self.model[key]

    @invariant()
    def counts_are_equal(self) -> None:
        stats = self.pool.stats()
        assert stats["used"] == len(self.model)
        assert stats["pinned"] == self.frames_out()

    def teardown(self) -> None:
        self.pinned.clear()


TestPoolWalk = PoolWalk.TestCase
TestPoolWalk.settings = settings(max_examples=EXAMPLES, stateful_step_count=40)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=60))
def test_a_get_never_returns_another_block(calls: list[tuple[int, int]]) -> None:
    pool = Pool(BLOCK, 3 * BLOCK)
    for ordinal, slot in calls:
        name = f"{slot}/{ordinal}".encode()
        pool.put(token(slot), ordinal, name)
        got = pool.get(token(slot), ordinal)
        assert got is not None
        assert bytes(got) == name
