"""The part of `lucid fsck` that looks at checkpoints: is the newest the state that the log makes?

It is handed each entry while the check folds the log from entry 1, finds the state hash at the
checkpoint's entry, and compares it with the manifest and with what entries say. A checkpoint that
cannot be read is a warning, for it is not used; one that a member signed and that says another
state is a problem.
"""

from __future__ import annotations

from lucid.crypto.keyring import KeyRing
from lucid.errors import DataError, ObjectMissing
from lucid.format.checkpoint import CHECKPOINT_EVERY, Manifest, state_hash
from lucid.format.entry import EntryBody
from lucid.meta.checkpoint_rows import chunks_of
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.meta.replica import Replica
from lucid.store.base import ObjectStore

__all__ = ["CheckpointCheck"]


class CheckpointCheck:
    """Of the newest checkpoint in the store; `sequence` is None if there is none."""

    def __init__(self, store: ObjectStore, ring: KeyRing, replica: Replica) -> None:
        self._reader = CheckpointReader(store, ring, CHECKPOINT_EVERY)
        self._replica = replica
        self._digest = b""
        self._head = b""
        self._said: dict[int, bytes] = {}
        self.sequence = self._reader.newest()
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def folded(self, body: EntryBody | None) -> None:
        """An entry was folded: its body, or None of a void one."""
        said = None if body is None else body.state_hash
        if body is not None and said is not None and said.sequence == self.sequence:
            self._said[body.session] = said.hash
        head = self._replica.head()
        if head.sequence != self.sequence:
            return
        snapshot = self._replica.snapshot()
        if snapshot is None:
            return
        try:
            self._digest = state_hash(chunk.hash for chunk in chunks_of(snapshot.batches()))
            self._head = head.hash
        finally:
            snapshot.close()

    def finish(self) -> None:
        """The log is folded to its end: compare, and read every chunk."""
        if self.sequence is None:
            return
        if not self._digest:
            self._warn("it stands behind the end of the log, or is junk.")
            return
        for session, digest in self._said.items():
            if digest != self._digest:
                self.problems.append(
                    f"Session {session} had another state after entry {self.sequence} than the log"
                    " makes: that device had a fault. Let it fold the log anew."
                )
        try:
            manifest = self._manifest()
            if manifest is None:
                return
            for ref in manifest.chunks:
                self._reader.chunk(ref)
        except (DataError, ObjectMissing) as error:
            self._warn(f"it cannot be read: {error}")

    def _manifest(self) -> Manifest | None:
        """The manifest, if it is right."""
        assert self.sequence is not None
        signed = self._reader.manifest(self.sequence)
        manifest = signed.manifest
        row = self._replica.member(manifest.member)
        if row is None or not signed.is_signed_by(row.sign_key):
            self._warn("its manifest was signed by no member.")
            return None
        if manifest.entry_hash != self._head or manifest.state_hash != self._digest:
            self.problems.append(
                f"Checkpoint {self.sequence}, written by session {manifest.session}, holds another"
                " state than the log makes. New devices do not use it where another device says"
                " otherwise; let that device fold the log anew."
            )
            return None
        return manifest

    def _warn(self, what: str) -> None:
        self.warnings.append(
            f"Checkpoint {self.sequence} is not used: {what} New devices take an older one, or the"
            " log."
        )
