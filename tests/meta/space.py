"""A filespace with real keys in a bucket in memory, and machines that follow and write its log."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from random import Random

from lucid.crypto.entry import seal_entry
from lucid.crypto.founding import Founding, Plan, found
from lucid.crypto.keyring import KeyRing
from lucid.crypto.passphrase import Stretch
from lucid.format import names
from lucid.format.entry import EntryBody
from lucid.format.hashes import ZERO_HASH
from lucid.format.ops import ROOT_INO, Create, Op
from lucid.meta.authoring import take_session
from lucid.meta.log import LogReader, LogWriter, follow
from lucid.meta.verify import Origin
from lucid.store.base import ObjectStore
from lucid.store.memory import Bucket, MemoryStore
from tests.meta.authors import EPOCH_NS
from tests.meta.replicas import StillClock, open_replica

RANDOM = Random(7).randbytes


@lru_cache(maxsize=1)
def founding() -> Founding:
    """One founding for the whole run: stretching a passphrase costs a tenth of a second."""
    plan = Plan(b"team", b"ann", "a passphrase", stretch=Stretch(1, 64 << 20))
    return found(plan, Random(1).randbytes, EPOCH_NS)


def new_bucket() -> Bucket:
    bucket = Bucket()
    store = MemoryStore(bucket)
    for key, data in founding().objects:
        store.put_if_absent(key, data)
    return bucket


class Machine:
    """A device of the founder: replica, reader, writer."""

    def __init__(self, directory: Path, store: ObjectStore, ring: KeyRing | None = None) -> None:
        directory.mkdir(exist_ok=True)
        unlocked = founding().unlocked
        self.store = store
        self.ring = ring or founding().ring
        self.keys = unlocked.keys
        self.clock = StillClock()
        self.replica = open_replica(directory, self.clock)
        origin = Origin(unlocked.superblock, unlocked.superblock_hash)
        self.reader = LogReader(store, self.ring, self.replica, origin)
        self.writer = LogWriter(store, self.ring, self.keys, self.replica, RANDOM)
        self.session = 0
        self.counter = 0

    def follow(self) -> int:
        return follow(self.reader, self.replica)

    def join(self, label: bytes = b"desk") -> None:
        row = take_session(
            self.reader, self.writer, self.replica, self.keys.member, label, self.clock, RANDOM
        )
        self.session = row.number

    def create(self, name: bytes, parent: int = ROOT_INO) -> Create:
        """An empty file, as an op with a fresh id."""
        self.counter += 1
        op_id = self.session << 32 | self.counter
        return Create(op_id, EPOCH_NS, parent, name, 0o100644, 1, 1, EPOCH_NS, EPOCH_NS, (), 0, ())

    def body(self, ops: Sequence[Op], **other: object) -> EntryBody:
        """The body that an honest writer makes, with some fields replaced."""
        session = self.replica.session(self.session) if self.session else None
        body = EntryBody(
            self.keys.member,
            self.session,
            self.replica.head().hash,
            session.last_hash if session else ZERO_HASH,
            self.replica.membership(),
            None,
            (),
            tuple(ops),
        )
        return body._replace(**other)  # type: ignore[arg-type]

    def seal(self, body: EntryBody, sequence: int | None = None) -> bytes:
        """The stored bytes of an entry, signed with the founder's keys."""
        generation = self.replica.generation()
        assert generation is not None
        at = self.replica.head().sequence + 1 if sequence is None else sequence
        return seal_entry(self.ring, self.keys, generation.id, at, body, RANDOM)

    def put(self, data: bytes) -> int:
        """Somebody puts these bytes as the next entry."""
        sequence = self.replica.head().sequence + 1
        self.store.put_if_absent(names.log_key(sequence), data)
        return sequence
