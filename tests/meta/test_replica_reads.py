"""What a mount reads from a replica: the same as the model says, in pages, columns and rows."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.errors import Stopped
from lucid.format.change import HOLE, LOST, Change
from lucid.format.ops import ROOT_INO, Op
from lucid.meta import replica_map
from lucid.meta.replica import Replica
from lucid.meta.state import directory_times
from tests.meta.authors import Author, Blocks
from tests.meta.replicas import Log, apply, author_of, catch_up, open_replica


@pytest.fixture
def log() -> Log:
    return Log(2)


@pytest.fixture
def replica(tmp_path: Path, log: Log) -> Iterator[Replica]:
    replica = open_replica(tmp_path)
    catch_up(replica, log)
    yield replica
    replica.close()


@pytest.fixture
def author() -> Author:
    author = Author(1, b"ann", Blocks())
    author.who = author_of(1)
    return author


def commit(log: Log, replica: Replica, *ops: Op) -> None:
    log.append(ops[0].op_id >> 32, ops)  # type: ignore[union-attr]
    catch_up(replica, log)


def test_a_name_leads_to_its_inode(log: Log, replica: Replica, author: Author) -> None:
    made = author.create(ROOT_INO, b"f", b"content")
    assert replica.lookup(ROOT_INO, b"f") is None
    commit(log, replica, made)
    dentry = replica.lookup(ROOT_INO, b"f")
    assert dentry is not None and (dentry.ino, dentry.id) == (made.op_id, made.op_id)
    row = replica.inode(made.op_id)
    assert row == log.model.inode(made.op_id)
    assert row is not None and row.size == 7
    assert replica.names(made.op_id) == [dentry]
    assert replica.resolve(ROOT_INO, b"f") == (dentry, row)
    assert replica.resolve(ROOT_INO, b"g") is None
    assert replica.inode(99) is None


@pytest.mark.parametrize("pending", [False, True])
def test_a_directory_shows_its_times_and_its_subdirectories(
    log: Log, replica: Replica, author: Author, pending: bool
) -> None:
    directory = author.mkdir(ROOT_INO, b"d")
    below = [author.mkdir(directory.op_id, b"%d" % number) for number in range(3)]
    gone = author.rmdir(log.model, directory.op_id, b"0")._replace(seen_ino=below[0].op_id)
    ops = [directory, *below, gone]
    if pending:
        for position, op in enumerate(ops):
            apply(replica, position, op)
        for op in ops:
            author.fold(log.model, op)
    else:
        commit(log, replica, *ops)
    row = replica.inode(directory.op_id)
    assert row is not None
    assert row.nlink == 2 + 2
    assert (row.mtime_ns, row.ctime_ns) == (gone.time_ns, gone.time_ns)
    assert replica.directory_times(directory.op_id) == log.model.times(directory.op_id)
    assert directory_times(row, None) == (gone.time_ns, gone.time_ns)
    root = replica.inode(ROOT_INO)
    assert root is not None and root.nlink == 3
    assert replica.parent_of(directory.op_id) == ROOT_INO
    assert replica.parent_of(ROOT_INO) == ROOT_INO
    removed = replica.inode(below[0].op_id)
    assert removed is not None and removed.nlink == 0
    assert replica.totals() == (log.model.inodes, log.model.data_bytes)


def test_a_directory_is_read_in_pages_by_its_cookies(
    log: Log, replica: Replica, author: Author
) -> None:
    ops = [author.create(ROOT_INO, b"%03d" % (997 * number % 1000)) for number in range(300)]
    commit(log, replica, *ops[:250])
    for position, op in enumerate(ops[250:]):
        apply(replica, position, op)
    seen, after = [], 0
    while page := replica.readdir(ROOT_INO, after, 7):
        assert len(page) <= 7
        seen += page
        after = page[-1].id
    assert [row.name for row in seen] == [op.name for op in ops]
    assert [row.ino for row in seen] == [op.op_id for op in ops]
    rows = replica.readdir_rows(ROOT_INO, seen[9].id, 1000)
    assert [row for row, _ in rows] == seen[10:]
    assert [inode for _, inode in rows] == [replica.inode(row.ino) for row in seen[10:]]
    assert replica.has_children(ROOT_INO)
    assert not replica.has_children(ops[0].op_id)


def test_names_with_one_cookie_are_in_one_page(log: Log, replica: Replica, author: Author) -> None:
    """A member that uses an id twice must not hide a name."""
    directory = author.mkdir(ROOT_INO, b"d")
    made = [author.create(directory.op_id, b"%d" % number) for number in range(4)]
    twice = [author.link(made[0].op_id, directory.op_id, b"x%d" % number) for number in range(3)]
    same = [op._replace(op_id=twice[0].op_id) for op in twice]
    commit(log, replica, directory, *made, *same)
    seen, after = [], 0
    while page := replica.readdir(directory.op_id, after, 5):
        seen += [row.name for row in page]
        after = page[-1].id
    assert sorted(seen) == sorted(row.name for row in log.model.children(directory.op_id))
    assert len(seen) == 7


def test_xattrs_are_sorted_and_go(log: Log, replica: Replica, author: Author) -> None:
    made = author.create(ROOT_INO, b"f")
    commit(
        log, replica, made,
        author.setxattr(made.op_id, b"user.b", b"2"), author.setxattr(made.op_id, b"user.a", b""),
        author.setxattr(made.op_id, b"user.c", b"3"), author.setxattr(made.op_id, b"user.c", None),
    )  # fmt: skip
    assert replica.xattrs(made.op_id) == [(b"user.a", b""), (b"user.b", b"2")]
    assert replica.xattr(made.op_id, b"user.a") == b""
    assert replica.xattr(made.op_id, b"user.c") is None


def columns_of(replica: Replica, ino: int, version: int | None = None) -> list[Change]:
    """The columns put together to extents again."""
    columns = replica.map_columns(ino, version)
    assert columns is not None
    found = []
    for at in range(len(columns.first)):
        index = int(columns.segment[at])
        lengths = None
        if columns.lengths_index is not None and columns.lengths_index[at] >= 0:
            assert columns.lengths is not None
            start = int(columns.lengths_index[at])
            lengths = tuple(map(int, columns.lengths[start : start + int(columns.count[at])]))
        segment = columns.segments[index].id if index >= 0 else b""
        numbers = (columns.ordinal, columns.offset, columns.flags)
        last = int(columns.last_len[at]), int(columns.last_valid[at])
        run = int(columns.first[at]), int(columns.count[at]), int(columns.kind[at])
        place = (int(column[at]) for column in numbers)
        found.append(Change(*run, segment, *place, *last, lengths))
    return found


@pytest.mark.parametrize("part_rows", [2, 1000])
def test_the_columns_are_the_map(
    log: Log, replica: Replica, author: Author, part_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_map, "PART_ROWS", part_rows)
    made = author.create(ROOT_INO, b"f", bytes(range(1, 200)))
    ino = made.op_id
    ops: list[Op] = [made]
    base = made.op_id
    for number in range(5):
        content = bytes([number + 1]) * (200 + 7 * number)
        ops.append(author.content_on(ino, base, ROOT_INO, b"f", content, keep=16 * number))
        base = ops[-1].op_id  # type: ignore[union-attr]
    last = author.content_on(ino, base, ROOT_INO, b"f", b"", keep=0)
    ops.append(
        last._replace(
            keep=200, size=400, changes=(Change(2, 1, HOLE), Change(5, 1, LOST), *made.changes[1:])
        )
    )
    commit(log, replica, *ops)
    model = log.model
    assert columns_of(replica, ino) == list(model.extents(ino, 0, 1 << 40))
    for row in model.versions(ino):
        assert columns_of(replica, ino, row.id) == list(model.extents_at(ino, row.id))
        columns = replica.map_columns(ino, row.id)
        assert columns is not None and (columns.size, columns.version) == (row.size, row.id)
    assert replica.versions(ino) == model.versions(ino)
    assert replica.map_columns(ino, 12345) is None
    assert replica.map_columns(12345) is None


def test_lengths_are_kept_exactly(log: Log, replica: Replica, author: Author) -> None:
    made = author.create(ROOT_INO, b"f")
    lengths = (20, 7, 19)
    change = Change(0, 3, 1, b"%032d" % 5, 0, 0, 1, 16, 3, lengths)
    content = author.content_on(made.op_id, made.op_id, ROOT_INO, b"f", b"")
    commit(log, replica, made, content._replace(size=35, changes=(change,)))
    assert columns_of(replica, made.op_id) == [change]
    columns = replica.map_columns(made.op_id)
    assert columns is not None and columns.lengths is not None
    assert columns.lengths.tobytes() == struct.pack("<3I", *lengths)
    assert columns.segments[0].generation == b"g" * 16


def test_a_map_that_changes_while_it_is_read_is_read_again(
    log: Log, replica: Replica, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_map, "PART_ROWS", 1)
    blocks = [b"%016d" % number for number in range(6)]
    made = author.create(ROOT_INO, b"f")
    changes = tuple(author.blocks.put(2 * at, [block]) for at, block in enumerate(blocks))
    first = author.content_on(made.op_id, made.op_id, ROOT_INO, b"f", b"")
    first = first._replace(size=16 * 12, changes=changes)
    commit(log, replica, made, first)
    seconds = iter(range(3))
    rest = replica._turn.rest

    def meanwhile() -> None:
        rest()
        if replica.head().sequence == len(log.entries) and next(seconds, None) is not None:
            row = replica.inode(made.op_id)
            assert row is not None
            op = author.content_on(made.op_id, row.version, ROOT_INO, b"f", b"")
            changed = author.blocks.put(3, [b"%016d" % op.op_id])
            op = op._replace(keep=row.size, size=row.size, changes=(changed,))
            log.append(1, [op])
            replica.commit_entry(len(log.entries), log.hash(len(log.entries)), log.entries[-1])

    monkeypatch.setattr(replica._turn, "rest", meanwhile)
    found = columns_of(replica, made.op_id)
    monkeypatch.setattr(replica._turn, "rest", rest)
    assert found == list(log.model.extents(made.op_id, 0, 1 << 40))


def test_a_closed_replica_says_so(tmp_path: Path, log: Log) -> None:
    replica = open_replica(tmp_path)
    catch_up(replica, log)
    replica.close()
    replica.close()
    with pytest.raises(Stopped):
        replica.lookup(ROOT_INO, b"not asked for before")
    with pytest.raises(Stopped):
        replica.commit_now()


def test_readers_get_their_turn_while_an_entry_is_folded(
    log: Log, replica: Replica, author: Author
) -> None:
    """A fold takes the lock again at once; without manners a reader would wait for all of it."""
    ops = [author.create(ROOT_INO, b"%d" % number) for number in range(3000)]
    log.append(1, ops)
    stop = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not stop.is_set():
            seen.append(len(replica.readdir(ROOT_INO, 0, 1)) + replica.totals().inodes)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        catch_up(replica, log)
    finally:
        stop.set()
        reader.join(30)
    assert len(set(seen)) > 5, "the reader saw few of the steps between"
