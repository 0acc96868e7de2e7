"""A file with two versions, and who has it: for the tests of versions, restore and undelete."""

from __future__ import annotations

from lucid.filespace import Filespace
from tests.filespace.spaces import BLOCK, WAIT_S, some_bytes

OLD, NEW = some_bytes(1, 3 * BLOCK + 17), some_bytes(2, BLOCK + 5)


def settle(*machines: Filespace) -> None:
    """All have all."""
    for fs in machines:
        fs.sync(timeout=WAIT_S)
    for fs in machines:
        assert fs.refresh(WAIT_S)


def numbers(fs: Filespace, path: str) -> list[str]:
    """The numbers of a path's versions, oldest first."""
    return [version.number for version in fs.versions(path)]


def twice(fs: Filespace, path: str = "/plan.txt") -> tuple[str, str]:
    """Writes a file, and again; the numbers of the two versions."""
    fs.write_bytes(path, OLD)
    fs.write_bytes(path, NEW)
    first, second = numbers(fs, path)
    return first, second
