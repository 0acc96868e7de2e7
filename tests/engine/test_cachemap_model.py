"""The cache map against an OrderedDict, by random walks."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lucid.engine.addr import UNIT_BYTES
from lucid.engine.cachemap import CacheMap
from lucid.engine.errors import EngineError
from lucid.engine.sodium import AdContext
from tests.engine.reference import CacheModel
from tests.engine.rig import EXAMPLES

CTX = AdContext(1, b"data", bytes(16), bytes(16))
IDS = [bytes([number]) * 32 for number in range(6)]
LENGTHS = [1, UNIT_BYTES, 2 * UNIT_BYTES + 100, 5 * UNIT_BYTES]

segments = st.sampled_from(IDS)
offsets = st.integers(0, 6).map(lambda units: units * UNIT_BYTES) | st.integers(0, 6 * UNIT_BYTES)


class CacheWalk(RuleBasedStateMachine):
    """Same calls to both; after each, everything that can be seen is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.map = CacheMap()
        self.model = CacheModel()

    def slot(self, segment: bytes) -> int | None:
        slot = self.map.find(segment)
        assert (slot is not None) == (segment in self.model.segments)
        return slot

    @rule(segment=segments, length=st.sampled_from(LENGTHS), staged=st.booleans())
    def acquire(self, segment: bytes, length: int, staged: bool) -> None:
        if self.model.acquire(segment, length, staged):
            self.map.acquire(segment, segment, CTX, length, staged)
            return
        try:
            self.map.acquire(segment, segment, CTX, length, staged)
        except EngineError:
            return
        raise AssertionError("a segment was acquired as something else")

    @rule(segment=segments)
    def release(self, segment: bytes) -> None:
        slot = self.slot(segment)
        if slot is None or self.model.segments[segment].refs == 0:
            return
        self.map.release(slot)
        self.model.release(segment)

    @rule(segment=segments, offset=offsets, length=offsets)
    def set_present(self, segment: bytes, offset: int, length: int) -> None:
        slot = self.slot(segment)
        if slot is not None:
            expected = self.model.set_present(segment, offset, length)
            assert self.map.set_present(slot, offset, length) == expected

    @rule(segment=segments, offset=offsets, length=offsets)
    def clear_present(self, segment: bytes, offset: int, length: int) -> None:
        slot = self.slot(segment)
        if slot is not None:
            self.map.clear_present(slot, offset, length)
            self.model.clear_present(segment, offset, length)

    @rule(segment=segments, offset=offsets, length=offsets)
    def missing(self, segment: bytes, offset: int, length: int) -> None:
        slot = self.slot(segment)
        if slot is not None:
            expected = self.model.missing(segment, offset, length)
            assert self.map.missing(slot, offset, length) == expected

    @rule(segment=segments)
    def touch(self, segment: bytes) -> None:
        slot = self.slot(segment)
        if slot is not None:
            self.map.touch(slot)
            self.model.list_(segment, True)

    @rule(segment=segments, change=st.sampled_from([1, -1]))
    def pin_or_unpin(self, segment: bytes, change: int) -> None:
        slot = self.slot(segment)
        if slot is None or self.model.segments[segment].pins + change < 0:
            return
        self.model.segments[segment].pins += change
        if change > 0:
            self.map.pin(slot)
            self.model.list_(segment, False)
        else:
            self.map.unpin(slot)
            self.model.list_(segment, True)
            self.model.sweep(segment)

    @rule(segment=segments, read_once=st.booleans())
    def set_read_once(self, segment: bytes, read_once: bool) -> None:
        slot = self.slot(segment)
        if slot is not None:
            self.map.set_read_once(slot, read_once)
            if self.model.segments[segment].read_once != read_once:
                self.model.segments[segment].read_once = read_once
                self.model.list_(segment, True)

    @rule(segment=segments, charge=st.integers(0, 10 * UNIT_BYTES))
    def set_charge(self, segment: bytes, charge: int) -> None:
        slot = self.slot(segment)
        if slot is not None and not self.model.segments[segment].staged:
            self.map.set_charge(slot, charge)
            self.model.segments[segment].charge = charge
            self.model.list_(segment, False)

    @rule(segment=segments)
    def promote(self, segment: bytes) -> None:
        slot = self.slot(segment)
        if slot is not None and self.model.segments[segment].staged:
            self.map.promote(slot)
            at = self.model.segments[segment]
            at.staged = False
            at.units, at.charge = set(), 0
            self.model.set_present(segment, 0, at.stored_len)
            self.model.sweep(segment)

    @rule(size=st.integers(0, 10 * UNIT_BYTES), limit=st.integers(1, 3))
    def victims(self, size: int, limit: int) -> None:
        chosen = [(segment, charge) for _, segment, charge in self.map.victims(size, limit)]
        assert chosen == self.model.victims(size, limit)

    @rule(segment=segments)
    def forget(self, segment: bytes) -> None:
        slot = self.slot(segment)
        if slot is not None:
            self.map.forget(slot)
            self.model.forget(segment)

    @rule(segment=segments)
    def spare(self, segment: bytes) -> None:
        slot = self.slot(segment)
        if slot is not None and self.model.segments[segment].evicting:
            self.map.spare(slot)
            self.model.segments[segment].evicting = False
            self.model.list_(segment, False)

    @invariant()
    def sums_are_equal(self) -> None:
        known = self.model.segments.values()
        assert self.map.total_charge == sum(at.charge for at in known)
        assert self.map.staged_charge == sum(at.stored_len for at in known if at.staged)
        stats = self.map.stats()
        assert stats["slots"] == len(known)
        assert stats["evictable"] == len(self.model.recency)

    @precondition(lambda self: self.model.segments)
    @invariant()
    def each_is_equal(self) -> None:
        for segment, at in self.model.segments.items():
            slot = self.slot(segment)
            assert slot is not None
            assert self.map.charge(slot) == at.charge
            assert self.map.is_staged(slot) == at.staged
            assert self.map.is_evicting(slot) == at.evicting
            assert self.map.stored_len(slot) == at.stored_len

    def teardown(self) -> None:
        self.map.close()


TestCacheWalk = CacheWalk.TestCase
TestCacheWalk.settings = settings(max_examples=EXAMPLES, stateful_step_count=40)
