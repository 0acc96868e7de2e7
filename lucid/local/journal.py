"""The journal: the truth about what this device has accepted and the store does not have yet.

Numbered files of sealed records (FORMAT section 11). `append` returns when a record would survive
kill -9 of this process, `sync` when it would survive loss of power. Three rules carry recovery:

- A file's first record is durable before the next one is accepted, and says up to where the file
  before it is good: so exactly one end of every older file is right, and files end in order.
- Each record carries the mark up to which the journal was durable when it was written: what is
  missing above the highest mark is a torn tail, what is missing below it is damage.
- Emptying writes what still lives into a new file, makes that durable, and only then gives it its
  name, with a first record that makes the emptied files void: all of it happens or nothing.

The journal owns its files. Any number of threads may append, sync, read and release; `compact` asks
its caller to keep the rest still. It starts no thread.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

from lucid.errors import InternalError, LocalError, StagingFull, StateDamaged, Stopped
from lucid.format.journal import NO_MARK, Begin, Mark, Record, encode_record
from lucid.local.disk import FULL, Disk, local_error, local_errors
from lucid.local.files import JournalFiles, file_path
from lucid.local.frames import JournalKeys, Position
from lucid.local.replay import NEW_SUFFIX, Replay, ReplayReport
from lucid.local.writer import FileWriter
from lucid.types import Entropy

__all__ = ["FILE_BYTES", "LIMIT_BYTES", "RESERVE_BYTES", "Journal"]

FILE_BYTES = 64 << 20
RESERVE_BYTES = 1 << 20
"""Kept in each file for removals: they must work when the disk has no room for another file."""
LIMIT_BYTES = 4 << 30
FILES_MAX = 16
"""More small files than this, one a mount, are worth joining whatever lives in them."""
_BATCH_BYTES = 256 << 10
_BATCH_RECORDS = 256
_UPDATE = os.O_RDWR | os.O_NOFOLLOW


class Journal:
    """The journal of one state directory, open for writing."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        keys: JournalKeys,
        entropy: Entropy,
        replay: Replay,
        *,
        file_bytes: int = FILE_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """Goes on after `replay`, which was read to its end, and begins a new file.

        What replay called a torn tail is cut off now. Every replayed record counts as live until it
        is released. Raises StateDamaged, DiskFull, LocalError.
        """
        report = replay.report
        if report.damage is not None:
            raise StateDamaged(report.damage.sentence)
        self._disk = disk
        self._directory = directory
        self._keys = keys
        self._entropy = entropy
        self._file_bytes = file_bytes
        self._reserve = min(reserve_bytes, file_bytes // 8)
        self._limit = limit_bytes
        self.give_way: Callable[[int], int] = lambda size: 0
        """Asked for bytes of this disk when it is full; says how many it freed."""
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        """Told whenever one of the four below changes."""
        self._mark = NO_MARK
        self._is_syncing = False
        self._is_compacting = False
        self._failure: LocalError | None = None
        self._is_closed = False
        self._sizes = {number: found.end for number, found in report.files.items()}
        """Bytes of each older live file; the newest is `_file`."""
        self._live = {number: found.record_bytes for number, found in report.files.items()}
        """Bytes of records nobody released, by file, the newest included."""
        self._void = list(report.void)
        """Names of files that nothing needs; an unlink that failed is tried again."""
        self._files = JournalFiles(disk, directory, keys)
        with local_errors(f"go on with the journal in {directory}"):
            self._settle_tail(report)
            self._sweep()
        mark = report.end or NO_MARK
        self._file = self._begin(mark, self._first_live(mark.file + 1), 0)
        self._live[self._file.number] = 0
        self._mark = self._file.mark
        self._drop_before(self._first_live(self._file.number))

    # -- writing

    def append(self, record: Record, *, removal: bool = False) -> Position:
        """Accept one record; it would survive kill -9 when this returns. See `append_many`."""
        return self.append_many((record,), removal=removal)[0]

    def append_many(self, records: Sequence[Record], *, removal: bool = False) -> list[Position]:
        """Accept these records in order, all or none (but after a crash any first part of them).

        A `removal` frees more than it takes: it may use the reserve of a full disk. Raises
        DiskFull, StagingFull (the journal's own limit), LocalError, FormatError, Stopped.
        """
        # A mark that is a little old is as true as the newest.
        mark = self._mark
        bodies = [encode_record(record, mark) for record in records]
        if not bodies:
            return []
        with self._lock:
            need = self._file.cost(bodies)
            keep = 0 if removal else self._reserve
            self._check_writable()
            while self._file.room() < need + keep:
                self._roll(need, removal)
                self._check_writable()
            file = self._file
            try:
                positions = file.append(bodies)
            except OSError as error:
                if file.is_doubtful:
                    self._fail(error)
                raise local_error(error, "write into the journal") from error
            self._live[file.number] += need
            return positions

    def sync(self, upto: Position | None = None) -> None:
        """Returns when everything up to `upto` (by default, all that was appended) is durable.

        One fdatasync serves all who wait. An error is final: the kernel may have dropped the pages
        and would report success the next time, so nothing is accepted any more. Raises LocalError,
        DiskFull, Stopped.
        """
        with self._lock:
            target = self._file.mark if upto is None else Mark(*upto.end)
            while self._is_syncing and self._mark < target and self._failure is None:
                self._moved.wait()
            if self._mark >= target:
                return
            self._check_alive()
            file = self._file
            reach = file.mark
            self._is_syncing = True
        error: OSError | None = None
        try:
            file.sync()
        except OSError as found:
            error = found
        finally:
            with self._lock:
                self._is_syncing = False
                if error is not None:
                    self._fail(error)
                elif reach > self._mark:
                    self._mark = reach
                self._moved.notify_all()
        if error is not None:
            raise local_error(error, "make the journal durable") from error

    # -- reading

    @property
    def mark(self) -> Mark:
        """Everything before it is durable."""
        return self._mark

    @property
    def used_bytes(self) -> int:
        """Bytes of all files, without what is only set aside."""
        with self._lock:
            return sum(self._sizes.values()) + self._file.end

    @property
    def live_bytes(self) -> int:
        """Bytes of the records that nobody released."""
        with self._lock:
            return sum(self._live.values())

    @property
    def limit_bytes(self) -> int:
        return self._limit

    def read(self, position: Position) -> Record:
        """The record at `position`, which was not released. Raises CorruptObject, LocalError."""
        return self._files.read(position)

    # -- emptying

    def release(self, position: Position) -> None:
        """This record is not needed any more. Nothing happens on the disk now.

        REQUIRES: what takes its place was appended before, or is in the store; bytes in staging
        that take the place of a patch are durable there.
        """
        with self._lock:
            live = self._live.get(position.file)
            if live is None:
                return  # Its file was emptied, and it was not among what lived.
            if live < position.length:
                raise InternalError(f"Record {position} of the journal was released twice.")
            self._live[position.file] = live - position.length

    def worth_emptying(self) -> int | None:
        """The last of the oldest files that `compact` should empty now, or None.

        Files leave oldest first: so the fewest of which together less than a quarter lives.
        """
        with self._lock:
            numbers = sorted(self._sizes)
            sizes = accumulate(self._sizes[number] for number in numbers)
            lives = accumulate(self._live[number] for number in numbers)
            for number, size, live in zip(numbers, sizes, lives, strict=True):
                if live * 4 < size:
                    return number
            small = sum(self._sizes.values()) < self._file_bytes
            return numbers[-1] if len(numbers) > FILES_MAX and small else None

    def compact(self, upto: int, live: Iterable[Position | Record]) -> list[Position]:
        """Empty all files up to number `upto`: begin a new file with what is still needed of them.

        `live` gives, in the order in which replay shall meet them, positions (the record moves as
        it is) or new records; of an inode with an image to move, all its patches, from later files
        too, since they must follow it. Answers their new positions; the old ones are released.
        After a crash all of this has happened or nothing.
        REQUIRES: between taking `live` and this call's end the caller appends and releases nothing.
        Raises as append_many; then nothing has changed.
        """
        with self._lock:
            self._check_writable()
            if upto > self._file.number:
                raise InternalError(f"There is no journal file {upto} to empty.")
            self._is_compacting = True
        try:
            self.sync()
            return self._compact(upto, live)
        finally:
            with self._lock:
                self._is_compacting = False
                self._moved.notify_all()

    def close(self) -> None:
        """Make everything durable and let go of the files. Raises LocalError if it is not durable.

        Who waits in sync is served first; later calls get Stopped.
        """
        with self._lock:
            while self._is_syncing or self._is_compacting:
                self._moved.wait()
            if self._is_closed:
                return
            unsynced = self._failure is None and self._mark < self._file.mark
        try:
            if unsynced:
                self.sync()
        finally:
            with self._lock:
                self._is_closed = True
                self._moved.notify_all()
                self._file.close(trim=self._failure is None)
            self._files.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside; REQUIRES the lock unless it says otherwise

    def _check_alive(self) -> None:
        if self._failure is not None:
            # A new one for each caller: an exception that is raised twice mixes their tracebacks.
            raise type(self._failure)(str(self._failure))
        if self._is_closed:
            raise Stopped("The filespace is closed.")

    def _check_writable(self) -> None:
        while self._is_compacting and self._failure is None:
            self._moved.wait()
        self._check_alive()

    def _fail(self, error: OSError) -> None:
        failure = local_error(error, "make the journal durable")
        self._failure = type(failure)(
            f"{failure} Nothing more is accepted until the filespace is mounted again."
        )

    def _roll(self, need: int, removal: bool) -> None:
        """Go on in a new file; or only wait for a sync that runs, and look again."""
        if self._is_syncing:
            self._moved.wait()
            return
        used = sum(self._sizes.values()) + self._file.end
        if used + self._file_bytes > self._limit and not removal:
            raise StagingFull(
                f"{used >> 20} MiB of changes wait in the journal for the store, which is its"
                " limit. Bring the store back, or wait until it has caught up."
            )
        old = self._file
        if self._mark < old.mark:
            try:
                old.sync()
            except OSError as error:
                self._fail(error)
                raise local_error(error, "make the journal durable") from error
            self._mark = old.mark
        first_live = self._first_live(old.number + 1)
        new = self._begin(old.mark, first_live, need + self._reserve)
        self._switch(new, 0, first_live)

    def _begin(self, mark: Mark, first_live: int, need: int) -> FileWriter:
        """A new, durable file behind `mark`. Raises DiskFull, LocalError. Needs no lock."""
        begin = Begin(mark.file + 1, first_live, mark)
        path = file_path(self._directory, begin.file)
        with local_errors("begin a journal file"):
            file = self._create(path, begin.file, need)
            try:
                file.begin(begin)
                file.sync()
                self._disk.fsync_dir(self._directory)
            except BaseException as error:
                self._take_back(file, error)
                raise
        return file

    def _create(self, path: Path, number: int, need: int) -> FileWriter:
        if path.name in self._void:
            self._sweep()
        size = max(self._file_bytes, need)
        begin = partial(
            FileWriter.create, self._disk, path, self._keys, self._entropy, number, size, need
        )
        try:
            return begin()
        except OSError as error:
            if error.errno not in FULL or not self.give_way(size):
                raise
            return begin()

    def _take_back(self, file: FileWriter, error: BaseException) -> None:
        """A file that did not come to be. If it may come back, nothing is safe to append to."""
        if not file.take_back() and isinstance(error, OSError):
            self._fail(error)
        self._void.append(file.path.name)
        self._sweep()

    def _switch(self, new: FileWriter, live: int, first_live: int) -> None:
        """Append to `new` from now on; its first record made all before `first_live` void."""
        old = self._file
        self._sizes[old.number] = old.end
        self._file = new
        self._live[new.number] = live
        self._mark = max(self._mark, new.mark)
        self._moved.notify_all()
        old.close()
        self._drop_before(first_live)

    def _drop_before(self, first_live: int) -> None:
        for number in [number for number in self._sizes if number < first_live]:
            del self._sizes[number]
            del self._live[number]
            self._files.forget(number)
            self._void.append(file_path(self._directory, number).name)
        self._sweep()

    def _sweep(self) -> None:
        """Unlink what is void. It is void whether it is there or not: an error only delays it."""
        kept = []
        for name in self._void:
            try:
                self._disk.unlink(self._directory / name)
            except FileNotFoundError:
                continue
            except OSError:
                kept.append(name)
        self._void = kept

    def _first_live(self, otherwise: int) -> int:
        return min((number for number, live in self._live.items() if live), default=otherwise)

    def _settle_tail(self, report: ReplayReport) -> None:
        """What an earlier process left becomes durable as it was replayed, and ends there.

        Without this, loss of power now could take records that were replayed, and with them the
        ground under what is appended next. Bytes above the mark are written once more, the same as
        they are: if that process met an error of fdatasync, the kernel holds pages that are not on
        the disk and believes they are. Raises OSError.
        """
        if report.end is None:
            return
        number, end = report.end
        offset = report.mark.offset if report.mark.file == number else 0
        fd = self._disk.open(file_path(self._directory, number), _UPDATE)
        try:
            while offset < end:
                data = self._disk.pread(fd, min(_BATCH_BYTES, end - offset), offset)
                self._disk.pwrite(fd, data, offset)
                offset += len(data)
            self._disk.ftruncate(fd, end)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)

    # -- inside: emptying

    def _compact(self, upto: int, live: Iterable[Position | Record]) -> list[Position]:
        """Needs no lock: nothing is appended meanwhile, and all of the old file is durable."""
        old = self._file
        begin = Begin(old.number + 1, upto + 1, old.mark)
        final = file_path(self._directory, begin.file)
        positions: list[Position] = []
        moved: Counter[int] = Counter()
        with local_errors("empty a journal file"):
            new = self._create(final.with_name(final.name + NEW_SUFFIX), begin.file, self._reserve)
            try:
                new.begin(begin)
                start = new.end
                for bodies in self._batches(live, moved):
                    new.extend(new.cost(bodies) + self._reserve)
                    positions += new.append(bodies)
                self._check_moved(moved)
                new.sync()
                self._disk.rename(new.path, final)
                new.path = final
                self._disk.fsync_dir(self._directory)
            except BaseException as error:
                with self._lock:
                    self._take_back(new, error)
                raise
        with self._lock:
            while self._is_syncing:
                self._moved.wait()
            for number, size in moved.items():
                self._live[number] -= size
            self._switch(new, new.end - start, upto + 1)
        return positions

    def _batches(
        self, live: Iterable[Position | Record], moved: Counter[int]
    ) -> Iterator[list[bytes]]:
        """Encoded records, so many at a time that each write is of a good size."""
        bodies: list[bytes] = []
        size = 0
        for item in live:
            if isinstance(item, Position):
                body = self._files.read_bytes(item)
                moved[item.file] += item.length
            else:
                body = encode_record(item, self._mark)
            bodies.append(body)
            size += len(body)
            if size >= _BATCH_BYTES or len(bodies) >= _BATCH_RECORDS:
                yield bodies
                bodies, size = [], 0
        if bodies:
            yield bodies

    def _check_moved(self, moved: Counter[int]) -> None:
        with self._lock:
            for number, size in moved.items():
                if self._live.get(number, 0) < size:
                    raise InternalError(f"Journal file {number} does not hold what shall move.")
