"""What is left of a replica after a crash, damage, a full disk, or another version of lucid."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lucid.errors import ConfigError, DiskFull, HistoryFork, InternalError, StateDamaged
from lucid.format.entry import EntryRef
from lucid.format.ops import ROOT_INO
from lucid.meta import replica_writes, schema
from lucid.meta.memory import MemoryState
from lucid.meta.replica import Replica
from tests.meta.authors import GEOMETRY, Author, Blocks
from tests.meta.replicas import KEY, Log, StillClock, apply, author_of, catch_up, open_replica


class Died(Exception):
    """The process ends here."""


def an_author(number: int) -> Author:
    author = Author(number, b"ann", Blocks())
    author.who = author_of(number)
    return author


def copy_of(directory: Path, to: Path) -> Path:
    """What is on disk now, as a crash leaves it."""
    to.mkdir()
    for path in directory.glob("replica*"):
        shutil.copy(path, to / path.name)
    return to


def die_after(replica: Replica, monkeypatch: pytest.MonkeyPatch, slices: int) -> None:
    """Let the fold of an entry end after so many slices, each committed to disk."""
    monkeypatch.setattr(replica_writes, "SLICE_OPS", 3)
    left = [slices]
    rest = replica._turn.rest

    def count() -> None:
        rest()
        replica.commit_now()
        left[0] -= 1
        if left[0] == 0:
            raise Died

    monkeypatch.setattr(replica._turn, "rest", count)


@pytest.mark.parametrize("slices", [1, 2, 4])
@pytest.mark.parametrize("pending", [False, True])
def test_a_half_folded_entry_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slices: int, pending: bool
) -> None:
    log, other, me = Log(2), an_author(2), an_author(1)
    (tmp_path / "a").mkdir()
    replica = open_replica(tmp_path / "a")
    catch_up(replica, log)
    mine = [me.create(ROOT_INO, b"%d" % number, b"mine") for number in range(6)]
    for position, op in enumerate(mine if pending else ()):
        apply(replica, position, op)
    log.append(2, [other.create(ROOT_INO, b"%d" % number) for number in range(12)])
    die_after(replica, monkeypatch, slices)
    with pytest.raises(Died):
        catch_up(replica, log)
    monkeypatch.undo()
    crashed = copy_of(tmp_path / "a", tmp_path / "b")
    replica.close()
    again = open_replica(crashed)
    assert again.head().sequence == len(log.entries) - 1
    assert again.place().ops == 3 * slices or slices == 4
    names = [row.name for row in again.readdir(ROOT_INO, 0, 100)]
    assert names == [b"%d" % number for number in range(min(12, 3 * slices))]
    catch_up(again, log)
    assert again.dump() == log.model.dump()
    assert again.head() == EntryRef(len(log.entries), log.hash(len(log.entries)))
    again.close()


def test_own_ops_of_a_half_folded_entry_are_known_without_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, me = Log(1), an_author(1)
    (tmp_path / "a").mkdir()
    replica = open_replica(tmp_path / "a")
    replica.set_own_session(1)
    catch_up(replica, log)
    mine = [me.create(ROOT_INO, b"%d" % number) for number in range(8)]
    for position, op in enumerate(mine):
        apply(replica, position, op)
    log.append(1, mine)
    die_after(replica, monkeypatch, 2)
    with pytest.raises(Died):
        catch_up(replica, log)
    monkeypatch.undo()
    crashed = copy_of(tmp_path / "a", tmp_path / "b")
    replica.close()
    again = open_replica(crashed)
    for position, op in enumerate(mine):
        apply(again, position, op)
    assert [again.is_pending(op.op_id) for op in mine] == [False] * 6 + [True] * 2
    catch_up(again, log)
    assert again.pending_count() == 0
    assert again.dump() == log.model.dump()
    again.close()
    last = open_replica(crashed)
    apply(last, 99, me.create(ROOT_INO, b"new"))
    assert last.pending_count() == 1
    last.close()


def test_the_rest_of_an_entry_is_of_the_same_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = Log(1), an_author(1)
    replica = open_replica(tmp_path)
    catch_up(replica, log)
    log.append(1, [other.create(ROOT_INO, b"%d" % number) for number in range(9)])
    die_after(replica, monkeypatch, 1)
    with pytest.raises(Died):
        catch_up(replica, log)
    monkeypatch.undo()
    sequence = len(log.entries)
    with pytest.raises(HistoryFork, match="another history"):
        replica.commit_entry(sequence, b"x" * 32, log.entries[-1])
    with pytest.raises(InternalError):
        replica.commit_entry(sequence + 1, log.hash(sequence), log.entries[-1])
    catch_up(replica, log)
    replica.close()


def test_what_was_not_committed_is_folded_again(tmp_path: Path) -> None:
    log, other = Log(1), an_author(1)
    (tmp_path / "a").mkdir()
    clock = StillClock()
    replica = open_replica(tmp_path / "a", clock)
    catch_up(replica, log)
    assert not replica.commit_if_due()
    clock.now_s += 0.3
    assert replica.commit_if_due()
    assert not replica.commit_if_due()
    log.append(1, [other.create(ROOT_INO, b"f")])
    catch_up(replica, log)
    crashed = copy_of(tmp_path / "a", tmp_path / "b")
    replica.close()
    again = open_replica(crashed)
    assert again.rebuilt == ""
    assert again.head().sequence == 2
    catch_up(again, log)
    assert again.dump() == log.model.dump()
    again.close()


def _flip_pages(path: Path) -> None:
    """One bit in each page of the second half."""
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data), schema.PAGE_SIZE):
        data[place] ^= 1
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def _junk(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


@pytest.mark.parametrize("damage", [_cut, _junk])
def test_a_damaged_replica_is_built_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    log, other = Log(1), an_author(1)
    replica = open_replica(tmp_path)
    log.append(1, [other.create(ROOT_INO, b"f")])
    catch_up(replica, log)
    replica.close()
    damage(tmp_path / "replica")
    again = open_replica(tmp_path)
    assert "damaged" in again.rebuilt
    assert again.head().sequence == 0
    catch_up(again, log)
    assert again.dump() == log.model.dump()
    again.close()


def test_damage_found_later_is_told_and_cured_by_the_next_start(tmp_path: Path) -> None:
    log, other = Log(1), an_author(1)
    replica = open_replica(tmp_path)
    log.append(1, [other.create(ROOT_INO, b"%d" % number) for number in range(400)])
    catch_up(replica, log)
    replica.close()
    _flip_pages(tmp_path / "replica")
    again = open_replica(tmp_path)
    if not again.rebuilt:
        with pytest.raises(StateDamaged, match="mount again"):
            for number in range(400):
                dentry = again.lookup(ROOT_INO, b"%d" % number)
                assert dentry is not None
                again.inode(dentry.ino)
                again.names(dentry.ino)
                again.versions(dentry.ino)
                again.readdir(ROOT_INO, dentry.id - 1, 1)
            again.dump()
        with pytest.raises(StateDamaged):
            again.commit_now()
    again.close()
    last = open_replica(tmp_path)
    catch_up(last, log)
    assert last.dump() == log.model.dump()
    last.close()


def test_another_key_or_another_schema_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = open_replica(tmp_path)
    assert replica.rebuilt == "there was none"
    replica.close()
    assert not open_and_close(tmp_path)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION ^ 1)
    assert "another version" in open_and_close(tmp_path)
    other = Replica(tmp_path / "replica", b"o" * 32, GEOMETRY, StillClock())
    assert "damaged" in other.rebuilt
    other.close()
    with pytest.raises(ConfigError):
        Replica(tmp_path / "replica", b"short", GEOMETRY, StillClock())


def open_and_close(directory: Path) -> str:
    replica = open_replica(directory)
    replica.close()
    return replica.rebuilt


def test_nothing_readable_rests_on_the_disk(tmp_path: Path) -> None:
    log, other, me = Log(2), an_author(2), an_author(1)
    replica = open_replica(tmp_path)
    log.append(2, [other.create(ROOT_INO, b"a secret name %d" % number) for number in range(50)])
    catch_up(replica, log)
    apply(replica, 1, me.create(ROOT_INO, b"a secret pending name"))
    replica.commit_now()
    assert (tmp_path / "replica-wal").stat().st_size > 0
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        assert b"secret" not in data
        assert KEY not in data
        assert path.stat().st_mode & 0o077 == 0
    assert replica.checkpoint_wal()
    assert b"secret" not in (tmp_path / "replica").read_bytes()
    replica.close()


def test_a_log_that_cannot_be_synced_ends_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has since is in the journal, so the next start has it."""
    log, other = Log(1), an_author(1)
    replica = open_replica(tmp_path)
    log.append(1, [other.create(ROOT_INO, b"f")])
    catch_up(replica, log)
    replica.commit_now()
    replica.sync_wal()

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "The disk is broken")

    broken = SimpleNamespace(**{**vars(os), "fsync": failing})
    monkeypatch.setattr(replica_writes, "os", broken)
    with pytest.raises(StateDamaged, match=r"The disk is broken.*mount again"):
        replica.sync_wal()
    with pytest.raises(StateDamaged, match="The disk is broken"):
        replica.lookup(ROOT_INO, b"f")
    with pytest.raises(StateDamaged):
        replica.sync_wal()
    replica.close()
    again = open_replica(tmp_path)
    assert again.dump() == log.model.dump()
    again.close()


