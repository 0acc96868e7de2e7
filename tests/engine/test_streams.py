"""Reading ahead, as simulated readers see it: everything once for who reads on, nothing for who
jumps about."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.engine.streams import FIRST_WINDOW, Streams
from tests.engine import reference_streams

KiB, MiB = 1024, 1024 * 1024
BLOCK = 128 * KiB
SIZE = 64 * MiB
WINDOW = 8 * MiB


class Reader:
    """Tells reads to the policy and keeps what it asked for."""

    def __init__(self, size: int = SIZE) -> None:
        self.streams = Streams(BLOCK, WINDOW)
        self.size = size
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, length: int = BLOCK) -> None:
        want = self.streams.read(offset, length, self.size)
        if want is not None:
            assert 0 <= want[0] < want[1] <= self.size
            self.asked.append(want)

    def all(self, start: int, end: int, step: int = BLOCK) -> None:
        for offset in range(start, end, step):
            self.read(offset, step)

    def covered(self) -> int:
        return sum(end - start for start, end in self.asked)

    def twice(self) -> bool:
        """Whether something was asked for two times."""
        sorted_ = sorted(self.asked)
        return any(a[1] > b[0] for a, b in pairwise(sorted_))


@pytest.mark.parametrize("step", [4 * KiB, 100_000, BLOCK, MiB])
def test_a_sequential_reader_gets_all_of_it_once(step: int) -> None:
    reader = Reader()
    reader.all(0, SIZE, step)
    assert not reader.twice()
    assert SIZE - reader.covered() <= step, "all but what the first read asked for itself"
    assert len(reader.asked) < 64, "in large pieces"


def test_it_is_always_ahead() -> None:
    reader = Reader()
    for offset in range(0, SIZE - 2 * MiB, BLOCK):
        reader.read(offset)
        assert max(end for _, end in reader.asked) > offset + BLOCK


def test_it_begins_small_and_grows_to_its_limit() -> None:
    reader = Reader()
    reader.all(0, SIZE)
    sizes = [end - start for start, end in reader.asked]
    assert sizes[0] <= FIRST_WINDOW
    assert max(sizes) <= WINDOW
    assert max(sizes) >= WINDOW // 2


def test_in_the_middle_it_begins_with_a_block() -> None:
    reader = Reader()
    reader.read(10 * MiB)
    assert reader.asked == []
    reader.read(10 * MiB + BLOCK)
    assert reader.covered() <= 2 * BLOCK


@pytest.mark.parametrize("seed", range(5))
def test_a_random_reader_gets_nothing(seed: int) -> None:
    reader = Reader(10_000 * MiB)
    chance = Random(seed)
    for _ in range(500):
        reader.read(chance.randrange(1, 10_000) * MiB + 4096, 4096)
    assert reader.asked == []


def test_two_interleaved_readers_are_both_followed() -> None:
    reader = Reader()
    for offset in range(0, 24 * MiB, BLOCK):
        reader.read(offset)
        reader.read(40 * MiB + offset)
    assert not reader.twice()
    assert reader.covered() >= 48 * MiB - 4 * BLOCK


@pytest.mark.parametrize("seed", range(5))
def test_requests_of_the_kernel_come_out_of_order(seed: int) -> None:
    reader = Reader()
    chance = Random(seed)
    offsets = list(range(0, SIZE, BLOCK))
    for at in range(4, len(offsets), 4):
        group = offsets[at : at + 4]
        chance.shuffle(group)
        offsets[at : at + 4] = group
    for offset in offsets:
        reader.read(offset)
    assert not reader.twice()
    assert reader.covered() >= SIZE - 4 * BLOCK


def test_a_short_skip_keeps_the_stream() -> None:
    reader = Reader()
    offset = 0
    while offset < SIZE:
        reader.read(offset)
        offset += BLOCK + (MiB if offset % (8 * BLOCK) == 0 else 0)
    assert reader.covered() >= SIZE * 0.9


def test_who_has_read_on_is_trusted_for_one_jump() -> None:
    reader = Reader()
    reader.all(0, 4 * MiB)
    before = reader.covered()
    reader.read(40 * MiB)
    assert reader.asked[-1] == (40 * MiB + BLOCK, 41 * MiB + BLOCK), (
        "all of a first window, at once"
    )
    for offset in (20 * MiB, 50 * MiB, 30 * MiB):
        reader.read(offset)
    assert reader.covered() == before + FIRST_WINDOW, "the other jumps bring nothing"


def test_who_reads_on_after_each_jump_is_always_trusted() -> None:
    """A video editor: every jump has its read-ahead begun by its first read."""
    reader = Reader()
    reader.all(0, 3 * MiB)
    for begin in (40 * MiB, 12 * MiB, 55 * MiB, 26 * MiB):
        reader.read(begin)
        assert reader.asked[-1][0] == begin + BLOCK
        reader.all(begin + BLOCK, begin + 4 * MiB)


def test_who_looks_at_the_head_only_is_not_trusted() -> None:
    reader = Reader()
    reader.all(0, 256 * KiB, 64 * KiB)
    before = reader.covered()
    reader.read(SIZE - 64 * KiB, 64 * KiB)
    reader.read(40 * MiB, 64 * KiB)
    assert reader.covered() == before


def test_who_takes_more_at_once_than_was_asked_for_gets_more() -> None:
    """Requests of 512 KiB, as the kernel's read-ahead makes them, in a window of one block."""
    reader = Reader()
    reader.read(10 * MiB, 4 * KiB)
    reader.read(10 * MiB + 4 * KiB, 4 * KiB)
    assert reader.covered() == BLOCK
    reader.all(10 * MiB + 8 * KiB, 16 * MiB, 512 * KiB)
    last = reader.asked[-1]
    assert last[1] > 18 * MiB, "as far as it has come since the jump, or half of that"


