"""The kernel's requests about locks, answered from `filespace.locks`.

`Locking` turns raw requests into requests for `Locks`, and writes what comes of them to the kernel,
then or later: a request that waits holds no worker. It also drops what a close drops, and takes
fallocate, which comes the same way. Any worker may call, many at once.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import struct
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from lucid.filespace.lock_ranges import LockMode, LockRequest
from lucid.filespace.locks import Locks
from lucid.filespace.surface import Invalidation, Surface
from lucid.mount.fuse import llfuse, lock_requests, low
from lucid.mount.notifier import Notifier
from lucid.types import SystemClock

__all__ = ["Locking"]

log = logging.getLogger(__name__)

_LOCK = struct.Struct("=QQII")  # fuse_lk_out: start, end (inclusive), type, pid

TOLD_S = 5.0

MODES = {
    fcntl.F_UNLCK: LockMode.NONE,
    fcntl.F_RDLCK: LockMode.SHARED,
    fcntl.F_WRLCK: LockMode.EXCLUSIVE,
}
KINDS = {mode: kind for kind, mode in MODES.items()}

Method = TypeVar("Method", bound=Callable[..., None])


Allocate = Callable[[int, int, int, int], None]
"""fallocate(2): handle, mode, offset, length. Raises FUSEError."""


def _answered(method: Method) -> Method:
    """Whatever goes wrong is EIO for one caller, and a line of log; nobody is left waiting."""

    @functools.wraps(method)
    def answer(self: Locking, fd: int, unique: int, *asked: Any) -> None:
        try:
            method(self, fd, unique, *asked)
        except llfuse.FUSEError as error:
            self._answer(fd, unique, error.errno)
        except Exception:
            log.exception("a %s request failed; its caller gets EIO", method.__name__)
            self._answer(fd, unique, errno.EIO)

    return answer  # type: ignore[return-value]  # the same signature, by functools.wraps


class Locking:
    """One session's answers about locks. It owns its `Locks`.

    Guarded by _gate: _is_open. It is held over the write of an answer, which never blocks.
    """

    def __init__(self, surface: Surface, notifier: Notifier) -> None:
        self.locks = Locks(surface.leases, SystemClock(), mark=lock_requests.mark)
        self.locks.on_lost = self._lost
        surface.leases.before_grant = lambda ino: notifier.wait_told(TOLD_S, ino)
        surface.leases.before_give = self._hand_over
        self._surface = surface
        self._notifier = notifier
        self._allocate: Allocate | None = None
        self._gate = threading.Lock()
        self._is_open = True

    def start(self, allocate: Allocate) -> None:
        """REQUIRES: no worker runs yet."""
        self._allocate = allocate
        lock_requests.attend_with(self)

    def stop(self) -> None:
        """Who waits gets EIO; nothing is written to the kernel afterwards. REQUIRES: no worker runs
        any more."""
        self.locks.end()
        with self._gate:
            self._is_open = False
        lock_requests.attend_with(None)

    # -- requests, by workers

    @_answered
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
        mode = MODES.get(kind)
        if mode is None:
            raise llfuse.FUSEError(errno.EINVAL)
        if is_flock:
            # The kernel gives the address of the open file, which may be the next one's before
            # the release of the last has come.
            owner = handle
        request = LockRequest(unique, ino, owner, pid, handle, is_flock, mode, *span, waits)
        self.locks.take(request, functools.partial(self._answer, fd, unique))

    @_answered
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
        mode = MODES.get(kind)
        if mode is None:
            raise llfuse.FUSEError(errno.EINVAL)
        found = self.locks.test(
            LockRequest(unique, ino, owner, pid, handle, False, mode, *span, waits=False)
        )
        if found is None:
            data = _LOCK.pack(*span, fcntl.F_UNLCK, 0)
        else:
            data = _LOCK.pack(found.start, found.end, KINDS[found.mode], found.pid)
        self._answer(fd, unique, 0, data)

    @_answered
    def allocate(
        self, fd: int, unique: int, handle: int, mode: int, offset: int, length: int
    ) -> None:
        assert self._allocate is not None
        self._allocate(handle, mode, offset, length)
        self._answer(fd, unique, 0)

    def interrupt(self, unique: int) -> bool:
        return self.locks.cancel(unique)

    def flushed(self, ino: int, owner: int) -> None:
        self.locks.drop_owner(ino, owner, is_flock=False)

    def released(self, ino: int, handle: int) -> None:
        self.locks.drop_handle(ino, handle)

    # -- answers, by any thread

    def _answer(self, fd: int, unique: int, error: int, data: bytes = b"") -> None:
        """After the end of the session the descriptor may be another file's."""
        with self._gate:
            if self._is_open:
                low.answer(fd, unique, error, data)

    def _hand_over(self, ino: int) -> None:
        """The kernel writes changed pages of mappings before it forgets them."""
        self._notifier.inode_moved(ino)
        self._notifier.wait_told(TOLD_S)

    def _lost(self, ino: int, handles: frozenset[int]) -> None:
        """Reads of these handles must come to Python, which refuses them: not from the engine's
        table, nor from pages that the kernel has."""
        log.warning(
            "The lease of inode %d was lost while a program had a lock of it: %d open files fail "
            "until they are closed.", ino, len(handles),
        )  # fmt: skip
        hits = self._surface.hits
        if hits is not None:
            for handle in handles:
                hits.close(handle)
        self._notifier.listen((Invalidation(ino, None),))
