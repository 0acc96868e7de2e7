"""Composing an open filespace: the one place where rooms meet.

`open_filespace` unlocks, takes the state directory, reads the journal, builds every room from the
bottom up, brings back what was pending, and starts the threads. Whatever fails, all that was begun
is closed again.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from lucid.config import Config
from lucid.crypto.device import make_device, open_device, renew_device
from lucid.crypto.founding import Unlocked, unlock
from lucid.crypto.keyring import KeyRing, LocalKeys
from lucid.engine.cachemap import CacheMap
from lucid.engine.sodium import tag_bytes
from lucid.errors import (
    BucketMissing,
    DataError,
    FilespaceMissing,
    HistoryFork,
    LocalError,
    LucidError,
    StateForeign,
    Stopped,
    StoreError,
    StoreUnavailable,
    StoreUnfit,
)
from lucid.filespace import founding
from lucid.filespace.beginning import Beginning, begin
from lucid.filespace.collecting_daily import DailyCollection
from lucid.filespace.composing import Ground, compose
from lucid.filespace.files import Files
from lucid.filespace.known_device import is_known_device, known_place, url_digest, url_file
from lucid.filespace.parts import Parts
from lucid.filespace.picture import Picture, read
from lucid.filespace.together import Together
from lucid.format.device import Device, decode_device
from lucid.format.journal import Limit, SessionRecord
from lucid.format.limits import ENTRY_MAX
from lucid.format.member import decode_member_record
from lucid.format.names import (
    SUPERBLOCK_KEY,
    generation_key,
    log_key,
    member_key,
    member_prefix,
)
from lucid.format.runs import Geometry
from lucid.format.superblock import decode_superblock
from lucid.local.book import JournalBook
from lucid.local.disk import Disk, RealDisk
from lucid.local.frames import JournalKeys
from lucid.local.journal import Journal
from lucid.local.process import forbid_core_dumps
from lucid.local.replay import Replay
from lucid.local.statedir import StateDir, default_place
from lucid.meta.authoring import OpIds, take_session
from lucid.meta.log import LogReader, LogWriter, follow
from lucid.meta.replica import Replica
from lucid.meta.verify import Origin
from lucid.store.base import ObjectStore
from lucid.store.heard import Heard, HeardStore
from lucid.store.probe import probe
from lucid.sync.agreement import Agreement
from lucid.sync.asked_ahead import AskedAhead
from lucid.sync.below_floor import Floors, Moment
from lucid.sync.checkpointer import Checkpointer
from lucid.sync.committer import Committer, Session
from lucid.sync.daily import Daily
from lucid.sync.leases import LeaseKeeper
from lucid.sync.log_ahead import reading_ahead
from lucid.types import Clock, Entropy

__all__ = ["AWAY", "Opened", "open_parts"]

log = logging.getLogger(__name__)

AWAY = (StoreUnavailable, BucketMissing)
"""What says that the store cannot be asked now: no answer, or its disk is not there."""
LAST_STORE = "store"
"""In a state directory: the digest of the URL that it was last used with."""
PROBE_WRITERS = 4
"""Racers of the probe at a mount; at init there are more. Some stores take seconds for many."""
CATCH_UP_ENTRIES = 100_000
"""Entries that opening folds before it lets the sync thread go on."""


class Opened:
    """Everything of an open filespace, in the order in which it is closed."""

    def __init__(self) -> None:
        self.closing = ExitStack()
        self.parts: Parts
        self.files: Files
        self.committer: Committer
        self.leases: LeaseKeeper
        self.together: Together
        self.checkpoints: Checkpointer
        self.collection: DailyCollection | None = None
        self.daily: Daily | None = None
        self.beginning: Beginning
        self.unlocked: Unlocked
        self.state: StateDir
        self.cachemap: CacheMap
        self.session = 0
        self.problems: list[str] = []
        self.ring: KeyRing
        self.reader: LogReader
        self.entropy: Entropy
        self.probed = False
        self.seen_before = False
        self.heard: Heard
        self.floors: Floors
        self.away = ""
        """Why it was opened without the store; empty when it was not."""

    def probe(self) -> None:
        """Look once whether the store still keeps its rules; if not, writing stops."""
        if self.probed or self.parts.read_only or not self.committer.online:
            return
        self.probed = True
        try:
            self.problems.extend(probe(self.parts.store, self.entropy, writers=PROBE_WRITERS))
        except StoreUnfit as error:
            self.parts.order.stop(error)
            raise
        except Stopped:
            # The filespace was closed meanwhile: no verdict, and nothing to tell anybody.
            log.debug("closed before the store was probed")
        except LucidError:
            self.probed = False
            raise


def open_parts(
    store: ObjectStore,
    secret: str,
    config: Config,
    *,
    clock: Clock,
    entropy: Entropy,
    disk: Disk | None = None,
    look: Callable[[], StoreError | None] | None = None,
) -> Opened:
    """Open the filespace in `store`. Closes the store when it fails.

    `look` tells why the store need not be waited for now, or None; it is called once, when the
    first questions are on their way.
    """
    opened = Opened()
    try:
        opened.closing.callback(store.close)
        opened.heard = Heard(clock)
        asked = AskedAhead(store)
        store = HeardStore(asked, opened.heard)
        opened.floors = Floors(store, clock)
        opening = _Opening(opened, store, asked, secret, config, clock, entropy, disk or RealDisk())
        try:
            opening.run(look)
        finally:
            asked.end()
        return opened
    except BaseException:
        opened.closing.close()
        raise


class _Opening:
    """The steps of opening, each short; used once."""

    def __init__(
        self,
        opened: Opened,
        store: ObjectStore,
        asked: AskedAhead,
        secret: str,
        config: Config,
        clock: Clock,
        entropy: Entropy,
        disk: Disk,
    ) -> None:
        self._opened = opened
        self._closing = opened.closing
        self._store = store
        self._asked = asked
        self._secret = secret
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self._disk = disk
        self._online = True
        self._moved_place = False
        self._read_at: Moment

    def run(self, look: Callable[[], StoreError | None] | None) -> None:
        forbid_core_dumps()
        self._opened.entropy = self._entropy
        self._ask_ahead()
        away = None if look is None else look()
        unlocked = self._unlock_offline(away) if away is not None else self._unlock()
        self._opened.unlocked = unlocked
        self._closing.callback(unlocked.keys.close)
        self._check_address(unlocked)
        local = self._take_state(unlocked)
        ring = self._keys(unlocked)
        replica = self._replica(unlocked, local)
        book, picture = self._journal(unlocked, local)
        beginning = self._begin(unlocked, local, ring, replica, book, picture)
        replica = beginning.replica
        reader = LogReader(self._store, ring, replica, self._origin(unlocked))
        reader.guard = self._opened.floors.check
        self._opened.reader = reader
        if picture.session is not None:
            # Before the log is read: own ops in it must be known when the journal brings them.
            replica.set_own_session(picture.session.session)
        self._follow(reader, replica, beginning)
        session, op_ids = self._session(unlocked, ring, reader, replica, book, picture)
        ground = Ground(
            opened=self._opened, config=self._config, clock=self._clock, entropy=self._entropy,
            disk=self._disk, store=self._store, unlocked=unlocked, ring=ring, replica=replica,
            log=reader, book=book, picture=picture, session=session, op_ids=op_ids,
            geometry=self._geometry(unlocked),
        )  # fmt: skip
        compose(ground)
        if reader.fork and not self._config.read_only:
            self._opened.parts.order.stop(HistoryFork(reader.fork))

    # -- keys and state directory

    def _ask_ahead(self) -> None:
        """What unlocking needs, if this device has been here: all of it at once."""
        with suppress(DataError, LocalError):  # Told when it is read in earnest.
            kept = self._known_device()
            if kept is None:
                return
            superblock = decode_superblock(kept.superblock).superblock
            record = decode_member_record(kept.record)
            for key in (
                SUPERBLOCK_KEY,
                member_key(record.member, record.number),
                generation_key(superblock.generation, record.member),
            ):
                self._asked.ask(key, founding.READ_MAX)
            self._asked.ask_list(member_prefix(record.member))

    def _unlock(self) -> Unlocked:
        """From the store, or while it is away from the copies in the state directory."""
        try:
            return founding.unlock(self._store, self._secret, self._remembered())
        except AWAY as error:
            return self._unlock_offline(error)

    def _unlock_offline(self, away: StoreError) -> Unlocked:
        """Raises `away` on a device that has not been here before.

        A place that is not there may be a slip of the pen: only where this device was last it is a
        disk that is not mounted.
        """
        kept = self._known_device()
        if kept is None or (isinstance(away, BucketMissing) and not self._was_here()):
            raise away
        self._go_offline(away)
        return unlock(kept.superblock, kept.record, self._secret, kept.superblock_hash)

    def _go_offline(self, away: StoreError | HistoryFork) -> None:
        log.warning("Opening without the store: %s", away)
        self._online = False
        self._opened.away = str(away)

    def _known_device(self) -> Device | None:
        if not is_known_device(self._store.url, self._config):
            return None
        place = known_place(self._store.url, self._config)
        assert place is not None
        data = StateDir.open(self._disk, place).read_device()
        return None if data is None else decode_device(data)

    def _was_here(self) -> bool:
        """Whether this state directory was last used with this very store."""
        state_dir = self._config.state_dir
        if state_dir is None:
            return True  # It was found by the address.
        try:
            return (state_dir / LAST_STORE).read_text() == url_digest(self._store.url)
        except OSError:
            return False

    def _remembered(self) -> Device | None:
        """What a state directory that was chosen says; the usual one is found by the filespace."""
        return None if self._config.state_dir is None else self._known_device()

    def _check_address(self, unlocked: Unlocked) -> None:
        """Where the state directory is found by the filespace, another one brings another
        directory, which has seen nothing: only the address shows that it was exchanged."""
        if not self._online or self._config.state_dir is not None:
            return
        file = url_file(self._store.url)
        try:
            seen = file.read_text().strip()
        except OSError:
            return
        if seen != unlocked.superblock.filespace.hex():
            raise HistoryFork(
                f"The store at {self._store.url} holds another filespace than this device has"
                f" seen there. If you know that it was made anew, remove {file} and try again."
            )

    def _take_state(self, unlocked: Unlocked) -> LocalKeys:
        filespace = unlocked.superblock.filespace
        place = self._config.state_dir or default_place(filespace)
        state = StateDir.create(self._disk, place)
        self._closing.callback(state.close)
        state.lock(self._config.state_wait_s)
        self._opened.state = state
        data = state.read_device()
        if data is None:
            self._probe()
            new = make_device(unlocked, state.place(), self._entropy)
            state.write_device(new.data)
            keys = new.keys
        else:
            keys = open_device(data, unlocked)
            self._moved_place = decode_device(data).place != state.place()
            renewed = renew_device(data, unlocked, state.place())
            if renewed != data and not self._moved_place:
                state.write_device(renewed)
        self._closing.callback(keys.close)
        if self._online:
            self._remember_url(filespace)
        return keys

    def _probe(self) -> None:
        """A store that lets two writers win one name is refused before a new device trusts it.

        Later mounts look again once they are under way: see `Opened.probe`.
        """
        if self._online and not self._config.read_only:
            self._opened.problems.extend(probe(self._store, self._entropy, writers=PROBE_WRITERS))
            self._opened.probed = True

    def _remember_url(self, filespace: bytes) -> None:
        url = self._store.url
        try:
            if self._config.state_dir is not None:
                (self._opened.state.path / LAST_STORE).write_text(url_digest(url))
                return
            file = url_file(url)
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.write_text(filespace.hex())
        except OSError as error:
            log.warning("Opening offline may not be possible later: %s", error)

    def _keys(self, unlocked: Unlocked) -> KeyRing:
        superblock = unlocked.superblock
        ring = KeyRing(superblock.filespace, superblock.suite)
        self._closing.callback(ring.close)
        kept, box = self._opened.state.path / "generation", None
        if self._online:
            key, box = founding.read_generation(self._store, unlocked, superblock.generation)
        else:
            key = founding.read_kept_generation(kept, unlocked)
        ring.add(superblock.generation, key, superblock.generation_key_hash)
        if box is not None:
            # The very bytes whose key was believed: asked again, the store may show others.
            founding.keep_generation(kept, box)
        self._opened.ring = ring
        return ring

    def _origin(self, unlocked: Unlocked) -> Origin:
        return Origin(unlocked.superblock, unlocked.superblock_hash)

    # -- replica, journal, log, session

    def _replica(self, unlocked: Unlocked, local: LocalKeys) -> Replica:
        replica = self._open_replica(self._opened.state.replica, unlocked, local)
        if replica.rebuilt:
            log.info("The replica is built anew: %s", replica.rebuilt)
        return replica

    def _open_replica(self, path: Path, unlocked: Unlocked, local: LocalKeys) -> Replica:
        replica = Replica(path, local.replica_key(), self._geometry(unlocked), self._clock)
        self._closing.callback(replica.close)
        return replica

    def _begin(
        self,
        unlocked: Unlocked,
        local: LocalKeys,
        ring: KeyRing,
        replica: Replica,
        book: JournalBook,
        picture: Picture,
    ) -> Beginning:
        """Where there is no replica, one from a checkpoint, if there is one to be believed."""
        beginning = Beginning(replica, Agreement(replica))
        if self._online:
            if head := replica.head().sequence:
                self._asked.ask(log_key(head), ENTRY_MAX + 1)
            try:
                beginning = begin(
                    replica, picture, store=self._store, ring=ring,
                    origin=self._origin(unlocked), path=self._opened.state.replica,
                    key=local.replica_key(), every=self._config.checkpoint_every,
                    entries=CATCH_UP_ENTRIES,
                    open_replica=lambda path: self._open_replica(path, unlocked, local),
                    floors=self._opened.floors,
                    book=None if self._config.read_only else book,
                    geometry=self._geometry(unlocked),
                )  # fmt: skip
            except AWAY as error:
                self._go_offline(error)
            except HistoryFork as error:
                if not self._config.read_only or not replica.head().sequence:
                    raise
                self._go_offline(error)  # What this device knows can be read.
        self._opened.beginning = beginning
        return beginning

    def _geometry(self, unlocked: Unlocked) -> Geometry:
        superblock = unlocked.superblock
        return Geometry(superblock.block_size, tag_bytes(superblock.suite))

    def _journal(self, unlocked: Unlocked, local: LocalKeys) -> tuple[JournalBook, Picture]:
        superblock = unlocked.superblock
        keys = JournalKeys(superblock.suite, superblock.filespace, local.journal_key)
        replay = Replay(self._disk, self._opened.state.journal, keys)
        picture = read(replay, superblock.block_size)
        if replay.report.torn_bytes:
            log.warning(
                "The end of the journal was torn off (%d bytes): what was not yet durable is gone.",
                replay.report.torn_bytes,
            )
        if self._config.read_only:
            return JournalBook(None), picture  # What is pending stays where it is.
        journal = Journal(self._disk, self._opened.state.journal, keys, self._entropy, replay)
        self._closing.callback(journal.close)
        return JournalBook(journal), picture

    def _follow(self, reader: LogReader, replica: Replica, beginning: Beginning) -> None:
        """Read the log up to now; without the store go on with what is known."""
        self._closing.callback(beginning.close)
        if not self._online:
            return
        try:
            seen = replica.head().sequence > 0 and not beginning.is_new
            reader.history.check_head()
            self._opened.seen_before = seen
            with reading_ahead(reader):
                beginning.compare(reader)
                self._read_at = self._opened.floors.now()
                folded = follow(
                    reader, replica, CATCH_UP_ENTRIES,
                    on_void=lambda found: beginning.folded(None),
                    on_entry=lambda found: beginning.folded(found.body),
                )  # fmt: skip
            if replica.head().sequence:
                self._asked.ask_list(*reader.history.around_head())
                if folded < CATCH_UP_ENTRIES:
                    self._check_floor(replica, beginning)
                reader.history.check_gaps()
        except AWAY as error:
            self._go_offline(error)
        except HistoryFork as error:
            if not self._config.read_only or not replica.head().sequence:
                raise
            # What this device has seen can be read. The log is followed when it shows that again.
            self._go_offline(error)
        # Nobody holds anything yet: a kernel that is told to forget a directory in use would take
        # it from under whoever stands in it.
        replica.take_events()
        if replica.head().sequence == 0 and self._online:
            raise FilespaceMissing(f"The filespace at {self._store.url} has no log.")

    def _check_floor(self, replica: Replica, beginning: Beginning) -> None:
        """The log was read to its end, or to where it was cut. Raises BelowFloor for that."""
        floors = self._opened.floors
        floors.at_end(replica.head().sequence, self._read_at)
        if replica.floor() < beginning.floor:
            floors.strange = (
                f"The store shows a floor at entry {beginning.floor} of the log that no entry sets:"
                " it was not put there by an admin of this filespace, and means nothing."
            )
            log.warning("%s", floors.strange)
        if floors.strange:
            beginning.notes.append(floors.strange)

    def _session(
        self,
        unlocked: Unlocked,
        ring: KeyRing,
        reader: LogReader,
        replica: Replica,
        book: JournalBook,
        picture: Picture,
    ) -> tuple[Session | None, OpIds | None]:
        if self._config.read_only:
            return None, None
        record = picture.session
        if self._moved_place:
            if picture.ops or picture.files:
                raise StateForeign(
                    f"The state directory {self._opened.state.path} was copied or restored, and "
                    "holds changes that were not sent. Mount it where it came from, or give "
                    "--state-dir a new one."
                )
            record = None
        if self._opened.beginning.is_silent and not (picture.ops or picture.files):
            record = None  # A new session is not waited for, when others begin there too.
        if record is None:
            record = self._new_session(unlocked, ring, reader, replica)
            book.append(record)
            picture.limit = 1
            if self._moved_place:
                data = self._opened.state.read_device()
                assert data is not None
                self._opened.state.write_device(
                    renew_device(data, unlocked, self._opened.state.place())
                )
        else:
            assert picture.session_position is not None
            book.adopt(picture.session_position, record)
        self._opened.session = record.session
        replica.set_own_session(record.session)
        # The session, and own ops that the log has brought, which the journal forgets now, must be
        # known here after a crash, or loss of power, and then no store.
        replica.commit_now()
        replica.sync_wal()
        limit = max(picture.limit, 1)
        kept = []
        if picture.limit_position is not None:
            kept.append(book.adopt(picture.limit_position, Limit(limit)))

        def sure(counter: int) -> None:
            kept.append(book.append(Limit(counter), removal=True))
            book.sync()
            book.release(kept[:-1])
            del kept[:-1]

        return Session(record.session, limit), OpIds(record.session, limit, sure)

    def _new_session(
        self, unlocked: Unlocked, ring: KeyRing, reader: LogReader, replica: Replica
    ) -> SessionRecord:
        if not self._online:
            raise StoreUnavailable(
                "The first writable mount of a device needs the store. Mount with --read-only, "
                "or again when the store is back."
            )
        writer = LogWriter(self._store, ring, unlocked.keys, replica, self._entropy)
        row = take_session(
            reader, writer, replica, unlocked.keys.member,
            socket.gethostname().encode()[:64], self._clock, self._entropy,
        )  # fmt: skip
        return SessionRecord(row.number, row.nonce)
