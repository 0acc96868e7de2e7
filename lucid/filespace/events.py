"""From what the sync thread folded to what handles, maps and kernels must forget."""

from __future__ import annotations

from lucid.filespace.files import Files
from lucid.filespace.parts import Parts
from lucid.filespace.surface import Invalidation
from lucid.meta.replica_events import Changed

__all__ = ["tell_changes"]


def tell_changes(parts: Parts, files: Files, changed: Changed) -> None:
    """Called by the sync thread after each entry, no lock held."""
    parts.conflicts.note(changed.names)
    parts.conflicts.note(name for one in changed.rebased for name in one.effect.names)
    if changed.everything:
        parts.file_maps.forget_all()
        known = [*files.open_inodes(), 1]
        parts.tell([Invalidation(ino, None) for ino in known])
        return
    if not (changed.inodes or changed.names or changed.rebased):
        return
    parts.file_maps.forget(changed.inodes)
    for rebased in changed.rebased:
        parts.file_maps.forget(rebased.effect.inodes)
        own = parts.replica.version(rebased.op_id)
        if own is not None:
            files.follow_version(rebased.op_id, own.ino)
    parts.tell(
        [
            *(Invalidation(parent, name) for parent, name in changed.names),
            *(Invalidation(ino, None) for ino in changed.inodes),
        ]
    )
