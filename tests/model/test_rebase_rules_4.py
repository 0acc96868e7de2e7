"""Several machines under rules 4: leases are taken, given and taken over while content is pending
on what they are of, and floors, repacks and crashes come in between. All end as the model does."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest

from lucid.errors import InternalError
from lucid.format.ops import LEASE_EXCLUSIVE, LEASE_NONE, LEASE_SHARED, Content, Op, Take
from lucid.meta.fold_lease import granted_mode, is_leased_elsewhere
from lucid.meta.lease_rows import LEASE_PREFIX
from lucid.meta.state import DentryRow, State
from tests.meta.replicas import Log, catch_up, open_replica
from tests.meta.states import hash_of, loaded, model_rows, replica_rows
from tests.model.test_rebase import NAMES
from tests.model.test_rebase_rules_2 import agree
from tests.model.test_rebase_rules_3 import Sealer, machines_of, readable


class Locker(Sealer):
    """A machine whose programs lock files. Its ops on leases go ahead of what is pending, but that
    it may publish what is pending with them, and before them."""

    rules = 4

    def lock(self, log: Log) -> None:
        """An entry that takes, gives or takes over the lease of some file; maybe of a few."""
        if not self._in_force(log.model.get_value("rules")):
            return self.admin(log)
        ops = [self._on_lease(log) for _ in range(self.rng.choice((1, 1, 3)))]
        self.settled = []
        if self.rng.random() < 0.4 and self.replica.head().sequence == len(log.entries):
            self._finish()
            first = self.rng.randint(0, len(self.pending))
            ops = [op for _, op in self.pending[:first]] + ops
        log.append(self.author.who.session, ops)

    def _on_lease(self, log: Log) -> Op:
        author, rng, session = self.author, self.rng, self.author.who.session
        named = [int(name.removeprefix(LEASE_PREFIX), 16) for name in leases(log)]
        ino = rng.choice(named) if named and rng.random() < 0.6 else self._some_inode()
        line = log.model.lease(ino)
        kind = rng.random()
        if kind < 0.5 or not line:
            return author.take(ino, rng.choice((LEASE_SHARED, LEASE_EXCLUSIVE, LEASE_EXCLUSIVE)))
        if kind < 0.8:
            return author.give(ino, rng.choice((LEASE_NONE, LEASE_SHARED)))
        others = [row.session for row in line if row.session != session] or [9]
        other = rng.choice(others)
        row = log.model.session(other)
        last = 1 if row is None else row.last_sequence
        return author.takeover(ino, other, max(1, last - rng.choice((0, 0, 1))))

    def _choose(self, state: State) -> Op | None:
        """Files are written more often than anything else, leased or not."""
        dentry = self._some_name(state)
        row = None if dentry is None else state.inode(dentry.ino)
        if dentry is None or row is None or not stat.S_ISREG(row.mode) or self.rng.random() < 0.5:
            return super()._choose(state)
        data = self.rng.randbytes(self.rng.randrange(64))
        return self.author.content_on(row.ino, row.version, dentry.parent, dentry.name, data)

    def _some_name(self, state: State) -> DentryRow | None:
        places = ((parent, name) for parent in self._directories(state) for name in NAMES)
        found = [row for row in (state.dentry(*place) for place in places) if row is not None]
        return self.rng.choice(found) if found else None

    def _some_inode(self) -> int:
        """What has a name here, or what nobody knows."""
        dentry = self._some_name(self.replica.state)
        return 9 << 32 | 9 if dentry is None else dentry.ino


def leases(log: Log) -> list[str]:
    return [name for name, _ in log.model.dump()["value"] if name.startswith(LEASE_PREFIX)]


def step(log: Log, machine: Locker, rng: random.Random) -> None:
    """One thing that happens."""
    what = rng.random()
    if what < 0.4:
        machine.act()
    elif what < 0.6:
        machine.hear(log, rng.choice((1, 2, None)))
    elif what < 0.75:
        if rng.random() < 0.7:
            machine.hear(log)
        machine.commit(log)
    elif what < 0.93:
        machine.lock(log)
    elif what < 0.96:
        machine.admin(log)
    elif what < 0.98:
        machine.repack(log, len(log.entries))
    else:
        machine.replica.commit_now()


@pytest.mark.parametrize("seed", range(12))
def test_leases_meet_pending_content(tmp_path: Path, seed: int) -> None:
    """S-152, S-153, S-327: what is pending goes beside, and back, as others take and give; in some
    of them the rules come late."""
    rng = random.Random(11_000 + seed)
    log, machines = machines_of(Locker, tmp_path, rng, 3 + (seed % 3 > 0))
    most = beside = 0
    for _ in range(250):
        step(log, rng.choice(machines), rng)
        most = max(most, len(leases(log)))
        beside += sum(gives_way(log, op) for one in machines for _, op in one.pending)
    agree(log, list(machines))
    takes = sum(isinstance(op, Take) for body in log.entries for op in body.ops)
    assert most and takes > 10
    assert beside, "nothing ever waited for a leased file"
    assert readable(log, machines[0].author.blocks)


def gives_way(log: Log, op: Op) -> bool:
    """Whether this content would lie beside for the sake of a lease, by the log as it is."""
    if not isinstance(op, Content):
        return False
    row = log.model.inode(op.ino)
    session = op.op_id >> 32
    return row is not None and is_leased_elsewhere(log.model.lease(row.ino), session)


@pytest.mark.parametrize("seed", range(6))
def test_a_machine_that_dies_between_leases(tmp_path: Path, seed: int) -> None:
    """S-327, S-72: its replica is behind, and what is pending is applied again."""
    rng = random.Random(12_000 + seed)
    log, machines = machines_of(Locker, tmp_path, rng, 4)
    for _ in range(160):
        machine = rng.choice(machines)
        if rng.random() < 0.05:
            machine.crash()
            machine.recover(log)
            machine.hear(log)
        else:
            step(log, machine, rng)
    agree(log, list(machines))


@pytest.mark.parametrize("seed", range(4))
def test_a_state_with_leases_is_written_loaded_and_hashed(tmp_path: Path, seed: int) -> None:
    """S-57, S-72, S-327: with own content pending; a replica from it goes on as the others do."""
    rng = random.Random(13_000 + seed)
    log, machines = machines_of(Locker, tmp_path, rng, 4)
    one, two, _ = machines
    for _ in range(40):
        one.act()
        one.commit(log)
        two.lock(log)
        for machine in (one, two):
            machine.hear(log)
    for _ in range(10):
        one.act()
    assert leases(log)
    assert replica_rows(one.replica) == model_rows(log)
    fresh = loaded(one.replica, tmp_path / "loaded")
    assert hash_of(fresh) == hash_of(one.replica)
    ino = int(leases(log)[0].removeprefix(LEASE_PREFIX), 16)
    assert fresh.state.lease(ino) == log.model.lease(ino) == one.replica.state.lease(ino)
    for _ in range(10):
        two.lock(log)
        two.hear(log)
    one.hear(log)
    replayed = open_replica(tmp_path)
    for replica in (fresh, replayed):
        catch_up(replica, log)
        assert hash_of(replica) == hash_of(one.replica) == hash_of(two.replica)
        replica.close()
    agree(log, list(machines))


def test_own_content_goes_beside_and_back(tmp_path: Path) -> None:
    """S-152, S-327: while another session has the lease; committed after it was given back, it is
    the file's."""
    log, machines = machines_of(Locker, tmp_path, random.Random(1), 4)
    me, other, third = machines
    made = me.author.create(1, b"plan", b"1" * 40)
    log.append(1, [made])
    for machine in machines:
        machine.hear(log)
    ino = made.op_id
    save = me.author.content_on(ino, ino, 1, b"plan", b"2" * 40)
    again = me.author.content_on(ino, save.op_id, 1, b"plan", b"3" * 50)
    for position, op in enumerate((save, again), 1):
        me.position = position
        me.pending.append((position, op))
        me.apply(op)

    def lands() -> int:
        row = me.replica.version(again.op_id)
        assert row is not None
        return row.ino

    assert lands() == ino
    for said, wanted in (
        (other.author.take(ino, LEASE_SHARED), ino),
        (other.author.take(ino, LEASE_EXCLUSIVE), save.op_id),
        (third.author.take(ino, LEASE_EXCLUSIVE), save.op_id),
        (other.author.give(ino, LEASE_SHARED), ino),
        (other.author.give(ino, LEASE_NONE), save.op_id),
        (third.author.give(ino, LEASE_NONE), ino),
        (me.author.take(ino, LEASE_EXCLUSIVE), ino),
        (other.author.take(ino, LEASE_EXCLUSIVE), ino),
        (other.author.takeover(ino, 1, 90), save.op_id),
        (other.author.give(ino, LEASE_NONE), ino),
    ):
        me.replica.take_events()
        log.append(said.op_id >> 32, [said])
        was = lands()
        me.hear(log)
        assert lands() == wanted, said
        assert was == wanted or {was, wanted} <= set(me.replica.take_events().inodes)
    assert granted_mode(me.replica.state.lease(ino), 2) == LEASE_NONE
    agree(log, list(machines))


def test_no_op_on_a_lease_is_ever_pending(tmp_path: Path) -> None:
    """It goes ahead of what is; a lease that is not in the log is none."""
    log, machines = machines_of(Locker, tmp_path, random.Random(1), 4)
    machine = machines[0]
    made = machine.author.create(1, b"plan", b"1")
    log.append(1, [made])
    machine.hear(log)
    with pytest.raises(InternalError, match="pending"):
        machine.apply(machine.author.take(made.op_id, LEASE_SHARED))
    for one in machines:
        one.replica.close()
