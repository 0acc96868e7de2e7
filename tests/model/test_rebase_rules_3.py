"""Several machines under rules 3: segments are sealed at some head, floors end the rows of those
that nothing names, repacks move blocks, and ops on such segments are pending meanwhile. All end as
the model does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TypeVar

import pytest

from lucid.format.change import SegmentRow
from lucid.format.ops import Floor, Op, Repack, segments_of
from lucid.meta.fold_segments import VALUE_FLOOR
from tests.meta.authors import Blocks, LostBlock
from tests.meta.repacks import lying_in, moves_of, runs_in
from tests.meta.replicas import Log, apply, catch_up, open_replica, segment_row
from tests.meta.states import hash_of, loaded, model_rows, replica_rows
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

    def _in_force(self, rules: bytes | None) -> bool:
        return rules == b"%d" % self.rules

    def admin(self, log: Log) -> None:
        """As above, but most floors count."""
        if self.rng.random() < 0.2:
            self._finish()
        end = len(log.entries)
        if self.replica.head().sequence == end and self._in_force(self.replica.value("rules")):
            floor = max(self.replica.floor() + 1, self.rng.randint(end // 2, end))
            log.append(self.author.who.session, [Floor(*self.author.head(), floor)])
        else:
            super().admin(log)

    def repack(self, log: Log, seen: int) -> bool:
        """What some segments held when this machine had heard `seen` entries lies in a new one."""
        if not self._in_force(log.model.get_value("rules")):
            return False
        model = log.model_at(seen) if seen < len(log.entries) else log.model
        lying = lying_in(runs_in(model.dump()))
        sources = sorted(lying)
        self.rng.shuffle(sources)
        moves = moves_of(self.author.blocks, lying, sources[: self.rng.randint(1, 8)])
        if not moves:
            return False
        self.settled = []
        self.heads[moves[0].segment] = len(log.entries)
        log.append(self.author.who.session, [Repack(*self.author.head(), moves)])
        return True

    def recover(self, log: Log) -> None:
        self.hear(log)
        self._finish()
        for position, op in self.pending:
            apply(self.replica, position, op, self.heads)
        self.pending = [one for one in self.pending if self.replica.is_pending(one[1].op_id)]


Kind = TypeVar("Kind", bound=Sealer)


def sealers(tmp_path: Path, rng: random.Random, rules: int) -> tuple[Log, list[Sealer]]:
    return machines_of(Sealer, tmp_path, rng, rules)


def machines_of(
    kind: type[Kind], tmp_path: Path, rng: random.Random, rules: int
) -> tuple[Log, list[Kind]]:
    blocks, log = Blocks(), Log(3, rules)
    machines = [kind(tmp_path / str(n), n, blocks, rng) for n in (1, 2, 3)]
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


@pytest.mark.parametrize("seed", range(10))
def test_repacks_meet_pending_ops(tmp_path: Path, seed: int) -> None:
    """S-292, S-293, S-295, S-296, S-298: own ops that read, overwrite, clone and remove what is
    moved under them, and floors in between."""
    rng = random.Random(8000 + seed)
    log, machines = sealers(tmp_path, rng, 3)
    repacks = 0
    for _ in range(200):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.45:
            machine.act()
        elif what < 0.65:
            machine.hear(log, rng.choice((2, None, None)))
        elif what < 0.8:
            machine.commit(log)
        elif what < 0.85:
            machine.admin(log)
        elif what < 0.95:
            head = len(log.entries)
            repacks += machine.repack(log, rng.choice((head, head, max(4, head - 3))))
        else:
            machine.replica.commit_now()
    agree(log, list(machines))
    assert repacks > 3
    assert readable(log, machines[0].author.blocks)


def readable(log: Log, blocks: Blocks) -> int:
    """Every version of the model, block by block; how many bytes that are."""
    versions = log.model.dump()["version"]
    total = 0
    for version, ino, *_ in versions:
        try:
            total += len(blocks.read(log.model, ino, version))
        except LostBlock:  # a conflict copy of what a floor had ended
            continue
    return total


@pytest.mark.parametrize("seed", range(4))
def test_a_checkpoint_after_a_repack(tmp_path: Path, seed: int) -> None:
    """S-292, S-295, S-72: with own ops pending, and a replica from it goes on as the others do."""
    rng = random.Random(9000 + seed)
    log, machines = sealers(tmp_path, rng, 3)
    one, two = machines[:2]
    for _ in range(30):
        one.act()
        one.commit(log)
        one.hear(log)
    assert one.repack(log, len(log.entries))
    for _ in range(10):
        one.act()
    one.hear(log)
    assert replica_rows(one.replica) == model_rows(log)
    fresh = loaded(one.replica, tmp_path / "loaded")
    two.hear(log)
    two.admin(log)
    two.hear(log)
    one.hear(log)
    replayed = open_replica(tmp_path)
    for replica in (fresh, replayed):
        catch_up(replica, log)
        assert hash_of(replica) == hash_of(one.replica) == hash_of(two.replica)
        replica.close()
    agree(log, list(machines))
