"""Tells the kernel what it must no longer believe: one thread, one bounded, coalescing queue.

It writes the notifications of the FUSE protocol to the mount's /dev/fuse descriptor itself.
llfuse's own calls go through a queue of 1,000 whose put() blocks, tell nothing about the outcome,
and may block for ever when the mount ends. Nothing is sent from inside a handler: the kernel takes
locks that the handled request may hold. Any thread may call `listen` and `inode_moved`; they do not
block.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from itertools import chain

from lucid.filespace.surface import Invalidation
from lucid.mount.transfers import Transfers

__all__ = ["Notifier"]

log = logging.getLogger(__name__)

QUEUE_MAX = 65_536
STOP_S = 2.0

_HEADER = struct.Struct("=IiQ")  # fuse_out_header: length, error (here: what kind), unique (0)
_INODE = struct.Struct("=Qqq")  # fuse_notify_inval_inode_out: inode, offset, length
_ENTRY = struct.Struct("=QII")  # fuse_notify_inval_entry_out: directory, name's length, 0
_KIND_INODE, _KIND_ENTRY = 2, 3
_ALL_PAGES = (0, 0)  # offset, length: attributes and every page
_NO_PAGES = (-1, 0)

_HARMLESS = {errno.ENOENT, errno.ENOTDIR, errno.EBUSY}
"""The kernel does not hold it, or the name is no directory there any more, or is a mount point."""
_ENDED = {errno.ENODEV, errno.EBADF, errno.EPERM, errno.ENOTCONN}


Key = tuple[int, "bytes | None"]
"""(inode, None), or (directory, name)."""


def inode_message(ino: int, *, pages: bool = True) -> bytes:
    """FUSE_NOTIFY_INVAL_INODE: the attributes of an inode, and all of its pages."""
    body = _INODE.pack(ino, *(_ALL_PAGES if pages else _NO_PAGES))
    return _HEADER.pack(_HEADER.size + len(body), _KIND_INODE, 0) + body


def entry_message(directory: int, name: bytes) -> bytes:
    """FUSE_NOTIFY_INVAL_ENTRY: what a name leads to, or that it leads nowhere."""
    body = _ENTRY.pack(directory, len(name), 0) + name + b"\0"
    return _HEADER.pack(_HEADER.size + len(body), _KIND_ENTRY, 0) + body


class Notifier:
    """One mount's notifications.

    The kernel itself knows what it was given: for anything else it answers ENOENT within two
    microseconds, which is cheaper than a table of ours with 100 bytes an inode.
    Guarded by _wake: _pending, _stopping, _look, _lost_names; _heard, _taken_upto and _told:
    batches of changes that came, that are being told, and that the kernel was told of. The
    thread's own: _held_back.
    """

    def __init__(self, queue_max: int = QUEUE_MAX) -> None:
        self._queue_max = queue_max
        self._wake = threading.Condition()
        self._pending: dict[Key, None] = {}
        self._telling: dict[Key, None] = {}
        self._held_back: dict[int, int] = {}
        self._stopping = False
        self._look = False
        self._lost_names = 0
        self._heard = 0
        self._told = 0
        self._taken_upto = 0
        self._fd = -1
        self._thread: threading.Thread | None = None
        self.transfers = Transfers(self._transfer_ended)

    def start(self, fd: int) -> None:
        """`fd`: the mount's /dev/fuse, which stays open until `stop` has returned."""
        self._fd = fd
        self._thread = threading.Thread(target=self._run, name="lucid-notify", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Ends the thread; what is still queued is dropped. False: it hangs in the kernel, which
        waits there for a read that nobody answers any more."""
        with self._wake:
            self._stopping = True
            self._pending.clear()
            self._wake.notify_all()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def listen(self, changes: Sequence[Invalidation]) -> None:
        """Queues changes; the listener for `Surface.subscribe`."""
        with self._wake:
            if self._stopping:
                return
            for change in changes:
                self._add((change.ino, change.name))
            self._heard += 1
            self._wake.notify_all()

    def wait_told(self, timeout_s: float, ino: int = 0) -> bool:
        """Returns when the kernel was told of all that came so far, and of `ino` also when no older
        read can fill its pages any more; False: not in time."""
        with self._wake:
            upto = self._heard
            return self._wake.wait_for(
                lambda: (self._told >= upto and ino not in self._held_back) or self._stopping,
                timeout_s,
            )

    def is_untold(self, ino: int) -> bool:
        """Whether the kernel may still have pages of an inode from before a change."""
        key = (ino, None)
        return key in self._pending or key in self._telling or ino in self._held_back

    def inode_moved(self, ino: int) -> None:
        """The kernel holds pages of this inode that are not where the bytes are."""
        self.listen((Invalidation(ino, None),))

    def _transfer_ended(self) -> None:
        with self._wake:
            self._look = True
            self._wake.notify_all()

    def _add(self, key: Key) -> None:
        """REQUIRES: _wake is held.

        When the queue is full, names give way: the kernel asks for each again after a second
        anyway. Pages it would believe for ever, so an inode is never dropped for a name.
        """
        if key[1] is not None and len(self._pending) >= self._queue_max:
            self._lost_names += 1
            return
        self._pending[key] = None

    def _take(self) -> list[Key] | None:
        with self._wake:
            while not self._pending and not self._stopping and not self._look:
                self._wake.wait()
            if self._stopping:
                return None
            # In this order: whoever asks `is_untold` meanwhile finds it in one of them.
            self._telling = self._pending
            self._pending = {}
            taken = list(self._telling)
            self._taken_upto = self._heard
            lost, self._lost_names = self._lost_names, 0
            self._look = False
        if lost:
            log.warning("%d changed names were left to the kernel's timeout", lost)
        return taken

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not None:
                messages = chain(self._freed(), map(self._message, taken))
                for message in messages:
                    if self._stopping or not self._send(message):
                        return
                with self._wake:
                    self._telling = {}
                    self._told = self._taken_upto
                    self._wake.notify_all()
        except Exception:
            log.exception("the notifier ended; changes of others show after a second, or a remount")

    def _message(self, key: Key) -> bytes:
        """What to tell the kernel now. Pages that older reads hold are left for when those end."""
        ino, name = key
        if name is not None:
            return entry_message(ino, name)
        newest = self.transfers.now()
        if not self.transfers.older(ino, newest):
            return inode_message(ino)
        self._held_back[ino] = newest
        return inode_message(ino, pages=False)

    def _freed(self) -> Iterator[bytes]:
        """What was held back and has no older reads or writes under way any more."""
        for ino, number in list(self._held_back.items()):
            if not self.transfers.older(ino, number):
                del self._held_back[ino]
                yield inode_message(ino)

    def _send(self, message: bytes) -> bool:
        """False: the mount has ended."""
        try:
            os.write(self._fd, message)
        except OSError as error:
            if error.errno in _ENDED:
                return False
            if error.errno not in _HARMLESS:
                log.warning("the kernel does not forget what it was told to: %s", error)
        return True
