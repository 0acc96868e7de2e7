"""Two and three machines write in one tree, each on its own view; whatever order the log has, the
state is sound, all agree, and no byte that anybody wrote is gone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.format.ops import Clone, Content, Create
from tests.meta.invariants import check_state, checked_fold
from tests.model.writers import Log, Writer

choice = st.integers(0, 97)
step = st.tuples(st.integers(0, 2), st.integers(-3, 13), choice, choice)
step_of_2 = st.tuples(st.integers(0, 2), st.integers(-3, 16), choice, choice)
step_of_4 = st.tuples(st.integers(0, 2), st.integers(-3, 20), choice, choice)


def play(steps: list[tuple[int, int, int, int]], machines: int, rules: int = 1) -> Log:
    """A negative action looks at the log or commits some; at the end all commit what they have."""
    log = Log(rules)
    writers = [Writer(log, session) for session in range(1, machines + 1)]
    for who, action, one, two in steps:
        writer = writers[who % machines]
        if action == -1:
            writer.look()
        elif action < 0:
            writer.commit(1 + one % 5)
        else:
            writer.step(action, one, two)
    for writer in writers:
        writer.commit(len(writer.pending))
    for writer in writers:
        writer.look()
    assert len({str(writer.view.dump()) for writer in writers}) == 1
    return log


def check(log: Log) -> None:
    """Folds the log op by op, looking at each step, and reads back what was ever written."""
    state = log.state(0)
    for author, op in log.ops:
        checked_fold(state, author, op)
        check_state(state)
    written = [op.op_id for _, op in log.ops if isinstance(op, (Create, Content, Clone))]
    assert set(written) == set(log.wanted)
    for op_id in written:
        version = state.version(op_id)
        assert version is not None
        assert log.blocks.read(state, version.ino, op_id) == log.wanted[op_id]
    assert log.state().dump() == state.dump()


@settings(max_examples=150)
@given(st.lists(step, max_size=40))
def test_two_machines(steps: list[tuple[int, int, int, int]]) -> None:
    """S-70, S-71: the fold is total, and no content that was acknowledged is lost."""
    check(play(steps, 2))


@settings(max_examples=75)
@given(st.lists(step, min_size=20, max_size=70))
def test_three_machines(steps: list[tuple[int, int, int, int]]) -> None:
    """S-70, S-71, S-72: and all who fold one log hold one state."""
    check(play(steps, 3))


@settings(max_examples=150)
@given(st.lists(step_of_2, max_size=40))
def test_two_machines_that_restore(steps: list[tuple[int, int, int, int]]) -> None:
    """S-71, S-261, S-262, S-291: older versions become content, of files that others write too."""
    check(play(steps, 2, rules=2))


@settings(max_examples=75)
@given(st.lists(step_of_2, min_size=20, max_size=70))
def test_three_machines_that_restore(steps: list[tuple[int, int, int, int]]) -> None:
    """S-71, S-263: and all hold one state, with every version that was ever written."""
    check(play(steps, 3, rules=2))


@settings(max_examples=150)
@given(st.lists(step_of_4, max_size=40))
def test_two_machines_that_lock(steps: list[tuple[int, int, int, int]]) -> None:
    """S-71, S-74: content that gives way to a lease is kept whole, too."""
    check(play(steps, 2, rules=4))


@settings(max_examples=75)
@given(st.lists(step_of_4, min_size=20, max_size=70))
def test_three_machines_that_lock(steps: list[tuple[int, int, int, int]]) -> None:
    """S-71, S-72, S-74: and all hold one state, with everybody in line at the same place."""
    check(play(steps, 3, rules=4))
