"""Older versions of files, and what was removed: the questions. Any thread; nothing is changed.

A version is shown by the number `session-counter`: that is its id, which never means another one.
What a state knows reaches back to its floor.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping

from lucid.errors import IsDirectory, NotFound, ObjectMissing, UsageError
from lucid.filespace.numbers import number_of
from lucid.filespace.parts import Parts
from lucid.filespace.surface import Removed, Version
from lucid.format.change import LOST
from lucid.format.names import segment_key
from lucid.format.ops import session_of
from lucid.meta.replica_base import PENDING_STAMP
from lucid.meta.replica_older import Nameless, Span
from lucid.meta.state import InodeRow, VersionRow

__all__ = ["Versions", "check_file", "removal_order"]

WHOLE = "whole"
PENDING = "pending"
LOST_BYTES = "lost"
"""What `Version.stored` says."""


class Versions:
    """Asks the replica. Owns nothing."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def versions_of(self, parent: int, name: bytes, check: bool = False) -> list[Version]:
        """Every version that is known of what has, or had last, this name, oldest first.

        With `check` the store is asked for each segment. Raises NotFound, IsDirectory, UsageError
        for what is no file, and with `check` what the store raises.
        """
        current = self.current(parent, name)
        found: list[tuple[int, Version]] = []
        rows = [nameless.row for nameless in self.earlier_files(parent, name)]
        for row in rows if current is None else [*rows, current]:
            found += self._versions_of(row, earlier=row is not current, check=check)
        if not found:
            raise NotFound
        return [version for _, version in sorted(found)]

    def current(self, parent: int, name: bytes) -> InodeRow | None:
        """The file that has the name; None if there is none, or it was not published yet."""
        found = self._parts.replica.resolve(parent, name)
        if found is None:
            return None
        check_file(found[1])
        return found[1]

    def earlier_files(self, parent: int, name: bytes) -> list[Nameless]:
        """Removed files that had the name last."""
        found = self._parts.replica.nameless_in(parent, name)
        return [nameless for nameless in found if stat.S_ISREG(nameless.row.mode)]

    def removed_from(self, parent: int) -> list[Removed]:
        """What was removed from a directory, in the order in which that was."""
        found = [self._removed(nameless) for nameless in self._parts.replica.nameless_in(parent)]
        return sorted(found, key=lambda one: (one.removed_ns, one.file))

    def removed_directory(self, parent: int, name: bytes) -> int:
        """The directory that had this name last. Raises NotFound."""
        found = self._parts.replica.nameless_in(parent, name)
        rows = [one for one in found if stat.S_ISDIR(one.row.mode)]
        if not rows:
            raise NotFound
        return max(rows, key=removal_order).row.ino

    def _versions_of(
        self, row: InodeRow, earlier: bool, check: bool
    ) -> Iterable[tuple[int, Version]]:
        replica = self._parts.replica
        spans = list(replica.spans_of(row.ino))
        versions = replica.versions(row.ino)  # Read later, so that each span's are among them.
        missing = self._missing(spans) if check else set()
        bad = [span for span in spans if span.kind == LOST or span.segment in missing]
        stamps = {version.id: version.stamp for version in versions}
        authors = {session: self._author(session) for session in {*map(session_of, stamps)}}
        for version in versions:
            yield (
                version.stamp,
                Version(
                    number_of(version.id), row.ino, version.size, version.mtime_ns,
                    *authors[session_of(version.id)], version is versions[-1] and not earlier,
                    _stored(version, stamps, bad), earlier,
                ),
            )  # fmt: skip

    def _missing(self, spans: Iterable[Span]) -> set[int]:
        """Segments that the store does not have whole, by their local numbers."""
        parts = self._parts
        missing = set()
        for number in {span.segment for span in spans if span.segment}:
            segment = parts.replica.segment_numbered(number)
            try:
                whole = parts.store.stat(segment_key(segment.id)).size == segment.stored_len
            except ObjectMissing:
                whole = False
            if not whole:
                missing.add(number)
        return missing

    def _author(self, session: int) -> tuple[str, str]:
        """(member, device) of a session, as the state knows them."""
        replica = self._parts.replica
        row = replica.session(session)
        if row is None:
            return "", ""
        member = replica.member(row.member)
        label = b"" if member is None else member.label
        return label.decode("utf-8", "replace"), row.device_label.decode("utf-8", "replace")

    def _removed(self, nameless: Nameless) -> Removed:
        row, removal = nameless
        who = ("", "") if removal is None else self._author(session_of(removal.op_id))
        return Removed(
            row.last_name, row.ino, _kind(row), row.size,
            number_of(row.version) if row.version else "",
            row.ctime_ns if removal is None else removal.time_ns, *who,
        )  # fmt: skip


def check_file(row: InodeRow) -> None:
    """Raises IsDirectory or UsageError for what has no content of its own."""
    if stat.S_ISDIR(row.mode):
        raise IsDirectory("A directory has no versions. See what was removed from it: --deleted.")
    if not stat.S_ISREG(row.mode):
        raise UsageError("Only files have versions. Of a symbolic link, name its target.")


def removal_order(nameless: Nameless) -> tuple[int, int]:
    """To find what was removed last."""
    row, removal = nameless
    return (0 if removal is None else removal.stamp), row.ctime_ns


def _stored(version: VersionRow, stamps: Mapping[int, int], bad: Iterable[Span]) -> str:
    """Of a version, by the stamps of all and the spans whose bytes are nowhere."""
    if version.stamp >= PENDING_STAMP:
        return PENDING
    for span in bad:
        born, died = stamps.get(span.born, 0), stamps.get(span.died)
        if born <= version.stamp and (died is None or version.stamp < died):
            return LOST_BYTES
    return WHOLE


def _kind(row: InodeRow) -> str:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    return kinds.get(stat.S_IFMT(row.mode), "special file")
