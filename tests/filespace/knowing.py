"""Holds what the engine would answer by itself against what the filespace says."""

from __future__ import annotations

import stat

from lucid.errors import NotFound
from lucid.filespace.surface import Attributes
from lucid.filespace.tree import Tree

__all__ = ["Knowing", "StaleAnswer"]

What = "tuple[int, bytes] | int"
"""A name in its directory, or an inode."""


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
        self.absent = 0
        """And how many names were rightly said to lead nowhere."""

    def look(self) -> None:
        """Raises StaleAnswer. What was seen before is asked for too, gone or not."""
        # All of them before anything is asked: a fresh answer takes the place of a stale one.
        known = self._tree.known
        ticket = known.ticket()
        answers: list[tuple[What, tuple[int, ...] | None]]
        answers = [(name, known.name(*name)) for name in self._names]
        answers += [(ino, known.inode(ino)) for ino in self._inodes]
        for what, answer in answers:
            true = self._ask(what)
            if known.ticket() != ticket:
                break  # The sync thread changed something meanwhile: who is right cannot be told.
            if answer is not None and answer != true:
                raise StaleAnswer(f"{what}: {answer} instead of {true}")
            self.answers += answer is not None
            if isinstance(what, tuple) and known.is_absent(*what):
                if true is not None:
                    raise StaleAnswer(f"{what} is said to lead nowhere, and leads to {true}")
                self.absent += 1
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
