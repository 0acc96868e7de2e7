"""What may be there after loss of power: one worker's trees, one after the other.

The rule is that of SEMANTICS S-23 and S-27. The names are those after some step, not before the
last sync. A file has one of the contents that it had since it was last synced. Only a file that was
made since the store had everything and was never synced may be gone or unreadable, or have left the
place it took to the file that was there before.
"""

from __future__ import annotations

from itertools import count

from tests.soak.steps import KEPT, Step, Tree, after

__all__ = ["UNREADABLE", "Past"]

UNREADABLE = b"\0unreadable\0"
"""Found in the place of a content that is an error to read."""

PIECE = 1000
"""Bytes that are compared at once."""

Files = dict[str, int | None]
"""Path -> number of the file; None for a directory."""


class Past:
    """Of one worker, since the store had everything. Pure."""

    def __init__(self, tree: Tree) -> None:
        self._numbers = count()
        self._tree = tree
        first: Files = {}
        self._contents: dict[int, list[bytes]] = {}
        for path, data in tree.items():
            first[path] = None if data is None else self._new(data)
        self._states = [first]
        self._synced: dict[int, int] = {}
        """File -> which of its contents was synced last, where it is not the first."""
        self._vague: set[int] = set()
        """Files that were made since and never synced."""
        self._names_synced = 0

    def _new(self, data: bytes) -> int:
        number = next(self._numbers)
        self._contents[number] = [data]
        return number

    def begin(self, step: Step) -> None:
        """A step is under way from now on."""
        if step.kind in KEPT:
            return
        self._tree = after(self._tree, step)
        files = dict(self._states[-1])
        data = self._tree.get(step.path)
        if step.kind == "make":
            files[step.path] = number = self._new(data or b"")
            self._vague.add(number)
        elif step.kind == "mkdir":
            files[step.path] = None
        elif step.kind in ("remove", "rmdir"):
            del files[step.path]
        elif step.kind == "rename" and step.path != step.other:
            for path in [each for each in files if each.startswith(f"{step.path}/")]:
                files[step.other + path.removeprefix(step.path)] = files.pop(path)
            files[step.other] = files.pop(step.path)
        elif (number_ := files[step.path]) is not None and step.kind not in ("sync", "syncdir"):
            self._contents[number_].append(data or b"")
        self._states.append(files)

    def end(self, step: Step) -> None:
        """The step that was begun last was acknowledged."""
        last = len(self._states) - 1
        if step.kind in ("fsync", "sync", "syncdir"):
            self._names_synced = last
        number = self._states[last].get(step.path)
        if step.kind == "sync" and number is not None:
            self._synced[number] = len(self._contents[number]) - 1
            self._vague.discard(number)

    def check(self, found: Tree) -> str:
        """What is wrong with `found`, or nothing."""
        told = [self._wrong(found, number) for number in self._numbers_of_states()]
        return min(told, key=len) and f"{min(told, key=len)} (names synced at {self._names_synced})"

    def _numbers_of_states(self) -> range:
        return range(self._names_synced, len(self._states))

    def _wrong(self, found: Tree, number: int) -> str:
        """Why `found` is not what that step left, or nothing."""
        files = self._states[number]
        wrong = [f"{path} is there" for path in sorted(found.keys() - files.keys())]
        for path, file in files.items():
            if path not in found:
                if file not in self._vague:
                    wrong.append(f"{path} is missing")
            elif file is None or found[path] is None:
                if (found[path] is None) != (file is None):
                    wrong.append(f"{path} is of another kind")
            elif found[path] not in self._allowed(path, file, number):
                held = ", ".join(
                    told_apart(found[path] or b"", data) for data in self._contents[file]
                )
                wrong.append(f"{path} has {len(found[path] or b'')} bytes, of its contents {held}")
        return "; ".join(wrong)

    def _allowed(self, path: str, file: int, number: int) -> list[bytes]:
        held = self._contents[file][self._synced.get(file, 0) :]
        if file not in self._vague:
            return held
        before = {state.get(path) for state in self._states[: number + 1]}
        others = [each for one in before if one is not None for each in self._contents[one]]
        return [UNREADABLE, *held, *others]


def told_apart(found: bytes, data: bytes) -> str:
    """How a content that is found differs from another, by pieces."""
    pieces = range(0, max(len(found), len(data)), PIECE)
    wrong = [at for at in pieces if found[at : at + PIECE] != data[at : at + PIECE]]
    return f"{len(data)} bytes, other from {wrong[0]} to {wrong[-1] + PIECE}" if wrong else "this"
