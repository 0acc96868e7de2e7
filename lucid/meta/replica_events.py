"""What a commit changed that somebody may hold a copy of: the kernel, a handle, a waiter.

Filled by the replica under its lock, taken by the thread that tells the kernel. Bounded: beyond
`EVENTS_MAX` it says only that anything may have changed.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.meta.fold_effect import Effect

__all__ = ["EVENTS_MAX", "Changed", "Events", "Rebased"]

EVENTS_MAX = 16_384
"""Inodes, names and rebased ops each; about 3 MB."""


class Rebased(NamedTuple):
    """A pending op that was applied again, on another state than before."""

    position: int
    op_id: int
    effect: Effect


class Changed(NamedTuple):
    """Everything since the last time somebody asked, each once.

    `names` are (directory, name). With `everything`, the sets are not complete: whatever was handed
    out may be old.
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

    def effect(self, effect: Effect) -> None:
        """Somebody else's op had this effect."""
        self._inodes.update(effect.inodes)
        self._names.update(effect.names)
        for parent, _ in effect.names:
            self._inodes.add(parent)
        self._bound()

    def inode(self, ino: int) -> None:
        self._inodes.add(ino)

    def name(self, parent: int, name: bytes) -> None:
        self._names.add((parent, name))
        self._inodes.add(parent)

    def rebased(self, rebased: Rebased) -> None:
        self._rebased[rebased.op_id] = rebased
        self._bound()

    def take(self) -> Changed:
        """All that was collected; it begins anew."""
        changed = Changed(
            frozenset(self._inodes),
            frozenset(self._names),
            tuple(self._rebased.values()),
            self._everything,
        )
        self.__init__()  # type: ignore[misc]
        return changed

    def _bound(self) -> None:
        if len(self._inodes) > EVENTS_MAX or len(self._names) > EVENTS_MAX:
            self._everything = True
            self._inodes.clear()
            self._names.clear()
