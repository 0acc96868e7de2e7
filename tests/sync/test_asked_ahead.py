"""Questions that go to the store together, each for one call that follows."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lucid.errors import ObjectMissing, Stopped, StoreUnavailable
from lucid.store.base import ObjectInfo
from lucid.store.memory import MemoryStore
from lucid.sync.asked_ahead import WIDTH, AskedAhead

WAIT_S = 20.0


class Slow(MemoryStore):
    """Counts who is inside; answers when it may go, and fails while it is away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()
        self.away = False

    def _answer(self, label: str) -> None:
        self.asked.append(label)
        self.inside.release()
        assert self.go.wait(WAIT_S)
        if self.away:
            raise StoreUnavailable("It is away.")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._answer(key)
        return super().get(key, start, length)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        self._answer(prefix)
        return super().list(prefix, start_after, limit)


@pytest.fixture
def store() -> Iterator[Slow]:
    made = Slow()
    for name in ("a", "b", "c"):
        MemoryStore.put_if_absent(made, f"keys/{name}", name.encode())
    yield made
    made.go.set()


@pytest.fixture
def ahead(store: Slow) -> Iterator[AskedAhead]:
    made = AskedAhead(store)
    yield made
    made.end()


def names(found: Iterator[ObjectInfo]) -> list[str]:
    return [info.key for info in found]


def test_all_are_on_their_way_at_once(store: Slow, ahead: AskedAhead) -> None:
    store.go.clear()
    ahead.ask("keys/a", 10)
    ahead.ask("keys/b", 10)
    ahead.ask_list("keys/", "keys/a", 1)
    for _ in range(3):
        assert store.inside.acquire(timeout=WAIT_S)
    store.go.set()
    assert ahead.get("keys/a", 0, 10) == b"a"
    assert names(ahead.list("keys/", "keys/a", 1)) == ["keys/b"]
    assert ahead.get("keys/b", 0, 10) == b"b"
    assert len(store.asked) == 3, "each was asked for once"


def test_an_answer_serves_one_call_of_the_same_arguments(store: Slow, ahead: AskedAhead) -> None:
    """Who asks again wants to know what the store says now."""
    ahead.ask("keys/a", 10)
    assert ahead.get("keys/a", 0, 1) == b"a"
    assert ahead.get("keys/a", 1, 10) == b""
    assert ahead.get("keys/a", 0, 10) == b"a"
    assert len(store.asked) == 3
    assert ahead.get("keys/a", 0, 10) == b"a"
    assert len(store.asked) == 4
    ahead.ask_list("keys/")
    assert names(ahead.list("keys/", "", 2)) == ["keys/a", "keys/b"]
    assert (
        names(ahead.list("keys/")) == names(ahead.list("keys/")) == ["keys/a", "keys/b", "keys/c"]
    )
    assert len(store.asked) == 7


def test_an_error_is_raised_where_it_is_asked(store: Slow, ahead: AskedAhead) -> None:
    ahead.ask("keys/missing", 10)
    with pytest.raises(ObjectMissing):
        ahead.get("keys/missing", 0, 10)
    store.away = True
    ahead.ask("keys/a", 10)
    ahead.ask_list("keys/")
    with pytest.raises(StoreUnavailable):
        ahead.get("keys/a", 0, 10)
    found = ahead.list("keys/")
    with pytest.raises(StoreUnavailable):
        next(found)
    store.away = False
    assert ahead.get("keys/a", 0, 10) == b"a"
    assert names(ahead.list("keys/"))


def test_the_end_waits_for_nobody(store: Slow, ahead: AskedAhead) -> None:
    """Those that hang end with the store; those that have not begun never do."""
    store.go.clear()
    for _ in range(WIDTH):
        ahead.ask("keys/a", 10)
        assert store.inside.acquire(timeout=WAIT_S)
    ahead.ask("keys/b", 10)
    ahead.end()
    store.go.set()
    assert ahead.get("keys/b", 0, 10) == b"b"
    assert store.asked == ["keys/a"] * WIDTH + ["keys/b"]


def test_calls_that_nobody_waits_for_go_to_the_store(store: Slow, ahead: AskedAhead) -> None:
    other = MemoryStore()
    assert ahead.over(other) is other
    assert isinstance(ahead.background(), AskedAhead), "a store without such calls is one itself"


def test_a_closed_store_ends_what_is_under_way(store: Slow, ahead: AskedAhead) -> None:
    ahead.close()
    ahead.ask("keys/a", 10)
    with pytest.raises(Stopped):
        ahead.get("keys/a", 0, 10)
