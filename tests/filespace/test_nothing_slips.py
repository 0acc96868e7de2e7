"""Bytes and names that could slip away: between two handles, past a full disk, at kill -9."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from lucid.data.draft import Draft
from lucid.errors import DiskFull, LocalError
from lucid.filespace import Filespace
from lucid.filespace.surface import FileHandle
from lucid.format.journal import OpRecord, SegmentRecord
from lucid.format.ops import Rename
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of, some_bytes


def create(fs: Filespace, name: bytes) -> FileHandle:
    """A new file, open to read and write."""
    return fs.tree.create(1, name, 0o644, 0, 0, os.O_RDWR)[0]


def reopen(fs: Filespace, path: str) -> FileHandle:
    return fs.tree.open(fs.stat(path).ino, os.O_RDWR)


def finish(fs: Filespace, handle: FileHandle) -> None:
    """As close(2) does it."""
    fs.tree.flush(handle)
    fs.tree.release(handle)


def is_full(*_: Any, **__: Any) -> Any:
    raise DiskFull("The disk is full.")


def test_a_patch_over_a_hole_does_not_come_back(space: Space) -> None:
    """Zeros that were written over a patch must not turn into the patch again after kill -9."""
    fs = space.connect()
    handle = create(fs, b"file")
    for offset, data in ((0, bytes(BLOCK)), (10, b"OLD"), (0, bytes(BLOCK))):
        fs.tree.write(handle, offset, data)
        fs.tree.flush(handle)
    space.crash(fs)
    assert space.connect().read_bytes("/file") == bytes(BLOCK)


@pytest.mark.parametrize("private", [True, False])
def test_a_published_draft_is_not_saved_again(
    space: Space, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    """A save that waited while the draft was published must not bring the draft back."""
    fs = space.connect()
    parts = parts_of(fs)
    if not private:
        fs.write_bytes("/file", b"a" * (2 * BLOCK))
        fs.sync(timeout=WAIT_S)
    first = create(fs, b"file") if private else reopen(fs, "/file")
    second = fs.tree.open(first.ino, os.O_RDWR)
    fs.tree.write(first, 0, b"a" * (2 * BLOCK))
    draft = parts.table.get(first.ino)
    assert draft is not None
    build = parts.drafting.build

    def build_while_the_other_writes(one: Draft) -> None:
        monkeypatch.setattr(parts.drafting, "build", build)
        build(one)
        fs.tree.write(second, 0, b"b" * BLOCK)

    monkeypatch.setattr(parts.drafting, "build", build_while_the_other_writes)
    fs.tree.release(first)  # Without a flush before, there is something to build.
    assert parts.drafting.build == build
    parts.drafting.save(draft)  # What the other handle's flush does as soon as the lock is free.
    finish(fs, second)
    fs.sync(timeout=WAIT_S)
    fs.close()
    again = space.connect()
    again.sync(timeout=WAIT_S)
    assert again.listdir("/") == ["file"]
    assert again.read_bytes("/file") == b"b" * BLOCK + b"a" * BLOCK


def test_two_handles_that_close_at_once_leave_no_copies(space: Space) -> None:
    """Two threads that close the same file together must not leave a draft that comes back."""
    fs = space.connect()
    names = [f"file{n:02}" for n in range(30)]
    for name in names:
        fs.write_bytes(f"/{name}", b"a" * 3000)
    fs.sync(timeout=WAIT_S)
    failed: list[BaseException] = []

    def change(handle: FileHandle, offset: int, meet: threading.Barrier) -> None:
        try:
            fs.tree.write(handle, offset, b"x" * 9)
            meet.wait(WAIT_S)
            finish(fs, handle)
        except BaseException as error:
            failed.append(error)

    for name in names:
        meet = threading.Barrier(2)
        handles = [reopen(fs, f"/{name}") for _ in range(2)]
        threads = [
            threading.Thread(target=change, args=(handle, 100 * n, meet))
            for n, handle in enumerate(handles)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert not failed
    fs.sync(timeout=WAIT_S)
    fs.close()
    again = space.connect()
    again.sync(timeout=WAIT_S)
    assert sorted(again.listdir("/")) == names
    both = b"x" * 9 + b"a" * 91 + b"x" * 9 + b"a" * 2891
    assert all(again.read_bytes(f"/{name}") == both for name in names)


def test_a_failed_read_of_the_journal_hides_nothing(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk while a patch is read back must not make later reads forget it."""
    fs = space.connect()
    fs.write_bytes("/file", b"a" * (2 * BLOCK))
    fs.sync(timeout=WAIT_S)
    parts = parts_of(fs)
    handle = reopen(fs, "/file")
    fs.tree.write(handle, 5, b"PATCH")
    fs.tree.fsync(handle)
    draft = parts.table.get(handle.ino)
    assert draft is not None
    parts.drafting.spill(draft)

    def no_read(*_: Any) -> Any:
        raise LocalError("The disk cannot be read.")

    with monkeypatch.context() as patch:
        patch.setattr(parts.book, "read", no_read)
        with pytest.raises(LocalError):
            fs.tree.read(handle, 0, 20)
    assert bytes(fs.tree.read(handle, 0, 20)) == b"aaaaaPATCHaaaaaaaaaa"
    finish(fs, handle)
    fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert other.read_bytes("/file") == b"aaaaaPATCH" + b"a" * (2 * BLOCK - 10)


