"""Is this store fit for a filespace? Asked at init and at mount, before anything is trusted to it.

The whole drive rests on one rule: of all who create a name, one wins. Some stores ignore the
condition, some keep it only for one writer at a time, and both lose acknowledged data without a
word. So sixteen writers race for one name here, and then all look at what is there.

Owns its objects under `probe/` and deletes them. Its threads end before `probe` returns.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from lucid.errors import (
    LucidError,
    ObjectExists,
    ObjectMissing,
    Stopped,
    StoreUnfit,
    TimedOut,
)
from lucid.store.base import ObjectStore
from lucid.types import Entropy

__all__ = ["WRITERS", "probe"]

WRITERS = 16
JOIN_SECONDS = 120.0
"""Longer than a call on a whole stack may take."""
BODY_SIZE = 64
_VERDICTS = (ObjectExists, ObjectMissing)
"""Errors that tell what the store does; all others tell that it could not be asked."""


def probe(store: ObjectStore, entropy: Entropy, *, writers: int = WRITERS) -> Sequence[str]:
    """Check what a filespace needs of `store`; return warnings, whole sentences, often none.

    Some stores let racers wait for each other a second at a time (SeaweedFS: two of them each
    second), so `writers` can be lowered where the time is felt.

    Raises StoreUnfit where the store breaks a rule, by name and rule, and only there; what keeps
    it from being asked is raised as it is: StoreUnavailable, StoreDenied, TimedOut, or Stopped when
    the store is closed meanwhile.
    """
    key = f"probe/{entropy(16).hex()}"
    try:
        winner = _check_race(store, key, [entropy(BODY_SIZE) for _ in range(writers)])
        _check_late(store, key, winner, entropy(BODY_SIZE))
        _check_ranges(store, key, winner)
        _check_list(store, key)
    except LucidError:
        # The first error is the one to tell; what stays behind is 64 bytes and harmless.
        with contextlib.suppress(LucidError):
            store.delete([key])
        raise
    _check_delete(store, key)
    return tuple(store.lifecycle_warnings())


def _check_race(store: ObjectStore, key: str, bodies: Sequence[bytes]) -> bytes:
    """All at once: exactly one wins, and its bytes are what everyone reads. Returns them."""
    barrier = threading.Barrier(len(bodies))
    results: list[bytes | LucidError | None] = [None] * len(bodies)
    views: list[bytes | LucidError | None] = [None] * len(bodies)

    def write(at: int) -> None:
        barrier.wait(JOIN_SECONDS)
        results[at] = _outcome(store, key, bodies[at])
        try:
            views[at] = store.get(key)
        except LucidError as error:
            views[at] = error

    _run([lambda at=at: write(at) for at in range(len(bodies))])  # type: ignore[misc]
    _raise_if_no_verdict((*results, *views))
    winners = [body for body in results if isinstance(body, bytes)]
    if len(winners) != 1:
        raise StoreUnfit(
            f"{store.url} let {len(winners)} of {len(bodies)} writers create the same object at "
            "once, where exactly one must win: members would lose each other's changes. Use a "
            "store whose conditional writes are atomic, and one endpoint of it."
        )
    if (astray := sum(view != winners[0] for view in views)) != 0:
        raise StoreUnfit(
            f"{store.url} let one of {len(bodies)} writers create an object, and then did not show "
            f"it to {astray} of them: members would not see each other's changes. Use a store that "
            "shows an object as soon as it is written, and one endpoint of it."
        )
    return winners[0]


def _raise_if_no_verdict(outcomes: Sequence[bytes | LucidError | None]) -> None:
    """Raises what says nothing of the store's rules, first of all that it was closed meanwhile."""
    errors = [
        found
        for found in outcomes
        if isinstance(found, LucidError) and not isinstance(found, _VERDICTS)
    ]
    for error in sorted(errors, key=lambda error: not isinstance(error, Stopped)):
        raise error
    if None in outcomes:
        raise TimedOut("The probe of the store did not come to its end. Try again.")


def _check_late(store: ObjectStore, key: str, winner: bytes, late: bytes) -> None:
    """Long after the race: the name stays taken, and nothing has changed."""
    outcome = _outcome(store, key, late)
    _raise_if_no_verdict([outcome])
    if not isinstance(outcome, ObjectExists) or store.get(key) != winner:
        raise StoreUnfit(
            f"{store.url} overwrites objects although it was told not to: members would lose "
            "each other's changes. Use a store that supports conditional writes."
        )


def _outcome(store: ObjectStore, key: str, body: bytes) -> bytes | LucidError:
    """The body if it won, else the error."""
    try:
        store.put_if_absent(key, body)
    except LucidError as error:
        return error
    return body


def _run(jobs: Sequence[Callable[[], None]]) -> None:
    threads = [
        threading.Thread(target=job, name=f"lucid-probe-{at}", daemon=True)
        for at, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_SECONDS)
        if thread.is_alive():
            raise TimedOut("The store did not answer the probe in time. Try again.")


def _check_ranges(store: ObjectStore, key: str, whole: bytes) -> None:
    buffer = bytearray(16)
    count = store.get_into(key, 8, buffer)
    if bytes(buffer[:count]) != whole[8:24] or store.get(key, BODY_SIZE - 8, 16) != whole[-8:]:
        raise StoreUnfit(
            f"{store.url} answers reads of a part of an object with other bytes: files could "
            "only be read whole. Use a store that supports ranged reads."
        )


def _check_list(store: ObjectStore, key: str) -> None:
    if [(info.key, info.size) for info in store.list(key)] != [(key, BODY_SIZE)]:
        raise StoreUnfit(
            f"{store.url} does not list what was just put into it: members would not see each "
            "other's changes. Use a store with consistent lists, and one endpoint of it."
        )


def _check_delete(store: ObjectStore, key: str) -> None:
    store.delete([key])
    try:
        store.get(key)
    except ObjectMissing:
        return
    raise StoreUnfit(f"{store.url} still shows an object that was deleted. Use another store.")
