"""`open_store`: the one place that turns a URL into a store and lays the decorators over it.

From the caller down: retry, limit, trace, the store. A call that pauses between two attempts holds
no place, and the figures tell of single requests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lucid.errors import ConfigError
from lucid.store.base import ObjectStore
from lucid.store.directory import DirectoryStore
from lucid.store.limit import LimitStore, Places
from lucid.store.retry import RetryPolicy, RetryStore
from lucid.store.timeouts import Timeouts
from lucid.store.trace import Call, Figures, TraceStore
from lucid.types import Clock, Entropy, SystemClock, SystemEntropy

__all__ = ["StoreOptions", "Timeouts", "open_store", "stack_store"]


@dataclass(frozen=True)
class StoreOptions:
    """How a store is used. Times in seconds.

    `requests` at once at most, `reserved` of them for demand reads. A call gives up `retry_s` after
    it began; a retryable fault before that is tried again, `attempts` times at most.
    """

    timeouts: Timeouts = Timeouts()  # noqa: RUF009  (frozen)
    requests: int = 32
    reserved: int = 8
    retry_s: float = 30.0
    attempts: int = 10


def open_store(
    url: str,
    *,
    clock: Clock | None = None,
    entropy: Entropy = SystemEntropy,
    options: StoreOptions | None = None,
    stop: threading.Event | None = None,
    on_call: Callable[[Call], None] | None = None,
    figures: Figures | None = None,
    check: bool = True,
) -> ObjectStore:
    """Open the store at `url`: `s3://bucket/prefix` or `file:///directory`.

    With `check`, ask it at once whether it is there and lets us in: raises BucketMissing,
    StoreDenied or StoreUnavailable with a sentence that says what to do. Without, nothing is asked:
    for a mount that can begin offline. Raises ConfigError for a URL that cannot be.

    `stop` ends all pauses with Stopped when it is set; closing the store sets it. `on_call` hears
    of each request on its thread, `figures` gathers them.
    """
    clock = clock or SystemClock()
    options = options or StoreOptions()
    bare = _bare(url, clock, entropy, options)
    store = stack_store(
        bare,
        clock=clock,
        entropy=entropy,
        options=options,
        stop=stop,
        on_call=on_call,
        figures=figures,
    )
    if check:
        try:
            # Beneath the stack: who opens a store wants to hear at once that it is not there.
            bare.check()
        except BaseException:
            store.close()
            raise
    return store


def stack_store(
    bare: ObjectStore,
    *,
    clock: Clock | None = None,
    entropy: Entropy = SystemEntropy,
    options: StoreOptions | None = None,
    stop: threading.Event | None = None,
    on_call: Callable[[Call], None] | None = None,
    figures: Figures | None = None,
) -> ObjectStore:
    """Lay the decorators over a store; what `open_store` does, for stores made otherwise."""
    clock = clock or SystemClock()
    options = options or StoreOptions()
    traced = TraceStore(bare, clock=clock, on_call=on_call, figures=figures)
    places = Places(options.requests, options.reserved, wait_s=options.retry_s)
    policy = RetryPolicy(
        deadline_s=options.retry_s,
        attempts=options.attempts,
        clock=clock,
        entropy=entropy,
        stop=stop or threading.Event(),
    )
    return RetryStore(LimitStore(traced, places), policy)


def _bare(url: str, clock: Clock, entropy: Entropy, options: StoreOptions) -> ObjectStore:
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigError(f"{url} must be file:// and an absolute path, as file:///srv/drive.")
        return DirectoryStore(Path(unquote(parts.path)), entropy=entropy)
    if parts.scheme == "s3":
        # Deferred: boto3 takes a third of a second to import.
        from lucid.store.s3 import S3Store
        from lucid.store.s3_url import S3Location

        return S3Store(S3Location.parse(url), clock=clock, timeouts=options.timeouts)
    if "@" in parts.netloc:
        raise ConfigError("That is no store. Write s3://bucket/prefix or file:///directory.")
    raise ConfigError(f"{url} is no store. Write s3://bucket/prefix or file:///directory.")