def test_a_rename_that_fails_keeps_its_target(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that the journal refuses must not have dropped the new file under its target."""
    fs = space.connect()
    fs.write_bytes("/source", b"source")
    handle = create(fs, b"target")
    fs.tree.write(handle, 0, b"precious")
    fs.tree.fsync(handle)
    book = parts_of(fs).book
    append = book.append

    def no_rename(record: Any, **options: Any) -> Any:
        if isinstance(record, OpRecord) and isinstance(record.op, Rename):
            raise DiskFull("The disk is full.")
        return append(record, **options)

    with monkeypatch.context() as patch:
        patch.setattr(book, "append", no_rename)
        with pytest.raises(DiskFull):
            fs.tree.rename(1, b"source", 1, b"target")
    finish(fs, handle)
    fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert sorted(other.listdir("/")) == ["source", "target"]
        assert other.read_bytes("/target") == b"precious"
        assert other.read_bytes("/source") == b"source"


def test_a_handle_follows_its_bytes_into_the_conflict_copy(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handle whose first bytes became a conflict copy must not write over the other's file."""
    fs, other = space.connect("a"), space.connect("b")
    fs.write_bytes("/file", b"base base base")
    fs.sync(timeout=WAIT_S)
    assert other.refresh(WAIT_S)
    theirs = b"B" * 29
    with monkeypatch.context() as patch:
        patch.setattr(fs.tree._opened.committer, "_ready", lambda: [])
        first, second = reopen(fs, "/file"), reopen(fs, "/file")
        fs.tree.write(first, 0, b"AAAA-first ")
        fs.tree.write(second, 11, b"xyz")
        finish(fs, first)
        other.write_bytes("/file", theirs)
        other.sync(timeout=WAIT_S)
        assert fs.refresh(WAIT_S)
    fs.sync(timeout=WAIT_S)
    assert bytes(fs.tree.read(second, 0, 100)) == b"AAAA-first xyz"
    fs.tree.write(second, 11, b"A-SECOND")
    finish(fs, second)
    fs.sync(timeout=WAIT_S)
    assert other.refresh(WAIT_S)
    for one in (fs, other):
        found = sorted(one.read_bytes(f"/{name}") for name in one.listdir("/"))
        assert found == [b"AAAA-first A-SECOND", theirs]
        assert one.read_bytes("/file") == theirs


def test_a_failed_write_leaves_nothing_beyond_the_end(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of a write that failed must not come up when the file grows over them."""
    fs = space.connect()
    handle = create(fs, b"file")
    fs.tree.write(handle, 0, b"abc")
    with monkeypatch.context() as patch:
        patch.setattr(parts_of(fs).staged, "seal", is_full)
        with pytest.raises(DiskFull):
            fs.tree.write(handle, BLOCK - 1000, b"Z" * (1000 + 2 * BLOCK))
    assert fs.tree.attributes(handle.ino).size == 3
    fs.tree.set_attributes(handle.ino, size=BLOCK, handle=handle)
    assert bytes(fs.tree.read(handle, 0, BLOCK)) == b"abc" + bytes(BLOCK - 3)
    finish(fs, handle)
    assert fs.read_bytes("/file") == b"abc" + bytes(BLOCK - 3)


def test_a_cut_that_the_journal_refused_is_not_acknowledged(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """truncate(2) must not say yes to a cut that is in memory only."""
    fs = space.connect()
    fs.write_bytes("/file", b"abcdef")
    fs.sync(timeout=WAIT_S)
    ino = fs.stat("/file").ino
    book = parts_of(fs).book
    with monkeypatch.context() as patch:
        patch.setattr(book, "append", is_full)
        patch.setattr(book, "append_many", is_full)
        with pytest.raises(DiskFull):
            fs.tree.set_attributes(ino, size=2)
    fs.tree.set_attributes(ino, size=4)
    space.crash(fs)
    # The refused cut may have been made when there was room again; then the file grew.
    assert space.connect().read_bytes("/file") in (b"abcd", b"ab\0\0")


def test_a_new_file_that_met_a_full_journal_is_published_later(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose release failed must not stay private until somebody asks for a sync."""
    fs = space.connect()
    parts = parts_of(fs)
    handle = create(fs, b"file")
    fs.tree.write(handle, 0, b"abc")
    fs.tree.flush(handle)
    fs.tree._ticker.close()
    with monkeypatch.context() as patch:
        patch.setattr(parts.book, "append", is_full)
        fs.tree.release(handle)
    draft = parts.table.get(handle.ino)
    assert draft is not None and parts.publisher.problem
    fs.tree._publish_due()
    assert parts.table.get(handle.ino) is None
    assert parts.order.wait_settled(parts.order.last, WAIT_S)
    with space.connect("b") as other:
        assert other.read_bytes("/file") == b"abc"


def test_a_segment_is_uploaded_though_its_note_failed(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that was full for a moment must not keep a finished segment from the store."""
    fs = space.connect()
    book = parts_of(fs).book
    note = book.note
    refused: list[Any] = []

    def no_first_segment(record: Any, **options: Any) -> Any:
        if isinstance(record, SegmentRecord) and not refused:
            refused.append(record)
            raise DiskFull("The disk is full.")
        return note(record, **options)

    monkeypatch.setattr(book, "note", no_first_segment)
    data = some_bytes(1, 5 * BLOCK)
    fs.write_bytes("/file", data)
    fs.sync(timeout=10.0)
    assert refused
    with space.connect("b") as other:
        assert other.read_bytes("/file") == data


def test_a_file_without_a_name_may_be_larger_than_memory(space: Space) -> None:
    """Small writes all over an unlinked file must not fail when their blocks fill the memory."""
    fs = space.connect(memory_bytes=48 << 20, write_wait_s=4.0)
    handle = create(fs, b"file")
    fs.tree.unlink(1, b"file")
    blocks = Random(1).sample(range(1000), 1000)
    for block in blocks:
        at = block * BLOCK + 60_000
        assert fs.tree.write(handle, at, b"%04d" % block * 512) == 2048
    for block in blocks[::50]:
        read = bytes(fs.tree.read(handle, block * BLOCK + 59_996, 8))
        assert read == bytes(4) + b"%04d" % block
    finish(fs, handle)
    assert fs.listdir("/") == []


def test_sync_waits_for_a_file_that_is_written_all_the_time(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sync() must not return while what was written before it is only queued."""
    fs, other = space.connect("a"), space.connect("b")
    blocks = 400
    fs.write_bytes("/file", some_bytes(1, blocks * BLOCK))
    fs.sync(timeout=WAIT_S)
    assert other.refresh(WAIT_S)
    handle, busy = reopen(other, "/file"), reopen(other, "/file")
    other.tree.write(handle, 100, b"BEFORE SYNC")
    other.tree.flush(handle)
    drafting = parts_of(other).drafting
    fetch: Callable[..., None] = drafting.fetch_missing
    later = iter(range(40, blocks, 40))

    def fetch_while_the_other_writes(draft: Draft, missing: Any) -> None:
        fetch(draft, missing)
        block = next(later, None)
        if block is not None:
            other.tree.write(busy, block * BLOCK + 50, b"w")

    monkeypatch.setattr(drafting, "fetch_missing", fetch_while_the_other_writes)
    other.sync(timeout=WAIT_S)
    space.plans["b"].die()
    assert fs.refresh(WAIT_S)
    with fs.open("/file", "rb", 0) as file:
        file.seek(100)
        assert file.read(11) == b"BEFORE SYNC"
