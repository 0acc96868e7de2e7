"""Beginning from a checkpoint: a device without a replica loads the newest one that is to be
believed, and reads the log on from there.

It is built beside the replica's place, and moved there only when everything was found right: the
manifest is signed by a member whom entry 1 names, the log has the entry that it stands at, each
chunk is the one that it names, the state in them has the members and keys of entry 1, and entries
after it say its state hash. What fails is told, and an older checkpoint is tried, or none.

Used once by the thread that opens a filespace, which holds no lock; it fetches with threads of its
own that end with the call.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lucid.crypto.keyring import KeyRing
from lucid.errors import (
    CorruptObject,
    DataError,
    HistoryFork,
    ObjectMissing,
    UnsupportedFormat,
)
from lucid.format.checkpoint import ChunkRef, Manifest
from lucid.format.entry import NO_ENTRY, EntryRef
from lucid.format.hashes import hash_bytes
from lucid.format.names import log_key
from lucid.format.ops import Genesis
from lucid.meta.checkpoint_load import StateLoader, move_database
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.meta.fold_founding import VALUE_SUPERBLOCK
from lucid.meta.log import LogReader, follow
from lucid.meta.replica import Replica
from lucid.meta.schema import remove_database
from lucid.meta.state import GenerationRow, MemberRow, SessionRow
from lucid.meta.verify import Accepted, Origin, verify_entry
from lucid.store.base import ObjectStore
from lucid.sync.checkpointer import Known
from lucid.sync.log_ahead import reading_ahead

__all__ = ["LOADING", "CheckpointStart", "Started"]

log = logging.getLogger(__name__)

LOADING = "replica.loading"
"""A replica that is not believed yet, beside the one that is."""
TRIES = 3
"""How many checkpoints are tried, from the newest on, before the log is read from entry 1."""
TRIES_WITHOUT_LOG = 64
"""And how many where entries of the log are gone, so that a checkpoint is the only way in: on a
busy drive the newest few may be younger than the word of a second device for them."""
FETCHES = 16
AHEAD = 32
"""Chunks that are fetched before they are loaded: each is about 50 KiB, so that the way to the
store is what takes time; 2 MiB at most."""
ENTRY_READ_MAX = (16 << 20) + 1


class Started(NamedTuple):
    """A replica stands in its place, folded to the end of the log as it was then."""

    known: Known
    state_hash: bytes
    note: str
    """One sentence for the log and the status."""


class Voices:
    """Who has written since a checkpoint, and who of them says its state hash.

    A session that began after it has folded nothing up to there: it is not waited for. Nor is one
    that had written nothing since a floor: it was away, and began anew from a checkpoint.
    """

    def __init__(self, known: EntryRef, state_hash: bytes, sessions: Iterable[SessionRow]) -> None:
        """`sessions`: those of the state at the checkpoint."""
        self._sequence = known.sequence
        self._state_hash = state_hash
        self._last = {row.number: row.last_sequence for row in sessions}
        self._wrote: dict[int, bytes] = {}  # session -> member, since the first who said it
        self._said: dict[int, bytes] = {}
        self._differ: set[int] = set()

    def heard(self, found: Accepted) -> None:
        body = found.body
        said = body.state_hash
        if said is not None and said.sequence == self._sequence:
            if said.hash != self._state_hash:
                self._differ.add(body.session)
                self._said.pop(body.session, None)
                return
            self._differ.discard(body.session)  # What it says last counts.
            self._said[body.session] = body.member
        if self._said and body.session in self._last:
            self._wrote[body.session] = body.member

    def count(self, floor: int) -> int:
        """How many say it, members if two have written since, else sessions. `floor`: the newest.

        Two are wanted if two have written from the first that says it on. Raises CorruptObject if
        there are too few, or if one says another hash.
        """
        if self._differ:
            raise CorruptObject(f"Session {min(self._differ)} has another state there.")
        if not self._said:
            raise CorruptObject("No entry of the log says its state hash yet.")
        heard = {
            session: member
            for session, member in self._wrote.items()
            if session in self._said or self._last[session] >= floor
        }
        members = set(heard.values())
        wrote = len(members) if len(members) > 1 else len(heard)
        said = len(set(self._said.values())) if len(members) > 1 else len(self._said)
        if said < min(wrote, 2):
            raise CorruptObject("Of two that have written since, one says its state hash.")
        return said


class CheckpointStart:
    """Tries checkpoints. `open_replica` opens a database at a path."""

    def __init__(
        self,
        store: ObjectStore,
        ring: KeyRing,
        origin: Origin,
        reader: CheckpointReader,
        place: Path,
        key: bytes,
        open_replica: Callable[[Path], Replica],
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        """`rest` is called between chunks, and between entries; what it raises ends it all."""
        self._store = store
        self._rest = rest
        self._ring = ring
        self._origin = origin
        self._reader = reader
        self._place = place
        self._loading = place.with_name(LOADING)
        self._key = key
        self._open_replica = open_replica
        self.refused: list[str] = []
        """Why checkpoints were not used, one sentence each."""

    def run(
        self,
        own_session: int,
        entries: int,
        leave: Callable[[], None],
        check: Callable[[Replica], None] = lambda found: None,
        is_only_way: Callable[[], bool] = lambda: False,
    ) -> Started | None:
        """Put a replica in its place, `entries` beyond a checkpoint at most; None if there is no
        checkpoint to use. `own_session` is the journal's, 0 for none; `leave` closes what is in
        the place, and is called just before that is replaced. `check` raises DataError for one
        that is not to be used, HistoryFork if none is. `is_only_way` is asked when the newest few
        were refused: whether the log cannot be read without a checkpoint.

        Raises what following the log raises, and StoreError.
        """
        before = 1 << 62
        for tried in range(TRIES_WITHOUT_LOG):
            if tried == TRIES and not is_only_way():
                return None
            sequence = self._reader.newest(before)
            if sequence is None:
                return None
            before = sequence
            try:
                started = self._try(sequence, own_session, entries, check)
                leave()
                move_database(self._loading, self._place, self._key)
                return started
            except (HistoryFork, UnsupportedFormat):
                raise
            except (DataError, ObjectMissing) as error:
                self.refused.append(f"Checkpoint {sequence} was not used: {error}")
                log.warning("%s", self.refused[-1])
            finally:
                remove_database(self._loading)
        return None

    def _try(
        self, sequence: int, own_session: int, entries: int, check: Callable[[Replica], None]
    ) -> Started:
        manifest, first = self._checked(sequence)
        self._load(sequence, manifest, first)
        replica = self._open_replica(self._loading)
        try:
            self._check_state(replica, first)
            if own_session:
                replica.set_own_session(own_session)
            sessions = [row for one in replica.members() for row in replica.sessions_of(one.id)]
            voices = Voices(replica.head(), manifest.state_hash, sessions)
            reader = LogReader(self._store, self._ring, replica, self._origin)

            def heard(found: Accepted) -> None:
                voices.heard(found)
                self._rest()

            with reading_ahead(reader):
                follow(reader, replica, entries, on_entry=heard)
            count = voices.count(replica.floor())
            check(replica)
        finally:
            replica.close()
        said = "two or more devices say" if count > 1 else "only one device has said"
        note = f"Begun from checkpoint {sequence}: {said} that it is right."
        log.info("%s", note)
        return Started(Known(sequence, manifest.time_ns), manifest.state_hash, note)

    def _checked(self, sequence: int) -> tuple[Manifest, Accepted]:
        """The manifest, signed by the founder, and entry 1, which says who that is."""
        data = self._store.get(log_key(1), 0, ENTRY_READ_MAX)
        first = verify_entry(_NothingYet(), self._ring, self._origin, 1, data)
        assert isinstance(first, Accepted)
        signed = self._reader.manifest(sequence)
        manifest = signed.manifest
        founder = _genesis(first).founder
        if manifest.member != founder.member or not signed.is_signed_by(founder.sign_key):
            raise CorruptObject("Its manifest was signed by no member.")
        entry = self._store.get(log_key(sequence), 0, ENTRY_READ_MAX)
        if hash_bytes(entry) != manifest.entry_hash:
            raise CorruptObject(f"Entry {sequence} of the log is another than it was made at.")
        return manifest, first

    def _load(self, sequence: int, manifest: Manifest, first: Accepted) -> None:
        loader = StateLoader(self._loading, self._key)
        try:
            for ref, data in self._chunks(manifest):
                loader.add(data, ref.first_key)
                self._rest()
            if loader.finish() != EntryRef(sequence, manifest.entry_hash):
                raise CorruptObject("The state in it stands at another entry of the log.")
        except BaseException:
            loader.discard()
            raise

    def _chunks(self, manifest: Manifest) -> Iterator[tuple[ChunkRef, bytes]]:
        """All chunks in order, some fetched ahead."""
        with ThreadPoolExecutor(FETCHES, thread_name_prefix="lucid-load") as pool:
            waiting: deque[tuple[ChunkRef, Future[bytes]]] = deque()
            try:
                for ref in manifest.chunks:
                    waiting.append((ref, pool.submit(self._reader.chunk, ref)))
                    if len(waiting) >= AHEAD:
                        done, future = waiting.popleft()
                        yield done, future.result()
                while waiting:
                    done, future = waiting.popleft()
                    yield done, future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _check_state(self, replica: Replica, first: Accepted) -> None:
        """Members and keys are those of entry 1: no op of the rules in force changes them."""
        genesis = _genesis(first)
        founder = genesis.founder
        member = MemberRow(
            founder.member, founder.label, founder.sign_key, founder.box_key, founder.role
        )
        generation = GenerationRow(genesis.generation.id, 1, genesis.generation.key_hash)
        if (
            replica.membership() != EntryRef(1, first.hash)
            or replica.members() != [member]
            or replica.generation() != generation
            or replica.value(VALUE_SUPERBLOCK) != genesis.superblock_hash
        ):
            raise CorruptObject("The members or keys in it are not those of the log.")


class _NothingYet:
    """The state before entry 1, as the rules of the log ask for it."""

    def head(self) -> EntryRef:
        return NO_ENTRY

    def membership(self) -> EntryRef:
        return NO_ENTRY

    def generation(self) -> GenerationRow | None:
        return None

    def member(self, _member: bytes) -> MemberRow | None:
        return None

    def session(self, _number: int) -> SessionRow | None:
        return None

    def value(self, _name: str) -> bytes | None:
        return None


def _genesis(first: Accepted) -> Genesis:
    op = first.body.ops[0]
    assert isinstance(op, Genesis)
    return op
