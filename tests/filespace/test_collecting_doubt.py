"""What gc and fsck do where checkpoints, or what is left of the log, are not right."""

from __future__ import annotations

import pytest

from lucid.errors import StateMismatch
from lucid.filespace import Filespace, collecting
from lucid.filespace.fsck import check
from lucid.filespace.fsck_report import FsckReport
from lucid.format.entry import EntryRef
from lucid.format.names import log_key
from lucid.store.memory import MemoryStore
from tests.filespace.checkpoints import (
    EVERY,
    checkpoint_keys,
    connect,
    head,
    reader_of,
    replace,
    write_until,
)
from tests.filespace.spaces import BLOCK, PASSPHRASE, WAIT_S, Space, parts_of, some_bytes
from tests.filespace.test_collecting import age, first_kept, gc, names_of

PRECIOUS = some_bytes(5, 3 * BLOCK)


def forget(fs: Filespace, ino: int) -> None:
    """As after a bad page: this device's replica knows of no bytes of a file any more."""
    replica = parts_of(fs).replica
    with replica._turn:
        done = replica._tables.execute("DELETE FROM extent WHERE ino = ?", (ino,))
        replica._tables.commit()
    assert done is not None


def looked_at(space: Space) -> FsckReport:
    return check("memory://team", PASSPHRASE, read_data=True, store=MemoryStore(space.bucket))


def furnish(space: Space) -> tuple[Filespace, int]:
    """A drive with one precious file, and that file's inode."""
    one = connect(space)
    one.write_bytes("/precious", PRECIOUS)
    one.sync(timeout=WAIT_S)
    return one, one.stat("/precious").ino


def junk(space: Space, sequence: int) -> None:
    found = checkpoint_keys(space, sequence)
    assert found
    for key in found:
        replace(space, key, b"junk")


@pytest.mark.parametrize("newer", [0, 1, 4])
def test_a_wrong_checkpoint_of_a_cut_log_frees_nothing(space: Space, newer: int) -> None:
    """Its only author has said its hash, so it is believed. Where those behind it are junk, it is
    what both ways begin from, and is no check of itself."""
    one, ino = furnish(space)
    idle = connect(space, "b")
    age(space, 0.2)
    write_until(one, 4 * EVERY + 3, idle)
    age(space, 8)
    gc(space, delete=True)
    assert first_kept(space) == 4 * EVERY
    write_until(one, 6 * EVERY + 3, idle)
    idle.close()
    forget(one, ino)
    age(space, 8)
    write_until(one, head(one) // EVERY * EVERY + EVERY + 4)
    wrong = reader_of(one).newest() or 0
    write_until(one, wrong + newer * EVERY + 3)
    for sequence in range(wrong + EVERY, wrong + newer * EVERY + 1, EVERY):
        junk(space, sequence)
    one.close()
    before = names_of(space)
    for _ in range(2):
        with pytest.raises(StateMismatch, match="Nothing was deleted"):
            gc(space, delete=True)
    assert names_of(space) == before
    assert first_kept(space) == 4 * EVERY


def test_a_wrong_checkpoint_of_a_whole_log_frees_nothing(space: Space) -> None:
    one, ino = furnish(space)
    write_until(one, 2 * EVERY + 3)
    forget(one, ino)
    write_until(one, 3 * EVERY + 3)
    one.close()
    age(space, 8)
    before = names_of(space)
    with pytest.raises(StateMismatch, match="Nothing was deleted"):
        gc(space, delete=True)
    assert names_of(space) == before


@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_fsck_compares_the_newest_checkpoint(
    space: Space, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the word for the one before it came behind it, as from a busy device."""
    one, ino = furnish(space)
    write_until(one, 4 * EVERY + 3)
    age(space, 8)
    gc(space, delete=True)
    assert first_kept(space) == 4 * EVERY
    write_until(one, 6 * EVERY - 1)
    checkpoints = one.tree._opened.checkpoints
    assert checkpoints is not None
    if late:
        monkeypatch.setattr(checkpoints, "to_say", lambda: None)
    write_until(one, 6 * EVERY + 2)
    forget(one, ino)
    write_until(one, 7 * EVERY + 1)
    if late:
        said = checkpoints._agreement.own(6 * EVERY)
        assert said is not None
        monkeypatch.setattr(checkpoints, "to_say", lambda: EntryRef(6 * EVERY, said))
        write_until(one, head(one) + 1)
        monkeypatch.undo()
    write_until(one, head(one) + 3)
    one.close()
    assert any("checkpoint" in problem.lower() for problem in looked_at(space).problems)


def test_an_entry_that_a_cut_left(space: Space) -> None:
    """One of those that the store was asked to delete together."""
    one, _ = furnish(space)
    write_until(one, 4 * EVERY + 3)
    left = space.bucket.objects[log_key(2)]
    age(space, 8)
    gc(space, delete=True)
    assert first_kept(space) > 2
    MemoryStore(space.bucket).put_if_absent(log_key(2), left[0])
    space.bucket.objects[log_key(2)] = left
    looked = looked_at(space)
    assert looked.clean, looked.problems
    age(space, 8)
    gc(space, delete=True)
    assert first_kept(space) > 2
    assert connect(space, "new").read_bytes("/precious") == PRECIOUS


def test_a_rotten_newest_checkpoint_keeps_nothing_from_being_freed(space: Space) -> None:
    one, _ = furnish(space)
    write_until(one, 3 * EVERY + 3)
    one.write_bytes("/precious", b"other")
    one.sync(timeout=WAIT_S)
    junk(space, 3 * EVERY)
    one.close()
    age(space, 8)
    for _ in range(2):
        found = collecting.collect(
            "memory://team", PASSPHRASE, store=MemoryStore(space.bucket), every=EVERY, delete=True
        )
        assert found.floor
        assert "The manifest of checkpoint 24 cannot be read" in " ".join(found.warnings)
    assert looked_at(space).clean
    assert connect(space, "new").read_bytes("/precious") == b"other"
