"""A new device begins from a checkpoint instead of from entry 1, and devices that folded one log to
two states find out (S-57, S-58, S-59)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from lucid.errors import StateMismatch, StoreUnavailable, StoreUnfit
from lucid.filespace import Filespace
from lucid.format.entry import EntryRef
from lucid.meta.checkpoint_rows import chunks_of
from lucid.store.base import ObjectStore
from lucid.store.faulty import FaultPlan
from lucid.store.memory import MemoryStore
from tests.filespace.checkpoints import (
    EVERY,
    checkpoint_keys,
    connect,
    head,
    hear,
    notes,
    reader_of,
    replace,
    rows,
    write_until,
)
from tests.filespace.spaces import WAIT_S, Space, open_on, parts_of, some_bytes
from tests.filespace.test_budgets import CountingStore
from tests.filespace.test_two_machines import at_once


def test_a_new_device_begins_from_the_newest_checkpoint(space: Space) -> None:
    one = connect(space)
    write_until(one, 3 * EVERY + 2)
    assert one.status().checkpoint == 3 * EVERY
    age = one.status().checkpoint_age_s
    assert age is not None and 0 <= age < WAIT_S
    other = connect(space, "b")
    status = other.status()
    assert status.checkpoint == 3 * EVERY
    assert f"Begun from checkpoint {3 * EVERY}: only one device" in notes(other)
    assert "unproven" in status.freshness
    assert other.listdir("/") == one.listdir("/")
    assert parts_of(other).replica.entry_hash(EVERY + 1) is None, "it did not read that entry"
    for name in one.listdir("/"):
        assert other.read_bytes(f"/{name}") == one.read_bytes(f"/{name}")
    write_until(other, head(other) + EVERY)
    assert one.refresh(WAIT_S)
    assert rows(one) == rows(other)
    third = connect(space, "c")
    assert "Begun from checkpoint" in notes(third)
    hear(third)
    hear(one)
    assert rows(third) == rows(one)


def test_two_who_write_both_say_the_state_hash(space: Space) -> None:
    one, other = connect(space), connect(space, "b")
    write_until(one, 2 * EVERY, other)
    for fs, name in ((one, "/of one"), (other, "/of the other")):
        fs.write_bytes(name, b"x")
        fs.sync(timeout=WAIT_S)
    third = connect(space, "c")
    assert f"Begun from checkpoint {2 * EVERY}: two or more devices" in notes(third)
    for fs in (one, other, third):
        assert fs.refresh(WAIT_S)
        assert not fs.status().problem
    assert rows(one) == rows(other) == rows(third)


def test_one_of_two_does_not_suffice(space: Space) -> None:
    one = connect(space)
    silent = connect(space, "b", checkpoint_every=0)
    write_until(one, 2 * EVERY + 1)
    silent.write_bytes("/says nothing of it", b"x")
    silent.sync(timeout=WAIT_S)
    third = connect(space, "c")
    assert "Of two that have written since, one says its state hash" in notes(third)
    assert "Begun" not in notes(third) or f"Begun from checkpoint {EVERY}" in notes(third)
    assert third.listdir("/") == silent.listdir("/")


def test_who_was_away_looks_at_the_state_when_it_comes_back(space: Space) -> None:
    one, other = connect(space), connect(space, "b")
    other.write_bytes("/early", b"x")
    other.sync(timeout=WAIT_S)
    other.close()
    write_until(one, 2 * EVERY + 2)
    other = connect(space, "b")
    assert other.tree._opened.checkpoints.wait_idle(WAIT_S)
    other.write_bytes("/late", b"x")
    other.sync(timeout=WAIT_S)
    assert f"Begun from checkpoint {2 * EVERY}: two or more devices" in notes(connect(space, "c"))


def test_who_comes_back_writes_the_checkpoint_that_is_missing(space: Space) -> None:
    one, other = connect(space, checkpoint_every=0), connect(space, "b")
    other.close()
    write_until(one, 2 * EVERY + 2)
    assert not checkpoint_keys(space, 2 * EVERY)
    other = connect(space, "b")
    assert other.tree._opened.checkpoints.wait_idle(WAIT_S)
    assert f"checkpoint/{2 * EVERY:016x}/manifest" in checkpoint_keys(space, 2 * EVERY)
    assert other.status().checkpoint == 2 * EVERY


def test_who_began_from_it_is_not_waited_for(space: Space) -> None:
    one = connect(space)
    write_until(one, 2 * EVERY + 2)
    other = connect(space, "b")
    assert "Begun from" in notes(other)
    other.write_bytes("/says nothing of it", b"x")
    other.sync(timeout=WAIT_S)
    assert f"Begun from checkpoint {2 * EVERY}: only one device" in notes(connect(space, "c"))


def test_nobody_says_it_yet(space: Space) -> None:
    one = connect(space)
    write_until(one, 2 * EVERY)
    other = connect(space, "b")
    assert f"Checkpoint {2 * EVERY} was not used: No entry of the log says" in notes(other)
    assert f"Begun from checkpoint {EVERY}" in notes(other)
    assert other.listdir("/") == one.listdir("/")


def test_a_checkpoint_of_a_device_with_pending_ops_holds_none_of_them(space: Space) -> None:
    one, busy = connect(space), connect(space, "b")
    write_until(one, 2 * EVERY - 1)
    assert busy.refresh(WAIT_S)
    with parts_of(busy).order.lock:  # nothing of it is committed meanwhile
        for number in range(30):
            busy.mkdir(f"/pending {number}")
        snapshot = parts_of(busy).replica.snapshot()
        assert snapshot is not None
        assert parts_of(busy).replica.pending_count() >= 30
        mine = [chunk.hash for chunk in chunks_of(snapshot.batches())]
        at = snapshot.head
        snapshot.close()
        theirs = parts_of(one).replica.snapshot()
        assert theirs is not None
        assert theirs.head == at
        assert [chunk.hash for chunk in chunks_of(theirs.batches())] == mine
        theirs.close()
    busy.sync(timeout=WAIT_S)
    assert one.refresh(WAIT_S)
    assert len(one.listdir("/")) == len(busy.listdir("/"))


def test_others_write_the_checkpoint_of_one_who_did_not(space: Space) -> None:
    one = connect(space)
    other = connect(space, "b")
    one.tree._opened.checkpoints._writer = None  # it dies before it comes to that
    write_until(one, 2 * EVERY, other)
    assert checkpoint_keys(space, 2 * EVERY)
    made = reader_of(other).manifest(2 * EVERY).manifest
    assert made.session == other.status().session


def test_one_checkpoint_is_written_by_one_device(space: Space) -> None:
    one, other = connect(space), connect(space, "b", checkpoint_wait_s=0.5)
    write_until(one, 2 * EVERY, other)
    manifest = reader_of(other).manifest(2 * EVERY).manifest
    own = [ref for ref in manifest.chunks if ref.sequence == 2 * EVERY]
    assert len(checkpoint_keys(space, 2 * EVERY)) == len(own) + 1
    assert other.status().checkpoint == 2 * EVERY


def test_a_crash_between_chunks_and_manifest_leaves_nothing_to_believe(space: Space) -> None:
    one = connect(space)
    write_until(one, 2 * EVERY - 1)
    writer = one.tree._opened.checkpoints._writer
    assert writer is not None

    def dies(*_arguments: object) -> None:
        raise StoreUnfit("the process dies here")

    writer.put_manifest = dies  # type: ignore[method-assign,assignment]
    write_until(one, 2 * EVERY)
    space.crash(one)
    keys = checkpoint_keys(space, 2 * EVERY)
    assert keys and not any(key.endswith("manifest") for key in keys)
    other = connect(space, "b")
    assert f"Checkpoint {2 * EVERY} was not used" in notes(other)
    assert f"Begun from checkpoint {EVERY}" in notes(other)
    again = connect(space)
    write_until(again, 3 * EVERY + 1)
    assert f"Begun from checkpoint {3 * EVERY}" in notes(connect(space, "c"))


def test_chunks_that_did_not_change_are_shared(space: Space) -> None:
    one = connect(space)
    for number in range(3000):
        one.mkdir(f"/directory {number:05d}")
    one.sync(timeout=WAIT_S)
    write_until(one, head(one) // EVERY * EVERY + 2 * EVERY)
    newest = head(one) // EVERY * EVERY
    manifest = reader_of(one).manifest(newest).manifest
    assert any(ref.sequence < newest for ref in manifest.chunks)
    write_until(one, newest + 1)
    other = connect(space, "b")
    assert f"Begun from checkpoint {newest}" in notes(other)
    hear(one)
    assert rows(other) == rows(one)
    # A process that knows no chunks looks into the checkpoint before, and reads what it shares.
    one.close()
    again = connect(space)
    write_until(again, newest + EVERY + 1)
    manifest = reader_of(again).manifest(newest + EVERY).manifest
    assert any(ref.sequence < newest + EVERY for ref in manifest.chunks)


def test_a_damaged_chunk_is_not_shared_by_a_later_checkpoint(space: Space) -> None:
    one = connect(space)
    for number in range(3000):
        one.mkdir(f"/directory {number:05d}")
    one.sync(timeout=WAIT_S)
    write_until(one, head(one) // EVERY * EVERY + 2 * EVERY + 1)
    one.close()
    for key in [key for key in space.bucket.keys if key.startswith("checkpoint/")]:
        if not key.endswith("manifest"):
            replace(space, key, b"damaged" + space.bucket.objects[key][0])
    again = connect(space)
    write_until(again, head(again) // EVERY * EVERY + EVERY + 1)
    newest = head(again) // EVERY * EVERY
    assert f"Begun from checkpoint {newest}" in notes(connect(space, "b"))


def lose_replica(space: Space, name: str) -> None:
    for path in space.state(name).glob("replica*"):
        path.unlink()


def test_who_lost_its_replica_is_not_waited_for(space: Space) -> None:
    """S-57: it begins from a checkpoint too, and does not say what it did not find itself."""
    one, other = connect(space), connect(space, "b")
    write_until(one, 2 * EVERY + 2)
    hear(other)
    other.close()
    lose_replica(space, "b")
    other = connect(space, "b")
    assert "Begun from checkpoint" in notes(other)
    other.write_bytes("/says nothing of it", b"x")
    other.sync(timeout=WAIT_S)
    third = connect(space, "c")
    assert f"Begun from checkpoint {2 * EVERY}: only one device" in notes(third)
    assert third.read_bytes("/says nothing of it") == b"x"


def test_a_lost_replica_is_rebuilt_and_pending_ops_are_kept(space: Space) -> None:
    one, other = connect(space), connect(space, "b")
    write_until(one, 2 * EVERY + 2)
    assert other.refresh(WAIT_S)
    space.plans["b"].stop()
    for number in range(5):
        other.write_bytes(f"/offline {number}", some_bytes(number, 5000))
    space.crash(other, "b")
    write_until(one, head(one) + EVERY)
    lose_replica(space, "b")
    again = connect(space, "b")
    assert "Begun from checkpoint" in notes(again)
    for number in range(5):
        assert again.read_bytes(f"/offline {number}") == some_bytes(number, 5000)
    again.sync(timeout=WAIT_S)
    assert one.refresh(WAIT_S)
    assert sorted(one.listdir("/")) == sorted(again.listdir("/"))
    assert not any("conflict" in name for name in one.listdir("/"))


def test_what_the_log_has_is_not_applied_again_after_a_rebuild(
    space: Space,
) -> None:
    """The journal had not learned yet that its ops are in the log, and the checkpoint is above."""
    one = connect(space)
    write_until(one, EVERY + 2)
    committer = one.tree._opened.committer
    committer._settled = lambda position, body: None  # type: ignore[method-assign]
    one.mkdir("/once")
    one.rename("/once", "/twice")
    one.mkdir("/once")
    while head(one) < EVERY + 3:
        assert one.refresh(WAIT_S)
    space.crash(one)
    other = connect(space, "b")
    write_until(other, 3 * EVERY + 2)
    lose_replica(space, "a")
    again = connect(space)
    assert f"Begun from checkpoint {3 * EVERY}" in notes(again)
    assert again.status().pending_ops == 0
    assert sorted(again.listdir("/")) == sorted(other.listdir("/"))


def spoil(fs: Filespace) -> None:
    """A fault of one device's fold."""
    replica = parts_of(fs).replica
    with replica._turn:
        row = replica._state.inode(1)
        assert row is not None
        replica._tables.inode.put(1, row._replace(uid=row.uid + 1))


