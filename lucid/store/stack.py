"""`open_store`: the one place that turns a URL into a store with its decorators."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lucid.errors import ConfigError
from lucid.store.base import ObjectStore
from lucid.store.directory import DirectoryStore
from lucid.types import Clock, Entropy, SystemClock, SystemEntropy

__all__ = ["open_store"]


def open_store(
    url: str,
    *,
    clock: Clock | None = None,
    entropy: Entropy = SystemEntropy,
    check: bool = True,
) -> ObjectStore:
    """Open the store at `url`: `s3://bucket/prefix` or `file:///directory`.

    With `check`, ask it at once whether it is there and lets us in: raises BucketMissing,
    StoreDenied or StoreUnavailable with a sentence that says what to do. Without, nothing is asked:
    for a mount that can begin offline. Raises ConfigError for a URL that cannot be.
    """
    store = _bare(url, clock or SystemClock(), entropy)
    if check:
        try:
            store.check()
        except BaseException:
            store.close()
            raise
    return store


def _bare(url: str, clock: Clock, entropy: Entropy) -> ObjectStore:
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigError(f"{url!r} must be file:// and an absolute path, as file:///srv/drive")
        return DirectoryStore(Path(unquote(parts.path)), entropy=entropy)
    raise ConfigError(f"{url!r} is no store; use s3://bucket/prefix or file:///directory")
