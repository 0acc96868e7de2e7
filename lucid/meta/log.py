"""The log in the store: reading entries in order, judging them, and writing the next one.

Owns no thread and no state but the replica's: `LogReader` and `LogWriter` are used by the one
thread that follows the log (`LogReader.fetch` by any). They hold no lock while they talk to the
store or to the key ring. Neither decides when to read or write: that is the sync room's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from lucid.crypto.entry import seal_entry
from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys
from lucid.errors import (
    HistoryFork,
    InternalError,
    ObjectExists,
    ObjectMissing,
    StoreConflict,
    UsageError,
)
from lucid.format import names
from lucid.format.entry import EntryBody, EntryRef
from lucid.format.hashes import ZERO_HASH, hash_bytes
from lucid.format.limits import AUTHOR_ENTRY_MAX, AUTHOR_OPS_MAX, ENTRY_MAX
from lucid.format.opcode import size_bound
from lucid.format.ops import Op, SegmentRow
from lucid.meta.history import FORK_NOTE, History, alarm_of
from lucid.meta.verify import Accepted, Origin, View, Void, check_rules, verify_entry
from lucid.store.base import ObjectStore
from lucid.types import Entropy

__all__ = [
    "FORK_NOTE",
    "Follower",
    "LogReader",
    "LogView",
    "LogWriter",
    "Lost",
    "Prepared",
    "Won",
    "fit",
    "follow",
]

NEWEST_NOTE = "newest entry"
"""Under this name the replica keeps when the newest entry was made."""
TIME_MAX = (1 << 63) - 1

ENTRY_ROOM = AUTHOR_ENTRY_MAX - (64 << 10)
"""What ops and segments of one entry may take; the rest is for what surrounds them."""

PUT_TRIES = 3
"""How often a store may say that it was busy with this very name."""


class LogView(View, Protocol):
    """What the log needs of the replica: the rules' questions, and a place to keep a note."""

    def entry_hash(self, sequence: int) -> bytes | None: ...
    def voids(self, limit: int = 100) -> list[tuple[int, str]]: ...
    def note(self, name: str, value: bytes | None) -> None: ...
    def noted(self, name: str) -> bytes | None: ...


class Prepared(NamedTuple):
    """An entry that is ready to be put. Note its hash in the journal before."""

    sequence: int
    hash: bytes
    data: bytes
    body: EntryBody


class Won(NamedTuple):
    """The entry is in the log, as the next one."""

    prepared: Prepared


class Lost(NamedTuple):
    """Another entry has the number. `data` is what the store holds there."""

    sequence: int
    data: bytes


class LogReader:
    """Reads what comes after the view's head. `history` compares it with what was seen before.

    `guard` is told the head before what lies behind it is judged; what it raises ends that.
    `newest_ns`: when the newest entry that is known here was made, ns since 1970; 0 if unknown.
    """

    def __init__(self, store: ObjectStore, ring: KeyRing, view: LogView, origin: Origin) -> None:
        self._store = store
        self._ring = ring
        self._view = view
        self._origin = origin
        self.guard: Callable[[int], None] = lambda head: None
        self.ahead: Callable[[int], bytes | None] = self.fetch
        """Fetches what `next` judges; who reads much may put something quicker here."""
        self.history = History(store, ring, view, self.fetch)
        newest = view.noted(NEWEST_NOTE)
        self.newest_ns = 0 if newest is None else int.from_bytes(newest, "big")

    def fetch(self, sequence: int) -> bytes | None:
        """The stored bytes of an entry; None if the store has none. Raises StoreError.

        One byte more than an entry may have is enough to see that it is too long; such an entry's
        hash is over what was fetched, the same for everyone.
        """
        try:
            return self._store.get(names.log_key(sequence), 0, ENTRY_MAX + 1)
        except ObjectMissing:
            return None

    def verify(self, sequence: int, data: bytes) -> Accepted | Void:
        """Judge an entry that is the next one; see `verify_entry`."""
        return verify_entry(self._view, self._ring, self._origin, sequence, data)

    def next(self) -> Accepted | Void | None:
        """The entry after the head, judged; None if the store has none yet.

        What seems void is read again first: one flipped bit on the way here must not part us from
        all the others. An entry upon another history raises the alarm. The caller commits it, void
        or not, to the replica. Raises what `verify_entry` raises, and StoreError.
        """
        sequence = self._view.head().sequence + 1
        data = self.ahead(sequence)
        if data is None:
            return None
        return self.judge(sequence, data)

    def judge(self, sequence: int, data: bytes) -> Accepted | Void:
        """As `next`, for bytes that were read already."""
        self.guard(sequence - 1)
        found = self.verify(sequence, data)
        if isinstance(found, Void):
            again = self.fetch(sequence)
            if again is None:
                raise ObjectMissing(f"Entry {sequence} of the log was there, and is not any more.")
            if again != data:
                found = self.verify(sequence, again)
        if isinstance(found, Void) and found.fork:
            alarm = (
                f"Entry {sequence} of the log was signed by a member who has seen another history"
                f" (member {found.member.hex()}, session {found.session}). Nothing is written from"
                " here on. Compare `lucid status` with that member's devices."
            )
            self._view.note(FORK_NOTE, alarm.encode())
        if isinstance(found, Accepted):
            self.saw(max((getattr(op, "time_ns", 0) for op in found.body.ops), default=0))
        return found

    def saw(self, time_ns: int) -> None:
        """The newest entry was made then. Its author's clock may say what it wants."""
        self.newest_ns = min(max(time_ns, 0), TIME_MAX)
        self._view.note(NEWEST_NOTE, self.newest_ns.to_bytes(8, "big"))

    @property
    def fork(self) -> str:
        """The alarm; empty while all is well."""
        return alarm_of(self._view)

    def clear_fork(self) -> None:
        """The user has compared histories and believes this one."""
        self._view.note(FORK_NOTE, None)


