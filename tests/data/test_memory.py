"""The memory budget: shares wait for room, and none takes another's."""

from __future__ import annotations

import threading

import pytest

from lucid.data.memory import MemoryBudget, Share
from lucid.errors import TimedOut

WAIT_S = 30.0


def test_it_waits_until_there_is_room() -> None:
    share = Share("writing", 100)
    share.take(80, 0.0)
    with pytest.raises(TimedOut):
        share.take(30, 0.01)
    assert share.taken == 80
    got = threading.Event()

    def take() -> None:
        share.take(30, WAIT_S)
        got.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    assert not got.is_set()
    share.give(20)
    assert got.wait(WAIT_S)
    thread.join(WAIT_S)
    assert share.taken == 90


def test_one_request_larger_than_all_is_let_in_alone() -> None:
    share = Share("writing", 100)
    share.take(250, 0.0)
    assert not share.try_take(1)
    with pytest.raises(TimedOut):
        share.take(1, 0.01)
    share.give(250)
    assert share.try_take(1)


def test_what_is_there_already_is_only_counted() -> None:
    share = Share("writing", 100)
    share.charge(150)
    assert share.taken == 150
    share.give(150)
    with share.held(100, 0.0):
        assert share.taken == 100
    assert share.taken == 0


def test_closing_lets_everybody_through() -> None:
    share = Share("writing", 10)
    share.take(10, 0.0)
    threads = [
        threading.Thread(target=share.take, args=(10, WAIT_S), daemon=True) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    share.close()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_shares_are_apart_and_fit_into_the_total() -> None:
    budget = MemoryBudget(1000, 200)
    shares = (budget.writing, budget.uploading, budget.fetching)
    assert sum(share.total for share in shares) <= 800
    budget.writing.take(budget.writing.total, 0.0)
    assert budget.uploading.try_take(budget.uploading.total)
    assert budget.fetching.try_take(budget.fetching.total)
    assert budget.taken() <= 800
    budget.close()
