"""A new device begins from a checkpoint instead of from entry 1; a bad one is never believed; and
devices that folded one log to two states find out (S-57, S-58, S-59)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lucid.crypto.checkpoint import seal_chunk, seal_manifest
from lucid.errors import StateMismatch, StoreUnavailable, StoreUnfit
from lucid.filespace import Filespace
from lucid.format import names
from lucid.format.checkpoint import ChunkCutter, Manifest, decode_rows
from lucid.format.entry import EntryRef
from lucid.meta.checkpoint_rows import chunks_of
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.store.base import ObjectStore
from lucid.store.faulty import FaultPlan
from lucid.store.memory import MemoryStore
from tests.filespace.spaces import WAIT_S, Space, open_on, parts_of, some_bytes
from tests.filespace.test_budgets import CountingStore

EVERY = 8
SETTINGS: dict[str, Any] = {"checkpoint_every": EVERY, "checkpoint_wait_s": 0.0}


def connect(space: Space, name: str = "a", **other: Any) -> Filespace:
    return space.connect(name, **{**SETTINGS, **other})


def head(fs: Filespace) -> int:
    return parts_of(fs).replica.head().sequence


def write_until(fs: Filespace, sequence: int) -> None:
    """Commit small entries, one at a time, and let each checkpoint be made."""
    while head(fs) < sequence:
        at = head(fs)
        fs.write_bytes(f"/file {at}", some_bytes(at, 100 + at))
        fs.sync(timeout=WAIT_S)
        hear(fs)


def hear(fs: Filespace) -> None:
    """The log is folded to its end, and what is to do at checkpoints is done."""
    assert fs.refresh(WAIT_S)
    assert fs.tree._opened.checkpoints.wait_idle(WAIT_S)


def rows(fs: Filespace) -> list[Any]:
    snapshot = parts_of(fs).replica.snapshot()
    assert snapshot is not None
    found = [row for batch in snapshot.batches() for row in batch]
    snapshot.close()
    return found


def checkpoint_keys(space: Space, sequence: int) -> list[str]:
    prefix = f"checkpoint/{sequence:016x}/"
    return [key for key in space.bucket.keys if key.startswith(prefix)]


def reader_of(fs: Filespace) -> CheckpointReader:
    opened = fs.tree._opened
    return CheckpointReader(parts_of(fs).store, opened.ring, EVERY)


def remove(space: Space, key: str) -> None:
    del space.bucket.objects[key]
    space.bucket.keys.remove(key)


def replace(space: Space, key: str, data: bytes) -> None:
    space.bucket.objects[key] = (data, space.bucket.objects[key][1])


def notes(fs: Filespace) -> str:
    return " ".join(fs.status().checkpoint_notes)


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
    write_until(one, 2 * EVERY)
    hear(other)
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


def alter(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda data: None,
    "cut": lambda data: data[:-1],
    "empty": lambda data: b"",
    "a bit in the middle": lambda data: alter(data, len(data) // 2),
    "a bit in the header": lambda data: alter(data, 30),
    "of another generation": lambda data: data[:12] + b"x" * 16 + data[28:],
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """Two checkpoints, said by entries after them."""
    made = Space(tmp_path_factory.mktemp("written"))
    one = connect(made)
    write_until(one, 2 * EVERY + 3)
    one.close()
    return made


def copy_of(written: Space, space: Space) -> Space:
    space.bucket.objects = dict(written.bucket.objects)
    space.bucket.keys = list(written.bucket.keys)
    return space


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("part", ["manifest", "chunk"])
def test_what_is_damaged_is_not_used(written: Space, space: Space, part: str, what: str) -> None:
    copy_of(written, space)
    for key in checkpoint_keys(space, 2 * EVERY):
        if key.endswith("manifest") == (part == "manifest"):
            data = DAMAGE[what](space.bucket.objects[key][0])
            remove(space, key) if data is None else replace(space, key, data)
    other = connect(space, "b")
    assert f"Checkpoint {2 * EVERY} was not used" in notes(other)
    assert f"Begun from checkpoint {EVERY}" in notes(other)
    assert len(other.listdir("/")) >= EVERY
    assert not (space.state("b") / "replica.loading").exists()


def test_when_none_is_whole_the_log_is_read_from_its_beginning(
    written: Space, space: Space
) -> None:
    copy_of(written, space)
    for sequence in (EVERY, 2 * EVERY):
        remove(space, f"checkpoint/{sequence:016x}/manifest")
    other = connect(space, "b")
    assert "Begun" not in notes(other)
    assert len(other.status().checkpoint_notes) == 2
    assert parts_of(other).replica.entry_hash(3) is not None


def test_junk_beside_checkpoints_is_looked_over(written: Space, space: Space) -> None:
    copy_of(written, space)
    store = MemoryStore(space.bucket, name="team")
    for key in ("checkpoint/0000000000000011", "checkpoint/junk/manifest", "checkpoint/zz"):
        store.put_if_absent(key, b"junk")
    store.put_if_absent(f"checkpoint/{99 * EVERY:016x}/manifest", b"junk")
    other = connect(space, "b")
    assert f"Checkpoint {99 * EVERY} was not used" in notes(other)
    assert f"Begun from checkpoint {2 * EVERY}" in notes(other)


def forged(
    written: Space, space: Space, change: Callable[[Manifest], Manifest], sequence: int
) -> None:
    """The founder's keys sign another manifest in the place of the true one."""
    copy_of(written, space)
    with connect(space, "forger", read_only=True) as fs:
        opened, reader = fs.tree._opened, reader_of(fs)
        true = reader.manifest(sequence).manifest
        generation = opened.unlocked.superblock.generation
        data = seal_manifest(
            opened.ring, opened.unlocked.keys, generation, sequence, change(true), opened.entropy
        )
    replace(space, f"checkpoint/{sequence:016x}/manifest", data)


