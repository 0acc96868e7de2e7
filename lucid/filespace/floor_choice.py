"""Where a collector sets the floor: by the ages of entries, as the store tells them.

Used by one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from lucid.crypto.entry import OpenedEntry, open_entry
from lucid.errors import StoreUnfit
from lucid.filespace.collection import Collection
from lucid.filespace.leftovers import MARGIN_NS, LogEntry
from lucid.filespace.visiting import Visit
from lucid.format.ops import Drop, Floor, Rules, SessionOp
from lucid.meta.replica import Replica

__all__ = ["choose_floor"]

CLOCKS_APART_NS = 3600 * 1_000_000_000
"""Whose clock differs from the store's by more deletes nothing: one of the two is wrong."""

_ASIDE = (SessionOp, Floor, Rules, Drop)
"""Ops after which no version or file is dead that was alive before."""


def choose_floor(
    visit: Visit, replica: Replica, entries: Sequence[LogEntry], found: Collection
) -> int:
    """The newest entry that is older than the retention, as all before it are; 0 if a floor there
    would end nothing.

    Raises StoreUnfit where the clocks differ and something was to be deleted, and StoreError.
    """
    store_ns = visit.store.date_ns()
    if abs(store_ns - visit.clock.time_ns()) > CLOCKS_APART_NS:
        text = (
            "The clocks of the store and of this machine differ by more than an hour, so the"
            " age of what the store holds is in doubt. Nothing is deleted. Set the clock."
        )
        if found.deleted:
            raise StoreUnfit(text)
        found.warnings.append(text)
    until = store_ns - found.retention_s * 1_000_000_000
    floor = newest_ns = 0
    for entry in entries:
        if entry.sequence < found.floor_before:
            continue  # It counts for nothing, and may be what a lost device put there lately.
        if entry.sequence > found.head or entry.modified_ns >= until:
            break
        # What seems older than an entry before it was put while a clock was wrong. It is as old as
        # an entry after it says, and until then of no known age.
        if entry.modified_ns >= newest_ns - MARGIN_NS:
            newest_ns = max(newest_ns, entry.modified_ns)
            floor = entry.sequence
    if floor > found.floor_before and _ends_something(visit, replica, floor, found.floor_before):
        return floor
    since = " since the last time" if found.floor_before else ""
    found.notes.append(f"Nothing has become older than the retention{since}.")
    return 0


def _ends_something(visit: Visit, replica: Replica, floor: int, before: int) -> bool:
    """Whether something was changed from entry `before` on, and below `floor` or in it.

    Each collection leaves two entries of its own. Without this look they would be reason enough for
    the next one, once they are old, and so on for ever.
    """
    reader, generation = visit.reader(replica), replica.generation()

    def sign_key_of(member: bytes) -> bytes | None:
        row = replica.member(member)
        return None if row is None else row.sign_key

    for sequence in range(floor, max(1, before - 1), -1):
        data = reader.fetch(sequence)
        if data is None or generation is None:
            return True  # What it was is told elsewhere.
        opened = open_entry(data, sequence, visit.ring, generation.id, sign_key_of)
        if isinstance(opened, OpenedEntry) and not all(
            isinstance(op, _ASIDE) for op in opened.body.ops
        ):
            return True
    return False