def test_a_full_disk_is_told_and_leaves_the_last_transaction(tmp_path: Path) -> None:
    log, other, me = Log(2), an_author(2), an_author(1)
    replica = open_replica(tmp_path)
    catch_up(replica, log)
    replica.commit_now()
    pages = replica._connection.execute("PRAGMA page_count").fetchone()[0]
    replica._connection.execute(f"PRAGMA max_page_count = {pages + 5}").fetchone()
    log.append(2, [other.create(ROOT_INO, b"%d" % number, b"x") for number in range(3000)])
    with pytest.raises(DiskFull):
        catch_up(replica, log)
    with pytest.raises(StateDamaged, match="mount again"):
        apply(replica, 1, me.create(ROOT_INO, b"f"))
    with pytest.raises(StateDamaged, match="mount again"):
        replica.lookup(ROOT_INO, b"0")
    replica.close()
    again = open_replica(tmp_path)
    assert again.rebuilt == ""
    catch_up(again, log)
    assert again.dump() == log.model.dump()
    again.close()


def test_the_log_of_sqlite_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints between which somebody always has an open transaction."""
    monkeypatch.setattr(replica_writes, "WAL_PAGES", 1)
    log, other = Log(1), an_author(1)
    replica = open_replica(tmp_path)
    sizes = []
    for _ in range(12):
        log.append(1, [other.create(ROOT_INO, b"%d" % other.counter) for _ in range(200)])
        catch_up(replica, log)
        replica.commit_now()
        log.append(1, [other.create(ROOT_INO, b"%d" % other.counter)])
        catch_up(replica, log)
        replica.names(ROOT_INO)
        assert replica.checkpoint_wal()
        sizes.append((tmp_path / "replica-wal").stat().st_size)
    assert sizes[-1] < 3 * sizes[0]
    assert replica.dump() == log.model.dump()
    replica.close()


def test_void_entries_have_a_place_in_the_row(tmp_path: Path) -> None:
    log = Log(1)
    replica = open_replica(tmp_path)
    catch_up(replica, log)
    replica.commit_void(3, b"v" * 32, "for a reason")
    replica.note("fork", b"two")
    replica.close()
    again = open_replica(tmp_path)
    assert again.head() == EntryRef(3, b"v" * 32)
    assert (again.void_count(), again.voids()) == (1, [(3, "for a reason")])
    assert again.entry_hash(3) == b"v" * 32
    assert again.entry_hash(2) == log.hash(2)
    assert again.entry_hash(4) is None
    assert again.noted("fork") == b"two"
    assert again.membership() == EntryRef(1, log.hash(1))
    again.close()


def test_old_hashes_go_but_for_every_4096th(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_writes, "HASHES_KEPT", 100)
    replica = open_replica(tmp_path)
    catch_up(replica, Log(0))
    for sequence in range(2, 2 * 4096 + 1):
        replica.commit_void(sequence, b"%032d" % sequence, "void")
        if sequence % 1000 == 0:
            replica._tables.execute("UPDATE entry SET void = NULL WHERE sequence > 1", ())
    kept = [sequence for sequence in range(1, 8193) if replica.entry_hash(sequence)]
    assert 4096 in kept and 8192 in kept
    assert len([sequence for sequence in kept if sequence < 8092 and sequence % 4096]) < 1000
    replica.close()


def test_a_rebuild_is_the_model(tmp_path: Path) -> None:
    """A long log with every table in it, folded at once and folded in two halves."""
    log, blocks = Log(2), Blocks()
    first, second = Author(1, b"ann", blocks), Author(2, b"ann", blocks)
    first.who, second.who = author_of(1), author_of(2)
    for number in range(30):
        author = (first, second)[number % 2]
        directory = author.mkdir(ROOT_INO, b"d%d" % (number % 7))
        made = author.create(directory.op_id, b"f", bytes([number + 1]) * 50)
        log.append(author.who.session, [directory, made, author.setxattr(made.op_id, b"a", b"1")])
    replica = open_replica(tmp_path)
    catch_up(replica, log, 12)
    replica.close()
    replica = open_replica(tmp_path)
    catch_up(replica, log)
    assert replica.dump() == log.model.dump()
    assert isinstance(log.model, MemoryState)
    replica.close()
