"""What a commit changed that somebody may hold a copy of: the kernel, a handle, a waiter.

Filled by the replica under its lock, taken by the thread that tells the kernel. Bounded: names
beyond `NAMES_MAX` are left out, for the kernel asks for each again after a second anyway. Pages of
a closed file it would believe for ever, so only beyond `INODES_MAX` inodes, which is more than an
entry can change, it says that anything may have changed.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.meta.fold_effect import Effect, Status

__all__ = ["INODES_MAX", "NAMES_MAX", "Changed", "Events", "Rebased"]

NAMES_MAX = 16_384
"""About 2 MB."""
INODES_MAX = 131_072
"""About 9 MB. An entry has up to 16,384 ops, and a rename changes four inodes."""


class Rebased(NamedTuple):
    """A pending op that was applied again, on another state than before."""

    position: int
    op_id: int
    effect: Effect


class Changed(NamedTuple):
    """Everything since the last time somebody asked, each once.

    `names` are (directory, name), the first NAMES_MAX of them; their directories are all in
    `inodes`. With `everything`, the sets are not complete: whatever was handed out may be old.
    """

    inodes: frozenset[int]
    names: frozenset[tuple[int, bytes]]
    rebased: tuple[Rebased, ...]
    everything: bool


class Events:
    """Collects, coalesces, hands over. Used under the replica's lock."""

    def __init__(self) -> None:
        self._inodes: set[int] = set()
        self._names: set[tuple[int, bytes]] = set()
        self._rebased: dict[int, Rebased] = {}
        self._everything = False

    def __bool__(self) -> bool:
        return bool(self._inodes or self._names or self._rebased or self._everything)

    def add(self, effect: Effect) -> None:
        """Somebody else's op had this effect."""
        if self._everything:
            return
        inodes, names = self._inodes, self._names
        inodes.update(effect.inodes)
        for name in effect.names:
            if len(names) < NAMES_MAX:
                names.add(name)
            inodes.add(name[0])
        if len(inodes) > INODES_MAX:
            self._overflow()

    def inode(self, ino: int) -> None:
        """The row of an inode is another one."""
        self.add(Effect(Status.APPLIED, (ino,), (), 0))

    def name(self, parent: int, name: bytes) -> None:
        """A name appeared, vanished or leads elsewhere."""
        self.add(Effect(Status.APPLIED, (), ((parent, name),), 0))

    def rebased(self, rebased: Rebased) -> None:
        """An own op was applied again. One result an op is kept: there are no more than ops."""
        self._rebased[rebased.op_id] = rebased

    def take(self) -> Changed:
        """All that was collected; it begins anew."""
        changed = Changed(
            frozenset(self._inodes),
            frozenset(self._names),
            tuple(self._rebased.values()),
            self._everything,
        )
        self._inodes, self._names = set(), set()
        self._rebased = {}
        self._everything = False
        return changed

    def _overflow(self) -> None:
        self._everything = True
        self._inodes.clear()
        self._names.clear()
