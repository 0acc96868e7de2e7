"""Several machines under rules 3: segments are sealed at some head, floors end the rows of those
that nothing names, and ops on such segments are pending meanwhile. All end as the model does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lucid.format.change import SegmentRow
from lucid.format.ops import Floor, Op, segments_of
from lucid.meta.fold_segments import VALUE_FLOOR
from tests.meta.authors import Blocks
from tests.meta.replicas import Log, apply, segment_row
from tests.model.test_rebase import same
from tests.model.test_rebase_rules_2 import Restorer, agree


class Sealer(Restorer):
    """A machine that notes the head at which it sealed."""

    rules = 3
    heads: dict[bytes, int]
    unfinished: set[bytes]

    def apply(self, op: Op) -> None:
        rows = [self._row(segment) for segment in segments_of(op)]
        self.replica.apply_pending(self.position, op, self.author.who, rows)

    def _row(self, segment: bytes) -> SegmentRow:
        """Half of the segments are still written when the op is made, and finished later."""
        head = self.replica.head().sequence
        if segment in self.heads or self.rng.random() < 0.5:
            return segment_row(segment, self.heads.setdefault(segment, head))
        self.unfinished.add(segment)
        return segment_row(segment, head)._replace(footer_len=0)

    def _finish(self) -> None:
        for segment in self.unfinished:
            self.heads[segment] = self.replica.head().sequence
        self.unfinished.clear()

    def commit(self, log: Log) -> None:
        self._finish()
        super().commit(log)

    def act(self) -> None:
        op = self._restore() if self.rng.random() < 0.3 else self._choose(self.replica.state)
        if op is not None:
            self.position += self.rng.choice((1, 1, 7))
            self.pending.append((self.position, op))
            self.apply(op)

    def admin(self, log: Log) -> None:
        """As above, but most floors count."""
        if self.rng.random() < 0.2:
            self._finish()
        end = len(log.entries)
        if self.replica.head().sequence == end and self.replica.value("rules") == b"3":
            floor = max(self.replica.floor() + 1, self.rng.randint(end // 2, end))
            log.append(self.author.who.session, [Floor(*self.author.head(), floor)])
        else:
            super().admin(log)

    def recover(self, log: Log) -> None:
        self.hear(log)
        self._finish()
        for position, op in self.pending:
            apply(self.replica, position, op, self.heads)
        self.pending = [one for one in self.pending if self.replica.is_pending(one[1].op_id)]


def sealers(tmp_path: Path, rng: random.Random, rules: int) -> tuple[Log, list[Sealer]]:
    blocks, log = Blocks(), Log(3, rules)
    machines = [Sealer(tmp_path / str(n), n, blocks, rng) for n in (1, 2, 3)]
    for machine in machines:
        machine.heads, machine.unfinished = log.heads, set()
        machine.hear(log)
    return log, machines


@pytest.mark.parametrize("seed", range(12))
def test_floors_meet_pending_ops_that_name_segments(tmp_path: Path, seed: int) -> None:
    """S-287, S-288: what is pending on top of a floor is what the log makes of it."""
    rng = random.Random(6000 + seed)
    log, machines = sealers(tmp_path, rng, 2 + seed % 2)
    for _ in range(300):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.4:
            machine.act()
        elif what < 0.7:
            machine.hear(log, rng.choice((2, None, None)))
        elif what < 0.9:
            machine.commit(log)
        elif what < 0.95:
            machine.admin(log)
        else:
            machine.replica.commit_now()
    agree(log, list(machines))
    assert log.model.get_value(VALUE_FLOOR)


@pytest.mark.parametrize("seed", range(4))
def test_a_floor_is_a_function_of_what_is_committed(tmp_path: Path, seed: int) -> None:
    """S-287: own pending ops that overwrite, remove or name lie on top and change nothing of it."""
    rng = random.Random(7000 + seed)
    log, machines = sealers(tmp_path, rng, 3)
    busy, idle = machines[:2]
    for _ in range(12):
        busy.act()
        if rng.random() < 0.5:
            busy.commit(log)
            busy.hear(log)
        if rng.random() < 0.3:
            idle.hear(log)
            idle.admin(log)
            busy.hear(log)
    for position, _ in list(busy.pending):
        busy.replica.drop_pending([position])
    busy.pending = []
    idle.hear(log)
    for machine in (busy, idle):
        same(machine.replica, log)
    for machine in machines:
        machine.replica.close()
