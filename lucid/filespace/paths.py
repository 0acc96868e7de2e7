"""The filespace by paths, for programs: what `os` and `open` offer, without a mount.

Paths are str or bytes, from the root, with or without a leading slash; `.` and `..` work, symbolic
links are followed where os would follow them. Errors are LucidError and the builtin ones too
(FileNotFoundError ...).
"""

from __future__ import annotations

import io
import os
import stat as stat_bits
from types import TracebackType
from typing import Any

from lucid.errors import (
    DataError,
    Exists,
    IsDirectory,
    LucidError,
    NamespaceError,
    NotDirectory,
    NotFound,
    StoreError,
    UsageError,
)
from lucid.filespace.numbers import version_of
from lucid.filespace.surface import (
    Attributes,
    FileHandle,
    OlderVersions,
    Removed,
    Restored,
    Surface,
    Version,
)

__all__ = ["FilespaceFile", "PathApi"]

ROOT = 1
LINKS_MAX = 40
PAGE = 512
CHUNK = 128 * 1024
Path = str | bytes


class _About:
    """Names the path, or both of them, in the errors of a body that are about a path.

    The error is made anew: one that stays stopped is raised for many callers.
    """

    __slots__ = ("_other", "_path")

    def __init__(self, path: Path, other: Path | None = None) -> None:
        self._path = path
        self._other = other

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        named: LucidError
        if isinstance(error, NamespaceError):
            named = type(error)(error.strerror or "", self._path, self._other)
        elif isinstance(error, (UsageError, DataError, StoreError)):
            both = [self._path] if self._other is None else [self._path, self._other]
            named = type(error)(f"{' -> '.join(map(os.fsdecode, both))}: {error}")
        else:
            return
        raise named.with_traceback(trace) from error.__cause__


class FilespaceFile(io.RawIOBase):
    """An open file of a filespace. `PathApi.open` wraps it with a buffer."""

    def __init__(self, surface: Surface, handle: FileHandle, name: Path, flags: int) -> None:
        self._surface = surface
        self._handle = handle
        self._flags = flags
        self._offset = 0
        self.name = name

    def readable(self) -> bool:
        return self._flags & os.O_ACCMODE != os.O_WRONLY

    def writable(self) -> bool:
        return self._flags & os.O_ACCMODE != os.O_RDONLY

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _About(self.name), memoryview(buffer) as whole, whole.cast("B") as view:
            data = self._surface.read(self._handle, self._offset, min(len(view), 8 * CHUNK))
            view[: len(data)] = data
            self._offset += len(data)
            return len(data)

    def readall(self) -> bytes:
        parts = []
        with _About(self.name):
            while part := self._surface.read(self._handle, self._offset, 8 * CHUNK):
                parts.append(part)
                self._offset += len(part)
        return b"".join(parts)

    def write(self, data: Any) -> int:
        with _About(self.name), memoryview(data) as whole, whole.cast("B") as view:
            count = self._surface.write(self._handle, self._offset, view)
        if self._flags & os.O_APPEND:
            self._offset = self._surface.attributes(self._handle.ino).size
        else:
            self._offset += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            target = offset
        elif whence == os.SEEK_CUR:
            target = self._offset + offset
        elif whence == os.SEEK_END:
            target = self._surface.attributes(self._handle.ino).size + offset
        else:
            raise UsageError("The whence of a seek is 0, 1 or 2.")
        if target < 0:
            raise UsageError("A position cannot be negative.")
        self._offset = target
        return target

    def tell(self) -> int:
        return self._offset

    def truncate(self, size: int | None = None) -> int:
        length = self._offset if size is None else size
        with _About(self.name):
            self._surface.set_attributes(self._handle.ino, size=length, handle=self._handle)
        return length

    def fsync(self) -> None:
        """As os.fsync: see the durability table in docs/SEMANTICS.md."""
        self.flush()
        with _About(self.name):
            self._surface.fsync(self._handle)

    def close(self) -> None:
        if not self.closed:
            super().close()
            with _About(self.name):
                try:
                    self._surface.flush(self._handle)
                finally:
                    self._surface.release(self._handle)


