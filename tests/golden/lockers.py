"""Sessions that lock files, for a golden filespace: entries with ops on leases, and nothing else.

They write into the log beside the drives, and are never heard of again: whoever opens the filespace
later finds leases that are held, and others that wait for them.
"""

from __future__ import annotations

from lucid.filespace.visiting import Visit
from lucid.format.ops import Give, Op, Take, Takeover, make_op_id
from lucid.meta.authoring import take_session
from lucid.meta.log import LogWriter, Lost, follow
from lucid.meta.verify import Void
from lucid.types import SystemClock, SystemEntropy


class Lockers:
    """Some sessions over one replica, which begins from the newest checkpoint."""

    def __init__(self, url: str, passphrase: str, every: int) -> None:
        self._visit = Visit(
            url, passphrase, store=None, clock=SystemClock(), entropy=SystemEntropy, every=every
        )
        self._visit.begin("lockers")
        self._replica = self._visit.replica("lockers")
        self._reader = self._visit.reader(self._replica)
        self._keys = self._visit.unlocked.keys
        self._writer = LogWriter(
            self._visit.store, self._visit.ring, self._keys, self._replica, self._visit.entropy
        )
        self._counters: dict[int, int] = {}
        follow(self._reader, self._replica)

    def close(self) -> None:
        self._visit.close()

    def join(self, label: bytes) -> int:
        """A new session."""
        visit = self._visit
        session = take_session(
            self._reader, self._writer, self._replica, self._keys.member, label, visit.clock,
            visit.entropy,
        ).number  # fmt: skip
        self._counters[session] = 0
        return session

    def take(self, session: int, ino: int, mode: int) -> None:
        self._say(session, Take(*self._head(session), ino, mode))

    def give(self, session: int, ino: int, mode: int) -> None:
        self._say(session, Give(*self._head(session), ino, mode))

    def takeover(self, session: int, ino: int, other: int) -> None:
        """From a session that has said nothing since what is known here."""
        follow(self._reader, self._replica)
        row = self._replica.session(other)
        assert row is not None
        self._say(session, Takeover(*self._head(session), ino, other, row.last_sequence))

    def line(self, ino: int) -> list[tuple[int, int]]:
        """(session, mode) of all in line for an inode."""
        follow(self._reader, self._replica)
        return [(row.session, row.mode) for row in self._replica.state.lease(ino)]

    def _head(self, session: int) -> tuple[int, int]:
        self._counters[session] += 1
        return make_op_id(session, self._counters[session]), self._visit.clock.time_ns()

    def _say(self, session: int, op: Op) -> None:
        """This op is an entry of the log, and folded, when this returns."""
        while True:
            follow(self._reader, self._replica)
            prepared = self._writer.build(session, [op], ())
            if not isinstance(self._writer.put(prepared), Lost):
                break
        found = self._reader.judge(prepared.sequence, prepared.data)
        assert not isinstance(found, Void), found
        self._replica.commit_entry(found.sequence, found.hash, found.body)
