"""An admin's drive collects by itself: what `lucid gc --delete` does, about once a day.

The drive's own state says whether there is anything to do, so on most days a look costs a list of
the log and a few requests. What is deleted is decided by states that are folded afresh (DESIGN.md,
section 6). Only the floor is committed by the drive's own session. Used by the thread that
`sync.daily` has; `shown` by any. Errors are the caller's to tell, and never stop the drive.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from lucid.config import Config
from lucid.errors import HistoryFork, NotPermitted, ObjectMissing, StoreUnfit
from lucid.filespace.collecting import Collector
from lucid.filespace.collection import Collection
from lucid.filespace.floor_choice import choose_floor
from lucid.filespace.leftovers import list_log
from lucid.filespace.visiting import Held, Visit
from lucid.format.entry import NO_ENTRY
from lucid.format.names import floor_key
from lucid.format.ops import ROLE_ADMIN, Floor
from lucid.meta.fold_rules import VALUE_RULES
from lucid.meta.fold_segments import RULES_OF_SEGMENTS
from lucid.meta.replica import Replica
from lucid.store.base import ObjectStore
from lucid.store.paced import PacedStore
from lucid.types import Clock, Entropy

if TYPE_CHECKING:
    from lucid.filespace.opening import Opened

__all__ = ["COLLECTED_NOTE", "DailyCollection"]

COLLECTED_NOTE = "collected"
"""Under this name the replica keeps what this device has collected last."""

YOUNG_NS = 20 * 3600 * 1_000_000_000
"""A floor that was set so lately is enough: less than a day, for days are not equally long."""
ENTRIES_MAX = 400_000
"""Entries of the log that are listed in the memory of a drive: about 80 MB."""
FOLDER = "collecting"
"""In the state directory: replicas that are there for the time of a collection only."""


class _Noted(NamedTuple):
    """The last floor that this device has worked at, and what it freed last. `done`: to the end."""

    floor: int
    done: bool
    time_ns: int = 0
    bytes: int = 0
    objects: int = 0


class DailyCollection:
    """See the module. `rest` is called again and again, and `is_given_up` while it waits."""

    def __init__(
        self,
        opened: Opened,
        config: Config,
        clock: Clock,
        entropy: Entropy,
        rest: Callable[[], None],
        is_given_up: Callable[[], bool],
    ) -> None:
        assert config.retention_s is not None
        self._opened = opened
        self._config = config
        self._retention_s = config.retention_s
        self._clock = clock
        self._entropy = entropy
        self._rest = rest
        self._is_given_up = is_given_up
        self._replica = opened.parts.replica
        self._note = ""
        self._seen = NO_ENTRY

    def run(self) -> bool:
        """Collect, if that is due. False: it cannot be done now. Raises what collecting raises."""
        if not self._opened.committer.online:
            self._note = "The store does not answer."
            return False
        self._opened.parts.order.check_writable()
        member = self._replica.member(self._opened.unlocked.keys.member)
        if member is None or member.role != ROLE_ADMIN:
            raise NotPermitted("Only an admin of the filespace can set its floor.")
        rules = int(self._replica.value(VALUE_RULES) or b"1")
        if rules < RULES_OF_SEGMENTS:
            self._note = (
                f"The filespace is under rules {rules}. When every machine has this version, run"
                " once: lucid gc STORE --delete"
            )
            return True
        store = PacedStore(self._opened.parts.store.background(), self._rest)
        self._seen = self._replica.head()
        floor, noted = self._replica.floor(), self._noted()
        # What others have begun they finish, or the next floor does.
        begun = noted.floor == floor and not noted.done
        if floor and not begun and _is_young(store, floor):
            self._note = "A floor was set within the last day."
            return True
        held = Held(
            self._opened.unlocked, self._opened.ring, self._opened.state.path / FOLDER, self._rest
        )
        visit = Visit(
            store.url, held, store=store, clock=self._clock, entropy=self._entropy,
            every=max(self._config.checkpoint_every, 1),
        )  # fmt: skip
        with closing(visit):
            found = self._collection()
            if begun or self._is_due(visit, found):
                found = self._collection()
                Collector(visit, found, self._report, self).run()
                self._keep(found)
        self._note = "" if found.deleted and found.freed_objects else " ".join(found.notes[:1])
        return True

    def shown(self, problem: str) -> dict[str, Any]:
        """For the status: when it collected last and what that freed, and why not since."""
        noted = self._noted()
        age_s = max(0.0, (self._clock.time_ns() - noted.time_ns) / 1e9) if noted.time_ns else None
        return {
            "retention_s": self._retention_s,
            "age_s": age_s,
            "freed_bytes": noted.bytes,
            "freed_objects": noted.objects,
            "problem": problem,
            "note": self._note,
        }

    def _collection(self) -> Collection:
        return Collection(
            self._opened.unlocked.superblock.filespace.hex(),
            retention_s=self._retention_s,
            deleted=True,
            head=self._replica.head().sequence,
            floor_before=self._replica.floor(),
        )

    def _is_due(self, visit: Visit, found: Collection) -> bool:
        """Whether a floor could be set, as far as the drive's own state can tell."""
        entries = list_log(visit.store, self._report)
        return choose_floor(visit, self._replica, entries, found) > 0

    def _report(self, stage: str, done: int, _total: int | None) -> None:
        if stage == "list" and done > ENTRIES_MAX:
            raise StoreUnfit(
                f"The log has more than {ENTRIES_MAX:,} entries, too many to be looked through"
                " beside an open drive. Run once: lucid gc STORE --delete"
            )
        if not done % 256:
            self._rest()

    # -- asked by the collector

    def check(self, found: Replica) -> None:
        """See `Drive`: what the store holds back must not count as named by nothing."""
        seen = self._seen
        digest = found.entry_hash(seen.sequence)
        if found.head().sequence < seen.sequence or digest not in (None, seen.hash):
            raise HistoryFork(
                f"The store shows another log than this drive has seen up to entry {seen.sequence}."
                " Nothing was deleted. Compare `lucid status` with another device."
            )

    def set_floor(self, floor: int) -> None:
        """See `Drive`. Raises StoreUnavailable, and Stopped."""
        parts, alone = self._opened.parts, self._opened.committer.alone
        self._keep_noted(self._noted()._replace(floor=floor, done=False))
        op = Floor(parts.next_op_id(), self._clock.time_ns(), floor)
        alone.commit(op, self._config.write_wait_s, self._is_given_up)

    # -- what this device remembers

    def _noted(self) -> _Noted:
        packed = self._replica.noted(COLLECTED_NOTE)
        return _Noted(0, True) if packed is None else _Noted._make(msgpack.unpackb(packed))

    def _keep(self, found: Collection) -> None:
        """It was done to its end."""
        noted = self._noted()._replace(floor=found.floor, done=True)
        if found.freed_objects or not noted.time_ns:
            noted = noted._replace(
                time_ns=self._clock.time_ns(), bytes=found.freed_bytes, objects=found.freed_objects
            )
        self._keep_noted(noted)

    def _keep_noted(self, noted: _Noted) -> None:
        self._replica.note(COLLECTED_NOTE, msgpack.packb(noted))
        self._replica.commit_now()


def _is_young(store: ObjectStore, floor: int) -> bool:
    """Whether somebody has set this floor within the last day, by the store's clock."""
    try:
        since = store.stat(floor_key(floor)).modified_ns
    except ObjectMissing:
        return False  # Who has set it was stopped before it could delete anything.
    return store.date_ns() - since < YOUNG_NS