class PathApi:
    """File system calls by path, over a Surface."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def resolve(self, path: Path, follow: bool = True) -> int:
        """The inode number at `path`. Raises NotFound, NotDirectory."""
        with _About(path):
            return self._walk(ROOT, _parts(path), follow, LINKS_MAX)

    def _walk(self, start: int, parts: list[bytes], follow: bool, links: int) -> int:
        surface = self._surface
        at = start
        todo = list(reversed(parts))
        while todo:
            part = todo.pop()
            if part == b"..":
                at = surface.parent(at)
                continue
            found = surface.lookup(at, part)
            if stat_bits.S_ISLNK(found.mode) and (follow or todo):
                links -= 1
                if links < 0:
                    raise UsageError("Too many levels of symbolic links.")
                target = surface.readlink(found.ino)
                if target.startswith(b"/"):
                    at = ROOT
                todo.extend(reversed(_parts(target)))
                continue
            if todo and not stat_bits.S_ISDIR(found.mode):
                raise NotDirectory
            at = found.ino
        return at

    def _above(self, path: Path) -> tuple[int, bytes]:
        """Directory and last name of a path. The caller names the path."""
        parts = _parts(path)
        if not parts or parts[-1] == b"..":
            raise UsageError("This path has no last name.")
        return self._walk(ROOT, parts[:-1], True, LINKS_MAX), parts[-1]

    # -- asking

    def stat(self, path: Path, *, follow_symlinks: bool = True) -> Attributes:
        """Attributes of what is at `path`."""
        with _About(path):
            ino = self._walk(ROOT, _parts(path), follow_symlinks, LINKS_MAX)
            return self._surface.attributes(ino)

    def exists(self, path: Path) -> bool:
        try:
            self.resolve(path)
        except (NotFound, NotDirectory):
            return False
        return True

    def listdir(self, path: Path = "/") -> list[Any]:
        """Names in a directory, as str (surrogateescape) for a str path, bytes for bytes."""
        names: list[bytes] = []
        after = 0
        with _About(path):
            surface, ino = self._surface, self._walk(ROOT, _parts(path), True, LINKS_MAX)
            if not stat_bits.S_ISDIR(surface.attributes(ino).mode):
                raise NotDirectory
            while page := surface.readdir(ino, after, PAGE):
                names.extend(entry.name for entry in page)
                after = page[-1].cookie
        return names if isinstance(path, bytes) else [os.fsdecode(name) for name in names]

    def readlink(self, path: Path) -> Any:
        """The target of a symbolic link."""
        with _About(path):
            target = self._surface.readlink(self._walk(ROOT, _parts(path), False, LINKS_MAX))
        return target if isinstance(path, bytes) else os.fsdecode(target)

    # -- changing

    def makedirs(self, path: Path, mode: int = 0o755, exist_ok: bool = False) -> None:
        """Make a directory and all that are missing above it."""
        surface = self._surface
        at, made = ROOT, False
        with _About(path):
            for part in _parts(path):
                try:
                    found = surface.lookup(at, part)
                    if not stat_bits.S_ISDIR(found.mode):
                        raise NotDirectory
                    at, made = found.ino, False
                except NotFound:
                    at, made = surface.mkdir(at, part, mode, os.getuid(), os.getgid()).ino, True
            if not made and not exist_ok:
                raise Exists

    def mkdir(self, path: Path, mode: int = 0o755) -> None:
        with _About(path):
            parent, name = self._above(path)
            self._surface.mkdir(parent, name, mode, os.getuid(), os.getgid())

    def remove(self, path: Path) -> None:
        with _About(path):
            self._surface.unlink(*self._above(path))

    def rmdir(self, path: Path) -> None:
        with _About(path):
            self._surface.rmdir(*self._above(path))

    def rename(self, source: Path, target: Path) -> None:
        """Rename, over what is at `target` (as os.replace)."""
        with _About(source, target):
            self._surface.rename(*self._above(source), *self._above(target))

    def symlink(self, target: Path, path: Path) -> None:
        with _About(path):
            parent, name = self._above(path)
            self._surface.symlink(parent, name, os.fsencode(target), os.getuid(), os.getgid())

    def link(self, source: Path, path: Path) -> None:
        with _About(source, path):
            ino = self._walk(ROOT, _parts(source), False, LINKS_MAX)
            self._surface.link(ino, *self._above(path))

    def chmod(self, path: Path, mode: int) -> None:
        self._set(path, mode=mode)

    def truncate(self, path: Path, size: int) -> None:
        self._set(path, size=size)

    def utime(self, path: Path, atime_ns: int, mtime_ns: int) -> None:
        self._set(path, atime_ns=atime_ns, mtime_ns=mtime_ns)

    def _set(self, path: Path, **changes: Any) -> None:
        with _About(path):
            ino = self._walk(ROOT, _parts(path), True, LINKS_MAX)
            self._surface.set_attributes(ino, **changes)

    # -- older versions

    def versions(self, path: Path, *, check: bool = False) -> list[Version]:
        """Every version of the file at `path` that is still known, oldest first; also of removed
        files that had this path last. With `check` the store is asked whether it has all bytes.

        Raises NotFound, IsDirectory, UsageError.
        """
        with _About(path):
            if not _parts(path):
                raise IsDirectory(
                    "A directory has no versions. See what was removed from it: --deleted."
                )
            return self._older.versions_of(*self._above_removed(path), check)

    def removed(self, path: Path = "/") -> list[Removed]:
        """What was removed from the directory at `path`, which may be removed itself, by time."""
        with _About(path):
            return self._older.removed_from(self._directory(_parts(path)))

    def restore(
        self,
        path: Path,
        version: str | int | None = None,
        *,
        to: Path | None = None,
        deleted: bool = False,
    ) -> Restored:
        """Bring back what was: a version as the newest one of `path`, or as a new file at `to`.

        With `deleted`, what was removed at `path` gets its name again, or that of `to`, at its
        newest version or the given one. Raises NotFound, Exists, UsageError, NotPermitted,
        StoreUnavailable.
        """
        with _About(path, to):
            number = None if version is None else version_of(version)
            place = self._above_removed(path)
            target = None if to is None else self._above(to)
            if deleted:
                return self._older.undelete(place, number, target)
            if number is None:
                raise UsageError("Say which version. See: lucid versions PATH.")
            return self._older.restore(place, number, target)

    @property
    def _older(self) -> OlderVersions:
        older = self._surface.older
        if older is None:
            raise UsageError("No older versions are kept here.")
        return older

    def _above_removed(self, path: Path) -> tuple[int, bytes]:
        """As `_above`, also in directories that were removed."""
        parts = _parts(path)
        if not parts or parts[-1] == b"..":
            raise UsageError("This path has no last name.")
        return self._directory(parts[:-1]), parts[-1]

    def _directory(self, parts: list[bytes]) -> int:
        """The directory at these names, or the one that was there last."""
        try:
            return self._walk(ROOT, parts, True, LINKS_MAX)
        except NotFound:
            if not parts:
                raise
        return self._older.removed_directory(self._directory(parts[:-1]), parts[-1])

    # -- files

    def open(
        self, path: Path, mode: str = "r", buffering: int = -1, encoding: str | None = None
    ) -> Any:
        """As the builtin open: modes r, w, a, x with + and b; text is UTF-8 by default."""
        flags = _flags(mode)
        with _About(path):
            handle = self._open_handle(path, flags)
        raw = FilespaceFile(self._surface, handle, path, flags)
        if "b" in mode and buffering == 0:
            return raw
        size = CHUNK if buffering < 1 else buffering
        if "+" in mode:
            buffered: Any = io.BufferedRandom(raw, size)
        elif raw.writable():
            buffered = io.BufferedWriter(raw, size)
        else:
            buffered = io.BufferedReader(raw, size)
        if flags & os.O_APPEND:
            raw.seek(0, os.SEEK_END)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding or "utf-8")

    def _open_handle(self, path: Path, flags: int) -> FileHandle:
        surface = self._surface
        try:
            ino = self._walk(ROOT, _parts(path), True, LINKS_MAX)
            if flags & os.O_EXCL:
                raise Exists
            if stat_bits.S_ISDIR(surface.attributes(ino).mode):
                raise IsDirectory
            return surface.open(ino, flags)
        except NotFound:
            if not flags & os.O_CREAT:
                raise
        parent, name = self._above(path)
        return surface.create(parent, name, 0o644, os.getuid(), os.getgid(), flags)[0]

    def read_bytes(self, path: Path) -> bytes:
        with self.open(path, "rb", 0) as file:
            data: bytes = file.readall()
            return data

    def write_bytes(self, path: Path, data: bytes) -> int:
        with self.open(path, "wb") as file:
            count: int = file.write(data)
            return count


def _parts(path: Path) -> list[bytes]:
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise UsageError("A path has no NUL.")
    return [part for part in raw.split(b"/") if part not in (b"", b".")]


def _flags(mode: str) -> int:
    kinds = {
        "r": 0,
        "w": os.O_CREAT | os.O_TRUNC,
        "a": os.O_CREAT | os.O_APPEND,
        "x": os.O_CREAT | os.O_EXCL,
    }
    kind = [letter for letter in mode if letter in kinds]
    if len(kind) != 1 or set(mode) - set("rwaxbt+") or len(set(mode)) != len(mode):
        raise UsageError(
            f"'{mode}' is no mode of open. Write r, w, a or x, with b and + as needed."
        )
    if "+" in mode:
        return kinds[kind[0]] | os.O_RDWR
    return kinds[kind[0]] | (os.O_RDONLY if kind[0] == "r" else os.O_WRONLY)
