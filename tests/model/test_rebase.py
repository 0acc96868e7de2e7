"""Several machines with pending ops over one log: whatever the order in which they hear of one
another, all end in the state that the log says, and each step can be taken back exactly."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from lucid.format.ops import ROOT_INO, Op, Stage
from lucid.meta import replica_cache, replica_tables
from lucid.meta.replica import Replica
from lucid.meta.state import State
from tests.meta.authors import Author, Blocks
from tests.meta.replicas import Log, StillClock, apply, author_of, catch_up, open_replica

NAMES = [b"a", b"b", b"c", b"doc.txt"]


class Machine:
    """One session with its replica, its pending ops (the journal's part) and its user."""

    def __init__(self, directory: Path, number: int, blocks: Blocks, rng: random.Random) -> None:
        self.directory = directory
        directory.mkdir()
        self.clock = StillClock()
        self.replica = open_replica(directory, self.clock)
        self.author = Author(number, b"ann", blocks)
        self.author.who = author_of(number)
        self.rng = rng
        self.position = 0
        self.pending: list[tuple[int, Op]] = []
        self.settled: list[tuple[int, Op]] = []  # by the newest own entry
        self.replica.set_own_session(number)

    def act(self) -> None:
        """The user does something that its own view allows, mostly."""
        op = self._choose(self.replica.state)
        if op is None:
            return
        self.position += self.rng.choice((1, 1, 7))
        self.pending.append((self.position, op))
        apply(self.replica, self.position, op)

    def commit(self, log: Log) -> None:
        """The first pending ops become an entry, if this machine knows the head."""
        if self.pending and self.replica.head().sequence == len(log.entries):
            count = self.rng.randint(1, len(self.pending))
            log.append(self.author.who.session, [op for _, op in self.pending[:count]])

    def hear(self, log: Log, limit: int | None = None) -> None:
        catch_up(self.replica, log, limit)
        pending = [one for one in self.pending if self.replica.is_pending(one[1].op_id)]
        if len(pending) < len(self.pending):
            self.settled = self.pending[: len(self.pending) - len(pending)]
        self.pending = pending
        assert self.replica.pending_count() == len(self.pending)

    def crash(self) -> None:
        """The process dies: what SQLite has on disk is all there is. Then it starts again."""
        copy = self.directory / "copy"
        copy.mkdir()
        for path in self.directory.glob("replica*"):
            shutil.copy(path, copy / path.name)
        self.replica.close()
        for path in copy.iterdir():
            path.replace(self.directory / path.name)
        copy.rmdir()
        self.replica = open_replica(self.directory, self.clock)

    def recover(self, log: Log) -> None:
        """After a crash: the log as far as it can be had, then the journal, which may have lost
        that its newest ops were settled."""
        catch_up(self.replica, log, self.rng.choice((None, 0, 1)))
        journal = self.settled + self.pending if self.rng.random() < 0.5 else self.pending
        for position, op in journal:
            apply(self.replica, position, op)
        self.pending = [one for one in journal if self.replica.is_pending(one[1].op_id)]

    def _directories(self, state: State) -> list[int]:
        found = [ROOT_INO]
        for _ in range(2):
            for parent in tuple(found):
                for name in NAMES:
                    dentry = state.dentry(parent, name)
                    if dentry is not None and dentry.ino not in found:
                        row = state.inode(dentry.ino)
                        if row is not None and row.mode & 0o170000 == 0o040000:
                            found.append(dentry.ino)
        return found

    def _choose(self, state: State) -> Op | None:
        rng, author = self.rng, self.author
        directories = self._directories(state)
        parent, other = rng.choice(directories), rng.choice(directories)
        name, new_name = rng.choice(NAMES), rng.choice(NAMES)
        there = state.dentry(parent, name)
        kind = rng.randrange(12)
        if there is None:
            if kind < 6:
                return author.create(parent, name, rng.randbytes(rng.randrange(80)))
            if kind == 6 and rng.random() < 0.3:
                target = author.create(parent, name, rng.randbytes(90))
                return Stage(*author.head(), target.op_id, target.changes)
            return author.mkdir(parent, name)
        row = state.inode(there.ino)
        assert row is not None
        if kind < 3 and row.mode & 0o170000 == 0o100000:
            keep = rng.choice((0, 16, row.size // 16 * 16))
            data = rng.randbytes(rng.randrange(keep, keep + 64))
            return author.content_on(row.ino, row.version, parent, name, data, min(keep, row.size))
        if kind == 3:
            return author.unlink(state, parent, name)
        if kind == 4:
            return author.rmdir(state, parent, name)
        if kind < 8:
            return author.rename(state, parent, name, other, new_name)
        if kind == 8:
            return author.setattr(there.ino, mode=rng.randrange(0o1000), mtime_ns=rng.randrange(9))
        if kind == 9:
            value = rng.choice((b"x", b"y", None))
            return author.setxattr(there.ino, b"user.k", value)
        if kind == 10 and row.mode & 0o170000 == 0o100000:
            return author.link(there.ino, other, new_name)
        return None


def machines_of(tmp_path: Path, rng: random.Random, count: int) -> tuple[Log, list[Machine]]:
    blocks = Blocks()
    log = Log(count)
    machines = [Machine(tmp_path / str(n), n, blocks, rng) for n in range(1, count + 1)]
    for machine in machines:
        machine.hear(log)
    return log, machines


def agree(log: Log, machines: list[Machine]) -> None:
    """Everything is committed and heard: all replicas are the model."""
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


def same(replica: Replica, log: Log) -> None:
    mine, model = replica.dump(), log.model.dump()
    assert mine.keys() == model.keys()
    for table, rows in model.items():
        assert mine[table] == rows, table


@pytest.fixture
def tiny_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows leave the caches at once, so that what is known without SQL must be right."""
    monkeypatch.setattr(replica_cache, "CACHE_ROWS", 3)
    monkeypatch.setattr(replica_cache, "NAMES_KNOWN", 9)
    monkeypatch.setattr(replica_cache, "SESSIONS", 1)
    monkeypatch.setattr(replica_tables, "FLUSH_ROWS", 1)
    monkeypatch.setattr(replica_tables, "SEGMENT_NUMBERS", 1)


@pytest.mark.usefixtures("tiny_caches")
@pytest.mark.parametrize("seed", range(100, 108))
def test_so_they_do_with_hardly_any_cache(tmp_path: Path, seed: int) -> None:
    test_all_machines_end_in_the_state_of_the_log(tmp_path, seed)


@pytest.mark.parametrize("seed", range(16))
def test_all_machines_end_in_the_state_of_the_log(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    log, machines = machines_of(tmp_path, rng, 2 + seed % 3)
    for _ in range(150):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.6:
            machine.act()
        elif what < 0.8:
            machine.hear(log, rng.choice((1, 2, None)))
        else:
            machine.commit(log)
    agree(log, machines)


@pytest.mark.parametrize("seed", range(10))
def test_a_machine_that_dies_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(1000 + seed)
    log, machines = machines_of(tmp_path, rng, 2)
    for _ in range(120):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.55:
            machine.act()
        elif what < 0.7:
            machine.hear(log, rng.choice((1, None)))
        elif what < 0.85:
            machine.commit(log)
        elif what < 0.95:
            machine.replica.commit_now()
        else:
            machine.crash()
            assert machine.replica.pending_count() == 0
            assert_base(machine.replica, log)
            machine.recover(log)
            machine.hear(log)
    agree(log, machines)


def assert_base(replica: Replica, log: Log) -> None:
    """The replica is exactly the log folded to its head."""
    shorter = Log(0)
    shorter.entries.clear()
    shorter.model = type(log.model)(log.model.geometry)
    for body in log.entries[: replica.head().sequence]:
        shorter.append(body.session, body.ops)
    if replica.place().ops == 0:
        same(replica, shorter)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_pending_can_be_taken_back_exactly(tmp_path: Path, seed: int) -> None:
    rng = random.Random(2000 + seed)
    log, (machine, other) = machines_of(tmp_path, rng, 2)
    for _ in range(30):
        other.act()
    other.commit(log)
    machine.hear(log)
    before = machine.replica.dump()
    for _ in range(60):
        machine.act()
    after = machine.replica.dump()
    positions = [position for position, _ in machine.pending]
    rng.shuffle(positions)
    machine.replica.drop_pending(positions)
    assert machine.replica.dump() == before
    for position, op in machine.pending:
        apply(machine.replica, 10_000 + position, op)
    again = machine.replica.dump()
    versions = again.pop("version"), after.pop("version")
    assert [row[:2] + row[3:] for row in versions[0]] == [row[:2] + row[3:] for row in versions[1]]
    assert again == after
    other.replica.close()
    machine.replica.close()
