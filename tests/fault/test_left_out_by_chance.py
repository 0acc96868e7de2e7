"""Names and contents by chance, some of which loss of power takes: what is there is what would be,
had those writes never been."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from tests.fault.losing import OLD, OTHER, Losing
from tests.filespace.spaces import BLOCK, Space, parts_of, some_bytes

NAMES = ["/a", "/b", "/c", "/file", "/other"]
FRESH = ["/new", "/newer"]


@dataclass
class File:
    """`content`: what is of it after loss of power; None: it never was."""

    content: bytes | None


class Program:
    """Does things by chance, and knows what it sees and what there will be."""

    def __init__(self, machine: Losing, seed: int) -> None:
        self._machine = machine
        self._chance = Random(seed)
        self._staging = machine.space.state("a") / "staging"
        self._known = set(self._staging.iterdir())
        self._seen = {"/file": File(OLD), "/other": File(OTHER)}
        self.left = dict(self._seen)
        self.done: list[tuple[object, ...]] = []

    def step(self) -> None:
        what = self._chance.choice(
            [self._create, self._create, self._rename, self._rename, self._rename, self._remove,
             self._rewrite]
        )  # fmt: skip
        what()

    def _write(self, path: str) -> bytes | None:
        """None where it is lost."""
        content = some_bytes(self._chance.randrange(1 << 40), 3 * BLOCK)
        self._machine.fs.write_bytes(path, content)
        parts = parts_of(self._machine.fs)
        pending = [set(placed.segments) for placed in parts.order.all()]
        parts.staged.finish_for(set().union(*pending))
        fresh = set(self._staging.iterdir()) - self._known
        self._known |= fresh
        is_lost = self._chance.random() < 0.5
        if is_lost:
            self._machine.lost += sorted(fresh)
        self.done.append(("write", path, "lost" if is_lost else "kept"))
        return None if is_lost else content

    def _create(self) -> None:
        free = [name for name in (*NAMES, *FRESH) if name not in self._seen]
        if free:
            path = self._chance.choice(free)
            self._seen[path] = File(self._write(path))
            if self._seen[path].content is not None:
                self.left[path] = self._seen[path]

    def _rewrite(self) -> None:
        """Not of what is lost: that would bring it back from its beginning."""
        there = sorted(path for path, file in self._seen.items() if file.content is not None)
        if there:
            path = self._chance.choice(there)
            content = self._write(path)
            if content is not None:
                self._seen[path].content = content

    def _rename(self) -> None:
        if self._seen:
            old = self._chance.choice(sorted(self._seen))
            new = self._chance.choice([name for name in NAMES if name != old])
            self._machine.fs.rename(old, new)
            self._seen[new] = self._seen.pop(old)
            if old in self.left:
                self.left[new] = self.left.pop(old)
            self.done.append(("rename", old, new))

    def _remove(self) -> None:
        if self._seen:
            path = self._chance.choice(sorted(self._seen))
            self._machine.fs.remove(path)
            del self._seen[path]
            self.left.pop(path, None)
            self.done.append(("remove", path))


@pytest.mark.parametrize("seed", range(40))
def test_what_is_lost_never_was(space: Space, seed: int) -> None:
    machine = Losing(space)
    program = Program(machine, seed)
    for _ in range(3 + seed % 6):
        program.step()
    fs = machine.crash(times=1 + seed % 2)
    found = {f"/{name}": fs.read_bytes(f"/{name}") for name in fs.listdir("/")}
    expected = {path: file.content for path, file in program.left.items()}
    assert sorted(found) == sorted(expected), program.done
    assert found == expected, program.done
