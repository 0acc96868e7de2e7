"""Nobody ever loses what a collector deletes: random schedules of writers and collectors.

The model is in `collectors`; the fold, the rule for the rows of segments, and what a collector
picks are the product's own.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.collectors import Lost, Rule, World, run

STEP = st.tuples(*(st.integers(0, 60) for _ in range(4)))


def schedule(seed: int, length: int = 250) -> list[tuple[int, int, int, int]]:
    rng = Random(seed)
    return [tuple(rng.randrange(61) for _ in range(4)) for _ in range(length)]  # type: ignore[misc]


@settings(max_examples=120, deadline=None)
@given(st.lists(STEP, max_size=120))
def test_nothing_that_is_named_is_ever_deleted(steps: list[tuple[int, int, int, int]]) -> None:
    """S-287, S-288, S-295, S-298, S-602, S-605, S-606, S-614, S-616."""
    run(steps)


def test_long_schedules_delete_and_lose_nothing() -> None:
    """S-602, S-606, S-614: and the model does what it is for: collectors do delete, and repack."""
    worlds: list[World] = [run(schedule(seed, 500)) for seed in range(30)]
    assert sum(world.deleted for world in worlds) > 100
    assert sum(world.repacked for world in worlds) > 30
    assert sum(len(world.log) for world in worlds) > 500


GONE = "A segment that may be named is not in the store."
MISSED = "A reader that is behind misses a segment."
NOTHING = "A file came to nothing: its author did not prepare it again."


@pytest.mark.parametrize(
    ("rule", "loss"),
    [
        (Rule(rows_count=False), GONE),
        (Rule(age_counts=False), GONE),
        (Rule(floor_first=False), GONE),
        (Rule(repacked_stay=False), MISSED),
        (Rule(by_the_head=False), GONE),
        (Rule(authors_prepare_again=False), NOTHING),
        (Rule(authors_prepare_again=False, old_ones_stay_out=False), GONE),
    ],
)
def test_the_loss_is_found_where_a_part_of_the_rule_is_left_out(rule: Rule, loss: str) -> None:
    """S-288: an author that does not prepare again harms itself, and nobody else."""
    for seed in range(400):
        try:
            run(schedule(seed), rule)
        except Lost as lost:
            assert str(lost) == loss
            return
    pytest.fail(f"No schedule needs {rule}.")
