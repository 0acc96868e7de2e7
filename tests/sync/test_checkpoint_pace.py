"""Devices that need longer for a checkpoint than from one to the next take the same ones."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from lucid.sync.checkpointer import Pace

DUE = 200
"""Checkpoints that are due, one in each unit of time."""


def whenever_idle(number: int, is_idle: bool) -> bool:
    return is_idle


def taken(takes: Callable[[int, bool], bool], works: Callable[[], float], busy: float) -> set[int]:
    """Those that a device takes which needs `works()` for each, and is busy until `busy`."""
    found = set()
    for number in range(1, DUE + 1):
        if takes(number, busy <= number):
            found.add(number)
            busy = number + works()
    return found


@pytest.mark.parametrize("work", [1.2, 1.9, 2.5, 3.9, 7.5])
@pytest.mark.parametrize("late", [0.0, 1.5, 3.5, 6.5])
def test_who_falls_behind_takes_what_others_take(work: float, late: float) -> None:
    paced = [taken(Pace().takes, lambda: work, busy) for busy in (0.0, late)]
    assert len(paced[0] & paced[1]) >= DUE / 8 - 3


def test_they_would_take_turns_for_ever() -> None:
    found = [taken(whenever_idle, lambda: 1.5, busy) for busy in (0.0, 2.0)]
    assert not found[0] & found[1]
    paced = [taken(Pace().takes, lambda: 1.5, busy) for busy in (0.0, 2.0)]
    assert len(paced[0] & paced[1]) > DUE / 3


def test_who_keeps_up_takes_all() -> None:
    assert taken(Pace().takes, lambda: 0.9, 0.0) == set(range(1, DUE + 1))


@pytest.mark.parametrize("seed", range(5))
def test_one_that_is_slow_at_times_and_one_that_is_not(seed: int) -> None:
    chance = Random(seed)
    quick = taken(Pace().takes, lambda: 0.5, 0.0)
    slow = taken(Pace().takes, lambda: chance.choice([0.5, 0.5, 1.5, 6.0]), 0.0)
    assert len(slow) > DUE / 8
    assert slow <= quick


def test_after_a_long_log_it_is_soon_back() -> None:
    pace = Pace()
    assert not any(pace.takes(number, is_idle=False) for number in range(1, 1000))
    first = next(number for number in range(1000, 1010) if pace.takes(number, is_idle=True))
    assert first <= 1008
    rest = [number for number in range(first + 1, first + 11) if pace.takes(number, is_idle=True)]
    assert rest[-3:] == [first + 8, first + 9, first + 10]
