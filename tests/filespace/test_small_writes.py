"""Writes smaller than a block, over a base that is elsewhere: what is acknowledged stays, through
cuts, spills, an emptied journal and kill -9 (S-8, S-22)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from lucid.errors import InternalError
from lucid.filespace import Filespace
from lucid.format.journal import Limit
from lucid.store.faulty import FaultPlan
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of, some_bytes

BASE = some_bytes(1, 3 * BLOCK)


class Writer:
    """One file whose base is in the store only, and its content as it must be."""

    def __init__(self, space: Space) -> None:
        self.space = space
        with space.connect("maker") as maker:
            maker.write_bytes("/file", BASE)
        self.fs = space.connect("a")
        self.want = bytearray(BASE)
        self.cut_off()
        self.open()

    def cut_off(self) -> None:
        """From now on blocks cannot be built: the base is not here."""
        self.space.plans["a"].die()

    def open(self) -> None:
        tree = self.fs.tree
        self.ino = tree.lookup(1, b"file").ino
        self.handle = tree.open(self.ino, os.O_RDWR)

    def write(self, offset: int, data: bytes) -> None:
        self.fs.tree.write(self.handle, offset, data)
        end = offset + len(data)
        self.want.extend(bytes(max(0, end - len(self.want))))
        self.want[offset:end] = data

    def truncate(self, size: int) -> None:
        self.fs.tree.set_attributes(self.ino, size=size, handle=self.handle)
        del self.want[size:]
        self.want.extend(bytes(size - len(self.want)))

    def flush(self) -> None:
        self.fs.tree.flush(self.handle)

    def close(self) -> None:
        self.flush()
        self.fs.tree.release(self.handle)

    def spill(self) -> None:
        parts = parts_of(self.fs)
        for draft in parts.table.all():
            parts.drafting.spill(draft)

    def die_and_return(self, *, offline: bool = False) -> None:
        self.space.crash(self.fs, "a")
        plan = FaultPlan()
        if offline:
            plan.die()
        self.fs = self.space.connect("a", plan=plan)

    def check(self) -> None:
        """Here, and on a machine that knows nothing but the store."""
        self.space.plans["a"].revive()
        assert self.fs.read_bytes("/file") == self.want
        self.fs.sync(timeout=WAIT_S)
        with self.space.connect("b") as other:
            assert other.listdir("/") == ["file"]
            assert other.read_bytes("/file") == self.want


@pytest.fixture
def writer(space: Space) -> Writer:
    return Writer(space)


def empty_journal(fs: Filespace) -> None:
    """Make the journal move all that lives in it into a new file, as it does when little does."""
    book = parts_of(fs).book
    newest = book.note(Limit(0)).file
    with mock.patch.object(book.journal, "worth_emptying", return_value=newest):
        assert book.empty_if_worth()


def test_a_patch_is_there_after_a_crash(writer: Writer) -> None:
    writer.write(100, b"patched")
    writer.flush()
    writer.die_and_return(offline=True)
    writer.check()


def test_a_cut_does_not_forget_what_was_written_elsewhere(writer: Writer) -> None:
    writer.write(2 * BLOCK + 10, b"goes away")
    writer.spill()
    writer.write(10, b"stays")
    writer.truncate(2 * BLOCK)
    writer.flush()
    writer.die_and_return(offline=True)
    writer.check()


def test_what_was_cut_off_a_patch_does_not_come_back(writer: Writer) -> None:
    writer.write(2 * BLOCK + 10, b"x" * 100)
    writer.flush()
    writer.truncate(2 * BLOCK + 50)
    writer.truncate(2 * BLOCK + 300)
    writer.flush()
    writer.die_and_return(offline=True)
    writer.check()


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_file_that_was_being_written_anew_is_the_old_one(
    writer: Writer, is_emptied: bool
) -> None:
    """S-32, after a crash too, also where the old one was not published yet."""
    writer.write(100, b"patched")
    writer.write(BLOCK + 7, b"also")
    writer.close()
    handle = writer.fs.tree.open(writer.ino, os.O_WRONLY | os.O_TRUNC)
    writer.fs.tree.write(handle, 0, b"half of it")
    writer.fs.tree.set_attributes(writer.ino, size=4, handle=handle)
    if is_emptied:
        empty_journal(writer.fs)
    writer.die_and_return(offline=True)
    writer.check()


def test_a_file_that_was_written_anew_is_the_new_one(writer: Writer) -> None:
    writer.write(100, b"patched")
    writer.close()
    writer.handle = writer.fs.tree.open(writer.ino, os.O_RDWR | os.O_TRUNC)
    writer.want = bytearray()
    writer.write(50, b"all of it")
    writer.close()
    empty_journal(writer.fs)
    writer.die_and_return(offline=True)
    writer.check()


def test_a_publish_in_the_middle_of_which_the_journal_is_emptied_counts_once(
    space: Space,
) -> None:
    """What was saved of a file is not moved behind the op that came of it."""
    fs = space.connect("a")
    fs.write_bytes("/file", BASE)
    fs.sync(timeout=WAIT_S)
    space.plans["a"].die()
    order = parts_of(fs).order
    apply = order._apply

    def emptied_before(*arguments: Any) -> Any:
        empty_journal(fs)
        return apply(*arguments)

    with mock.patch.object(order, "_apply", emptied_before):
        fs.truncate("/file", BLOCK + 5)
    space.crash(fs, "a")
    fs = space.connect("a", plan=FaultPlan())
    fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert other.listdir("/") == ["file"]
        assert other.read_bytes("/file") == BASE[: BLOCK + 5]


def test_what_was_saved_of_a_file_outlives_an_op_that_failed(space: Space) -> None:
    fs = space.connect("a")
    order = parts_of(fs).order
    with mock.patch.object(order, "_apply", side_effect=InternalError("told to fail")):
        fs.write_bytes("/file", BASE)
    space.crash(fs, "a")
    fs = space.connect("a", plan=FaultPlan())
    fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert other.read_bytes("/file") == BASE


def test_a_cut_outlives_an_emptied_journal(writer: Writer) -> None:
    writer.write(2 * BLOCK + 10, b"x" * 100)
    writer.flush()
    writer.truncate(2 * BLOCK + 50)
    writer.truncate(2 * BLOCK + 300)
    writer.flush()
    empty_journal(writer.fs)
    writer.die_and_return(offline=True)
    writer.check()


def test_patches_outlive_an_emptied_journal(writer: Writer) -> None:
    for offset in (10, BLOCK + 10, 20, 12):
        writer.write(offset, b"%06d" % offset)
        writer.flush()
    empty_journal(writer.fs)
    writer.write(30, b"after")
    writer.flush()
    empty_journal(writer.fs)
    writer.die_and_return(offline=True)
    empty_journal(writer.fs)
    writer.die_and_return(offline=True)
    writer.check()


def test_a_draft_over_an_own_pending_version_outlives_two_crashes(space: Space) -> None:
    """The op that it lies on is journaled anew when it is recovered, behind the draft's image."""
    with space.connect("maker") as maker:
        maker.write_bytes("/file", BASE)
    fs = space.connect("a")
    fs.read_bytes("/file")
    space.plans["a"].die()
    want = bytearray(BASE)
    for offset in (10, BLOCK + 10):
        with fs.open("/file", "r+b", 0) as file:
            file.seek(offset)
            file.write(b"first")
        want[offset : offset + 5] = b"first"
    assert parts_of(fs).order.pending
    ino = fs.tree.lookup(1, b"file").ino
    handle = fs.tree.open(ino, os.O_RDWR)
    fs.tree.write(handle, 2 * BLOCK + 10, b"second")
    want[2 * BLOCK + 10 : 2 * BLOCK + 16] = b"second"
    fs.tree.flush(handle)
    for _ in range(3):
        space.crash(fs, "a")
        for cached in (space.state("a") / "cache").glob("*/*"):
            cached.unlink()  # So that the draft cannot be published, and stays a draft.
        plan = FaultPlan()
        plan.die()
        fs = space.connect("a", plan=plan)
    plan.revive()
    assert fs.read_bytes("/file") == want
    fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert other.listdir("/") == ["file"], "no conflict copy of ourselves"
        assert other.read_bytes("/file") == want


def test_a_mode_set_after_close_of_a_private_file_is_durable(space: Space) -> None:
    fs = space.connect("a")
    handle, made = fs.tree.create(1, b"new", 0o644, 0, 0, os.O_RDWR)
    fs.tree.write(handle, 0, b"some bytes")
    fs.tree.flush(handle)
    fs.tree.set_attributes(made.ino, mode=0o600)
    fs.tree.set_xattr(made.ino, b"user.note", b"kept")
    space.crash(fs, "a")
    again = space.connect("a")
    assert again.stat("/new").mode & 0o777 == 0o600
    assert again.tree.get_xattr(again.stat("/new").ino, b"user.note") == b"kept"


def test_the_state_directory_holds_no_more_than_it_must(space: Space, tmp_path: Path) -> None:
    """After a crash and a sync nothing is left in staging."""
    fs = space.connect("a")
    fs.write_bytes("/one", some_bytes(3, 3 * BLOCK + 17))
    space.crash(fs, "a")
    again = space.connect("a")
    again.sync(timeout=WAIT_S)
    assert again.read_bytes("/one") == some_bytes(3, 3 * BLOCK + 17)
    assert again.progress().staged_bytes == 0
