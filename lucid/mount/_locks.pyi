"""Requests about locks, taken before libfuse sees them.  Import it through `lucid.mount.fuse`."""

from typing import Protocol

class _Attendant(Protocol):
    """Who answers them. Every method may be called by any worker; what it raises is answered with
    EIO. `fd` and `unique` are what the answer is written to."""

    def lock(
        self,
        fd: int,
        unique: int,
        ino: int,
        handle: int,
        owner: int,
        span: tuple[int, int],
        kind: int,
        pid: int,
        is_flock: bool,
        waits: bool,
    ) -> None:
        """Lock bytes span[0] to span[1], inclusive, or unlock them. kind: F_RDLCK and so on."""

    def test(
        self,
        fd: int,
        unique: int,
        ino: int,
        handle: int,
        owner: int,
        span: tuple[int, int],
        kind: int,
        pid: int,
    ) -> None:
        """What stands against such a lock."""

    def interrupt(self, unique: int) -> bool:
        """The caller of a request got a signal. False: it is none that waits for a lock."""

    def flushed(self, ino: int, owner: int) -> None:
        """A process closes a descriptor of an inode that has locks; answered by others."""

    def released(self, ino: int, handle: int) -> None:
        """An open file of an inode that has locks is closed; answered by others."""

    def allocate(
        self, fd: int, unique: int, handle: int, mode: int, offset: int, length: int
    ) -> None:
        """fallocate(2)."""

def attend_with(attendant: _Attendant | None) -> None:
    """Who is asked from now on.  REQUIRES: no worker runs."""

def mark(ino: int, locked: bool) -> None:
    """Whether an inode has locks: `flushed` and `released` are only called for those that do."""

def marked() -> int:
    """How many inodes have locks."""
