"""What the soak's workers do: steps made from a seed, and the tree that each of them leaves.

Pure. A worker works on names of its own, in directories that all share, so that what one of them
may have left is known without asking the others. Every byte follows from the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

__all__ = ["KEPT", "LOGS", "SHARED", "Step", "Tree", "after", "log_path", "owner_of", "steps"]

SHARED = ("/d0", "/d1", "/d2")
"""Directories in which every worker has names. They are there before the first step."""
LOGS = "/logs"
"""The files that workers keep open lie here, one each."""
FILES_MOST = 30
SIZES = (0, 1, 300, 5_000, 70_000, 200_000)
LARGE = 3_000_000
OFFSETS = (0, 100, 65_000, 131_072)

Tree = dict[str, bytes | None]
"""Path -> the bytes of a file, None for a directory."""

WEIGHTS = {
    "make": 8, "large": 1, "append": 6, "patch": 6, "save": 5, "cut": 3, "rename": 4, "replace": 6,
    "remove": 5, "mkdir": 2, "rmdir": 2, "sync": 3, "syncdir": 1, "write": 8, "fsync": 3,
    "reopen": 1,
}  # fmt: skip

KEPT = ("write", "fsync", "reopen")
"""Steps on the file that a worker keeps open."""


class Step(NamedTuple):
    """One thing to do. `seed` and `size` say which bytes."""

    kind: str
    path: str = ""
    other: str = ""
    seed: int = 0
    size: int = 0
    offset: int = 0

    def data(self) -> bytes:
        return Random(self.seed).randbytes(self.size)


def log_path(worker: int) -> str:
    return f"{LOGS}/w{worker}"


def owner_of(path: str) -> int | None:
    """The worker whose name this is; None for what all share, and for names nobody gave."""
    for part in path.split("/")[2:]:
        number, mark, _ = part.removeprefix("w").partition("-")
        if part.startswith("w") and mark and number.isdigit():
            return int(number)
    return None


def steps(chance: Random, worker: int, run: int, tree: Tree) -> Iterator[Step]:
    """Steps without end, from this tree on. Reads and changes `tree`, its contents do not count."""
    number = 0
    while True:
        number += 1
        seed = (run * 100 + worker) * 100_000 + number
        for step in _next(chance, worker, seed, tree):
            yield step
            left = after(tree, step._replace(size=0, offset=0))
            tree.clear()
            tree.update(left)


def _next(chance: Random, worker: int, seed: int, tree: Tree) -> list[Step]:
    files = sorted(path for path, data in tree.items() if data is not None)
    directories = sorted(path for path, data in tree.items() if data is None)
    kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if len(files) > FILES_MOST:
        kind = "remove"
    elif len(files) < 4 and kind not in ("large", *KEPT):
        kind = "make"
    fresh = f"{chance.choice([*SHARED, *directories])}/w{worker}-{seed}"
    size = chance.choice(SIZES)
    if kind in ("make", "large"):
        return [Step("make", fresh, "", seed, LARGE if kind == "large" else size)]
    if kind in KEPT:
        return [Step(kind, log_path(worker), "", seed, chance.randrange(1, 3000))]
    if kind == "mkdir":
        return [Step(kind, f"{chance.choice(SHARED)}/w{worker}-dir{seed}")]
    if kind == "rmdir":
        empty = [path for path in directories if not _below(tree, path)]
        return [Step(kind, chance.choice(empty))] if empty else []
    if kind == "rename" and directories and chance.random() < 0.3:
        moved = f"{chance.choice(SHARED)}/w{worker}-dir{seed}"
        return [Step(kind, chance.choice(directories), moved)]
    path = chance.choice(files)
    if kind == "rename":
        return [Step(kind, path, fresh if seed % 2 else chance.choice(files))]
    if kind == "replace":
        made = Step("make", fresh, "", seed, size)
        return [made, Step("sync", fresh), Step("rename", fresh, path)][:: 1 if seed % 2 else 2]
    return [Step(kind, path, "", seed, size, chance.choice(OFFSETS))]


def _below(tree: Tree, directory: str) -> list[str]:
    return [path for path in tree if path.startswith(f"{directory}/")]


def after(tree: Tree, step: Step) -> Tree:
    """The tree after the step. What a worker keeps open is in no tree."""
    found = dict(tree)
    if step.kind == "rename":
        _rename(found, step.path, step.other)
    elif step.kind in ("remove", "rmdir"):
        del found[step.path]
    elif step.kind == "mkdir":
        found[step.path] = None
    elif step.kind in ("make", "append", "patch", "save", "cut"):
        found[step.path] = _content(found.get(step.path) or b"", step)
    return found


def _rename(tree: Tree, old: str, new: str) -> None:
    if old == new:
        return
    for path in _below(tree, old):
        tree[new + path.removeprefix(old)] = tree.pop(path)
    tree[new] = tree.pop(old)


def _content(old: bytes, step: Step) -> bytes:
    if step.kind == "append":
        return old + step.data()
    if step.kind == "cut":
        return old[: step.size].ljust(step.size, b"\0")
    if step.kind == "patch" and step.size:
        padded = old.ljust(step.offset, b"\0")
        return padded[: step.offset] + step.data() + padded[step.offset + step.size :]
    return old if step.kind == "patch" else step.data()
