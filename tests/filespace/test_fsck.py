"""fsck: silent on what is whole, and it names what is not (S-44, S-45)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lucid.errors import CorruptBlock, CorruptObject
from lucid.filespace import fsck
from lucid.filespace.fsck import FsckReport
from lucid.store.memory import MemoryStore
from tests.filespace.spaces import BLOCK, PASSPHRASE, WAIT_S, Space, some_bytes

LARGE = some_bytes(1, 20_000_000)


class Checked:
    """A space with some files, whose objects can be spoiled."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.objects = space.bucket.objects
        with space.connect("a") as fs:
            fs.write_bytes("/large", LARGE)
            fs.makedirs("/deep/down")
            fs.write_bytes("/deep/down/small", b"small")
            fs.sync(timeout=WAIT_S)
            fs.write_bytes("/last", b"last")

    def check(self, read_data: bool = False) -> FsckReport:
        before = dict(self.objects)
        found = fsck.check(
            "memory://team", PASSPHRASE, read_data=read_data,
            store=MemoryStore(self.space.bucket, name="team"),
        )  # fmt: skip
        assert self.objects == before, "fsck changes nothing"
        return found

    def segments(self) -> list[str]:
        """Largest first: the first ones are of the large file only."""
        keys = [key for key in self.objects if key.startswith("data/")]
        return sorted(keys, key=lambda key: -len(self.objects[key][0]))

    def entries(self) -> list[str]:
        return sorted(key for key in self.objects if key.startswith("log/"))

    def alter(self, key: str, change: Callable[[bytes], bytes]) -> None:
        data, time_ns = self.objects[key]
        self.objects[key] = (change(data), time_ns)

    def remove(self, key: str) -> None:
        MemoryStore(self.space.bucket).delete([key])


@pytest.fixture
def checked(space: Space) -> Checked:
    return Checked(space)


def flip(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        altered = bytearray(data)
        altered[at] ^= 1
        return bytes(altered)

    return change


@pytest.mark.parametrize("read_data", [False, True])
def test_what_is_whole_is_clean(checked: Checked, read_data: bool) -> None:
    found = checked.check(read_data)
    assert found.clean
    assert not found.warnings
    assert found.orphans == 0
    assert found.entries == len(checked.entries())
    assert found.segments == len(checked.segments())
    assert found.blocks_read == (-(-len(LARGE) // BLOCK) + 2 if read_data else 0)
    assert found.as_json()["clean"] is True


def test_a_segment_that_is_gone(checked: Checked) -> None:
    gone = checked.segments()[0]
    checked.remove(gone)
    found = checked.check()
    assert any(gone[-64:] in problem for problem in found.problems)
    assert any(problem.startswith("/large:") for problem in found.problems)
    assert not any("small" in problem for problem in found.problems)


def test_a_segment_that_is_cut_short(checked: Checked) -> None:
    short = checked.segments()[0]
    checked.alter(short, lambda data: data[:-1])
    found = checked.check()
    assert any(short[-64:] in problem and "bytes" in problem for problem in found.problems)


@pytest.mark.parametrize("at", [5, -5], ids=["block", "footer"])
def test_an_altered_segment_shows_when_data_is_read(checked: Checked, at: int) -> None:
    altered = checked.segments()[0]
    checked.alter(altered, flip(at))
    assert checked.check().clean
    found = checked.check(read_data=True)
    assert any(altered[-64:] in problem for problem in found.problems)
    assert any(problem.startswith("/large:") for problem in found.problems)


def test_an_altered_entry(checked: Checked) -> None:
    last = checked.entries()[-1]
    checked.alter(last, flip(len(checked.objects[last][0]) // 2))
    found = checked.check()
    assert found.void_entries == 1
    assert found.warnings


def test_a_missing_entry(checked: Checked) -> None:
    entries = checked.entries()
    assert len(entries) >= 4
    checked.remove(entries[-2])
    found = checked.check()
    assert any("behind it" in problem for problem in found.problems)


def test_an_entry_in_the_place_of_another(checked: Checked) -> None:
    entries = checked.entries()
    checked.alter(entries[-1], lambda data: checked.objects[entries[-2]][0])
    found = checked.check()
    assert found.void_entries == 1 or found.problems


def test_what_nothing_names_is_counted(checked: Checked) -> None:
    MemoryStore(checked.space.bucket).put_if_absent(f"data/ab/{'ab' * 32}", b"x" * 100)
    MemoryStore(checked.space.bucket).put_if_absent("data/ab/junk", b"x")
    found = checked.check()
    assert found.clean
    assert (found.orphans, found.orphan_bytes) == (1, 100)
    assert any("junk" in warning for warning in found.warnings)


def test_a_block_altered_in_the_store_is_an_error_and_nothing_else_is_harmed(
    checked: Checked,
) -> None:
    """Fetched twice, as S-44 says, and then EIO; the blocks beside it are read."""
    key = next(
        key for key in checked.segments()
        if len(checked.objects[key][0]) > 8_000_000
    )  # fmt: skip
    checked.alter(key, flip(5))
    with checked.space.connect("b") as fs:
        with pytest.raises(CorruptBlock):
            fs.read_bytes("/large")
        whole = 0
        with fs.open("/large", "rb", 0) as file:
            for at in range(0, len(LARGE), BLOCK):
                file.seek(at)
                try:
                    assert file.read(BLOCK) == LARGE[at : at + BLOCK]
                    whole += 1
                except CorruptBlock:
                    continue
        assert whole == -(-len(LARGE) // BLOCK) - 1
        assert fs.read_bytes("/deep/down/small") == b"small"


def test_what_is_gone_for_ever_is_an_error_until_it_is_written(checked: Checked) -> None:
    key = next(key for key in checked.segments() if len(checked.objects[key][0]) > 8_000_000)
    checked.remove(key)
    with checked.space.connect("b") as fs:
        for _ in range(2):
            with pytest.raises(CorruptObject):
                fs.read_bytes("/large")
        fs.write_bytes("/large", LARGE)
        assert fs.read_bytes("/large") == LARGE
    with checked.space.connect("c") as fs:
        assert fs.read_bytes("/large") == LARGE