def eventually(fs: Filespace, condition: Callable[[], bool]) -> None:
    """What the sync thread does after a look at the log is done."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        hear(fs)


def test_who_has_another_state_stops_writing_and_says_so(space: Space) -> None:
    one, other = connect(space), connect(space, "b")
    write_until(one, EVERY - 1)
    assert other.refresh(WAIT_S)
    spoil(other)
    # The other one looks at the log by itself, and may say what it has before this one is done.
    with suppress(StateMismatch):
        write_until(one, EVERY + 1)
    hear(other)
    assert other.refresh(WAIT_S)
    assert "has another state than this device" in other.status().problem
    with pytest.raises(StateMismatch):
        other.write_bytes("/no more", b"x")
    eventually(one, lambda: bool(one.status().problem))  # each hears of the other
    before = head(one)
    # After the next mount it folds everything anew, says what it finds, and all go on.
    other.close(wait=False)
    again = connect(space, "b")
    eventually(again, lambda: head(again) > before)
    assert not again.status().problem
    eventually(one, lambda: not one.status().problem)
    for fs in (one, again):
        fs.write_bytes(f"/well again {fs.status().session}", b"x")
        fs.sync(timeout=WAIT_S)
    hear(one)
    assert rows(again) == rows(one)


def test_a_lie_in_the_log_stops_the_others_again_and_again(space: Space) -> None:
    one, other = connect(space), connect(space, "b")
    write_until(one, EVERY)
    agreement = one.tree._opened.beginning.agreement
    agreement.know(EVERY, b"w" * 32)  # it believes that
    one.write_bytes("/said", b"x")
    one.sync(timeout=WAIT_S)
    hear(other)
    assert "has another state" in other.status().problem
    other.close(wait=False)
    again = connect(space, "b")
    assert "has another state" in again.status().problem


@pytest.mark.parametrize("first", ["the one who is right", "the one who is wrong"])
def test_who_was_wrong_says_so_and_all_go_on(space: Space, first: str) -> None:
    right, wrong = connect(space), connect(space, "b")
    writer = right if first == "the one who is right" else wrong
    other = wrong if writer is right else right
    write_until(writer, EVERY - 1)
    hear(other)
    spoil(wrong)
    write_until(writer, EVERY)  # and its checkpoint
    for fs in (other, writer, other, writer):
        eventually(fs, lambda fs=fs: bool(fs.status().problem))  # type: ignore[misc]
        assert "has another state than this device" in fs.status().problem
    right.close(wait=False)
    right = connect(space)
    assert "has another state than this device" in right.status().problem
    right.close(wait=False)
    wrong.close(wait=False)
    mended = connect(space, "b")
    agreement = mended.tree._opened.beginning.agreement
    eventually(mended, lambda: agreement.to_say_now() is None)
    assert not mended.status().problem
    right = connect(space)
    assert not right.status().problem
    for fs in (right, mended):
        fs.write_bytes(f"/well again {fs.status().session}", b"x")
        fs.sync(timeout=WAIT_S)
    for fs in (right, mended):
        hear(fs)
        assert not fs.status().problem
    assert rows(right) == rows(mended)
    third = connect(space, "c")
    hear(third)
    hear(right)
    assert not third.status().problem
    assert rows(third) == rows(right)


def test_two_who_write_at_once_agree_at_each_checkpoint(space: Space) -> None:
    one, other = connect(space, checkpoint_every=4), connect(space, "b", checkpoint_every=4)
    compared: set[int] = set()
    for fs in (one, other):
        agreement = fs.tree._opened.beginning.agreement
        real = agreement._compare

        def compare(sequence: int, session: int, digest: bytes, real: Any = real) -> None:
            compared.add(sequence)
            real(sequence, session, digest)

        agreement._compare = compare  # type: ignore[method-assign]

    def work(fs: Filespace, seed: int) -> None:
        chance = Random(seed)
        for number in range(60):
            name = f"/{chance.choice('abcdef')}"
            try:
                what = chance.randrange(4)
                if what == 0:
                    fs.write_bytes(name, some_bytes(number, chance.randrange(200_000)))
                elif what == 1:
                    fs.rename(name, f"/{chance.choice('abcdef')}")
                elif what == 2:
                    fs.remove(name)
                else:
                    fs.mkdir(f"{name}{seed} {number}")
            except OSError:
                continue
            if chance.random() < 0.4:
                fs.sync(timeout=WAIT_S)

    at_once(lambda: work(one, 1), lambda: work(other, 2))
    for _ in range(3):
        for fs in (one, other):
            fs.sync(timeout=WAIT_S)
            hear(fs)
            fs.write_bytes("/more", b"x")
    for fs in (one, other):
        fs.sync(timeout=WAIT_S)
    for fs in (one, other):
        hear(fs)
        assert not fs.status().problem
        assert not fs.status().failed
    assert compared, "each has heard of the other's"
    assert rows(one) == rows(other)
    third = connect(space, "c", checkpoint_every=4)
    hear(third)
    hear(one)
    assert "Begun from" in notes(third)
    assert rows(third) == rows(one)


def test_a_state_hash_is_said_once(space: Space) -> None:
    one = connect(space)
    write_until(one, 2 * EVERY + 3)
    agreement = one.tree._opened.beginning.agreement
    assert agreement.to_say() is None
    one.close()
    again = connect(space)
    again_agreement = again.tree._opened.beginning.agreement
    assert again_agreement.to_say() is None
    assert again_agreement.own(2 * EVERY) == agreement.own(2 * EVERY)
    again_agreement.know(99 * EVERY, b"h" * 32)
    assert again_agreement.to_say() == EntryRef(99 * EVERY, b"h" * 32)


def test_a_read_only_device_writes_no_checkpoint(space: Space) -> None:
    one = connect(space, checkpoint_every=0)
    watcher = connect(space, "b", read_only=True)
    write_until(one, EVERY + 1)
    hear(watcher)
    assert not checkpoint_keys(space, EVERY)


def test_a_store_that_is_away_is_asked_again(space: Space) -> None:
    one = connect(space, plan=FaultPlan())
    write_until(one, EVERY - 1)
    failures = [3]
    store = one.tree._opened.checkpoints._reader._store
    writer = one.tree._opened.checkpoints._writer
    assert writer is not None
    real = writer._store.put_if_absent

    def flaky(key: str, body: Any) -> None:
        real(key, body)
        if failures[0]:
            failures[0] -= 1
            raise StoreUnavailable("no answer")

    class Flaky:
        def __getattr__(self, name: str) -> Any:
            return flaky if name == "put_if_absent" else getattr(store, name)

    writer._store = Flaky()  # type: ignore[assignment]
    write_until(one, EVERY + 1)
    assert failures == [0]
    manifest = reader_of(one).manifest(EVERY).manifest
    assert len(checkpoint_keys(space, EVERY)) == len(manifest.chunks) + 1


def _requests(store: CountingStore) -> int:
    return sum(store.counts.values())


class ListingStore(CountingStore):
    def list(self, prefix: str, start_after: str = "", limit: int | None = None):  # type: ignore[no-untyped-def]
        self.counts["list"] += 1
        return self.inner.list(prefix, start_after, limit)

    def over(self, inner: ObjectStore) -> ObjectStore:
        return self


def test_requests_of_a_first_mount(space: Space) -> None:
    one = connect(space, checkpoint_every=64)
    while head(one) < 200:
        one.write_bytes(f"/file {head(one)}", b"x" * 100)
        one.sync(timeout=WAIT_S)
        assert one.tree._opened.checkpoints.wait_idle(WAIT_S)
    one.close()
    counts = []
    for every in (64, 0):
        store = ListingStore(MemoryStore(space.bucket, name="team"))
        fs = open_on(store, space.state(f"fresh {every}"), read_only=True, checkpoint_every=every)
        assert len(fs.listdir("/")) >= 190
        fs.close()
        counts.append(_requests(store))
    with_checkpoint, without = counts
    assert without > 200
    assert with_checkpoint < 60, "the entries since, a chunk or two, and finding it"
