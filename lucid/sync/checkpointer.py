"""The thread lucid-checkpoint: finds the state hash at each checkpoint's entry, and sees to it that
the checkpoint is in the store.

The sync thread hands it a snapshot of the state when it has folded such an entry; one at a time,
so while it works on one the next is left to others, and who falls behind takes each second one, or
fourth, or eighth: see `Pace`. Who committed the entry writes the
checkpoint at once, others after a random wait if it is absent then. It works in slices of about a
millisecond and holds no lock, streams chunk by chunk, and asks a store that does not answer again
until the filespace is closed. What is cut off by that is begun anew by others; chunks without a
manifest mean nothing.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

import msgpack

from lucid.crypto.checkpoint import SignedManifest
from lucid.errors import (
    DataError,
    InternalError,
    LocalError,
    LucidError,
    ObjectExists,
    ObjectMissing,
    Stopped,
)
from lucid.format.checkpoint import ChunkRef, Manifest, state_hash
from lucid.format.entry import EntryBody, EntryRef
from lucid.meta.checkpoint_rows import Snapshot, chunks_of
from lucid.meta.checkpoint_store import CheckpointReader, CheckpointWriter
from lucid.meta.replica import Replica
from lucid.sync.agreement import Agreement
from lucid.types import Clock

__all__ = ["CHECKPOINT_NOTE", "Checkpointer", "Known", "Pace", "known_checkpoint"]

log = logging.getLogger(__name__)

CHECKPOINT_NOTE = "checkpoint"
"""Under this name the replica keeps the newest checkpoint that was seen whole."""

REST_S = 0.0005
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 30.0
WAIT_FROM = 0.3
"""Others wait from this part of the longest wait on."""
STRIDE_MAX = 8
"""Who follows a long log makes none of many in a row, and is to be back soon."""

T = TypeVar("T")


class Known(NamedTuple):
    """The newest checkpoint that this device knows, and when it was made."""

    sequence: int
    time_ns: int


class Pace:
    """Which checkpoints a device takes. Who has not done one when the next is due takes each second
    one from then on, or fourth, or eighth; who is done halfway goes back.

    A new device believes a checkpoint of which two say the state hash. If each took the next one
    whenever it is done, two that need longer than from one to the next might take turns for ever,
    and never say the same one. Used by one thread.
    """

    def __init__(self) -> None:
        self._stride = 1
        self._taken = 0

    def takes(self, number: int, is_idle: bool) -> bool:
        """Whether to take the checkpoint of this number, 1, 2, 3, ...; asked of each in turn."""
        if number % self._stride:
            halfway = self._stride // 2
            if not is_idle or self._taken != number - halfway:
                return False
            self._stride = halfway
        elif not is_idle:
            self._stride = min(2 * self._stride, STRIDE_MAX)
            return False
        self._taken = number
        return True


class _Job(NamedTuple):
    snapshot: Snapshot
    own: bool


class Checkpointer:
    """See the module. `writer` is None where nothing may be written."""

    def __init__(
        self,
        *,
        replica: Replica,
        agreement: Agreement,
        reader: CheckpointReader,
        writer: CheckpointWriter | None,
        clock: Clock,
        pause: random.Random,
        every: int,
        wait_s: float,
    ) -> None:
        self._replica = replica
        self._agreement = agreement
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._pause = pause
        self._every = every
        self._wait_s = wait_s
        self._stop = threading.Event()
        self._jobs: queue.Queue[_Job | None] = queue.Queue(maxsize=1)
        self._idle = threading.Event()
        self._idle.set()
        self._pace = Pace()
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="lucid-checkpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread; a checkpoint under way is left to others. The sync thread has ended."""
        self._stop.set()
        if self._thread.ident is not None:
            if self._idle.is_set():
                self._jobs.put(None)
            self._thread.join()
        with suppress(queue.Empty):
            left = self._jobs.get_nowait()
            if left is not None:
                left.snapshot.close()

    # -- the sync thread

    def to_say(self) -> EntryRef | None:
        """The state hash that the next own entry should carry. Raises StateMismatch."""
        return self._agreement.to_say()

    def to_say_now(self) -> EntryRef | None:
        """What an entry must carry now, also when nothing else is written any more."""
        return self._agreement.to_say_now()

    def folded(self, sequence: int, body: EntryBody | None, own: bool) -> None:
        """Entry `sequence` was folded: its body, or None of a void one; `own`: just committed."""
        if body is not None:
            self._agreement.heard(body)
            if own and body.state_hash is not None:
                self._agreement.said(body.state_hash)
        if not self._every or sequence % self._every or self._stop.is_set():
            return
        if not self._pace.takes(sequence // self._every, self._idle.is_set()):
            log.info("The checkpoint at entry %d is left to others: one took long.", sequence)
            return
        try:
            snapshot = self._replica.snapshot()
        except LocalError as error:
            log.warning("The checkpoint at entry %d is left to others: %s", sequence, error)
            return
        if snapshot is None:
            log.info("The checkpoint at entry %d is left to others: much is pending.", sequence)
            return
        self.take(snapshot, own)

    def take(self, snapshot: Snapshot, own: bool = False) -> None:
        """Work on this state, which stands at a checkpoint's entry. It is closed when that is done.

        REQUIRES: the thread is idle.
        """
        self._idle.clear()
        self._jobs.put(_Job(snapshot, own))

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no checkpoint is under way. False: not in time."""
        return self._idle.wait(timeout)

    # -- the own thread

    def _run(self) -> None:
        while not self._stop.is_set():
            job = self._jobs.get()
            if job is None:
                return
            try:
                self._work(job)
                self.problem = ""
            except Stopped:
                return
            except LucidError as error:
                self.problem = f"Checkpoint {job.snapshot.head.sequence}: {error}"
                log.warning("%s", self.problem)
            except Exception as error:
                log.exception("A checkpoint failed; this is a bug in lucid")
                self.problem = f"Checkpoint {job.snapshot.head.sequence} failed: {error}"
            finally:
                job.snapshot.close()
                self._idle.set()

    def _work(self, job: _Job) -> None:
        snapshot, head = job.snapshot, job.snapshot.head
        hashes = [chunk.hash for chunk in chunks_of(snapshot.batches(), self._rest)]
        digest = state_hash(hashes)
        self._agreement.know(head.sequence, digest)
        if self._writer is None or self._agreement.problem is not None:
            return
        if not job.own:
            self._wait(self._wait_s * self._pause.uniform(WAIT_FROM, 1.0))
        there = self._again(lambda: self._there(head.sequence))
        if there is None:
            there = self._write(snapshot, digest)
        if there is not None:
            self._seen(head, digest, there)

    def _write(self, snapshot: Snapshot, digest: bytes) -> Manifest | None:
        """Put all chunks, then the manifest. Who was faster has left a manifest that counts."""
        writer, head = self._writer, snapshot.head
        assert writer is not None
        if not writer.knows_chunks:
            writer.learn(self._again(lambda: self._earlier_chunks(head.sequence)))
        writer.shared = 0
        chunks: list[ChunkRef] = []
        for chunk in chunks_of(snapshot.batches(), self._rest):
            chunks.append(writer.put_chunk(head.sequence, snapshot.generation, chunk, self._again))
        if state_hash(chunk.hash for chunk in chunks) != digest:
            raise InternalError("A state was read twice and was not the same.")
        try:
            made = writer.put_manifest(
                head, snapshot.generation, self._clock.time_ns(), tuple(chunks), self._again
            )
        except ObjectExists:
            return self._again(lambda: self._there(head.sequence))
        log.info(
            "Checkpoint %d: %d chunks, %d of them shared.",
            head.sequence, len(chunks), writer.shared,
        )  # fmt: skip
        return made

    def _there(self, sequence: int) -> Manifest | None:
        """The manifest in the store, if it is one of a member."""
        try:
            found = self._reader.manifest(sequence)
        except ObjectMissing:
            return None
        if not self._is_signed(found):
            raise DataError(f"The manifest of checkpoint {sequence} was signed by no member.")
        return found.manifest

    def _is_signed(self, found: SignedManifest) -> bool:
        row = self._replica.member(found.manifest.member)
        return row is not None and found.is_signed_by(row.sign_key)

    def _seen(self, head: EntryRef, digest: bytes, manifest: Manifest) -> None:
        """The checkpoint is there. One that says another state hash is its author's word."""
        if manifest.state_hash != digest:
            said = EntryRef(head.sequence, manifest.state_hash)
            self._agreement.wrote(said, manifest.session)
            return
        known = Known(head.sequence, manifest.time_ns)
        self._replica.note(CHECKPOINT_NOTE, msgpack.packb(known))
        if self._writer is not None:
            self._writer.learn(manifest.chunks)

    def _earlier_chunks(self, sequence: int) -> tuple[ChunkRef, ...]:
        """What the newest checkpoint before this one consists of; nothing if it cannot be read."""
        try:
            earlier = self._reader.newest(before=sequence)
            return () if earlier is None else self._reader.manifest(earlier).manifest.chunks
        except (DataError, ObjectMissing):
            return ()

    def _rest(self) -> None:
        """Between two slices: the interpreter is for those who wait for an answer."""
        if self._stop.wait(REST_S):
            raise Stopped("The filespace is being closed.")

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped("The filespace is being closed.")

    def _again(self, ask: Callable[[], T]) -> T:
        """Ask until the store answers."""
        pause = PAUSE_FIRST_S
        while True:
            try:
                return ask()
            except LucidError as error:
                if not error.retryable:
                    raise
            self._wait(pause * self._pause.uniform(0.5, 1.0))
            pause = min(pause * 2, PAUSE_MAX_S)


def known_checkpoint(replica: Replica) -> Known | None:
    """The newest checkpoint that this device has seen whole."""
    packed = replica.noted(CHECKPOINT_NOTE)
    return None if packed is None else Known._make(msgpack.unpackb(packed))
