"""Random system calls, each made on a drive and on a plain directory.

Every choice comes from the seed and from what lies in the plain directory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.mount import twins

BLOCK = 128 * 1024
NAMES = ["a", "b", "c", "dir", "\u00e9", "x" * 255]
SIZES = [0, 1, 13, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 300_001]
ATTRIBUTES = ["user.a", "user.b", "user.\u00e9", "trusted.c"]
ACCESS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR]
FLAGS = [
    0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC,
    os.O_TRUNC, os.O_APPEND, os.O_CREAT | os.O_APPEND, os.O_NOFOLLOW, os.O_DIRECTORY,
]  # fmt: skip
OPEN_AT_MOST = 8


def content(kind: int, length: int) -> bytes:
    """Zeros, or one of three random texts."""
    return bytes(length) if not kind else random.Random(kind).randbytes(length)


class Calls:
    """Makes calls and compares. `at` is where every choice comes from."""

    def __init__(self, drive: Path, local: Path) -> None:
        self.drive, self.local = drive, local
        self.open: list[tuple[int, int]] = []

    def begin(self) -> None:
        """Something to work on: a walk that begins with nothing mostly hears ENOENT."""
        for top in (self.drive, self.local):
            (top / "dir" / "b").mkdir(parents=True)
            (top / "a").write_bytes(content(1, 300_001))
            (top / "dir" / "a").write_bytes(content(2, 5000))
            (top / "dir" / "c").symlink_to("a")
        for name, flags in (("a", os.O_RDWR), ("dir/a", os.O_RDWR | os.O_APPEND)):
            self.open.append((os.open(self.drive / name, flags), os.open(self.local / name, flags)))

    def make(self, at: random.Random, count: int) -> None:
        for _ in range(count):
            kinds = ON_OPEN_FILES if self.open and at.random() < 0.45 else ON_PATHS
            at.choice(kinds)(self, at)

    def compare(self) -> None:
        difference = twins.difference(twins.whole(self.drive), twins.whole(self.local))
        assert not difference, "\n".join(difference)

    def close_all(self) -> None:
        while self.open:
            for descriptor in self.open.pop():
                os.close(descriptor)

    # --- Choices -------------------------------------------------------------------------------

    def there(self, at: random.Random) -> str:
        """A name that leads somewhere, most of the time."""
        names = sorted(str(path.relative_to(self.local)) for path in self.local.rglob("*"))
        return at.choice(names) if names and at.random() < 0.85 else self.new(at)

    def new(self, at: random.Random) -> str:
        """A name in some directory, taken or not; now and then below a file, or too long."""
        below = sorted(self.local.rglob("*"))
        above = [path for path in below if path.is_dir() or at.random() < 0.03]
        directory = at.choice([self.local, *above]).relative_to(self.local)
        name = "y" * 256 if at.random() < 0.02 else at.choice(NAMES)
        return str(directory / name)

    def place(self, at: random.Random) -> int:
        return at.choice([*SIZES, at.randrange(3 * BLOCK), 700_000, 2 * BLOCK])

    def times(self, at: random.Random) -> tuple[int, int]:
        """atime and mtime, far from now.

        No mtime lies in the future: that of a directory stays there (S-215), a local one does not.
        """
        past = [at.randrange(2**30) * 10**9 + at.randrange(10**9) for _ in range(2)]
        return at.choice([past[0], 2**33 * 10**9 + 1]), past[1]

    def mode(self, at: random.Random) -> int:
        return at.choice([0o644, 0o755, 0o600, 0, 0o1777, at.randrange(0o2000)])

    # --- Made twice ----------------------------------------------------------------------------

    def same(self, call: Callable[..., Any], drive: list[Any], local: list[Any], what: Any) -> bool:
        here, there = twins.outcome(call, *drive), twins.outcome(call, *local)
        assert here == there, f"{what}: {twins.brief(here, there)}"
        return here[0] == "value"

    def on_paths(self, call: Callable[..., Any], *paths: str) -> bool:
        where = [[top / path for path in paths] for top in (self.drive, self.local)]
        return self.same(call, where[0], where[1], paths)

    def on_file(self, at: random.Random, call: Callable[[int], Any]) -> None:
        drive, local = at.choice(self.open)
        self.same(call, [drive], [local], f"open file {drive}")

    # --- Open files ----------------------------------------------------------------------------

    def open_a_file(self, at: random.Random) -> None:
        if len(self.open) >= OPEN_AT_MOST:
            self.close(at)
        flags, mode = at.choice(ACCESS) | at.choice(FLAGS), self.mode(at)
        descriptors: list[int] = []

        def call(where: Path) -> None:
            # O_NONBLOCK: a FIFO must not wait for its other end.
            descriptors.append(os.open(where, flags | os.O_NONBLOCK, mode))

        if self.on_paths(call, at.choice([self.there, self.new])(at)):
            self.open.append((descriptors[0], descriptors[1]))

    def close(self, at: random.Random) -> None:
        for descriptor in self.open.pop(at.randrange(len(self.open))):
            os.close(descriptor)

    def pread(self, at: random.Random) -> None:
        place, length = self.place(at), at.choice(SIZES)

        def call(descriptor: int) -> bytes | None:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                return None  # the kernel's affair
            return os.pread(descriptor, length, place)

        self.on_file(at, call)

    def pwrite(self, at: random.Random) -> None:
        place, text = self.place(at), content(at.randrange(4), at.choice(SIZES))
        self.on_file(at, lambda fd: is_fifo(fd) or os.pwrite(fd, text, place))

    def write(self, at: random.Random) -> None:
        text = content(at.randrange(4), at.choice(SIZES))
        self.on_file(at, lambda fd: is_fifo(fd) or os.write(fd, text))

    def ftruncate(self, at: random.Random) -> None:
        size = self.place(at)
        self.on_file(at, lambda fd: os.ftruncate(fd, size))

    def fsync(self, at: random.Random) -> None:
        self.on_file(at, os.fsync)

    def fstat(self, at: random.Random) -> None:
        self.on_file(at, lambda fd: twins.look(os.fstat(fd)))

    def fchmod(self, at: random.Random) -> None:
        mode = self.mode(at)
        self.on_file(at, lambda fd: os.fchmod(fd, mode))

    def futimens(self, at: random.Random) -> None:
        times = self.times(at)
        # Not of a directory, as in utimens: a file is open.
        self.on_file(at, lambda fd: is_directory(fd) or os.utime(fd, ns=times))

    def write_by_a_mapping(self, at: random.Random) -> None:
        place, length, kind = self.place(at), at.choice(SIZES), at.randrange(4)

        def call(descriptor: int) -> bytes:
            size = os.fstat(descriptor).st_size
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return b""  # the size of a directory may differ
            if not size or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
                return b""  # see test_a_mapping_of_a_descriptor_for_appending
            with mmap.mmap(descriptor, size) as view:
                piece = content(kind, length)[: max(0, size - place)]
                view[place : place + len(piece)] = piece
                return view[max(0, place - 100) : place + length + 100]

        self.on_file(at, call)

    # --- Names ---------------------------------------------------------------------------------

    def mkdir(self, at: random.Random) -> None:
        mode = self.mode(at)
        self.on_paths(lambda where: os.mkdir(where, mode), self.new(at))

    def rmdir(self, at: random.Random) -> None:
        self.on_paths(os.rmdir, self.there(at))

    def unlink(self, at: random.Random) -> None:
        self.on_paths(os.unlink, self.there(at))

    def rename(self, at: random.Random) -> None:
        self.on_paths(os.rename, self.there(at), at.choice([self.there, self.new])(at))

    def link(self, at: random.Random) -> None:
        def call(old: Path, new: Path) -> None:
            os.link(old, new, follow_symlinks=False)

        self.on_paths(call, self.there(at), self.new(at))

    def symlink(self, at: random.Random) -> None:
        leads_to = at.choice(["a", "dir", "dir/a", "b", "/nowhere/at all"])
        self.on_paths(lambda where: os.symlink(leads_to, where), self.new(at))

    def readlink(self, at: random.Random) -> None:
        self.on_paths(os.readlink, self.there(at))

    def mkfifo(self, at: random.Random) -> None:
        mode = self.mode(at)
        self.on_paths(lambda where: os.mkfifo(where, mode), self.new(at))

    def listdir(self, at: random.Random) -> None:
        self.on_paths(lambda where: sorted(os.listdir(where)), self.there(at))

    def fsync_a_directory(self, at: random.Random) -> None:
        def call(where: Path) -> None:
            descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        self.on_paths(call, self.there(at))

    # --- Attributes ----------------------------------------------------------------------------

    def look(self, at: random.Random) -> None:
        self.on_paths(lambda where: twins.look(os.stat(where)), self.there(at))

    def read(self, at: random.Random) -> None:
        self.on_paths(lambda where: twins.inside(where, where.lstat()), self.there(at))

    def truncate(self, at: random.Random) -> None:
        size = self.place(at)
        self.on_paths(lambda where: os.truncate(where, size), self.there(at))

    def chmod(self, at: random.Random) -> None:
        mode = self.mode(at)
        self.on_paths(lambda where: os.chmod(where, mode), self.there(at))

    def utimens(self, at: random.Random) -> None:
        times, follow = self.times(at), at.random() < 0.5
        path = self.there(at)
        if self.open and os.path.isdir(self.local / path):  # noqa: PTH112 - too long a name is none
            return  # a new file that is still open has its name from its publish on, and later

        def call(where: Path) -> int:
            os.utime(where, ns=times, follow_symlinks=follow)
            return os.stat(where, follow_symlinks=follow).st_atime_ns

        self.on_paths(call, path)

    def setxattr(self, at: random.Random) -> None:
        name, value = at.choice(ATTRIBUTES), at.randbytes(at.randrange(60))
        flags, follow = at.choice([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]), at.random() < 0.7

        def call(where: Path) -> None:
            os.setxattr(where, name, value, flags, follow_symlinks=follow)

        self.on_paths(call, self.there(at))

    def getxattr(self, at: random.Random) -> None:
        name = at.choice(ATTRIBUTES)
        self.on_paths(lambda where: os.getxattr(where, name), self.there(at))

    def removexattr(self, at: random.Random) -> None:
        name = at.choice(ATTRIBUTES)
        self.on_paths(lambda where: os.removexattr(where, name), self.there(at))


def is_fifo(descriptor: int) -> bool:
    """What goes into a FIFO is the kernel's affair, on a drive as elsewhere."""
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


def is_directory(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


Call = Callable[[Calls, random.Random], None]
ON_OPEN_FILES: list[Call] = [
    Calls.pread, Calls.pread, Calls.pwrite, Calls.pwrite, Calls.pwrite, Calls.write,
    Calls.ftruncate, Calls.fsync, Calls.fstat, Calls.fchmod, Calls.futimens,
    Calls.write_by_a_mapping, Calls.close,
]  # fmt: skip
ON_PATHS: list[Call] = [
    Calls.open_a_file, Calls.open_a_file, Calls.open_a_file, Calls.mkdir, Calls.rmdir, Calls.unlink,
    Calls.rename, Calls.rename, Calls.rename, Calls.link, Calls.link, Calls.symlink,
    Calls.readlink, Calls.mkfifo, Calls.listdir, Calls.fsync_a_directory, Calls.look, Calls.read,
    Calls.truncate, Calls.chmod, Calls.utimens, Calls.setxattr, Calls.setxattr, Calls.getxattr,
    Calls.removexattr,
]  # fmt: skip