def test_who_skips_each_time_does_not_get_all_of_it() -> None:
    reader = Reader()
    reader.read(2 * MiB - 8 * KiB, 4 * KiB)
    reader.read(2 * MiB - 4 * KiB, 4 * KiB)
    assert reader.covered() == BLOCK
    for at in range(1, 21):
        reader.read(2 * MiB + at * (MiB + 4 * KiB), 4 * KiB)
    assert reader.covered() == 21 * BLOCK


def test_large_reads_that_go_on_get_as_much_ahead() -> None:
    """The kernel makes several requests of one read: a third of what they bring is for nothing."""
    reader = Reader()
    reader.read(10 * MiB, 4 * BLOCK)
    reader.read(10 * MiB + 4 * BLOCK, 4 * BLOCK)
    assert reader.covered() == 4 * BLOCK
    reader.all(11 * MiB, 15 * MiB, 4 * BLOCK)
    assert reader.asked[-1][1] >= 17 * MiB, "and it grows"


@pytest.mark.parametrize("length", [MiB, 3 * MiB // 2, 2 * MiB])
def test_a_random_reader_of_large_pieces_gets_half_as_much_again(length: int) -> None:
    """However many of them: they are not trusted, though each comes as several requests."""
    reader = Reader(10_000 * MiB)
    chance = Random(1)
    for _ in range(100):
        begin = chance.randrange(1, 2_000) * 5 * MiB
        reader.all(begin, begin + length, 4 * BLOCK)
    assert reader.covered() <= 100 * (3 * length // 2 + 4 * BLOCK)


def test_nothing_beyond_the_end_is_asked_for() -> None:
    reader = Reader(5_000)
    reader.read(0, 4096)
    reader.read(4096, 4096)
    reader.read(9_000, 4096)
    assert all(end <= 5_000 for _, end in reader.asked)
    Reader(0).read(0, 4096)


STEPS = st.one_of(
    st.tuples(st.just("go on"), st.integers(-600_000, 2_500_000), st.integers(0, 300_000)),
    st.tuples(st.just("jump"), st.integers(0, SIZE), st.integers(0, 300_000)),
    st.tuples(st.just("back to"), st.integers(0, 5), st.integers(1, 200_000)),
)


@given(st.lists(STEPS, max_size=120), st.sampled_from([5_000, 3 * MiB, SIZE]))
@settings(deadline=None)
def test_it_does_what_the_plain_one_does(steps: list[tuple[str, int, int]], size: int) -> None:
    ours, plain = Streams(BLOCK, WINDOW), reference_streams.Streams(BLOCK, WINDOW)
    ends = [0]
    for kind, number, length in steps:
        offset = number
        if kind == "go on":
            offset = max(0, ends[-1] + number)
        elif kind == "back to":
            offset = ends[-1 - number] if number < len(ends) else 0
        assert ours.read(offset, length, size) == plain.read(offset, length, size)
        ends.append(offset + length)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError):
        Streams(0, WINDOW)
    with pytest.raises(ValueError):
        Streams(BLOCK, BLOCK - 1)
    for wrong in ((-1, 1, 1), (0, -1, 1), (0, 1, -1), (2**63 - 1, 1, 1)):
        with pytest.raises(ValueError):
            Streams(BLOCK, WINDOW).read(*wrong)
