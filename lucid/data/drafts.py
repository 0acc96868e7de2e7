"""The table of drafts, and the private names: files that exist here and that the log does not know.

`lock` guards the dictionaries only. Names change under the order lock, so a private name and a
name of the replica are never made twice.
"""

from __future__ import annotations

import threading

from lucid.data.draft import Draft
from lucid.engine.hits import HitTable
from lucid.engine.known import KnownTable

__all__ = ["DraftTable"]


class DraftTable:
    """Drafts by inode, private ones also by (parent, name)."""

    def __init__(self, hits: HitTable, known: KnownTable) -> None:
        """hits: does not serve an inode for as long as it has a draft. known: is told of all that
        a draft changes for those who ask for names and attributes."""
        self._hits = hits
        self._known = known
        self._lock = threading.Lock()
        self._by_ino: dict[int, Draft] = {}
        self._by_name: dict[tuple[int, bytes], Draft] = {}
        self._children: dict[int, dict[int, Draft]] = {}
        self._times: dict[int, int] = {}

    def get(self, ino: int) -> Draft | None:
        return self._by_ino.get(ino)

    def all(self) -> list[Draft]:
        with self._lock:
            return list(self._by_ino.values())

    def __len__(self) -> int:
        return len(self._by_ino)

    def add(self, draft: Draft) -> Draft:
        """Keep `draft`, unless its inode has one already: the one that counts is returned."""
        with self._lock:
            found = self._by_ino.setdefault(draft.ino, draft)
            if found is draft:
                self._hits.shadow(draft.ino)
                self._known.changed(draft.ino)
                if draft.private:
                    self._name(draft)
            return found

    def remove(self, draft: Draft) -> None:
        """The draft is published or dropped."""
        with self._lock:
            if self._by_ino.get(draft.ino) is draft:
                del self._by_ino[draft.ino]
                self._hits.unshadow(draft.ino)
                self._known.changed(draft.ino)
            self._unname(draft)

    def unname(self, draft: Draft) -> None:
        """A private file loses its name; open handles still use the draft."""
        with self._lock:
            self._unname(draft)

    def named(self, parent: int, name: bytes) -> Draft | None:
        """The private file of this name."""
        return self._by_name.get((parent, name))

    def children(self, parent: int, after: int = 0) -> list[Draft]:
        """Private files in a directory with a number above `after`, ascending."""
        with self._lock:
            inside = self._children.get(parent)
            if not inside:
                return []
            return [inside[ino] for ino in sorted(inside) if ino > after]

    def has_children(self, parent: int) -> bool:
        """Whether there are private files in a directory."""
        return parent in self._children

    def touched(self, parent: int) -> int:
        """When a private file was last made in this directory or taken from it, or 0."""
        return self._times.get(parent, 0)

    def touch(self, parent: int, time_ns: int) -> None:
        with self._lock:
            if len(self._times) > 10_000:
                self._times.clear()  # They only sharpen a directory's time until it is published.
            self._times[parent] = max(self._times.get(parent, 0), time_ns)
            self._known.directory_touched(parent, time_ns, 0)

    def _name(self, draft: Draft) -> None:
        self._by_name[draft.parent, draft.name] = draft
        self._children.setdefault(draft.parent, {})[draft.ino] = draft
        self._known.name_changed((draft.parent, draft.name), True)

    def _unname(self, draft: Draft) -> None:
        if self._by_name.get((draft.parent, draft.name)) is draft:
            del self._by_name[draft.parent, draft.name]
            inside = self._children[draft.parent]
            del inside[draft.ino]
            if not inside:
                del self._children[draft.parent]
            self._known.name_changed((draft.parent, draft.name), True)
