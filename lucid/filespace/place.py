"""Whether a place in a store is free for a new filespace, and what is there if none opens.

Asked by init before it writes anything, and by whoever finds no superblock. Reads names only.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lucid.errors import (
    BucketMissing,
    FilespaceExists,
    FilespaceMissing,
    ObjectMissing,
    StoreDenied,
)
from lucid.format.names import (
    DATA_PREFIX,
    GENERATION_PREFIX,
    LOG_PREFIX,
    MEMBER_PREFIX,
    PROBE_PREFIX,
    SUPERBLOCK_KEY,
)
from lucid.store.base import ObjectStore

__all__ = ["check_free", "check_parent", "directory_of", "make_directory", "no_superblock"]

UNFINISHED = (MEMBER_PREFIX, GENERATION_PREFIX, PROBE_PREFIX)
"""What an init leaves that ended before it wrote the superblock: harmless, and no obstacle."""
UNFINISHED_MAX = 1000
FOLDERS = {prefix.rstrip("/") for prefix in UNFINISHED} | {".incoming", "lost+found"}
"""The same in a directory; and what a new file system has in its root."""


def directory_of(url: str) -> Path | None:
    """The directory of a file:// store; None for others."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def make_directory(url: str) -> None:
    """Make the directory of a file:// store, when only its last part is missing.

    Raises BucketMissing, StoreDenied.
    """
    path = directory_of(url)
    if path is None:
        return
    try:
        if not path.is_dir():
            _make(path)
    except OSError as error:
        raise StoreDenied(
            f"{path} cannot be made: {error.strerror}. Choose another place."
        ) from error


def check_parent(url: str) -> None:
    """Whether `make_directory` can make the directory of a file:// store, as far as names tell.

    Raises BucketMissing.
    """
    path = directory_of(url)
    if path is not None:
        _check_parent(path)


def _check_parent(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise BucketMissing(f"{path} is not a directory. Choose another place.")
    if not path.parent.is_dir():
        raise BucketMissing(
            f"There is no directory {path.parent}. Make it, or mount its disk; "
            "lucid init makes only the last part."
        )


def _make(path: Path) -> None:
    _check_parent(path)
    path.mkdir(mode=0o700)


def check_free(store: ObjectStore) -> None:
    """Raises FilespaceExists unless nothing of anybody's is there."""
    try:
        store.get(SUPERBLOCK_KEY)
    except ObjectMissing:
        pass
    else:
        raise FilespaceExists(
            f"There is a filespace at {store.url} already. "
            "Choose another prefix, or mount the one that is there."
        )
    if _has_remains(store):
        raise FilespaceExists(
            f"There are remains of a filespace at {store.url}: a log or data without a superblock. "
            "A new filespace here would not bring the old one back. Choose another place."
        )
    foreign = _foreign(store)
    if foreign is not None:
        raise FilespaceExists(
            f"{store.url} is not empty, and what is there is no filespace ({foreign}). "
            "Choose an empty place, or one that is not there yet."
        )


def no_superblock(store: ObjectStore) -> FilespaceMissing:
    """The error for a place without a superblock: nothing was made there, or it was lost."""
    if not _has_remains(store):
        return FilespaceMissing(
            f"There is no filespace at {store.url}. Make one with: lucid init {store.url}"
        )
    return FilespaceMissing(
        f"There are remains of a filespace at {store.url}: a log or data, but no superblock, and "
        f"without that nothing opens. Somebody may have deleted it, or this copy of the store is "
        f"not whole. Bring the object {SUPERBLOCK_KEY} back from a backup; "
        "lucid init would not bring the filespace back, and refuses such a place."
    )


def _has_remains(store: ObjectStore) -> bool:
    return any(_first(store, prefix) is not None for prefix in (LOG_PREFIX, DATA_PREFIX))


def _first(store: ObjectStore, prefix: str) -> str | None:
    return next((info.key for info in store.list(prefix, limit=1)), None)


def _foreign(store: ObjectStore) -> str | None:
    """The first name that is not ours. Of a directory only its top is looked at: what is below may
    be large, or not for us to see."""
    path = directory_of(store.url)
    if path is not None:
        names = sorted(name for name in os.listdir(path) if name not in FOLDERS)
        return os.fsencode(names[0]).decode("utf-8", "replace") if names else None
    for info in store.list("", limit=UNFINISHED_MAX):
        # An empty name is a mark for the prefix itself, which some tools make.
        if info.key and not info.key.startswith(UNFINISHED):
            return info.key
    return None