class LogWriter:
    """Builds and puts the next entry of one session."""

    def __init__(
        self, store: ObjectStore, ring: KeyRing, keys: MemberKeys, view: LogView, entropy: Entropy
    ) -> None:
        self._store = store
        self._ring = ring
        self._keys = keys
        self._view = view
        self._entropy = entropy

    def build(
        self,
        session: int,
        ops: Sequence[Op],
        segments: Sequence[SegmentRow] = (),
        state_hash: EntryRef | None = None,
    ) -> Prepared:
        """The entry after the head, with these ops; `segments` are all that they name.

        `state_hash`: what this session found of the state at a checkpoint's entry and has not said.
        Raises FormatError for what does not fit (see `fit`), UnknownKey without the generation's
        key, UnsupportedFormat under rules that are not known here, HistoryFork after an alarm.
        """
        view = self._view
        alarm = alarm_of(view)
        if alarm:
            raise HistoryFork(alarm)
        check_rules(view)
        head, generation = view.head(), view.generation()
        if generation is None:
            raise UsageError("The log is not read yet: there is no entry to follow.")
        body = EntryBody(
            self._keys.member,
            session,
            head.hash,
            self._session_previous(session),
            view.membership(),
            state_hash,
            tuple(segments),
            tuple(ops),
        )
        sequence = head.sequence + 1
        data = seal_entry(self._ring, self._keys, generation.id, sequence, body, self._entropy)
        return Prepared(sequence, hash_bytes(data), data, body)

    def put(self, prepared: Prepared) -> Won | Lost:
        """Put the entry, as the one of its number.

        After StoreUnavailable nobody knows whether it is in the log: put the same one again, or
        read the log; never build another for its number before that.
        """
        key = names.log_key(prepared.sequence)
        for attempt in range(PUT_TRIES):
            try:
                self._store.put_if_absent(key, prepared.data)
                return Won(prepared)
            except StoreConflict:
                if attempt == PUT_TRIES - 1:
                    raise
            except ObjectExists:
                return self._read_back(key, prepared)
        raise InternalError("A loop of tries ended without a result.")

    def _read_back(self, key: str, prepared: Prepared) -> Won | Lost:
        data = self._store.get(key, 0, ENTRY_MAX + 1)
        return Won(prepared) if data == prepared.data else Lost(prepared.sequence, data)

    def _session_previous(self, session: int) -> bytes:
        if session == 0:
            return ZERO_HASH
        row = self._view.session(session)
        if row is None or row.member != self._keys.member:
            raise UsageError(f"Session {session} is not one of this member's.")
        return row.last_hash


def fit(ops: Sequence[Op], room: int = ENTRY_ROOM) -> int:
    """How many of these ops, from the first on, make one entry. At least one if there is one:
    what is too large alone was never an op."""
    for index, op in enumerate(ops[:AUTHOR_OPS_MAX]):
        room -= size_bound(op)
        if room < 0:
            return max(index, 1)
    return min(len(ops), AUTHOR_OPS_MAX)


def follow(
    reader: LogReader,
    replica: Follower,
    limit: int | None = None,
    on_void: Callable[[Void], None] | None = None,
    on_entry: Callable[[Accepted], None] | None = None,
) -> int:
    """Fold what the log has after the head, at most `limit` entries; returns how many.

    `on_void` and `on_entry` hear of each entry that was folded.

    For whoever has no pending ops or does not care which entry settles them.
    """
    folded = 0
    while limit is None or folded < limit:
        found = reader.next()
        if found is None:
            break
        if isinstance(found, Void):
            replica.commit_void(found.sequence, found.hash, found.reason)
            if on_void is not None:
                on_void(found)
        else:
            replica.commit_entry(found.sequence, found.hash, found.body)
            if on_entry is not None:
                on_entry(found)
        folded += 1
    return folded


class Follower(Protocol):
    """Who takes entries in. `Replica` does."""

    def head(self) -> EntryRef: ...
    def commit_entry(self, sequence: int, digest: bytes, body: EntryBody) -> object: ...
    def commit_void(self, sequence: int, digest: bytes, reason: str) -> None: ...
