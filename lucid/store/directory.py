"""A store in a plain directory, for a disk, a NAS or a demonstration. Safe for many processes.

An object is a file of its key's path. It is written under `.incoming/`, made durable, and then
given its name by link(2), which refuses a name that is taken: the file system decides the race.
A name, once there, leads to whole and durable bytes. Leftovers of killed writers in `.incoming/`
are swept when they are an hour old; a writer that still wanted one fails and begins again.

All paths are taken from one descriptor of the root. Were the disk unmounted beneath us, an empty
mount point would otherwise look like a store without objects. Any thread may call.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from lucid.errors import (
    BucketMissing,
    LucidError,
    ObjectExists,
    ObjectMissing,
    Stopped,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from lucid.store.base import (
    Body,
    Counters,
    ObjectInfo,
    ObjectStore,
    OnData,
    as_views,
    check_key,
    check_prefix,
    check_range,
)
from lucid.store.settle import settle_put
from lucid.types import Entropy, SystemEntropy

__all__ = ["DirectoryStore"]

INCOMING = ".incoming"
STALE_NS = 3600 * 10**9
"""A writer takes seconds; an hour is a dead one, or one that copes with having to begin again."""
KNOWN_DIRECTORIES_MAX = 4096
READ_STEP = 1 << 20
"""One call to on_data for each of these, so that a reader can begin before the end."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class DirectoryStore(ObjectStore):
    """Objects as files below `root`. Once the root was deleted, this store is gone for good.

    `_lock` guards the descriptor of the root, how many calls use it, and the known directories
    (those whose names this process has made durable).
    """

    def __init__(self, root: Path, *, entropy: Entropy = SystemEntropy) -> None:
        self._root = root
        self._entropy = entropy
        self._counters = Counters()
        self._lock = threading.Lock()
        self._fd = -1
        self._users = 0
        self._closed = False
        self._known: set[str] = set()
        self._last_date_ns: int | None = None

    @property
    def url(self) -> str:
        return self._root.as_uri()

    @property
    def counters(self) -> Counters:
        return self._counters

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        if length == 0:
            return b""
        with _Use(self, key) as root, _Open(key, root) as fd:
            there = max(0, os.fstat(fd).st_size - start)
            want = there if length is None else min(length, there)
            buffer = bytearray(want)
            with memoryview(buffer) as view:
                got = _read(fd, start, view, None)
            self._counters.add("get", received=got)
            return bytes(buffer[:got]) if got < want else bytes(buffer)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        check_range(start, None)
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if not len(view):
                return 0
            with _Use(self, key) as root, _Open(key, root) as fd:
                got = _read(fd, start, view, on_data)
                self._counters.add("get", received=got)
                return got

    def put_if_absent(self, key: str, body: Body) -> None:
        with _Use(self, key) as root, as_views(body) as views:
            self._counters.add("put", sent=sum(len(view) for view in views))
            settle_put(
                key,
                views,
                lambda: self._put(root, key, views),
                lambda limit: self.get(key, 0, limit),
            )

    def _put(self, root: int, key: str, views: Sequence[memoryview]) -> None:
        """Write, make durable, link, make the name durable. Raises ObjectExists if it is taken."""
        parent = key.rpartition("/")[0]
        try:
            self._make_directory(root, INCOMING)
            self._make_directory(root, parent)
            temporary = f"{INCOMING}/{self._entropy(16).hex()}"
            try:
                self._write_new(root, temporary, views)
                self._link(root, temporary, key, parent)
            finally:
                # Gone already if another process took it for a leftover.
                _unlink(root, temporary)
        except FileNotFoundError as error:
            with self._lock:
                self._known.clear()
            raise StoreUnavailable(
                f"An object lost its place in {self._root} while it was written. Try again."
            ) from error

    def _write_new(self, root: int, path: str, views: Sequence[memoryview]) -> None:
        fd = os.open(path, _CREATE, 0o644, dir_fd=root)
        try:
            _write(fd, views)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _link(self, root: int, temporary: str, key: str, parent: str) -> None:
        try:
            os.link(temporary, key, src_dir_fd=root, dst_dir_fd=root)
        except FileExistsError:
            # Whoever linked it may not have made the name durable yet. The caller compares the
            # bytes and may call this a success, so it must not be less durable than one.
            _sync_directory(root, parent)
            raise ObjectExists(f"{key} is in the store already.") from None
        _sync_directory(root, parent)

    def _make_directory(self, root: int, path: str) -> None:
        """Make `path` and its parents, and their names durable, once for this process.

        Also where the directory was there: who made it may have died before its name was durable.
        """
        if not path or path in self._known:
            return
        parent = path.rpartition("/")[0]
        self._make_directory(root, parent)
        with suppress(FileExistsError):
            os.mkdir(path, 0o755, dir_fd=root)
        _sync_directory(root, parent)
        with self._lock:
            if len(self._known) >= KNOWN_DIRECTORIES_MAX:
                self._known.clear()
            self._known.add(path)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, start_after, limit)

    def _list(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        with _Use(self, "list") as root:
            self._counters.add("list")
            for key in _walk(root, "", prefix, after):
                if limit is not None and limit <= 0:
                    return
                try:
                    found = os.stat(key, dir_fd=root, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # Deleted since the directory was read.
                if stat.S_ISREG(found.st_mode):
                    limit = None if limit is None else limit - 1
                    yield ObjectInfo(key, found.st_size, found.st_mtime_ns)

    def delete(self, keys: Iterable[str]) -> None:
        names = [check_key(key) for key in keys]
        first: StoreError | None = None
        for key in names:
            try:
                with _Use(self, key) as root:
                    self._counters.add("delete")
                    _unlink(root, key)
            except StoreError as error:
                first = first or error
        with _Use(self, "delete") as root:
            for parent in sorted({key.rpartition("/")[0] for key in names}):
                _sync_directory(root, parent)
        if first is not None:
            raise first

    def stat(self, key: str) -> ObjectInfo:
        with _Use(self, key) as root, _Open(key, root) as fd:
            self._counters.add("stat")
            found = os.fstat(fd)
            return ObjectInfo(key, found.st_size, found.st_mtime_ns)

    def date_ns(self) -> int:
        """The clock that stamps the objects: on a network drive it is the server's."""
        with _Use(self, "date") as root:
            self._counters.add("date")
            self._make_directory(root, INCOMING)
            name = f"{INCOMING}/{self._entropy(16).hex()}"
            fd = os.open(name, _CREATE, 0o644, dir_fd=root)
            try:
                self._last_date_ns = os.fstat(fd).st_mtime_ns
                return self._last_date_ns
            finally:
                os.close(fd)
                _unlink(root, name)

    @property
    def last_date_ns(self) -> int | None:
        return self._last_date_ns

    def check(self) -> None:
        with _Use(self, "check"):
            pass
        with suppress(StoreDenied):
            # Who may only read leaves the sweeping to others.
            self.sweep()

    def sweep(self) -> None:
        """Unlink what killed writers left in `.incoming/` an hour ago or earlier."""
        with _Use(self, "sweep") as root:
            try:
                fd = os.open(INCOMING, _DIRECTORY, dir_fd=root)
            except FileNotFoundError:
                return
            try:
                names = os.listdir(fd)
            finally:
                os.close(fd)
            if not names:
                return
            now_ns = self.date_ns()
            for name in names:
                path = f"{INCOMING}/{name}"
                try:
                    age_ns = now_ns - os.stat(path, dir_fd=root, follow_symlinks=False).st_mtime_ns
                except FileNotFoundError:
                    continue
                if age_ns > STALE_NS:
                    _unlink(root, path)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._give_back()

    def _take(self) -> int:
        with self._lock:
            if self._closed:
                raise Stopped("The connection to the store is closed.")
            if self._fd < 0:
                self._fd = os.open(self._root, _DIRECTORY)
            if os.fstat(self._fd).st_nlink == 0:
                # Deleted beneath us: it would still open, and look like a store without objects.
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._users += 1
            return self._fd

    def _release(self) -> None:
        with self._lock:
            self._users -= 1
            self._give_back()

    def _give_back(self) -> None:
        """Close the root when nobody needs it. REQUIRES: `_lock` held."""
        if self._closed and not self._users and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def classify(self, error: OSError) -> StoreError:
        """What an error of the file system means to a caller of the store."""
        text = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _DENIED:
            return StoreDenied(f"{self._root} refuses: {text}. Check its owner and mode.")
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and self._is_gone():
            if self._root.is_dir():
                return BucketMissing(
                    f"The directory {self._root} is another one than before. If its disk is not"
                    " mounted, mount it; else unmount the drive and mount it again."
                )
            return BucketMissing(f"There is no directory {self._root}. Make it, or mount its disk.")
        return StoreUnavailable(f"{self._root} failed: {text}. Check its disk.")

    def _is_gone(self) -> bool:
        try:
            found = os.fstat(self._fd) if self._fd >= 0 else self._root.stat()
            return found.st_nlink == 0
        except OSError:
            return True


class _Use:
    """One call's hold on the root: turns errors of the file system into those of a store."""

    def __init__(self, store: DirectoryStore, key: str) -> None:
        self._store = store
        check_key(key)

    def __enter__(self) -> int:
        try:
            return self._store._take()
        except OSError as error:
            raise self._store.classify(error) from error

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._store._release()
        if isinstance(error, LucidError):
            return  # Ours already, also where it is an OSError beside.
        if isinstance(error, OSError):
            raise self._store.classify(error) from error


class _Open:
    """An object, open for reading. Raises ObjectMissing."""

    def __init__(self, key: str, root: int) -> None:
        self._key = key
        self._root = root

    def __enter__(self) -> int:
        try:
            self._fd = os.open(self._key, _READ, dir_fd=self._root)
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(f"{self._key} is not in the store.") from None
        if stat.S_ISDIR(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise ObjectMissing(f"{self._key} is not in the store.")
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _read(fd: int, start: int, view: memoryview, on_data: OnData | None) -> int:
    got = 0
    while got < len(view):
        with view[got : got + READ_STEP] as step:
            count = os.preadv(fd, [step], start + got)
        if not count:
            break
        got += count
        if on_data is not None:
            on_data(got)
    return got


def _write(fd: int, views: Sequence[memoryview]) -> None:
    for view in views:
        done = 0
        while done < len(view):
            with view[done:] as rest:
                done += os.write(fd, rest)


def _unlink(root: int, path: str) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path, dir_fd=root)


def _sync_directory(root: int, path: str) -> None:
    try:
        fd = os.open(path or ".", _DIRECTORY, dir_fd=root)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _walk(root: int, folder: str, prefix: str, after: str) -> Iterator[str]:
    """Keys in `folder` (empty, or ending in '/') in the order of S3: by the bytes of the whole key.

    A directory stands in the order as its name with '/', so that `a-b` comes before `a/c`.
    """
    try:
        fd = os.open(folder or ".", _DIRECTORY, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        with os.scandir(fd) as entries:
            names = sorted(
                name + "/" if entry.is_dir(follow_symlinks=False) else name
                for entry in entries
                if not (name := entry.name).startswith(".")
            )
    finally:
        os.close(fd)
    for name in names:
        path = folder + name
        if path.endswith("/"):
            if _may_hold(path, prefix, after):
                yield from _walk(root, path, prefix, after)
        elif path.startswith(prefix) and path > after:
            yield path


def _may_hold(folder: str, prefix: str, after: str) -> bool:
    """Whether keys below `folder` can begin with `prefix` and be above `after`."""
    if not (folder.startswith(prefix) or prefix.startswith(folder)):
        return False
    return folder > after or after.startswith(folder)
