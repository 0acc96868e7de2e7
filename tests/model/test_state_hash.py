"""Whoever folded the same entries has the same state hash, whatever is pending; and a replica from
a checkpoint goes on as one that folded the log from its first entry (S-72)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lucid.format.checkpoint import TABLE_FIELDS, TABLE_KEYS
from lucid.meta import replica_writes, schema
from lucid.meta.checkpoint_rows import LOCAL_TABLES, PLAIN_TABLES
from tests.meta.replicas import apply, catch_up, open_replica
from tests.meta.states import hash_of, loaded, model_rows, replica_rows
from tests.model.test_rebase import agree, machines_of, same
from tests.model.test_rebase_rules_2 import restorers


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_those_of_the_log_whatever_is_pending(tmp_path: Path, seed: int) -> None:
    rng = random.Random(3000 + seed)
    log, machines = machines_of(tmp_path, rng, 2 + seed % 2)
    compared = 0
    for _ in range(140):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.6:
            machine.act()
        elif what < 0.75:
            machine.hear(log, rng.choice((1, 2, None)))
        elif what < 0.9:
            machine.commit(log)
        else:
            compared += bool(machine.pending)
            want = model_rows(log, machine.replica.head().sequence)
            assert replica_rows(machine.replica) == want
    for machine in machines:
        machine.hear(log)
    assert len({hash_of(machine.replica) for machine in machines}) == 1
    assert compared, "a comparison with nothing pending says nothing"
    agree(log, machines)


@pytest.mark.parametrize("seed", range(12))
def test_a_loaded_replica_goes_on_as_one_that_replayed(tmp_path: Path, seed: int) -> None:
    rng = random.Random(4000 + seed)
    log, machines = machines_of(tmp_path, rng, 2)
    for round_ in range(4):
        for _ in range(40):
            machine = rng.choice(machines)
            what = rng.random()
            if what < 0.6:
                machine.act()
            elif what < 0.8:
                machine.hear(log, rng.choice((1, None)))
            else:
                machine.commit(log)
        machine = rng.choice(machines)
        # The device loses its replica. The journal keeps what is pending.
        fresh = loaded(machine.replica, tmp_path / f"loaded {round_}", machine.clock)
        machine.replica.close()
        machine.replica, machine.directory = fresh, tmp_path / f"loaded {round_}"
        assert replica_rows(fresh) == model_rows(log, fresh.head().sequence)
        fresh.set_own_session(machine.author.who.session)
        for position, op in machine.pending:
            apply(fresh, position, op)
        assert fresh.pending_count() == len(machine.pending)
        machine.hear(log)
    replayed = open_replica(tmp_path)
    catch_up(replayed, log)
    for machine in machines:
        machine.hear(log)
        assert hash_of(machine.replica) == hash_of(replayed)
    replayed.close()
    agree(log, machines)


def test_a_snapshot_stays_as_it_is_while_the_replica_goes_on(tmp_path: Path) -> None:
    rng = random.Random(6)
    log, (machine, other) = machines_of(tmp_path, rng, 2)
    for _ in range(30):
        machine.act()
        machine.commit(log)
        machine.hear(log)
    for _ in range(20):
        machine.act()
    at = machine.replica.head().sequence
    snapshot = machine.replica.snapshot()
    assert snapshot is not None
    found = []
    for number, rows in enumerate(snapshot.batches()):
        found += rows
        # The replica's own lock is free: everything else goes on between two slices.
        machine.act()
        other.hear(log)
        other.act()
        other.commit(log)
        if number % 3 == 0:
            machine.commit(log)
        machine.hear(log)
        machine.replica.commit_now()
    snapshot.close()
    assert machine.replica.head().sequence > at + 5
    assert found == model_rows(log, at)
    agree(log, [machine, other])


def test_what_is_in_the_middle_of_an_entry_has_no_snapshot(tmp_path: Path) -> None:
    rng = random.Random(1)
    log, machines = machines_of(tmp_path, rng, 1)
    machine = machines[0]
    place = machine.replica.place()
    machine.replica._place = place._replace(ops=3)
    assert machine.replica.snapshot() is None
    machine.replica._place = place
    assert replica_rows(machine.replica) == model_rows(log)
    machine.replica.close()


def test_too_many_pending_ops_have_no_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_writes, "SNAPSHOT_PENDING_MAX", 3)
    rng = random.Random(2)
    log, (machine,) = machines_of(tmp_path, rng, 1)
    while machine.replica.pending_count() <= 3:
        machine.act()
    assert machine.replica.snapshot() is None
    machine.commit(log)
    machine.hear(log)
    agree(log, [machine])


def test_notes_of_the_journal_are_known_to_a_loaded_replica(tmp_path: Path) -> None:
    rng = random.Random(5)
    log, (machine,) = machines_of(tmp_path, rng, 1)
    while not machine.pending:
        machine.act()
    positions = [position for position, _ in machine.pending]
    sequence = log.append(1, [op for _, op in machine.pending])
    machine.hear(log)
    fresh = loaded(machine.replica, tmp_path / "loaded")
    notes = [(sequence, log.hash(sequence), positions[-1]), (sequence, b"x" * 32, 99)]
    assert fresh.settled_through(notes) == positions[-1]
    same(fresh, log)
    fresh.close()
    machine.replica.close()


def test_every_table_is_part_of_the_state_or_is_known_not_to_be() -> None:
    names = {spec.name for spec in schema.TABLES}
    assert names - {"removed"} == {*PLAIN_TABLES, *LOCAL_TABLES, "extent", "staged"} - {"removed"}
    for spec in schema.TABLES:
        if spec.name in PLAIN_TABLES:
            number = PLAIN_TABLES[spec.name]
            assert len(TABLE_FIELDS[number]) == len(spec.columns) + 1
            assert TABLE_KEYS[number] == spec.keys + 1


@pytest.mark.parametrize("seed", range(20))
def test_so_it_is_under_rules_2(tmp_path: Path, seed: int) -> None:
    """Removals are remembered, files are cloned and come back, floors end what is old."""
    rng = random.Random(5000 + seed)
    log, machines = restorers(tmp_path, rng, 1 + seed % 2)
    compared = 0
    for step in range(140):
        machine = rng.choice(machines)
        what = rng.random()
        if what < 0.55:
            machine.act()
        elif what < 0.7:
            machine.hear(log, rng.choice((1, 2, None)))
        elif what < 0.85:
            machine.commit(log)
        elif what < 0.88 and step > 30:
            machine.admin(log)
        else:
            compared += bool(machine.pending)
            want = model_rows(log, machine.replica.head().sequence)
            assert replica_rows(machine.replica) == want
    for machine in machines:
        machine.hear(log)
    assert len({hash_of(machine.replica) for machine in machines}) == 1
    assert compared
    fresh = loaded(machines[0].replica, tmp_path / "loaded")
    assert replica_rows(fresh) == model_rows(log)
    fresh.close()
    for machine in machines:
        machine.replica.close()
