"""Holds what the engine would answer by itself against what the filespace says."""

from __future__ import annotations

import stat

from lucid.errors import NotFound
from lucid.filespace.surface import Attributes
from lucid.filespace.tree import Tree

__all__ = ["Knowing", "StaleAnswer"]

What = "tuple[int, bytes] | int"
"""A name in its directory, or an inode."""
TRIES = 5
"""Looks at one thing: the sync thread may change it between two questions."""


class StaleAnswer(AssertionError):
    """The engine answers what is not true any more."""


class Knowing:
    """Of one open filespace. `look` after each step."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._inodes = {1}
        self._names: set[tuple[int, bytes]] = set()
        tree.known.begin()
        self.answers = 0
        """How many were held against the truth."""

    def look(self) -> None:
        """Raises StaleAnswer. What was seen before is asked for too, gone or not."""
        # Before anything else is asked: a fresh answer would take the place of a stale one.
        known = self._tree.known
        answers = [(name, known.name(*name)) for name in self._names]
        answers += [(ino, known.inode(ino)) for ino in self._inodes]
        for what, answer in answers:
            self._hold(what, answer)
        waiting = [1]
        while waiting:
            directory = waiting.pop()
            for name, attributes in self._listed(directory):
                self._names.add((directory, name))
                self._inodes.add(attributes.ino)
                if stat.S_ISDIR(attributes.mode):
                    waiting.append(attributes.ino)

    def _listed(self, directory: int) -> list[tuple[bytes, Attributes]]:
        try:
            found = self._tree.readdir(directory, 0, 500)
        except NotFound:
            return []  # Gone since its parent was listed.
        return [(entry.name, entry.attributes) for entry in found]

    def _ask(self, what: What) -> Attributes | None:
        try:
            if isinstance(what, tuple):
                return self._tree.lookup(*what)
            return self._tree.attributes(what)
        except NotFound:
            return None

    def _hold(self, what: What, answer: tuple[int, ...] | None) -> None:
        known = self._tree.known
        for _ in range(TRIES):
            if answer is None:
                return
            true = self._ask(what)
            if answer == true:
                self.answers += 1
                return
            answer = known.name(*what) if isinstance(what, tuple) else known.inode(what)
        raise StaleAnswer(f"{what}: {answer} instead of {true}")
