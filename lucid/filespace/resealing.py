"""Blocks that were sealed once and cannot be named so: sealed again, into new segments.

That is so with blocks of a segment that was not finished, for only the process that began one goes
on with it; and with those of a segment that was sealed below a floor and is not in the state, for a
collector may have taken it from the store. Reads the staged file, which is kept until its segment
is committed; what the log named once and a floor has ended also from the cache, and the store.

Used by recovery, on the thread that opens a filespace, and by `Renewing`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from lucid.data.segments import KeySource, SealOwner
from lucid.engine import errors as engine_errors
from lucid.engine.sodium import open_
from lucid.errors import LocalError, LucidError, ObjectMissing, StoreUnavailable
from lucid.filespace.parts import Parts
from lucid.format.change import DATA, LOST, Change, SegmentRow
from lucid.format.names import segment_key
from lucid.format.runs import RunMap, slice_run
from lucid.types import SegmentId

__all__ = ["Resealing"]

log = logging.getLogger(__name__)

PIECE_BYTES = 4 * 1024 * 1024
"""Plaintext that is opened and sealed at a time."""
SWEEP_BYTES = 64 * 1024 * 1024
"""So much is sealed anew before staged files that nothing names any more make room for the rest."""


class Resealing:
    """See the module. `rows` are what the journal says of segments, by id."""

    def __init__(
        self,
        parts: Parts,
        keys: KeySource,
        rows: Mapping[bytes, SegmentRow],
        replaced: Container[bytes] | None = None,
    ) -> None:
        """`replaced`: the segments whose blocks are sealed again; None for those that were not
        taken up from the journal as they are."""
        self._parts = parts
        self._keys = keys
        self._rows = rows
        self._replaced = replaced
        self._below_floor = set(parts.replica.below_floor(rows.values()))
        self._users: Counter[bytes] = Counter()
        self._unnamed: list[bytes] = []
        self._unswept = 0
        self._store_is_silent = False
        self.unsynced = 0
        """Bytes in new segments that loss of power may still take."""
        self.resealed = 0
        """Blocks that are in new segments now."""
        self.lost_blocks = 0
        """Blocks that never reached the disk."""
        self.gone_blocks = 0
        """Blocks that may have been in the store before a floor ended them, and are nowhere."""

    def is_below_floor(self, segment: bytes) -> bool:
        """Whether it is finished, and no entry can name it any more."""
        return segment in self._below_floor

    def needs(self, segments: Iterable[bytes]) -> None:
        """Something that is pending names these; `done` is called when it does no more."""
        self._users.update(set(segments))

    def done(self, segments: Iterable[bytes]) -> None:
        """What named these has been written anew. Makes room, after much of that."""
        for segment in set(segments):
            self._users[segment] -= 1
            if not self._users[segment] and self._is_replaced(segment):
                self._unnamed.append(segment)
        if self._unswept > SWEEP_BYTES:
            self.sync()
            for segment in self._unnamed:
                self._parts.staging.remove(SegmentId(segment))
            self._unnamed.clear()

    def sync(self) -> None:
        """What is sealed anew must be durable before the only other copy goes."""
        if self._unswept:
            self.sync_segments()
            self._parts.book.sync()
            self._unswept = 0

    def sync_segments(self) -> None:
        """The new segments must be durable before a record names them: the record alone, should
        the power go again, would stand in the place of one whose blocks are there."""
        if self.unsynced:
            self._parts.staging.sync()
            self.unsynced = 0

    def renewed(self, owner: SealOwner, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """`changes` with every block that cannot be named so sealed again, or lost."""
        if not any(self._is_replaced_by(change) for change in changes):
            return changes
        runs = RunMap(self._parts.geometry)
        for change in changes:
            if self._is_replaced_by(change):
                for made in self._resealed(owner, change):
                    runs.lay(made)
            else:
                runs.lay(change)
        return runs.runs()

    def _is_replaced_by(self, change: Change) -> bool:
        return change.kind == DATA and self._is_replaced(change.segment)

    def _is_replaced(self, segment: bytes) -> bool:
        """It is one of those that were given; else, neither taken up again as it is nor in the
        log."""
        if self._replaced is not None:
            return segment in self._replaced
        if self._parts.staged.state(segment) is not None:
            return False
        return self._parts.replica.segment(segment) is None

    def _resealed(self, owner: SealOwner, change: Change) -> Iterator[Change]:
        step = max(1, PIECE_BYTES // self._parts.geometry.block_size)
        end = change.first + change.count
        for at in range(change.first, end, step):
            piece = slice_run(change, at, min(end, at + step), self._parts.geometry)
            yield from self._resealed_piece(owner, piece)

    def _resealed_piece(self, owner: SealOwner, piece: Change) -> Iterator[Change]:
        """Neighbours together, as far as all but the last are full."""
        full = self._parts.geometry.block_size
        plains = self._opened(piece)
        at = 0
        while at < piece.count:
            plain = plains[at]
            if plain is None:
                yield Change(piece.first + at, 1, LOST)
                at += 1
                continue
            blocks = [plain]
            while len(blocks[-1]) == full and at + len(blocks) < piece.count:
                following = plains[at + len(blocks)]
                if following is None:
                    break
                blocks.append(following)
            for made in self._parts.staged.seal(owner, piece.first + at, blocks):
                yield self._cut(made, piece)
            at += len(blocks)
            self.resealed += len(blocks)
            sealed = sum(map(len, blocks))
            self._unswept += sealed
            self.unsynced += sealed

    @staticmethod
    def _cut(made: Change, piece: Change) -> Change:
        """Of the last block as many bytes count as did before."""
        if made.kind != DATA or made.first + made.count < piece.first + piece.count:
            return made
        return made._replace(last_valid=min(piece.last_valid, made.last_len))

    def _opened(self, piece: Change) -> Sequence[bytes | None]:
        """The plaintext of each block, None for what is nowhere. Raises StoreError for what a
        floor has ended and only the store may have, while it does not answer, and LocalError where
        a disk fails."""
        row = self._rows[piece.segment]
        geometry = self._parts.geometry
        lengths = piece.lengths or (
            *[geometry.block_size + geometry.tag] * (piece.count - 1),
            piece.last_len + geometry.tag,
        )
        plains: list[bytes | None] = []
        offset = piece.offset
        for index, length in enumerate(lengths):
            plains.append(self._block(row, piece, piece.ordinal + index, offset, length))
            offset += length
        return plains

    def _block(
        self, row: SegmentRow, piece: Change, ordinal: int, offset: int, length: int
    ) -> bytes | None:
        is_staged = SegmentId(row.id) in self._parts.staging
        for read in self._places(row, is_staged):
            try:
                return open_(
                    self._keys.context(row.generation), row.id,
                    self._keys.key(row.id, row.generation), ordinal, piece.flags,
                    read(offset, length),
                )  # fmt: skip
            except (engine_errors.CorruptBlock, ObjectMissing, ValueError):
                continue
            except StoreUnavailable:
                if self.is_below_floor(row.id):
                    raise
                self._store_is_silent = True
            except (LocalError, OSError):
                if is_staged:
                    raise  # It is there, and the disk does not give it: that may pass.
        # Finished says nothing of safe: a segment is finished, and noted so, before anything syncs
        # it. Only what a floor has ended may have been public once.
        if is_staged or not self.is_below_floor(row.id):
            self.lost_blocks += 1
        else:
            self.gone_blocks += 1
        return None

    def _places(self, row: SegmentRow, is_staged: bool) -> Sequence[Callable[[int, int], bytes]]:
        """Where its bytes may be. What is staged, or was never finished, is nowhere else. What was
        finished may have been committed since, moments before the power went with the notes of
        it: then its staged file is the cache's, and the store has it too. A store that does not
        answer is asked no more: a drive opens without it."""
        parts = self._parts
        if is_staged or not row.footer_len:
            return [lambda offset, length: parts.staging.read(SegmentId(row.id), offset, length)]

        def cached(offset: int, length: int) -> bytes:
            with parts.cache.path(row.id).open("rb") as file:
                file.seek(offset)
                return file.read(length)

        if self._store_is_silent and not self.is_below_floor(row.id):
            return [cached]
        return [
            cached,
            lambda offset, length: parts.store.get(segment_key(row.id), offset, length),
        ]

    def sweep(self) -> None:
        """Remove staged files that nothing names any more."""
        for segment, _ in self._parts.staging.segments():
            if self._parts.staged.state(segment) is None:
                try:
                    self._parts.staging.remove(segment)
                except LucidError as error:
                    log.warning("A staged segment could not be removed: %s", error)
