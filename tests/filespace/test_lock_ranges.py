"""The rules of locks, against a model that knows each byte by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lucid.filespace.lock_ranges import (
    TO_THE_END,
    HeldLock,
    InodeLocks,
    LockMode,
    LockRequest,
    closes_circle,
)

BYTES = 12
NONE, SHARED, EXCLUSIVE = LockMode

Bytes = dict[tuple[int, int], tuple[LockMode, int]]
"""(owner, byte) -> how it is locked, and through which handle."""


def asked(
    owner: int, mode: LockMode, start: int = 0, end: int = TO_THE_END, *,
    flock: bool = False, handle: int = 0,
) -> LockRequest:  # fmt: skip
    return LockRequest(0, 1, owner, owner + 100, handle, flock, mode, start, end, False)


def stands_against(model: Bytes, request: LockRequest) -> bool:
    return any(
        owner != request.owner
        and request.start <= at <= request.end
        and EXCLUSIVE in (mode, request.mode)
        for (owner, at), (mode, _) in model.items()
    )


def put(model: Bytes, request: LockRequest) -> None:
    for at in range(request.start, request.end + 1):
        model.pop((request.owner, at), None)
        if request.mode:
            model[request.owner, at] = (request.mode, request.handle)


def by_bytes(table: InodeLocks) -> Bytes:
    model: Bytes = {}
    for is_flock, held in table.rows():
        assert not is_flock
        for at in range(held.start, held.end + 1):
            key = (held.pid - 100, at)
            assert key not in model, "ranges of one owner overlap"
            model[key] = (held.mode, held.handle)
    return model


ranges = st.tuples(st.integers(0, BYTES - 1), st.integers(0, BYTES - 1)).map(sorted)
requests = st.builds(
    lambda owner, mode, span, handle: asked(owner, mode, *span, handle=handle),
    st.integers(0, 3), st.sampled_from(LockMode), ranges, st.integers(0, 2),
)  # fmt: skip
steps = st.lists(
    st.one_of(
        requests,
        st.tuples(st.just("owner"), st.integers(0, 3)),
        st.tuples(st.just("handle"), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(steps)
def test_ranges_are_as_byte_by_byte(taken: list[LockRequest | tuple[str, int]]) -> None:
    """S-822."""
    table, model = InodeLocks(), Bytes()
    for step in taken:
        if isinstance(step, LockRequest):
            refused = step.mode is not NONE and stands_against(model, step)
            if step.mode:
                assert (table.first_against(step) is not None) == refused
            if not refused:
                table.put(step, 0)
                put(model, step)
        elif step[0] == "owner":
            gone = {key for key in model if key[0] == step[1]}
            assert table.drop_owner(step[1], is_flock=False) == bool(gone)
            model = {key: held for key, held in model.items() if key not in gone}
        else:
            gone = {key for key, (_, handle) in model.items() if handle == step[1]}
            assert table.drop_handle(step[1]) == bool(gone)
            model = {key: held for key, held in model.items() if key not in gone}
        assert by_bytes(table) == model
        assert bool(table) == bool(model)
        assert table.strongest() == max((mode for mode, _ in model.values()), default=NONE)


def test_neighbours_are_joined() -> None:
    table = InodeLocks()
    table.put(asked(1, SHARED, 0, 4), 20)
    table.put(asked(1, SHARED, 5, 9), 10)
    assert list(table.all()) == [HeldLock(0, 9, SHARED, 101, 0, 10)]
    table.put(asked(1, EXCLUSIVE, 3, 6), 30)
    assert [one[:3] for one in table.all()] == [(0, 2, SHARED), (3, 6, EXCLUSIVE), (7, 9, SHARED)]


def test_the_end_of_everything() -> None:
    table = InodeLocks()
    table.put(asked(1, EXCLUSIVE, 100), 0)
    table.put(asked(1, NONE, 200, 299), 0)
    assert [one[:2] for one in table.all()] == [(100, 199), (300, TO_THE_END)]
    found = table.first_against(asked(2, SHARED, TO_THE_END, TO_THE_END))
    assert found is not None
    assert found.start == 300
    assert table.first_against(asked(2, SHARED, 250, 250)) is None


def test_flock_and_ranges_do_not_see_each_other() -> None:
    """S-821."""
    table = InodeLocks()
    table.put(asked(1, EXCLUSIVE, flock=True), 0)
    assert table.first_against(asked(2, EXCLUSIVE)) is None
    assert table.first_against(asked(2, SHARED, flock=True)) is not None
    table.put(asked(2, EXCLUSIVE), 0)
    assert table.drop_owner(1, is_flock=False) is False
    assert table.drop_owner(1, is_flock=True) is True
    assert [one.pid for one in table.all()] == [102]


def test_circles() -> None:
    waits = {1: [2], 2: [3, 4], 4: [5]}

    def of(owner: int) -> list[int]:
        return waits.get(owner, [])

    assert closes_circle(5, [1], of)
    assert not closes_circle(6, [1], of)
    assert not closes_circle(1, [4], of)
    waits[5] = [2]
    assert not closes_circle(1, [4], of), "a circle of others ends the search"
