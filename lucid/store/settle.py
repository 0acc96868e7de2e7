"""How a doubtful put is settled: read it back and compare the bytes.

A 412 does not mean that someone else won, a time-out does not mean that nothing was stored: a store
may keep the object and then answer 503, and the next attempt meets its own bytes. Only the bytes
under the name tell. Pure control flow: called by each store on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lucid.errors import ObjectExists, ObjectMissing, StoreConflict, StoreError, StoreUnavailable

__all__ = ["holds", "settle_put"]

Read = Callable[[int], bytes]


def settle_put(key: str, views: Sequence[memoryview], put: Callable[[], None], read: Read) -> None:
    """Run `put` once and return only if the name holds exactly these bytes.

    `put` raises ObjectExists for a taken name and StoreUnavailable for any doubt; `read(limit)`
    gives the first `limit` bytes under the name or raises ObjectMissing. Raises ObjectExists for
    other bytes, StoreUnavailable while the outcome is open, StoreConflict for a 409 (ask again).
    """
    try:
        put()
        return
    except (ObjectExists, StoreUnavailable) as fault:
        doubt: StoreError = fault
    except StoreConflict:
        raise
    size = sum(len(view) for view in views)
    try:
        found = read(size + 1)
    except ObjectMissing:
        if isinstance(doubt, ObjectExists):
            # Taken a moment ago and gone now: deleted in between, or a store that answers from
            # an old copy. Nothing is known, so ask again.
            raise StoreUnavailable(
                "The store says that an object is there and missing. Try again."
            ) from doubt
        raise doubt from None
    except StoreUnavailable as fault:
        raise type(fault)(f"Whether an object was written is not known yet: {fault}") from doubt
    if not holds(found, views):
        raise ObjectExists(f"{key} is in the store with other content.") from doubt


def holds(found: bytes, views: Sequence[memoryview]) -> bool:
    """Whether `found` is exactly the bytes of these buffers, one after the other."""
    position = 0
    with memoryview(found) as whole:
        for view in views:
            if whole[position : position + len(view)] != view:
                return False
            position += len(view)
    return position == len(found)
