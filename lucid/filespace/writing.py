"""The draft that a write goes into."""

from __future__ import annotations

import stat

from lucid.data.draft import Draft
from lucid.engine.blockmap import BlockMap
from lucid.errors import BadHandle, DataError
from lucid.filespace.parts import Parts
from lucid.meta.state import InodeRow

__all__ = ["Writing"]


class Writing:
    """Holds a draft's lock; makes the draft over the newest version when there is none."""

    def __init__(self, parts: Parts, ino: int) -> None:
        self._parts = parts
        self._ino = ino
        self._draft: Draft | None = None

    def __enter__(self) -> Draft:
        while True:
            draft = self._parts.table.get(self._ino) or self._make()
            draft.lock.acquire()
            if draft.gone:
                draft.lock.release()
                continue
            if draft.failure:
                draft.lock.release()
                raise DataError(draft.failure)
            self._draft = draft
            return draft

    def __exit__(self, *_exception: object) -> None:
        assert self._draft is not None
        self._draft.lock.release()

    def _make(self) -> Draft:
        parts, ino = self._parts, self._ino
        # Under the order lock: no op of this device changes the version until the table has it.
        with parts.order.lock:
            found = parts.table.get(ino)
            if found is not None:
                return found
            row, blockmap = self._newest(ino)
            draft = Draft(ino, parts.geometry)
            draft.base = row.version
            draft.base_map = blockmap if blockmap.size else None
            draft.base_bytes = row.data_bytes
            draft.keep = draft.size = row.size
            draft.parent, draft.name = row.last_parent, row.last_name
            draft.mode, draft.uid, draft.gid = row.mode, row.uid, row.gid
            draft.atime_ns, draft.mtime_ns, draft.ctime_ns = (
                row.atime_ns,
                row.mtime_ns,
                row.ctime_ns,
            )
            draft.unlinked = not row.nlink
            return parts.table.add(draft)

    def _newest(self, ino: int) -> tuple[InodeRow, BlockMap]:
        """The row and the map of one and the same version. Raises NotFound, BadHandle."""
        while True:
            row = self._parts.inode(ino)
            if not stat.S_ISREG(row.mode):
                raise BadHandle
            version, blockmap = self._parts.file_maps.at(ino, None)
            # The sync thread may fold what another machine wrote between the two: look again.
            if version == row.version:
                return row, blockmap
