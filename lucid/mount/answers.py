"""What every answer to the kernel goes through: one catch-all, and the shape of stat(2).

Called by worker threads, many at once; nothing here keeps state.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from lucid.errors import LucidError
from lucid.filespace.surface import Attributes
from lucid.mount.fuse import llfuse

__all__ = ["TIMEOUT_S", "EntryMaker", "answered"]

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Any])

TIMEOUT_S = 1.0
"""How long the kernel believes a name or attributes, seconds. What others change is pushed to it by
the notifier; this is the backstop for an answer that was under way while its change was pushed."""


def answered(handler: Handler) -> Handler:
    """Wraps a handler so that nothing but FUSEError leaves it.

    Anything else that reaches llfuse ends the mount for everybody, so a bug becomes EIO and one
    line of log.
    """

    @functools.wraps(handler)
    def answer(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except LucidError as error:
            if error.errno == errno.EIO:
                log.warning("%s answers EIO: %s", handler.__name__, error)
            raise llfuse.FUSEError(error.errno or errno.EIO) from None
        except llfuse.FUSEError:
            raise
        except BaseException:
            # BaseException: a SystemExit from a worker would end the mount as well.
            # The inode only: names must not reach a log on the local disk.
            log.exception("%s of %s failed; the caller gets EIO", handler.__name__, arguments[1])
            raise llfuse.FUSEError(errno.EIO) from None

    return answer  # type: ignore[return-value]  # the same signature, by functools.wraps


class EntryMaker:
    """Attributes of the filespace -> llfuse's stat. Write once, then read by all workers.

    owner: (uid, gid) shown for every inode; None shows the stored ones.
    """

    def __init__(self, block_size: int, owner: tuple[int, int] | None) -> None:
        self._block_size = block_size
        self._owner = owner

    def __call__(self, attributes: Attributes) -> llfuse.EntryAttributes:
        entry = llfuse.EntryAttributes()
        ino, mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime = attributes
        if self._owner is not None:
            uid, gid = self._owner
        entry.st_ino = ino
        entry.st_mode = mode
        entry.st_nlink = nlink
        entry.st_uid = uid
        entry.st_gid = gid
        entry.st_rdev = rdev
        entry.st_size = size
        entry.st_blocks = blocks
        entry.st_blksize = self._block_size
        entry.st_atime_ns = atime
        entry.st_mtime_ns = mtime
        entry.st_ctime_ns = ctime
        entry.entry_timeout = TIMEOUT_S
        entry.attr_timeout = TIMEOUT_S
        return entry

    def absent(self) -> llfuse.EntryAttributes:
        """The answer that lets the kernel remember that there is no such name."""
        entry = llfuse.EntryAttributes()
        entry.st_ino = 0
        entry.entry_timeout = TIMEOUT_S
        return entry
