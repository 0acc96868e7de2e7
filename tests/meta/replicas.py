"""Replicas over one log that is a plain list: what a test of the replica needs instead of a store.

No keys and no signatures: entries are bodies, their hashes are made up from their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType

from lucid.format.change import SegmentRow
from lucid.format.entry import NO_ENTRY, EntryBody
from lucid.format.hashes import ZERO_HASH
from lucid.format.ops import Op, SessionOp, segments_of
from lucid.meta import fold as folding
from lucid.meta.fold import fold
from lucid.meta.fold_segments import admit_segments
from lucid.meta.memory import MemoryState
from lucid.meta.replica import Replica
from tests.meta.authors import EPOCH_NS, FOUNDER, GEOMETRY, genesis

KEY = b"k" * 32


class StillClock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time_ns(self) -> int:
        return EPOCH_NS

    def monotonic(self) -> float:
        return self.now_s


def segment_row(segment: bytes, head: int = 1) -> SegmentRow:
    return SegmentRow(segment, 4096, 100, segment, b"g" * 16, head)


class Log:
    """Entries in order, and the model's state after all of them."""

    def __init__(self, sessions: int, rules: int = 1) -> None:
        self.entries: list[EntryBody] = []
        self.heads: dict[bytes, int] = {}
        """Their authors' heads when segments were sealed; 1, where nothing is said."""
        self.model = MemoryState(GEOMETRY)
        self.append(0, [genesis(rules)])
        for number in range(sessions):
            self.append(0, [SessionOp(0, EPOCH_NS, bytes([number]) * 16, b"desk")])

    def hash(self, sequence: int) -> bytes:
        body = self.entries[sequence - 1]
        return blake2b(b"%d %r" % (sequence, body.ops), digest_size=32).digest()

    def append(self, session: int, ops: Sequence[Op]) -> int:
        ids = dict.fromkeys(segment for op in ops for segment in segments_of(op))
        segments = tuple(segment_row(one, self.heads.get(one, 1)) for one in ids)
        body = EntryBody(
            FOUNDER, session, ZERO_HASH, ZERO_HASH, NO_ENTRY, None, segments, tuple(ops)
        )
        self.entries.append(body)
        sequence = len(self.entries)
        self._fold(sequence, body, self.model)
        return sequence

    def model_at(self, sequence: int) -> MemoryState:
        """The state after the first entries."""
        model = MemoryState(GEOMETRY)
        for number, body in enumerate(self.entries[:sequence], 1):
            self._fold(number, body, model)
        return model

    def _fold(self, sequence: int, body: EntryBody, model: MemoryState) -> None:
        admit_segments(model, body.segments)
        author = author_of(body.session) if body.session else author_of(0, b"")
        for index, op in enumerate(body.ops):
            model.stamp = sequence << 14 | index
            fold(model, op, author)
        session = model.session(body.session)
        if session is not None:
            model.put_session(
                session._replace(last_sequence=sequence, last_hash=self.hash(sequence))
            )


def author_of(session: int, device: bytes = b"desk") -> folding.Author:
    """As a replica makes it from its rows."""
    return folding.Author(session, FOUNDER, b"ann", device)


def open_replica(directory: Path, clock: StillClock | None = None) -> Replica:
    return Replica(directory / "replica", KEY, GEOMETRY, clock or StillClock())


def catch_up(replica: Replica, log: Log, limit: int | None = None) -> None:
    """Fold the log's next entries, at most `limit`."""
    end = len(log.entries)
    if limit is not None:
        end = min(end, replica.head().sequence + limit)
    for sequence in range(replica.head().sequence + 1, end + 1):
        replica.commit_entry(sequence, log.hash(sequence), log.entries[sequence - 1])


def apply(
    replica: Replica, position: int, op: Op, heads: Mapping[bytes, int] = MappingProxyType({})
) -> folding.Effect:
    """As the owner of a journal does it; `heads` are those of `Log`."""
    rows = [segment_row(segment, heads.get(segment, 1)) for segment in segments_of(op)]
    return replica.apply_pending(position, op, author_of(op.op_id >> 32), rows)
