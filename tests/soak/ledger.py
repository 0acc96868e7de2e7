"""What must be on the drive: kept from what the workers said, compared with what is found.

The rule is that of SEMANTICS section 4. What a call has returned from is there; the one step that
was under way at the kill has happened or not; of the file that a worker keeps open at least what
an fsync or a close covered is there, and never part of a write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from tests.soak.steps import KEPT, LOGS, SHARED, Step, Tree, after, log_path, owner_of

__all__ = ["Ledger", "Mismatch", "Teller"]

SHOWN = 12
PAGE = 4096


class Mismatch(AssertionError):
    """The drive does not hold what it has to."""


@dataclass
class Teller:
    """What one worker has said."""

    number: int
    tree: Tree = field(default_factory=dict)
    """After the last step that was acknowledged."""
    begun: Step | None = None
    kept: bytes = b""
    """All that was written to the file that stays open."""
    kept_least: int = 0
    """So much of it was covered by an fsync or a close."""
    kept_ends: list[int] = field(default_factory=lambda: [0])
    """Where each write to it ended."""
    is_there: bool = False
    stopped: str = ""
    steps: int = 0
    last: list[str] = field(default_factory=list)

    def hear(self, line: str) -> None:
        self.last = [*self.last[-5:], line[:200]]
        word, _, rest = line.partition(" ")
        if word == "open":
            self.is_there = True
        elif word == "do":
            self.begun = Step(*json.loads(rest))
            if self.begun.kind == "write":
                self.kept += self.begun.data()
                self.kept_ends.append(len(self.kept))
        elif word == "did":
            assert self.begun is not None
            self.steps += 1
            if self.begun.kind in ("fsync", "reopen"):
                self.kept_least = len(self.kept)
            elif self.begun.kind not in KEPT:
                self.tree = after(self.tree, self.begun)
            self.begun = None
        elif word == "stopped":
            self.stopped = rest
        else:
            raise Mismatch(f"worker {self.number} said: {line}")

    def may_be(self) -> list[Tree]:
        """The trees that it may have left."""
        if self.begun is None or self.begun.kind in KEPT:
            return [self.tree]
        return [self.tree, after(self.tree, self.begun)]

    def check(self, found: Tree) -> str:
        """What is wrong with its names, or nothing."""
        trees = self.may_be()
        if found in trees:
            return ""
        nearest = min((_difference(found, tree) for tree in trees), key=len)
        return f"worker {self.number} (last: {self.last}): " + "; ".join(nearest[:SHOWN])

    def check_kept(self, found: bytes | None) -> str:
        """What is wrong with the file that it keeps open, or nothing."""
        data = found or b""
        if found is None and self.kept_least:
            return f"{log_path(self.number)}: gone, {self.kept_least} bytes were covered"
        # The kernel may hand a write over in two requests, parted where a page of the file ends.
        is_whole = len(data) in self.kept_ends or not len(data) % PAGE
        if self.kept_least <= len(data) and is_whole and self.kept.startswith(data):
            return ""
        return (
            f"{log_path(self.number)}: {len(data)} bytes found, at least {self.kept_least} of"
            f" {len(self.kept)} expected, the same up to {_same(data, self.kept)}"
        )

    def take(self, found: Tree, kept: bytes | None) -> None:
        """Go on from what is there. REQUIRES: it was checked."""
        self.tree, self.begun, self.is_there, self.stopped = found, None, False, ""
        self.kept = kept or b""
        self.kept_least = len(self.kept)
        self.kept_ends = [len(self.kept)]


class Ledger:
    """All workers of one filespace."""

    def __init__(self, workers: int) -> None:
        self.tellers = [Teller(number) for number in range(workers)]

    def check(self, found: Tree, where: str) -> list[Tree]:
        """The tree of each worker. Raises Mismatch for anything that has no right to be there."""
        trees: list[Tree] = [{} for _ in self.tellers]
        wrong = [f"{path} is missing" for path in (*SHARED, LOGS) if path not in found]
        logs = {log_path(teller.number) for teller in self.tellers}
        for path, data in found.items():
            owner = owner_of(path)
            if owner is not None and owner < len(trees) and "conflict" not in path:
                trees[owner][path] = data
            elif path not in (*SHARED, LOGS) and path not in logs:
                wrong.append(f"{path} was made by nobody")
        for teller, tree in zip(self.tellers, trees, strict=True):
            wrong.append(teller.check(tree))
            wrong.append(teller.check_kept(found.get(log_path(teller.number))))
        if wrong := [line for line in wrong if line]:
            raise Mismatch(f"{where}: " + "\n  ".join(wrong))
        return trees

    def take(self, found: Tree) -> None:
        """What is there is what must be there from now on. Raises Mismatch."""
        for teller, tree in zip(self.tellers, self.check(found, "the store"), strict=True):
            teller.take(tree, found.get(log_path(teller.number)))


def _difference(found: Tree, wanted: Tree) -> list[str]:
    lines = []
    for path in sorted({*found, *wanted}):
        if path not in found:
            lines.append(f"{path} is missing ({_size(wanted[path])})")
        elif path not in wanted:
            lines.append(f"{path} is there ({_size(found[path])})")
        elif found[path] != wanted[path]:
            same = _same(found[path] or b"", wanted[path] or b"")
            sizes = f"{_size(found[path])} instead of {_size(wanted[path])}"
            lines.append(f"{path}: {sizes}, the same up to {same}")
    return lines


def _size(data: bytes | None) -> str:
    return "a directory" if data is None else f"{len(data)} bytes"


def _same(one: bytes, other: bytes) -> int:
    """How many bytes are the same from the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (this, that) in pairs if this != that), min(len(one), len(other)))