LIES: dict[str, Callable[[Manifest], Manifest]] = {
    "another entry": lambda m: m._replace(entry_hash=b"e" * 32),
    "another chunk hash": lambda m: m._replace(
        chunks=(m.chunks[0]._replace(hash=b"h" * 32), *m.chunks[1:])
    ),
    "another first key": lambda m: m._replace(
        chunks=(m.chunks[0]._replace(first_key=b"\x91\x02"), *m.chunks[1:])
    ),
    "another name": lambda m: m._replace(
        chunks=(m.chunks[0]._replace(name=b"n" * 16), *m.chunks[1:])
    ),
    "a chunk twice": lambda m: m._replace(chunks=(*m.chunks, m.chunks[-1])),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_not_used(written: Space, space: Space, lie: str) -> None:
    forged(written, space, LIES[lie], 2 * EVERY)
    other = connect(space, "b")
    assert f"Checkpoint {2 * EVERY} was not used" in notes(other)
    assert f"Begun from checkpoint {EVERY}" in notes(other)


def test_a_whole_checkpoint_of_another_state_is_not_used(written: Space, space: Space) -> None:
    """Everything fits but what the entries of the log say."""
    copy_of(written, space)
    sequence = 2 * EVERY
    with connect(space, "forger", read_only=True) as fs:
        opened, reader, store = fs.tree._opened, reader_of(fs), parts_of(fs).store
        true = reader.manifest(sequence).manifest
        generation = opened.unlocked.superblock.generation
        state = [row for ref in true.chunks for row in decode_rows(reader.chunk(ref))]
        wrong = [(*row[:2], b"not " + row[2], *row[3:]) if row[0] == 10 else row for row in state]
        cutter, refs = ChunkCutter(), []
        for chunk in [*cutter.add(sorted(wrong, key=lambda row: row[:3])), *cutter.end()]:
            ref = true.chunks[0]._replace(
                first_key=chunk.first_key, name=opened.entropy(16), hash=chunk.hash
            )
            refs.append(ref)
            sealed = seal_chunk(opened.ring, generation, chunk, opened.entropy)
            store.put_if_absent(names.checkpoint_key(sequence, ref.name.hex()), sealed)
        manifest = true._replace(chunks=tuple(refs))
        data = seal_manifest(
            opened.ring, opened.unlocked.keys, generation, sequence, manifest, opened.entropy
        )
    replace(space, f"checkpoint/{sequence:016x}/manifest", data)
    other = connect(space, "b")
    assert f"Checkpoint {sequence} was not used: Session 1 has another state there" in notes(other)
    assert f"Begun from checkpoint {EVERY}" in notes(other)
    assert not any(name.startswith("not ") for name in other.listdir("/"))


def test_a_manifest_that_no_member_signed_is_not_used(written: Space, space: Space) -> None:
    copy_of(written, space)
    key = f"checkpoint/{2 * EVERY:016x}/manifest"
    earlier = space.bucket.objects[f"checkpoint/{EVERY:016x}/manifest"][0]
    replace(space, key, earlier)
    other = connect(space, "b")
    assert f"Checkpoint {2 * EVERY} was not used: Its manifest was signed by no member" in notes(
        other
    )


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
    write_until(one, 2 * EVERY)
    hear(other)
    assert checkpoint_keys(space, 2 * EVERY)
    made = reader_of(other).manifest(2 * EVERY).manifest
    assert made.session == other.status().session


def test_one_checkpoint_is_written_by_one_device(space: Space) -> None:
    one, other = connect(space), connect(space, "b", checkpoint_wait_s=0.5)
    for sequence in (EVERY, 2 * EVERY):
        write_until(one, sequence)
        hear(other)
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


def test_who_has_another_state_stops_writing_and_says_so(space: Space) -> None:
    one, other = connect(space), connect(space, "b")
    write_until(one, EVERY - 1)
    assert other.refresh(WAIT_S)
    replica = parts_of(other).replica
    with replica._turn:  # a fault of one device's fold
        row = replica._state.inode(1)
        assert row is not None
        replica._tables.inode.put(1, row._replace(uid=row.uid + 1))
    write_until(one, EVERY + 1)
    hear(other)
    assert other.refresh(WAIT_S)
    assert "has another state than this device" in other.status().problem
    with pytest.raises(StateMismatch):
        other.write_bytes("/no more", b"x")
    before = head(one)
    assert not one.status().problem
    # The device is told at once, and after the next mount folds everything anew.
    other.close(wait=False)
    again = connect(space, "b")
    assert not again.status().problem
    assert rows(again) == rows(one)
    again.write_bytes("/well again", b"x")
    again.sync(timeout=WAIT_S)
    assert head(again) > before


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
