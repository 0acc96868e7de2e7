"""The probe: it passes good stores, and refuses by name and rule the bad ones."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lucid.errors import (
    LucidError,
    ObjectMissing,
    Stopped,
    StoreError,
    StoreUnavailable,
    StoreUnfit,
    TimedOut,
)
from lucid.filespace.opening import Opened
from lucid.store import ObjectInfo, ObjectStore
from lucid.store.base import Body, as_views
from lucid.store.faulty import Fault, FaultPlan, FaultyStore
from lucid.store.memory import Bucket, MemoryStore
from lucid.store.probe import WRITERS, probe
from lucid.store.retry import RetryPolicy, RetryStore
from tests.contract.stores import bare_of


def test_good_stores_pass_and_are_left_clean(store: ObjectStore) -> None:
    writers = WRITERS if isinstance(bare_of(store), MemoryStore) else 3
    assert probe(store, os.urandom, writers=writers) == ()
    assert list(store.list("probe/")) == []


class Ignoring(MemoryStore):
    """Overwrites, whatever it is asked."""

    def put_if_absent(self, key: str, body: Body) -> None:
        with as_views(body) as views:
            data = b"".join(views)
        with self.bucket.lock:
            if key not in self.bucket.objects:
                self.bucket.keys.append(key)
            self.bucket.objects[key] = (data, 0)


class LookingFirst(MemoryStore):
    """Looks whether the name is free, and then writes: right for one writer at a time."""

    def __init__(self) -> None:
        super().__init__(Bucket())
        self._together = threading.Barrier(WRITERS)
        self._is_raced = True

    def put_if_absent(self, key: str, body: Body) -> None:
        is_free = key not in self.bucket.objects
        if self._is_raced:
            # All have looked before the first one writes.
            self._together.wait(30)
            self._is_raced = False
        if is_free:
            Ignoring.put_if_absent(self, key, body)  # type: ignore[arg-type]
            return
        super().put_if_absent(key, body)


class ForAWhile(MemoryStore):
    """Knows of a name while the race is on, and forgets it afterwards."""

    def put_if_absent(self, key: str, body: Body) -> None:
        try:
            super().put_if_absent(key, body)
        except StoreError:
            self.refused = getattr(self, "refused", 0) + 1
            if self.refused < WRITERS:
                raise
            Ignoring.put_if_absent(self, key, body)  # type: ignore[arg-type]


class NoRanges(MemoryStore):
    """Gives the beginning, whatever is asked."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return super().get(key, 0, length)


class LateLists(MemoryStore):
    """Lists nothing that is new."""

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return iter(())


class Undying(MemoryStore):
    """Deletes nothing."""

    def delete(self, keys: object) -> None:
        return


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Ignoring, "let 16 of 16 writers"),
        (LookingFirst, "let 16 of 16 writers"),
        (ForAWhile, "overwrites objects"),
        (NoRanges, "ranged reads"),
        (LateLists, "does not list"),
        (Undying, "still shows"),
    ],
)
def test_unfit_stores_are_refused_by_name(kind: type[MemoryStore], sentence: str) -> None:
    store = kind()
    with pytest.raises(StoreUnfit, match=sentence) as caught:
        probe(store, os.urandom)
    assert store.url in str(caught.value)
    assert not caught.value.retryable
    if kind is not Undying:
        assert store.bucket.objects == {}


def test_a_store_that_is_down_is_not_called_unfit() -> None:
    store = FaultyStore(MemoryStore())
    store.plan.script("put", [None, Fault.REFUSE])
    with pytest.raises(StoreUnavailable):
        probe(store, os.urandom)
    store.plan.die()
    with pytest.raises(StoreUnavailable):
        probe(store, os.urandom)


class Ending(MemoryStore):
    """Serves so many puts, or so many reads, and then fails with an error that is no verdict."""

    def __init__(self, error: LucidError, *, puts: int, gets: int) -> None:
        super().__init__()
        self._error = error
        self._left = {"put": puts, "get": gets}
        self._counting = threading.Lock()

    def _count(self, method: str) -> None:
        with self._counting:
            self._left[method] -= 1
            if self._left[method] < 0:
                raise self._error

    def put_if_absent(self, key: str, body: Body) -> None:
        self._count("put")
        super().put_if_absent(key, body)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._count("get")
        return super().get(key, start, length)


@pytest.mark.parametrize("error", [Stopped("Closed."), TimedOut("Too late.")])
@pytest.mark.parametrize(
    ("puts", "gets"), [(0, 99), (1, 99), (WRITERS - 1, 99), (WRITERS, 99), (99, 0), (99, 3)]
)
def test_what_is_no_verdict_is_not_called_unfit(error: LucidError, puts: int, gets: int) -> None:
    """A filespace that closes meanwhile, in the race or after it, says nothing of the store."""
    with pytest.raises(type(error)) as caught:
        probe(Ending(error, puts=puts, gets=gets), os.urandom)
    assert caught.value is error


def test_of_several_errors_the_closing_is_told() -> None:
    class Closed(Ending):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            raise Stopped("Closed.")

    with pytest.raises(Stopped):
        probe(Closed(StoreUnavailable("Away."), puts=1, gets=0), os.urandom)


def test_one_winner_that_not_all_see() -> None:
    """The sentence says what is wrong: not the writing."""

    class Late(MemoryStore):
        """Two of those who have written find nothing there."""

        missing = 2
        mine = threading.local()

        def put_if_absent(self, key: str, body: Body) -> None:
            self.mine.writes = True
            try:
                super().put_if_absent(key, body)
            finally:
                self.mine.writes = False

        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            if not self.mine.writes:
                with self.bucket.lock:
                    self.missing -= 1
                    if self.missing >= 0:
                        raise ObjectMissing("Not here yet.")
            return super().get(key, start, length)

    with pytest.raises(StoreUnfit) as caught:
        probe(Late(), os.urandom)
    assert f"let one of {WRITERS} writers create" in str(caught.value)
    assert "did not show it to 2 of them" in str(caught.value)


def test_a_filespace_that_closes_says_nothing_of_its_probe(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The chore that probes ends without a warning, and writing goes on to its end."""
    opened: Any = Opened()
    opened.parts = SimpleNamespace(
        read_only=False, store=Ending(Stopped("Closed."), puts=2, gets=0), order=None
    )
    opened.committer = SimpleNamespace(online=True)
    opened.entropy = os.urandom
    opened.probe()
    assert opened.probed
    assert opened.problems == []
    opened.parts.store, opened.probed = Ending(TimedOut("Too late."), puts=2, gets=0), False
    with pytest.raises(TimedOut):
        opened.probe()
    assert not opened.probed, "it is looked at again"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_lost_answers_do_not_make_a_store_unfit() -> None:
    memory = MemoryStore()
    plan = FaultPlan()
    plan.script("put", [Fault.LOSE_ANSWER, None, Fault.REFUSE, Fault.BUSY] * 4)
    store = RetryStore(FaultyStore(memory, plan), RetryPolicy(wait=lambda _seconds: False))
    assert probe(store, os.urandom) == ()
    assert memory.bucket.objects == {}


def test_warnings_are_passed_on() -> None:
    class Warning_(MemoryStore):
        def lifecycle_warnings(self) -> list[str]:
            return ["a rule deletes"]

    assert probe(Warning_(), os.urandom) == ("a rule deletes",)
