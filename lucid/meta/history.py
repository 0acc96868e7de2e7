"""Does the store still show what this device has seen? The alarm if it does not.

Owns two notes beside the state. `FORK_NOTE`: a member signed an entry upon another history; that
stays until the user clears it. `GONE_NOTE`: something that was in the log is not there, or is
another thing; that goes by itself when the store shows it again. While one is set nothing is
written. Used by whoever follows the log, on that thread; holds no lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from lucid.crypto.entry import OpenedEntry, open_entry
from lucid.crypto.keyring import KeyRing
from lucid.errors import HistoryFork
from lucid.format import names
from lucid.format.entry import NO_ENTRY, EntryRef
from lucid.format.hashes import hash_bytes
from lucid.format.limits import ENTRY_MAX
from lucid.meta.fold_segments import VALUE_FLOOR
from lucid.meta.state import GenerationRow, MemberRow
from lucid.store.base import ObjectStore

__all__ = ["FORK_NOTE", "GONE_NOTE", "RECENT", "History", "alarm_of"]

FORK_NOTE = "fork"
"""Under this name the replica keeps what was seen of a second history."""
GONE_NOTE = "gone"
"""Under this name the replica keeps what the store does not show any more."""

RECENT = 900
"""How far back entries are looked for that were taken from the middle: one page of a list."""
BEYOND = 4
"""Objects behind the end of the log, and void entries, that are looked at: anybody may put junk,
and each costs up to 16 MiB."""
SUSPECTS = 8
"""What a list lacks is asked for by its name; a store that lacks more lacks these as well."""
LOOKS = 2
"""One flipped bit on the way, or one answer from an old copy, is not another history."""


class Noted(Protocol):
    """Where the notes are kept."""

    def note(self, name: str, value: bytes | None) -> None: ...
    def noted(self, name: str) -> bytes | None: ...


class Seen(Noted, Protocol):
    """What this device has seen, and who may sign."""

    def head(self) -> EntryRef: ...
    def generation(self) -> GenerationRow | None: ...
    def member(self, member: bytes) -> MemberRow | None: ...
    def value(self, name: str) -> bytes | None: ...
    def voids(self, limit: int = 100) -> list[tuple[int, str]]: ...
    def entry_hash(self, sequence: int) -> bytes | None: ...


def alarm_of(view: Noted) -> str:
    """Why nothing may be written; empty if it may."""
    notes = (view.noted(FORK_NOTE), view.noted(GONE_NOTE))
    return next((note.decode("utf-8", "replace") for note in notes if note is not None), "")


class History:
    """Compares the store's log with the state. `fetch` gives the stored bytes of an entry."""

    def __init__(
        self,
        store: ObjectStore,
        ring: KeyRing,
        view: Seen,
        fetch: Callable[[int], bytes | None],
    ) -> None:
        self._store = store
        self._ring = ring
        self._view = view
        self._fetch = fetch
        self._mark = NO_ENTRY
        """The head when it was compared last."""

    def check_head(self) -> None:
        """Compare the newest entry that was folded.

        Raises HistoryFork, and keeps the alarm, if it is gone or is another one; StoreError if the
        store does not answer.
        """
        self._mark = self._view.head()
        self._check(self._mark)

    def check_mark(self) -> None:
        """Compare the entry that was the head at the last comparison; the head is the next one.

        Not the head itself: it may be an own one, put upon entries that were gone already.
        """
        self._check(self._mark)
        self._check_voids(self._mark.sequence)
        self._mark = self._view.head()

    def check_gaps(self) -> None:
        """Look for entries that were taken out: from the last ones, or in front of later ones.

        The head must be compared and the log folded to its end before. All is well afterwards:
        what was gone and is there again raises no alarm any more. Raises as `check_head` does.
        """
        head = self._view.head()
        first = self._first()
        found = list(self._store.list(*self.around_head()))
        there = {names.parse_log_key(info.key) for info in found}
        lacking = [number for number in range(first + 1, head.sequence) if number not in there]
        for number in lacking[:SUSPECTS]:
            if self._is_gone(number):
                self._alarm_gone(
                    f"Entry {number} of the log, which this device has seen, is gone: somebody"
                    " took it out of the store, and no new device sees what came after it."
                )
        for info in found:
            number = names.parse_log_key(info.key) or 0
            if number > head.sequence + 1 and info.size <= ENTRY_MAX:
                self._check_beyond(head.sequence + 1, number)
        self._check_voids(0)
        if self._view.noted(GONE_NOTE) is not None:
            self._view.note(GONE_NOTE, None)

    def around_head(self) -> tuple[str, str, int]:
        """Prefix, start and limit of the list that `check_gaps` asks for while the head is this."""
        first = self._first()
        limit = max(0, self._view.head().sequence - first) + BEYOND
        return names.LOG_PREFIX, names.log_key(first), limit

    def _first(self) -> int:
        return max(1, self._view.head().sequence - RECENT, self._floor())

    def _floor(self) -> int:
        """What lies below may be gone rightly; the floor's own entry stays."""
        floor = self._view.value(VALUE_FLOOR)
        return 0 if floor is None else int(floor)

    def _check_voids(self, after: int) -> None:
        """Look again at the newest void entries behind `after`. Nobody signed what was seen there:
        if it is another thing by now, others have folded an entry that was kept from this device.
        """
        if self._view.noted(FORK_NOTE) is not None:
            return
        floor = self._floor()
        for number, _ in self._view.voids(BEYOND):
            seen = self._view.entry_hash(number) if number >= floor else None
            if number > after and seen is not None:
                self._check(EntryRef(number, seen))

    def _check(self, seen: EntryRef) -> None:
        if seen.sequence == 0 or seen.sequence < self._floor():
            return
        for _ in range(LOOKS):
            data = self._fetch(seen.sequence)
            if data is not None and hash_bytes(data) == seen.hash:
                return
        what = "is gone" if data is None else "is another one"
        self._alarm_gone(
            f"Entry {seen.sequence} of the log, which this device has seen, {what}: the store was"
            " rolled back, or shows somebody another history."
        )

    def _check_beyond(self, hole: int, number: int) -> None:
        """Only a member's signature for that very number shows that the log was longer."""
        data, generation = self._fetch(number), self._view.generation()
        if data is None or generation is None:
            return
        opened = open_entry(data, number, self._ring, generation.id, self._sign_key)
        if isinstance(opened, OpenedEntry) and self._is_gone(hole):
            self._alarm_gone(
                f"Entry {hole} of the log is gone, and entry {number} is there: somebody took it"
                " out of the store, or hides it, and with it all that came after it."
            )

    def _sign_key(self, member: bytes) -> bytes | None:
        row = self._view.member(member)
        return None if row is None else row.sign_key

    def _is_gone(self, number: int) -> bool:
        return all(self._fetch(number) is None for _ in range(LOOKS))

    def _alarm_gone(self, fault: str) -> NoReturn:
        text = (
            f"{fault} Nothing is written from here on. Compare `lucid status` with another device"
            " before you trust either."
        )
        self._view.note(GONE_NOTE, text.encode())
        raise HistoryFork(text)
