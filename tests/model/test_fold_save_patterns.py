"""How programs save a file, done by two machines at once: in every order that the log can have,
both texts are there afterwards, and nothing else lies about."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest

from lucid.format.ops import ROOT_INO, Content, Op
from lucid.meta.memory import MemoryState
from tests.meta.authors import Author, look, tree
from tests.meta.invariants import check_state
from tests.model.writers import Log, Writer

NAME = b"report.odt"
TEXTS = {b"ann": b"the report, as ann has it", b"bea": b"the report, as bea has it, longer"}


class Program:
    """A program on one machine: each call is an op that is right in the machine's own view."""

    def __init__(self, log: Log, session: int) -> None:
        self.writer = Writer(log, session)
        self.author: Author = self.writer.author
        self.text = TEXTS[self.author.who.member_label]

    @property
    def view(self) -> MemoryState:
        return self.writer.view

    def make(self, name: bytes, content: bytes) -> None:
        self.writer.do(self.author.create(ROOT_INO, name, content), content)

    def move(self, name: bytes, new_name: bytes) -> None:
        self.writer.do(self.author.rename(self.view, ROOT_INO, name, ROOT_INO, new_name))

    def remove(self, name: bytes) -> None:
        self.writer.do(self.author.unlink(self.view, ROOT_INO, name))

    def write(self, name: bytes, content: bytes) -> None:
        op: Content = self.author.content(self.view, ROOT_INO, name, content)
        self.writer.do(op, content)

    def touch(self, name: bytes) -> None:
        ino = look(self.view, ROOT_INO, name)[0]
        self.writer.do(self.author.setattr(ino, mode=0o600, mtime_ns=1))


def in_place(program: Program) -> None:
    """open with O_TRUNC, write, close."""
    program.write(NAME, program.text)


def vim(program: Program) -> None:
    """Its swap file, the old file renamed away, a new one, the old one removed."""
    program.make(b".report.swp", b"")
    program.move(NAME, NAME + b"~")
    program.make(NAME, program.text)
    program.remove(NAME + b"~")
    program.remove(b".report.swp")


def libreoffice(program: Program) -> None:
    """A lock file, a new file under a name of its own, renamed over, the lock removed."""
    program.make(b".~lock.report.odt#", program.author.who.member_label)
    program.make(b"lu%d.tmp" % program.author.who.session, program.text)
    program.move(b"lu%d.tmp" % program.author.who.session, NAME)
    program.remove(b".~lock.report.odt#")


def word(program: Program) -> None:
    """The new file, the old one renamed to a backup, the new one renamed, the backup removed."""
    program.make(b"~WRD0000.tmp", program.text)
    program.move(NAME, b"~WRL0001.tmp")
    program.move(b"~WRD0000.tmp", NAME)
    program.remove(b"~WRL0001.tmp")


def rsync(program: Program) -> None:
    """A hidden file of one name for all, its attributes, renamed over."""
    program.make(b".report.odt.Xy12", program.text)
    program.touch(b".report.odt.Xy12")
    program.move(b".report.odt.Xy12", NAME)


def git(program: Program) -> None:
    """A lock of one name, which becomes the file; twice."""
    for content in (b"first, of " + program.text, program.text):
        program.make(NAME + b".lock", content)
        program.move(NAME + b".lock", NAME)


def orders(one: list[Op], two: list[Op]) -> list[list[tuple[int, Op]]]:
    """Every order of a log that has these ops of two machines, each in its own order."""
    found = []
    length = len(one) + len(two)
    for places in combinations(range(length), len(one)):
        first, second = iter(one), iter(two)
        turns = [1 if turn in places else 2 for turn in range(length)]
        found.append([(turn, next(first if turn == 1 else second)) for turn in turns])
    return found


@pytest.mark.parametrize("save", [in_place, vim, libreoffice, word, rsync, git])
def test_two_who_save_at_once(save: Callable[[Program], None]) -> None:
    """S-71, S-73: one of them has the name, the other lies beside it."""
    log = Log()
    founder = Writer(log, 3)
    founder.do(founder.author.create(ROOT_INO, NAME, b"the old report"))
    founder.commit(1)
    ann, bea = Program(log, 1), Program(log, 2)
    for program in (ann, bea):
        save(program)
        assert tree(program.view, log.blocks) == {NAME.decode(): program.text}
    for order in orders(ann.writer.pending, bea.writer.pending):
        state = log.state()
        for session, op in order:
            (ann if session == 1 else bea).author.fold(state, op)
        check_state(state)
        found = tree(state, log.blocks)
        beside = set(found) - {NAME.decode()}
        assert len(found) == 2, found
        assert sorted(found.values()) == sorted(TEXTS.values())
        assert all(name.startswith("report (conflict ") for name in beside)


@pytest.mark.parametrize("save", [in_place, vim, libreoffice, word, rsync, git])
def test_many_saves_that_nobody_else_saw(save: Callable[[Program], None]) -> None:
    """S-73: five saves offline against one of another machine: one copy, with the last text."""
    log = Log()
    founder = Writer(log, 3)
    founder.do(founder.author.create(ROOT_INO, NAME, b"the old report"))
    founder.commit(1)
    ann, bea = Program(log, 1), Program(log, 2)
    save(ann)
    for number in range(5):
        bea.text = b"the report of bea, save %d" % number
        save(bea)
    ann.writer.commit(99)
    bea.writer.commit(99)
    found = tree(bea.view, log.blocks)
    assert found.pop(NAME.decode()) == ann.text
    assert list(found.values()) == [bea.text]
