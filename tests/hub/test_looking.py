"""When a hint is worth a look, in numbers: no clock, no hub."""

from __future__ import annotations

import itertools
import math

import pytest

from lucid.sync.looking import AGAIN_S, HINT_GAP_S, LOOK_GAP_S, Looking


def test_a_hint_is_looked_for_at_once_and_then_less_and_less_often() -> None:
    looking = Looking()
    assert looking.due(5) == math.inf
    looking.hint(6, 5, 100.0)
    times, now = [], 100.0
    while (due := looking.due(5)) < math.inf:
        now = max(now, due)
        times.append(now)
        looking.looked(now)
    assert len(times) == 1 + len(AGAIN_S)
    assert times[0] == 100.0
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == pytest.approx(AGAIN_S)


def test_what_is_folded_is_not_looked_for() -> None:
    looking = Looking()
    looking.hint(6, 6, 1.0)
    assert looking.due(6) == math.inf
    looking.hint(7, 6, 1.0)
    assert looking.due(6) == 1.0
    assert looking.due(7) == math.inf
    assert looking.due(6) == math.inf  # over is over


def test_a_copy_of_a_hint_starts_nothing() -> None:
    looking = Looking()
    looking.hint(6, 5, 1.0)
    looking.looked(1.0)
    before = looking.due(5)
    for now in (1.01, 1.02, 1.03):
        looking.hint(6, 5, now)
        looking.hint(3, 5, now)
    assert looking.due(5) == before


def test_a_higher_hint_is_looked_for_at_once() -> None:
    looking = Looking()
    looking.hint(6, 5, 1.0)
    looking.looked(1.0)
    looking.hint(7, 5, 1.001)
    assert looking.due(5) == 1.0 + HINT_GAP_S


def test_the_hubs_own_word_counts_now_and_then() -> None:
    looking = Looking()
    looks, now = 0, 0.0
    while now < 10.0:
        looking.look(now)
        if now >= looking.due(5):
            looking.looked(now)
            looks += 1
        now += 0.001
    assert looks <= 1 + 10.0 / LOOK_GAP_S
