"""A drive against its model, whatever is done to it: written, cut, renamed, spilled, cut off from
the store, killed, closed, opened anew (S-6, S-8, S-9, S-22, S-27)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from random import Random
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lucid.errors import StoreUnavailable
from tests.filespace.drive_model import ROOT, ModelDrive, ModelFile, OpenFile, Place
from tests.filespace.knowing import Knowing
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of

NAMES = (b"a", b"b", b"c", b"d.txt")
NEAR = (0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 7, 2 * BLOCK, 3 * BLOCK + 5)
SIZES = (1, 7, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 9)

names = st.tuples(st.booleans(), st.sampled_from(NAMES))
offsets = st.sampled_from(NEAR)
sizes = st.sampled_from(SIZES)
picks = st.integers(0, 1000)


class DriveMachine(RuleBasedStateMachine):
    """Rules are what programs, machines and networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.space = Space(self.root)
        self.machine = 0
        self.offline = False
        self.seed = Random(5)
        self.model = ModelDrive()
        self.touched: set[ModelFile] = set()
        self.fs = self.space.connect("0", read_timeout_s=5.0)
        self.knowing = Knowing(self.tree)
        self.inner = self.tree.mkdir(ROOT, b"inner", 0o755, 0, 0).ino

    @property
    def tree(self):  # type: ignore[no-untyped-def]
        return self.fs.tree

    @property
    def name(self) -> str:
        return str(self.machine)

    def place(self, where: tuple[bool, bytes]) -> Place:
        return (self.inner if where[0] else ROOT, where[1])

    def some_open(self, pick: int, writable: bool = False) -> OpenFile | None:
        fitting = [one for one in self.model.open_files if one.writable or not writable]
        return fitting[pick % len(fitting)] if fitting else None

    # -- files

    @rule(where=names)
    def create(self, where: tuple[bool, bytes]) -> None:
        place = self.place(where)
        if place in self.model.names:
            return
        handle, attributes = self.tree.create(*place, 0o644, 0, 0, os.O_RDWR)
        file = ModelFile(attributes.ino)
        file.changed()
        self.model.names[place] = file
        self.model.open_files.append(OpenFile(handle, file, True, False, True))

    @rule(where=names, how=st.sampled_from((os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND)),
          cut=st.booleans())  # fmt: skip
    def open(self, where: tuple[bool, bytes], how: int, cut: bool) -> None:
        file = self.model.names.get(self.place(where))
        if file is None or len(self.model.open_files) > 6:
            return
        cut = cut and how != os.O_RDONLY
        handle = self.tree.open(file.ino, how | (os.O_TRUNC if cut else 0))
        one = OpenFile(handle, file, how != os.O_RDONLY, bool(how & os.O_APPEND), False)
        self.model.open_files.append(one)
        if cut and file.data:
            file.truncate(0)
            one.wrote = True

    @rule(pick=picks, offset=offsets, size=sizes, zeros=st.booleans())
    def write(self, pick: int, offset: int, size: int, zeros: bool) -> None:
        one = self.some_open(pick, writable=True)
        if one is None:
            return
        data = bytes(size) if zeros and size > 4096 else self.seed.randbytes(size)
        assert self.tree.write(one.handle, offset, data) == size
        one.file.write(len(one.file.data) if one.append else offset, data)
        one.wrote = True
        self.touched.add(one.file)

    @rule(where=names, size=st.one_of(offsets, st.integers(0, 3 * BLOCK)), by=picks)
    def truncate(self, where: tuple[bool, bytes], size: int, by: int) -> None:
        file = self.model.names.get(self.place(where))
        if file is None:
            return
        handles = [o for o in self.model.open_files if o.file is file and o.writable]
        one = handles[by % len(handles)] if handles and by % 2 else None
        self.tree.set_attributes(file.ino, size=size, handle=one.handle if one else None)
        file.truncate(size)
        if one is not None:
            one.wrote = True
        elif not self.model.writers(file) and not self.offline:
            self.model.published(file)
        elif not self.model.writers(file):
            file.durable()
        self.touched.add(file)

    @rule(pick=picks, sync=st.booleans())
    def flush(self, pick: int, sync: bool) -> None:
        one = self.some_open(pick)
        if one is None:
            return
        (self.tree.fsync if sync else self.tree.flush)(one.handle)
        if one.writable and self.model.links(one.file):
            one.file.durable()

    @rule(pick=picks)
    def close(self, pick: int) -> None:
        one = self.some_open(pick)
        if one is None:
            return
        self.tree.flush(one.handle)
        self.tree.release(one.handle)
        self.model.open_files.remove(one)
        last = not any(other.file is one.file for other in self.model.open_files)
        if self.model.links(one.file) and (one.wrote or last or one.writable):
            one.file.durable()
        self.touched.add(one.file)

    @rule(pick=picks, offset=offsets, size=sizes)
    def read(self, pick: int, offset: int, size: int) -> None:
        one = self.some_open(pick)
        if one is None or one.append:
            return
        want = bytes(one.file.data[offset : offset + size])
        try:
            assert bytes(self.tree.read(one.handle, offset, size)) == want
        except StoreUnavailable:
            assert self.offline

    # -- names and attributes

    @rule(where=names)
    def unlink(self, where: tuple[bool, bytes]) -> None:
        file = self.model.names.pop(self.place(where), None)
        if file is not None:
            self.tree.unlink(*self.place(where))

    @rule(old=names, new=names)
    def rename(self, old: tuple[bool, bytes], new: tuple[bool, bytes]) -> None:
        source, target = self.place(old), self.place(new)
        file = self.model.names.get(source)
        if file is None:
            return
        self.tree.rename(*source, *target)
        if self.model.names.get(target) is file:
            return
        self.model.names[target] = self.model.names.pop(source)
        file.flushed = True
        file.since = [bytes(file.data)]

    @rule(old=names, new=names)
    def link(self, old: tuple[bool, bytes], new: tuple[bool, bytes]) -> None:
        file = self.model.names.get(self.place(old))
        if file is None or self.place(new) in self.model.names:
            return
        self.tree.link(file.ino, *self.place(new))
        self.model.names[self.place(new)] = file
        file.durable()

    @rule(where=names, mode=st.sampled_from((0o600, 0o640, 0o755)), value=st.binary(max_size=20))
    def set_attributes(self, where: tuple[bool, bytes], mode: int, value: bytes) -> None:
        file = self.model.names.get(self.place(where))
        if file is None:
            return
        self.tree.set_attributes(file.ino, mode=mode)
        self.tree.set_xattr(file.ino, b"user.note", value)
        file.mode, file.xattrs[b"user.note"] = mode, value

    # -- what memory, disk and network do

    @rule()
    def spill(self) -> None:
        parts = parts_of(self.fs)
        for draft in parts.table.all():
            parts.drafting.spill(draft)

    @rule()
    def empty_journal(self) -> None:
        book = parts_of(self.fs).book
        newest = book.journal.append(_nothing()).file
        with mock.patch.object(book.journal, "worth_emptying", return_value=newest):
            assert book.empty_if_worth()

    @rule()
    def go_offline(self) -> None:
        self.offline = True
        self.space.plans[self.name].die()

    @precondition(lambda self: self.offline)
    @rule()
    def come_back(self) -> None:
        self.offline = False
        self.space.plans[self.name].revive()

    @precondition(lambda self: not self.offline)
    @rule()
    def sync(self) -> None:
        self.fs.sync(timeout=WAIT_S)
        for file in self.model.names.values():
            file.public = True
            file.durable()

    @rule()
    def crash(self) -> None:
        self.space.crash(self.fs, self.name)
        self.model.open_files.clear()
        self._reopen()
        for place, file in list(self.model.names.items()):
            self._after_crash(place, file)

    def _after_crash(self, place: Place, file: ModelFile) -> None:
        """The file has one of the states that it may have."""
        found = {entry.name: entry.attributes for entry in self.tree.readdir(place[0], 0, 100)}
        if place[1] not in found:
            assert not file.flushed and not file.public, "a file that had a FLUSH is lost"
            del self.model.names[place]
            return
        if not file.flushed:
            file.mode = found[place[1]].mode & 0o7777
            file.xattrs = {
                name: self.tree.get_xattr(file.ino, name)
                for name in self.tree.list_xattrs(file.ino)
            }
        now = self._content(file.ino)
        if now is None:
            now = next(s for s in reversed(file.since) if len(s) == found[place[1]].size)
            file.since = [s for s in file.since if len(s) == len(now)]
            file.data = bytearray(now)
            return
        assert now in file.since, "bytes that were never there, or not any more"
        file.data = bytearray(now)
        file.durable()

    @rule()
    def restart(self) -> None:
        self.fs.close(wait=False)
        self._forget_handles()
        self._reopen()

    @precondition(lambda self: not self.offline)
    @rule()
    def move_to_another_machine(self) -> None:
        self.fs.close(wait=True, timeout=WAIT_S)
        self._forget_handles()
        self.machine += 1
        self._reopen()

    def _forget_handles(self) -> None:
        self.model.open_files.clear()
        for file in self.model.names.values():
            file.durable()

    def _reopen(self) -> None:
        plan = self.space.plans.get(self.name)
        self.fs = self.space.connect(self.name, plan=_again(self.offline), read_timeout_s=5.0)
        self.knowing = Knowing(self.tree)
        del plan

    # -- comparing

    def _content(self, ino: int) -> bytes | None:
        """All bytes of a file; None where the store would be needed and is away."""
        handle = self.tree.open(ino, os.O_RDONLY)
        try:
            data = b""
            while part := bytes(self.tree.read(handle, len(data), 1 << 20)):
                data += part
            return data
        except StoreUnavailable:
            assert self.offline
            return None
        finally:
            self.tree.release(handle)

    @invariant()
    def answers_are_true(self) -> None:
        self.knowing.look()

    @invariant()
    def names_agree(self) -> None:
        for directory in (ROOT, self.inner):
            found = {e.name: e.attributes for e in self.tree.readdir(directory, 0, 100)}
            found.pop(b"inner", None)
            want = self.model.in_directory(directory)
            assert set(found) == set(want)
            for name, file in want.items():
                assert found[name].ino == file.ino
                assert found[name].size == len(file.data)
                assert found[name].nlink == self.model.links(file)
                assert found[name].mode & 0o7777 == file.mode

    @invariant()
    def touched_files_agree(self) -> None:
        for file in self.touched:
            if self.model.links(file):
                assert self._content(file.ino) in (bytes(file.data), None)
        self.touched.clear()

    def all_agree(self) -> None:
        for file in set(self.model.names.values()):
            assert self._content(file.ino) in (bytes(file.data), None)
            assert {
                name: self.tree.get_xattr(file.ino, name)
                for name in self.tree.list_xattrs(file.ino)
            } == file.xattrs

    def teardown(self) -> None:
        try:
            self.all_agree()
            if self.offline:
                self.come_back()
            self.move_to_another_machine()
            self.names_agree()
            self.all_agree()
        finally:
            self.space.close()
            shutil.rmtree(self.root)


def _again(offline: bool):  # type: ignore[no-untyped-def]
    from lucid.store.faulty import FaultPlan

    plan = FaultPlan()
    if offline:
        plan.die()
    return plan


def _nothing():  # type: ignore[no-untyped-def]
    from lucid.format.journal import Limit

    return Limit(0)


DriveMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("DRIVE_EXAMPLES", "12")),
    stateful_step_count=int(os.environ.get("DRIVE_STEPS", "40")),
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
TestDrive = DriveMachine.TestCase
