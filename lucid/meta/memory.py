"""The state of a filespace in plain dictionaries: the model that other keepers are compared with.

It owns nothing but its rows, does no I/O and knows no threads: one thread at a time. Fast enough to
fold a log of a few hundred thousand ops in a test or an fsck, and plain enough to be believed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from lucid.format.change import Change, SegmentRow
from lucid.format.runs import Geometry
from lucid.meta.lease_rows import lease_name, pack_lease, unpack_lease
from lucid.meta.state import (
    DentryRow,
    Extent,
    GenerationRow,
    InodeRow,
    LeaseRow,
    MemberRow,
    RemovedRow,
    SessionRow,
    VersionRow,
    directory_times,
)

__all__ = ["MemoryState"]


class _Kept(NamedTuple):
    """One extent of one map, with the versions that added and ended it (0: still there)."""

    extent: Extent
    born: int
    died: int


class _Map:
    """The newest map of one file, ascending, and what older versions had in its stead."""

    __slots__ = ("firsts", "newest", "past")

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.newest: list[_Kept] = []
        self.past: list[_Kept] = []


class MemoryState:
    """A whole `State`. Totals are `inodes` and `data_bytes`; everything else is read by its key."""

    def __init__(self, geometry: Geometry) -> None:
        self.stamp = 0
        self.geometry = geometry
        self.inodes = 0
        self.data_bytes = 0
        self._inodes: dict[int, InodeRow] = {}
        self._children: dict[int, dict[bytes, DentryRow]] = {}
        self._names: dict[int, list[DentryRow]] = {}
        self._touched: dict[int, int] = {}
        self._subdirectories: dict[int, int] = {}
        self._xattrs: dict[int, dict[bytes, bytes]] = {}
        self._versions: dict[int, VersionRow] = {}
        self._maps: dict[int, _Map] = {}
        self._removed: dict[int, RemovedRow] = {}
        self._staged: dict[int, list[Change]] = {}
        self._segments: dict[bytes, SegmentRow] = {}
        self._members: dict[bytes, MemberRow] = {}
        self._sessions: dict[int, SessionRow] = {}
        self._generations: list[GenerationRow] = []
        self._values: dict[str, bytes] = {}

    # Inodes and names

    def inode(self, ino: int) -> InodeRow | None:
        return self._inodes.get(ino)

    def put_inode(self, row: InodeRow) -> None:
        self._inodes[row.ino] = row

    def dentry(self, parent: int, name: bytes) -> DentryRow | None:
        names = self._children.get(parent)
        return None if names is None else names.get(name)

    def put_dentry(self, row: DentryRow) -> None:
        children = self._children.get(row.parent)
        if children is None:
            children = self._children[row.parent] = {}
        children[row.name] = row
        names = self._names.get(row.ino)
        if names is None:
            self._names[row.ino] = [row]
        else:
            names.append(row)
            names.sort(key=_by_id)

    def remove_dentry(self, parent: int, name: bytes) -> None:
        row = self._children[parent].pop(name)
        self._names[row.ino].remove(row)

    def has_children(self, parent: int) -> bool:
        return bool(self._children.get(parent))

    def names(self, ino: int) -> Sequence[DentryRow]:
        return tuple(self._names.get(ino, ()))

    def children(self, parent: int) -> list[DentryRow]:
        """The names in a directory in readdir's order. Not of the protocol: for reading a model."""
        return sorted(self._children.get(parent, {}).values(), key=_by_id)

    def live_inodes(self) -> list[InodeRow]:
        """Every inode that has a name, by number. Not of the protocol."""
        return [row for _, row in sorted(self._inodes.items()) if row.nlink]

    def touch_directory(self, ino: int, time_ns: int, subdirectories: int = 0) -> None:
        touched = self._touched.get(ino)
        if touched is None or touched < time_ns:
            self._touched[ino] = time_ns
        if subdirectories:
            self._subdirectories[ino] = self._subdirectories.get(ino, 0) + subdirectories

    def times(self, ino: int) -> tuple[int, int]:
        """(mtime, ctime) of a directory as it is shown. Not of the protocol."""
        return directory_times(self._inodes[ino], self._touched.get(ino))

    def subdirectories(self, ino: int) -> int:
        """How many directories lie in a directory. Not of the protocol."""
        return self._subdirectories.get(ino, 0)

    def count(self, inodes: int, data_bytes: int) -> None:
        self.inodes += inodes
        self.data_bytes += data_bytes

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        return self._xattrs.get(ino, {}).get(name)

    def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]:
        return sorted(self._xattrs.get(ino, {}).items())

    def put_xattr(self, ino: int, name: bytes, value: bytes | None) -> None:
        if value is None:
            self._xattrs.get(ino, {}).pop(name, None)
        else:
            self._xattrs.setdefault(ino, {})[name] = value

    # Content

    def version(self, version: int) -> VersionRow | None:
        return self._versions.get(version)

    def add_version(self, row: VersionRow) -> None:
        self._versions[row.id] = row

    def new_file(self, version: VersionRow, row: InodeRow, dentry: DentryRow) -> None:
        self.add_version(version)
        self.put_inode(row)
        self.put_dentry(dentry)

    def versions(self, ino: int) -> list[VersionRow]:
        found = [row for row in self._versions.values() if row.ino == ino]
        return sorted(found, key=lambda row: row.stamp)

    def extents(self, ino: int, first: int, end: int) -> Sequence[Extent]:
        kept = self._maps.get(ino)
        if kept is None:
            return ()
        low = max(0, bisect_right(kept.firsts, first) - 1)
        high = bisect_left(kept.firsts, end)
        found = [item.extent for item in kept.newest[low:high]]
        if found and found[0].first + found[0].count <= first:
            del found[0]
        return found

    def extents_at(self, ino: int, version: int) -> Sequence[Extent]:
        row = self._versions.get(version)
        kept = self._maps.get(ino)
        if row is None or kept is None:
            return ()
        stamps = self._versions
        # A version that is not there any more was older than all that are.
        found = [
            item.extent
            for item in (*kept.past, *kept.newest)
            if (item.born not in stamps or stamps[item.born].stamp <= row.stamp)
            and (not item.died or stamps[item.died].stamp > row.stamp)
        ]
        return sorted(found)

    def end_extent(self, ino: int, extent: Extent, version: int) -> None:
        kept = self._maps[ino]
        place = bisect_left(kept.firsts, extent.first)
        item = kept.newest.pop(place)
        del kept.firsts[place]
        kept.past.append(_Kept(item.extent, item.born, version))

    def add_extent(self, ino: int, extent: Extent, version: int) -> None:
        kept = self._maps.get(ino)
        if kept is None:
            kept = self._maps[ino] = _Map()
        item = _Kept(extent, version, 0)
        if not kept.firsts or kept.firsts[-1] < extent.first:
            kept.firsts.append(extent.first)
            kept.newest.append(item)
            return
        place = bisect_left(kept.firsts, extent.first)
        kept.firsts.insert(place, extent.first)
        kept.newest.insert(place, item)

    def removed(self, ino: int) -> RemovedRow | None:
        return self._removed.get(ino)

    def put_removed(self, ino: int, row: RemovedRow | None) -> None:
        if row is None:
            self._removed.pop(ino, None)
        else:
            self._removed[ino] = row

    def nameless(self) -> Sequence[int]:
        return sorted(ino for ino, row in self._inodes.items() if not row.nlink)

    def rewritten(self, before: int) -> Sequence[int]:
        older = Counter(row.ino for row in self._versions.values() if row.stamp < before)
        return sorted(ino for ino, count in older.items() if count > 1)

    def end_versions(self, ino: int, gone: Sequence[VersionRow], kept: VersionRow) -> None:
        stamps = self._versions
        map_ = self._maps.get(ino)
        if map_ is not None:
            map_.past = [item for item in map_.past if stamps[item.died].stamp > kept.stamp]
        for row in gone:
            del stamps[row.id]

    def end_inode(self, ino: int) -> None:
        self.put_lease(ino, ())
        for row in self.versions(ino):
            del self._versions[row.id]
        for rows in (
            self._inodes, self._maps, self._xattrs, self._removed, self._touched,
            self._subdirectories, self._names, self._children,
        ):  # fmt: skip
            rows.pop(ino, None)

    def staged(self, target: int) -> Sequence[Change]:
        return self._staged.get(target, ())

    def add_staged(self, target: int, changes: Iterable[Change]) -> None:
        self._staged.setdefault(target, []).extend(changes)

    def drop_staged(self, target: int) -> None:
        self._staged.pop(target, None)

    # The filespace itself

    def segment(self, segment: bytes) -> SegmentRow | None:
        return self._segments.get(segment)

    def add_segment(self, row: SegmentRow) -> None:
        self._segments.setdefault(row.id, row)

    def end_segments(self, head: int) -> None:
        named = {change.segment for changes in self._staged.values() for change in changes}
        for kept in self._maps.values():
            named.update(item.extent.segment for item in (*kept.past, *kept.newest))
        for row in list(self._segments.values()):
            if row.head < head and row.id not in named:
                del self._segments[row.id]

    def move_blocks(
        self, segments: Collection[bytes], moved: Callable[[Change], Change]
    ) -> Sequence[int]:
        def again(change: Change) -> Change:
            return moved(change) if change.segment in segments else change

        touched = []
        for ino, kept in self._maps.items():
            before = (kept.newest, kept.past)
            kept.newest, kept.past = (
                [item._replace(extent=again(item.extent)) for item in items] for items in before
            )
            if before != (kept.newest, kept.past):
                touched.append(ino)
        for target, changes in self._staged.items():
            self._staged[target] = [again(change) for change in changes]
        return sorted(touched)

    def raise_head(self, segment: bytes, head: int) -> None:
        row = self._segments[segment]
        self._segments[segment] = row._replace(head=max(row.head, head))

    def member(self, member: bytes) -> MemberRow | None:
        return self._members.get(member)

    def put_member(self, row: MemberRow) -> None:
        self._members[row.id] = row

    def session(self, number: int) -> SessionRow | None:
        return self._sessions.get(number)

    def put_session(self, row: SessionRow) -> None:
        self._sessions[row.number] = row

    def next_session(self) -> int:
        return max(self._sessions, default=0) + 1

    def generation(self) -> GenerationRow | None:
        return max(self._generations, key=lambda row: row.number, default=None)

    def put_generation(self, row: GenerationRow) -> None:
        self._generations.append(row)

    def get_value(self, name: str) -> bytes | None:
        return self._values.get(name)

    def put_value(self, name: str, value: bytes) -> None:
        self._values[name] = value

    def lease(self, ino: int) -> Sequence[LeaseRow]:
        packed = self._values.get(lease_name(ino))
        return () if packed is None else unpack_lease(packed)

    def put_lease(self, ino: int, line: Sequence[LeaseRow]) -> None:
        self._values.pop(lease_name(ino), None)
        if line:
            self._values[lease_name(ino)] = pack_lease(line)

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row in one canonical order: two states are equal when their dumps are.

        Directory rows are (ino, touched, subdirectories), extents (ino, first, born, died, extent),
        staged ones (target, position, change); rows that say nothing are left out, and so is the
        table that rules 1 do not have, where it is empty.
        """
        directories = {*self._touched, *self._subdirectories}
        extents = [
            (ino, item.extent.first, item.born, item.died, tuple(item.extent))
            for ino, kept in self._maps.items()
            for item in (*kept.past, *kept.newest)
        ]
        removed = {"removed": _sorted(self._removed.values())} if self._removed else {}
        return removed | {
            "inode": _sorted(self._inodes.values()),
            "dentry": _sorted(row for rows in self._children.values() for row in rows.values()),
            "directory": sorted(
                (ino, self._touched.get(ino, 0), self._subdirectories.get(ino, 0))
                for ino in directories
            ),
            "xattr": sorted(
                (ino, name, value)
                for ino, values in self._xattrs.items()
                for name, value in values.items()
            ),
            "version": _sorted(self._versions.values()),
            "extent": sorted(extents),
            "staged": [
                (target, position, tuple(change))
                for target, changes in sorted(self._staged.items())
                for position, change in enumerate(changes)
            ],
            "segment": _sorted(self._segments.values()),
            "member": _sorted(self._members.values()),
            "session": _sorted(self._sessions.values()),
            "generation": _sorted(self._generations),
            "value": sorted(self._values.items()),
            "totals": [(self.inodes, self.data_bytes)],
        }


def _by_id(row: DentryRow) -> tuple[int, int, bytes]:
    return row.id, row.parent, row.name


def _sorted(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in rows)
