"""A journal whose end is torn off: a save of which a record is missing never was (S-27)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.format.journal import FILE_HEADER_SIZE, FRAME_HEAD_SIZE
from tests.filespace.spaces import BLOCK, WAIT_S, Space, some_bytes

OLD = some_bytes(1, 3 * BLOCK + 5000)
MORE = some_bytes(2, BLOCK + 700)


def records(file: Path) -> Iterator[int]:
    """Where the records of a journal file begin."""
    data = file.read_bytes()
    at = FILE_HEADER_SIZE
    while length := int.from_bytes(data[at : at + FRAME_HEAD_SIZE], "little"):
        yield at
        at += FRAME_HEAD_SIZE + length


@pytest.mark.parametrize("torn", range(1, 5))
def test_an_append_is_there_whole_or_not(space: Space, torn: int) -> None:
    """It ends one block in the middle, which is a patch, and fills another, which is sealed."""
    fs = space.connect("a")
    fs.write_bytes("/file", OLD)
    fs.sync(timeout=WAIT_S)
    space.plans["a"].die()
    handle = fs.tree.open(fs.stat("/file").ino, os.O_WRONLY)
    fs.tree.write(handle, len(OLD), MORE)
    journal = max((space.state("a") / "journal").iterdir())
    before = list(records(journal))
    fs.tree.flush(handle)
    space.crash(fs, "a")
    added = list(records(journal))[len(before) :]
    assert len(added) >= 2, "an image and a patch"
    torn = min(torn, len(added))
    with journal.open("r+b") as file:
        file.truncate(added[-torn])
    for _ in range(2):
        # Twice: what is left of the save is not taken up later either.
        again = space.connect("a")
        assert again.read_bytes("/file") == OLD
        again.close()
    with space.connect("b") as other:
        assert other.read_bytes("/file") == OLD
