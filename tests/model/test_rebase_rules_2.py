"""Several machines under rules 2: clones and undeletes are pending while the rules change, floors
come and others write. Whatever the order, all replicas end as the model that folds the log does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lucid.format.ops import Clone, Floor, Op, Rules
from lucid.meta.state import VersionRow
from tests.meta.authors import Blocks
from tests.meta.replicas import Log
from tests.model.test_rebase import NAMES, Machine, same


class Restorer(Machine):
    """A machine whose user restores, too. `rules` are those that come into force."""

    rules = 2

    def act(self) -> None:
        op = self._restore() if self.rng.random() < 0.4 else None
        if op is None:
            super().act()
            return
        self.position += self.rng.choice((1, 1, 7))
        self.pending.append((self.position, op))
        self.apply(op)

    def apply(self, op: Op) -> None:
        self.replica.apply_pending(self.position, op, self.author.who)

    def _restore(self) -> Op | None:
        state, rng = self.replica.state, self.rng
        if self.replica.value("rules") == b"1":
            return None
        rows = [VersionRow(*row) for row in self.replica.dump()["version"]]
        parent, name = rng.choice(self._directories(state)), rng.choice(NAMES)
        there = state.dentry(parent, name)
        if rng.random() < 0.3:
            gone = [row for row in map(state.inode, state.nameless()) if row and row.version]
            if gone:
                row = rng.choice(gone)
                return self.author.link(row.ino, row.last_parent, row.last_name)
        if not rows:
            return None
        source = rng.choice(rows)
        if there is None:
            return self.author.clone(source.ino, source.id, 0, 0, parent, name)
        target = state.inode(there.ino)
        assert target is not None
        return self.author.clone(source.ino, source.id, target.ino, target.version, parent, name)

    def admin(self, log: Log) -> None:
        """The rules become 2, or a floor comes, if this machine knows the head."""
        if self.replica.head().sequence != len(log.entries):
            return
        self.settled = []  # The journal is synced before any entry of one's own.
        ids = self.author.head()
        if self.replica.value("rules") != b"%d" % self.rules:
            log.append(self.author.who.session, [Rules(*ids, self.rules)])
        else:
            floor = self.rng.randint(1, len(log.entries) + 2)
            log.append(self.author.who.session, [Floor(*ids, floor)])


def restorers(tmp_path: Path, rng: random.Random, rules: int) -> tuple[Log, list[Restorer]]:
    blocks, log = Blocks(), Log(3, rules)
    machines = [Restorer(tmp_path / str(n), n, blocks, rng) for n in (1, 2, 3)]
    for machine in machines:
        machine.hear(log)
    return log, machines


def agree(log: Log, machines: list[Restorer]) -> None:
    for _ in range(200):
        for machine in machines:
            machine.hear(log)
            machine.commit(log)
        if not any(machine.pending for machine in machines):
            break
    for machine in machines:
        machine.hear(log)
        same(machine.replica, log)
        machine.replica.close()


@pytest.mark.parametrize("seed", range(16))
def test_all_end_in_the_state_of_the_log(tmp_path: Path, seed: int) -> None:
    """S-261, S-262, S-271, S-273: from rules 1 on in half of them."""
    rng = random.Random(3000 + seed)
    log, machines = restorers(tmp_path, rng, 1 + seed % 2)
    for step in range(150):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.6:
            machine.act()
        elif what < 0.8:
            machine.hear(log, rng.choice((1, 2, None)))
        elif what < 0.98 or step < 30:
            machine.commit(log)
        else:
            machine.admin(log)
    clones = sum(isinstance(op, Clone) for body in log.entries for op in body.ops)
    agree(log, machines)
    assert clones or seed % 2 == 0


@pytest.mark.parametrize("seed", range(8))
def test_floors_meet_pending_ops(tmp_path: Path, seed: int) -> None:
    """S-283, S-284, S-286: what a floor ends may be read, written and restored by pending ops."""
    rng = random.Random(4000 + seed)
    log, machines = restorers(tmp_path, rng, 2)
    floors = 0
    for _ in range(150):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.5:
            machine.act()
        elif what < 0.7:
            machine.hear(log, rng.choice((1, 2, None)))
        elif what < 0.85:
            machine.commit(log)
        else:
            before = len(log.entries)
            machine.admin(log)
            floors += len(log.entries) - before
    agree(log, machines)
    assert floors


@pytest.mark.parametrize("seed", range(6))
def test_a_machine_that_dies_has_its_restores_again(tmp_path: Path, seed: int) -> None:
    """S-273, S-291."""
    rng = random.Random(5000 + seed)
    log, machines = restorers(tmp_path, rng, 1 + seed % 2)
    for _ in range(120):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.55:
            machine.act()
        elif what < 0.7:
            machine.hear(log, rng.choice((1, None)))
        elif what < 0.82:
            machine.commit(log)
        elif what < 0.86:
            machine.admin(log)
        elif what < 0.95:
            machine.replica.commit_now()
        else:
            machine.crash()
            machine.recover(log)
            machine.hear(log)
    agree(log, machines)
