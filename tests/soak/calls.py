"""The system calls of a worker, on a filespace that is open in this process."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from lucid.filespace import Filespace
from lucid.filespace.surface import FileHandle

__all__ = ["FilespaceCalls"]


@dataclass
class Opened:
    """What stands for a descriptor."""

    ino: int
    handle: FileHandle | None = None
    offset: int = 0


class FilespaceCalls:
    """As in `os`, with objects for descriptors. A close is FLUSH and RELEASE, as in the kernel."""

    def __init__(self, fs: Filespace) -> None:
        self._fs = fs
        self._tree = fs.tree
        self.truncate, self.rename, self.unlink = fs.truncate, fs.rename, fs.remove
        self.mkdir, self.rmdir = fs.mkdir, fs.rmdir

    def open(self, path: str, flags: int, mode: int = 0o777) -> Opened:
        if self._fs.exists(path) and stat.S_ISDIR(self._fs.stat(path).mode):
            return Opened(self._fs.stat(path).ino)
        handle = self._fs._open_handle(path, flags)
        return Opened(self._fs.stat(path).ino, handle)

    def lseek(self, fd: Opened, offset: int, whence: int) -> None:
        assert whence == os.SEEK_SET
        fd.offset = offset

    def write(self, fd: Opened, data: memoryview) -> int:
        assert fd.handle is not None
        count = self._tree.write(fd.handle, fd.offset, data)
        fd.offset += count
        return count

    def fsync(self, fd: Opened) -> None:
        if fd.handle is None:
            self._tree.fsync_directory(fd.ino)
        else:
            self._tree.fsync(fd.handle)

    def close(self, fd: Opened) -> None:
        if fd.handle is not None:
            self._tree.flush(fd.handle)
            self._tree.release(fd.handle)
