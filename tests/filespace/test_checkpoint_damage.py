"""Checkpoints that are absent, damaged or lie are not used (S-58)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lucid.crypto.checkpoint import seal_chunk, seal_manifest
from lucid.errors import StoreUnavailable
from lucid.filespace.fsck import FsckReport, check
from lucid.format import names
from lucid.format.checkpoint import ChunkCutter, Manifest, decode_rows
from lucid.store.memory import MemoryStore
from tests.filespace.checkpoints import (
    EVERY,
    SETTINGS,
    checkpoint_keys,
    connect,
    notes,
    reader_of,
    remove,
    replace,
    write_until,
)
from tests.filespace.spaces import PASSPHRASE, Space, open_on, parts_of
from tests.filespace.test_budgets import CountingStore


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


def test_what_a_crash_left_of_a_loading_replica_is_removed(written: Space, space: Space) -> None:
    copy_of(written, space)
    other = connect(space, "b")
    other.close()
    left = space.state("b") / "replica.loading"
    left.write_bytes(b"half of a replica")
    again = connect(space, "b")
    assert not left.exists()
    assert again.listdir("/") == connect(space, "c").listdir("/")


def test_a_store_that_goes_away_while_a_checkpoint_is_loaded(written: Space, space: Space) -> None:
    copy_of(written, space)

    class Away(CountingStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            if key.startswith("checkpoint/") and not key.endswith("manifest"):
                raise StoreUnavailable("no answer")
            return super().get(key, start, length)

    with pytest.raises(StoreUnavailable):
        open_on(Away(MemoryStore(space.bucket, name="team")), space.state("b"), **SETTINGS)
    assert not (space.state("b") / "replica.loading").exists()
    assert "Begun from" in notes(connect(space, "b"))


def checked(space: Space) -> FsckReport:
    return check("memory://team", PASSPHRASE, store=MemoryStore(space.bucket, name="team"))


def test_fsck_compares_the_newest_checkpoint_with_the_log(written: Space, space: Space) -> None:
    copy_of(written, space)
    found = checked(space)
    assert found.clean
    assert not found.warnings
    assert found.checkpoint == 2 * EVERY
    for key in checkpoint_keys(space, 2 * EVERY):
        if not key.endswith("manifest"):
            replace(space, key, alter(space.bucket.objects[key][0], 99))
    found = checked(space)
    assert found.clean, "nothing is lost by it"
    assert any(f"Checkpoint {2 * EVERY} is not used" in line for line in found.warnings)


def test_fsck_names_a_checkpoint_of_another_state(written: Space, space: Space) -> None:
    forged(written, space, LIES["another chunk hash"], 2 * EVERY)
    found = checked(space)
    assert any("holds another state than the log makes" in line for line in found.problems)


def test_fsck_names_a_session_that_had_another_state(space: Space) -> None:
    one = connect(space)
    write_until(one, EVERY)
    one.tree._opened.beginning.agreement.know(EVERY, b"w" * 32)
    one.write_bytes("/said", b"x")
    one.close()
    found = checked(space)
    assert any("Session 1 had another state after entry 8" in line for line in found.problems)
