"""The state directory: all that one device keeps on the local disk (FORMAT section 10).

It owns the directory's modes, the lock of the one process that uses it, and the device file. The
journal, the staging area, the cache and the replica live inside it and belong to their own rooms.
Nothing in here is readable without the member's key, but whoever could write here could lose our
unsent data, so the directory must be ours alone. Used by the thread that opens a filespace.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from lucid.errors import LocalError, StateDamaged, StateForeign, StateInUse
from lucid.format.hashes import hash_bytes
from lucid.local.disk import Disk, Space, local_error, local_errors
from lucid.types import Clock, SystemClock

__all__ = ["StateDir", "default_place"]

DEVICE_BYTES_MAX = 1 << 20
"""A device file is a few kB: a superblock, a member record and a box."""
LOCK_POLL_S = 0.05
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_START = Path("/proc/sys/kernel/random/boot_id")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW
_OTHERS = 0o077
_OTHERS_WRITE = 0o022


def default_place(filespace_id: bytes) -> Path:
    """Where the state directory of a filespace is unless the user says otherwise."""
    return platformdirs.user_state_path("lucid") / filespace_id.hex()


class StateDir:
    """One state directory. Make one with `create` or `open`; `close` gives the lock back."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._lock_fd = -1
        self.path = path
        self.device = path / "device"
        self.journal = path / "journal"
        self.staging = path / "staging"
        self.cache = path / "cache"
        self.replica = path / "replica"
        self.start = path / "start"

    @classmethod
    def create(cls, disk: Disk, path: Path) -> StateDir:
        """The state directory at `path`, made with all that is missing of it.

        Raises StateForeign when it is not safely ours, DiskFull, LocalError.
        """
        state = cls(disk, path)
        with local_errors(f"make the state directory {path}"):
            state._make(path)
            state._check(path)
            for inner in (state.journal, state.staging, state.cache):
                state._make(inner)
                state._check(inner)
            disk.fsync_dir(path)
        return state

    @classmethod
    def open(cls, disk: Disk, path: Path) -> StateDir:
        """The state directory that is at `path` already, with a device file in it.

        Raises StateForeign when it is not safely ours, LocalError when there is none.
        """
        state = cls(disk, path)
        try:
            disk.stat(state.device)
        except FileNotFoundError as error:
            raise LocalError(
                f"There is no state directory of lucid at {path}. Check the path, or mount first."
            ) from error
        except OSError as error:
            raise local_error(error, f"read the state directory {path}") from error
        return cls.create(disk, path)

    # -- the lock

    @property
    def is_locked(self) -> bool:
        """True while this object holds the lock."""
        return self._lock_fd >= 0

    def lock(
        self,
        wait_s: float = 0.0,
        *,
        clock: Clock | None = None,
        pause: Callable[[float], None] = time.sleep,
        on_wait: Callable[[int | None], None] | None = None,
    ) -> None:
        """Take the directory for this process, waiting up to `wait_s` seconds for its holder.

        `on_wait` is called once, with the holder's process id if it is known, when there is one to
        wait for. Raises StateInUse with the process id in the sentence.
        """
        if self._lock_fd >= 0:
            return
        clock = clock or SystemClock()
        deadline = clock.monotonic() + wait_s
        path = self.path / "lock"
        with local_errors(f"open the lock {path}"):
            fd = self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            told = False
            while not self._try_lock(fd):
                if clock.monotonic() >= deadline:
                    raise StateInUse(self._in_use(self._holder(fd)))
                if on_wait is not None and not told:
                    on_wait(self._holder(fd))
                    told = True
                pause(LOCK_POLL_S)
        except BaseException:
            self._disk.close(fd)
            raise
        self._lock_fd = fd
        self.note_pid()

    def note_pid(self) -> None:
        """Write our process id into the lock; again after a fork, which keeps the lock."""
        if self._lock_fd < 0:
            return
        text = b"%d\n" % os.getpid()
        # Only a hint for the next one's sentence: on a full disk the lock holds without it.
        with suppress(OSError):
            self._disk.ftruncate(self._lock_fd, 0)
            self._disk.pwrite(self._lock_fd, text, 0)

    def close(self) -> None:
        """Give the lock back. The lock file stays: removing it would let two processes in."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            with suppress(OSError):
                self._disk.ftruncate(fd, 0)
            self._disk.close(fd)

    def __enter__(self) -> StateDir:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the device file

    def read_device(self) -> bytes | None:
        """The device file's bytes, or None when this directory has none yet."""
        try:
            fd = self._disk.open(self.device, _READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise local_error(error, f"read the device file {self.device}") from error
        with local_errors(f"read {self.device}"):
            try:
                data = self._disk.pread(fd, DEVICE_BYTES_MAX + 1, 0)
            finally:
                self._disk.close(fd)
        if not 0 < len(data) <= DEVICE_BYTES_MAX:
            raise StateDamaged(f"The device file {self.device} has an impossible size.")
        return data

    def write_device(self, data: bytes) -> None:
        """Put `data` in the place of the device file; after a crash it is the old or the new one.

        Returns when the new one would survive loss of power. Raises DiskFull, LocalError.
        """
        new = self.path / "device.new"
        with local_errors(f"write {self.device}"):
            fd = self._disk.open(new, _NEW)
            try:
                self._disk.pwrite(fd, data, 0)
                self._disk.fdatasync(fd)
            finally:
                self._disk.close(fd)
            self._disk.rename(new, self.device)
            self._disk.fsync_dir(self.path)

    # -- where it is

    def place(self, machine_id: bytes | None = None) -> bytes:
        """What tells this directory from a copy of it: hash(machine id || device || inode).

        A device file that carries another place was copied or restored with its directory.
        """
        if machine_id is None:
            machine_id = self._machine_id()
        with local_errors(f"look at {self.path}"):
            found = self._disk.stat(self.path)
        numbers = found.st_dev.to_bytes(8, "little") + found.st_ino.to_bytes(8, "little")
        return hash_bytes(machine_id + numbers)

    def space(self) -> Space:
        """Room on the disk of this directory. Raises LocalError."""
        with local_errors(f"look at the disk of {self.path}"):
            return self._disk.space(self.path)

    # -- when it was used

    def is_of_this_start(self) -> bool:
        """Whether the machine has run without a break since `note_start`: no power was lost.

        By the kernel's number of its start, for a clock may be set to any time.
        """
        start = self._read_line(_START)
        return bool(start) and self._read_line(self.start) == start

    def note_start(self) -> None:
        """What is here now was looked at, or written, since the machine started."""
        start = self._read_line(_START)
        if not start or self.is_of_this_start():
            return
        # On a full disk it is not noted, and the next opening looks again.
        with suppress(OSError):
            fd = self._disk.open(self.start, _NEW)
            try:
                self._disk.pwrite(fd, start, 0)
            finally:
                self._disk.close(fd)

    # -- inside

    def _read_line(self, path: Path) -> bytes:
        """A short file without its end of line; nothing where it cannot be read."""
        try:
            fd = self._disk.open(path, os.O_RDONLY)
        except OSError:
            return b""
        try:
            return self._disk.pread(fd, 64, 0).strip()
        except OSError:
            return b""
        finally:
            self._disk.close(fd)

    def _make(self, path: Path) -> None:
        try:
            self._disk.mkdir(path, 0o700)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._make(path.parent)
            self._disk.mkdir(path, 0o700)
        self._disk.fsync_dir(path.parent)

    def _check(self, path: Path) -> None:
        """Refuses what another user could have prepared or could change beneath us."""
        found = self._disk.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise StateForeign(f"{path} is not a directory of its own (a link or a file is there).")
        if found.st_uid != os.geteuid():
            raise StateForeign(
                f"{path} belongs to user {found.st_uid}, and you are user {os.geteuid()}."
                " Use your own state directory, or run lucid as that user."
            )
        if found.st_mode & _OTHERS_WRITE and self._disk.listdir(path):
            raise StateForeign(
                f"Other users may write into {path}, so what is in it cannot be trusted."
                " Look at it, then run chmod 700 on it."
            )
        if found.st_mode & _OTHERS:
            self._disk.chmod(path, 0o700)

    def _try_lock(self, fd: int) -> bool:
        with local_errors(f"lock {self.path}"):
            return self._disk.flock(fd)

    def _holder(self, fd: int) -> int | None:
        try:
            return int(self._disk.pread(fd, 32, 0))
        except (OSError, ValueError):
            return None

    def _in_use(self, pid: int | None) -> str:
        who = f"process {pid}" if pid else "another process"
        return (
            f"The state directory {self.path} is used by {who}."
            " Unmount that one first, or choose another directory with --state-dir."
        )

    def _machine_id(self) -> bytes:
        for path in _MACHINE_IDS:
            if found := self._read_line(path):
                return found
        # A container without one: the directory's own numbers must do.
        return b""
