"""Names, contents and attributes by chance, and loss of power takes some of the bytes: what is
there is what would be, had those writes never been."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from lucid.filespace import Filespace
from lucid.filespace.surface import Attributes
from tests.fault.chance_program import Node, Program
from tests.fault.losing import Losing
from tests.filespace.spaces import Space


def walked(fs: Filespace, top: str = "") -> Iterator[tuple[str, Attributes]]:
    for name in fs.listdir(top or "/"):
        path = f"{top}/{name}"
        row = fs.stat(path, follow_symlinks=False)
        yield path, row
        if stat.S_ISDIR(row.mode):
            yield from walked(fs, path)


def check(fs: Filespace, left: dict[str, Node], done: object) -> None:
    found = dict(walked(fs))
    assert sorted(found) == sorted(left), done
    for path, node in left.items():
        row = found[path]
        if node.mode is not None:
            assert stat.S_IMODE(row.mode) == node.mode, (path, done)
        if node.kind != "file":
            continue
        assert fs.read_bytes(path) == node.content, (path, done)
        if node.mtime_ns is not None:
            assert row.mtime_ns == node.mtime_ns, (path, done)
        assert row.mtime_ns not in node.not_mtimes_ns, (path, done)
        linked = [each for each, other in left.items() if other is node]
        assert sorted(each for each in found if found[each].ino == row.ino) == sorted(linked), done
        assert row.nlink == len(linked), (path, done)


@pytest.mark.parametrize("seed", range(90))
def test_what_is_lost_never_was(space: Space, seed: int) -> None:
    machine = Losing(space)
    program = Program(machine, seed)
    for _ in range(8 + seed % 16):
        program.step()
    fs = machine.crash(times=1 + seed % 2)
    left = program.left()
    check(fs, left, program.done)
    with space.connect("b") as other:
        check(other, left, program.done)
