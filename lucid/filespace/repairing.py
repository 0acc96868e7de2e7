"""`lucid fsck --repair`: builds the replica of a state directory anew from the store, and sends
what the directory still holds.

The old replica is put aside, not deleted, until the new one is there: without the store nothing is
changed. What is pending lies in journal and staging, which are not touched by this. What the device
has seen of the log is compared before the old replica goes, for only that one knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lucid.config import Config
from lucid.crypto.device import open_device
from lucid.crypto.founding import Unlocked
from lucid.crypto.keyring import KeyRing, LocalKeys
from lucid.engine.sodium import tag_bytes
from lucid.errors import HistoryFork, LocalError, LucidError, StateInUse, Stopped, StoreUnavailable
from lucid.filespace import founding
from lucid.filespace.filespace import Filespace
from lucid.filespace.opening import open_parts
from lucid.filespace.picture import read
from lucid.filespace.surface import Progress
from lucid.filespace.tree import Tree
from lucid.format.journal import SessionRecord
from lucid.format.runs import Geometry
from lucid.local.disk import RealDisk
from lucid.local.frames import JournalKeys
from lucid.local.replay import Replay
from lucid.local.statedir import StateDir, default_place
from lucid.meta.history import alarm_of
from lucid.meta.log import LogReader
from lucid.meta.replica import Replica
from lucid.meta.schema import remove_database
from lucid.meta.verify import Origin
from lucid.store.base import ObjectStore
from lucid.sync.agreement import mismatch_at
from lucid.sync.below_floor import Floors
from lucid.types import Clock, Entropy, SystemClock, SystemEntropy

__all__ = ["Repair", "Repaired"]

log = logging.getLogger(__name__)

ASIDE = "replica.aside"
"""The old replica while the new one is built. Left there only by a crash."""
SUFFIXES = ("", "-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""


@dataclass
class Repaired:
    """What a repair found and did."""

    state_directory: str
    alarm: str = ""
    """What kept this device from writing, and was cleared."""
    damage: str = ""
    """Why the old replica could not be read; empty if it could."""
    kept: bool = False
    """The replica was left: the next opening folds the whole log anew, to compare it."""
    entries: int = 0
    """Entries of the log that the new replica stands at."""
    ops: int = 0
    staged_bytes: int = 0
    """What was pending before."""
    resent: int = 0
    """Segments that the store had lost, and got again from the cache."""
    ops_left: int = 0
    staged_bytes_left: int = 0
    """What could not be sent."""
    problems: list[str] = field(default_factory=list)
    """What the journal could not bring back, and what keeps the rest from being sent."""

    @property
    def whole(self) -> bool:
        """Everything is in the store."""
        return not (self.ops_left or self.staged_bytes_left or self.problems)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "whole": self.whole}


class Repair:
    """Of one state directory: `run` builds anew and opens, `send` sends what is left and closes.

    Used by one thread.
    """

    def __init__(
        self,
        open_store: Callable[[], ObjectStore],
        secret: str,
        config: Config,
        *,
        clock: Clock | None = None,
        entropy: Entropy = SystemEntropy,
    ) -> None:
        """`open_store` gives a store that was asked whether it is there; it is called anew for
        each look."""
        self._open_store = open_store
        self._secret = secret
        self._config = config
        self._clock = clock or SystemClock()
        self._entropy = entropy
        self._session: SessionRecord | None = None
        self._is_below_floor = False
        """Opening builds the replica anew by itself, and needs the old one for that."""
        self.found = Repaired("")

    def run(self, believe: Callable[[str], bool] | None = None) -> Filespace:
        """Look at the directory, put its replica aside, and open it with a new one.

        `believe` is asked when an alarm stands: True clears it, and this device believes what the
        store shows from now on. Raises HistoryFork when nobody is asked or the answer is no,
        StateInUse while a drive has the directory, StoreUnavailable, LocalError where there is no
        state directory, and what opening raises. After an error the directory is as it was.
        """
        place = self._look(believe)
        config = replace(self._config, state_dir=place, read_only=False)
        try:
            if self.found.alarm:
                self._clear(config)
            fs = self._open(config)
        except StateInUse:
            raise  # A drive was mounted meanwhile: it has built a replica of its own.
        except BaseException:
            self._put_back(place)
            raise
        remove_database(place / ASIDE)
        status = fs.status()
        self.found.entries = status.head
        self.found.problems.extend(status.failed)
        return fs

    def send(self, fs: Filespace, report: Callable[[Progress], None] | None = None) -> Repaired:
        """Bring all that is pending into the store, however long that takes, and close."""
        left = fs.close(report=report)
        self.found.ops_left, self.found.staged_bytes_left = left.pending_ops, left.staged_bytes
        if left.problem and left.problem not in self.found.problems:
            self.found.problems.append(left.problem)
        return self.found

    # -- looking

    def _look(self, believe: Callable[[str], bool] | None) -> Path:
        """The state directory, which nobody uses, with its replica put aside."""
        with ExitStack() as stack:
            store = self._open_store()
            stack.callback(store.close)
            unlocked = founding.unlock(store, self._secret)
            stack.callback(unlocked.keys.close)
            place = self._config.state_dir or default_place(unlocked.superblock.filespace)
            state = stack.enter_context(_locked(place, self._config.state_wait_s))
            self.found = Repaired(str(place))
            data = state.read_device()
            if data is None:
                raise _nothing_at(place)
            keys = open_device(data, unlocked)
            stack.callback(keys.close)
            _finish_earlier(place)
            self._look_at_replica(store, unlocked, state.replica, keys.replica_key(), believe)
            self._count(state, unlocked, keys)
            if not (self.found.kept or self._is_below_floor):
                _move(state.replica, place / ASIDE)
            return place

    def _look_at_replica(
        self,
        store: ObjectStore,
        unlocked: Unlocked,
        path: Path,
        key: bytes,
        believe: Callable[[str], bool] | None,
    ) -> None:
        """Compare what it has seen with what the store shows: it is the only one that knows."""
        superblock = unlocked.superblock
        with ExitStack() as stack:
            geometry = Geometry(superblock.block_size, tag_bytes(superblock.suite))
            replica = Replica(path, key, geometry, self._clock)
            stack.callback(replica.close)
            self.found.damage = replica.rebuilt
            head = replica.head().sequence
            if head and Floors(store, self._clock).above(head) is not None:
                self._is_below_floor = True
                return
            ring = KeyRing(superblock.filespace, superblock.suite)
            stack.callback(ring.close)
            root, _ = founding.read_generation(store, unlocked, superblock.generation)
            ring.add(superblock.generation, root, superblock.generation_key_hash)
            reader = LogReader(store, ring, replica, Origin(superblock, unlocked.superblock_hash))
            alarm = _alarm(reader, replica)
            if alarm and not (believe and believe(alarm)):
                raise HistoryFork(alarm)
            self.found.alarm = alarm
            self.found.kept = not alarm and mismatch_at(replica) is not None

    def _count(self, state: StateDir, unlocked: Unlocked, keys: LocalKeys) -> None:
        """What waits here, and under which session."""
        superblock = unlocked.superblock
        journal = JournalKeys(superblock.suite, superblock.filespace, keys.journal_key)
        picture = read(Replay(RealDisk(), state.journal, journal), superblock.block_size)
        self._session = picture.session
        self.found.ops = len(picture.ops) + len(picture.files)
        staged = (path for path in state.staging.rglob("*") if path.is_file())
        self.found.staged_bytes = sum(path.stat().st_size for path in staged) if picture.ops else 0

    # -- opening

    def _open(self, config: Config) -> Filespace:
        """Raises StoreUnavailable where only what is known here could be opened."""
        try:
            opened = open_parts(
                self._open_store(), self._secret, config, clock=self._clock, entropy=self._entropy
            )
        except Stopped as error:
            raise StoreUnavailable(
                f"{error} The store did not answer, or shows a history without it. Nothing was"
                " repaired; try again when the store is back."
            ) from error
        try:
            if opened.away:
                raise StoreUnavailable(f"{opened.away} A repair needs the store.")
            return Filespace(Tree(opened))
        except BaseException:
            opened.closing.close()
            raise

    def _clear(self, config: Config) -> None:
        """Fold what the store shows, and believe it.

        Raises HistoryFork if this device is unknown there: what it has pending bears the numbers of
        a session that another device has, or will have.
        """
        opened = open_parts(
            self._open_store(), self._secret, replace(config, read_only=True),
            clock=self._clock, entropy=self._entropy,
        )  # fmt: skip
        try:
            own, replica = self._session, opened.parts.replica
            row = None if own is None else replica.session(own.session)
            if own is not None and (row is None or row.nonce != own.token):
                raise HistoryFork(
                    "The history that the store shows now does not know this device. Give"
                    f" --state-dir a new one; what was not sent stays in {config.state_dir}."
                )
            opened.reader.clear_fork()
            replica.commit_now()
        finally:
            opened.closing.close()

    def _put_back(self, place: Path) -> None:
        """The old replica in its place again, unless a drive was mounted here meanwhile."""
        try:
            with _locked(place, 0.0) as state:
                if (place / ASIDE).exists():
                    remove_database(state.replica)
                    _move(place / ASIDE, state.replica)
        except (LucidError, OSError) as error:
            log.warning("The old replica stays aside: %s", error)


def _alarm(reader: LogReader, replica: Replica) -> str:
    """Why nothing may be written, after another look at the store; empty if it may."""
    try:
        reader.history.check_head()
    except HistoryFork as error:
        return str(error)
    return alarm_of(replica)


@contextmanager
def _locked(place: Path, wait_s: float) -> Iterator[StateDir]:
    """The state directory at `place`, ours alone. Raises StateInUse, LocalError."""
    disk = RealDisk()
    if not (place / "device").is_file():
        raise _nothing_at(place)
    with StateDir.open(disk, place) as state:
        state.lock(wait_s)
        yield state


def _nothing_at(place: Path) -> LocalError:
    return LocalError(
        f"There is no state directory of this filespace at {place}: nothing here needs a repair."
        " Check --state-dir, or mount."
    )


def _finish_earlier(place: Path) -> None:
    """A repair that died left the old replica aside: take it back, if there is no other one."""
    if (place / ASIDE).exists() and not (place / "replica").exists():
        _move(place / ASIDE, place / "replica")
    remove_database(place / ASIDE)


def _move(old: Path, new: Path) -> None:
    """A database that nobody has open, with what SQLite keeps beside it."""
    for suffix in SUFFIXES:
        path = old.with_name(old.name + suffix)
        if path.exists():
            path.replace(new.with_name(new.name + suffix))
