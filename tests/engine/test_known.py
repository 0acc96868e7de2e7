"""Names and attributes that the engine answers by itself: never older than a change that was
told."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from lucid.engine.known import (
    DIRECTORY_COUNT,
    HASH_COUNT,
    LONGEST_NAME,
    SET_COUNT,
    KnownTable,
)


def attributes(ino: int, size: int = 0) -> tuple[int, ...]:
    return (ino, 0o100644, 1, 1000, 100, 0, size, -(-size // 512), -1, 10**18, 10**18 + 1)


@pytest.fixture
def known() -> KnownTable:
    made = KnownTable()
    made.begin()
    return made


def test_what_was_kept_is_answered_whole(known: KnownTable) -> None:
    for ino in (1, 7 << 32, (1 << 63) - 1, -5):
        found = attributes(ino, size=1 << 60)
        assert known.keep(known.ticket(), found)
        assert known.inode(ino) == found
        assert known.keep_name(known.ticket(), 1, b"name", ino)
        assert known.name(1, b"name") == found
    assert known.name(2, b"name") is None
    assert known.name(1, b"nam") is None
    assert known.inode(2) is None
    assert known.stats() == {"hits": 8, "passes": 3}


def test_nothing_is_kept_before_it_begins_and_after_it_has_ended() -> None:
    known = KnownTable()
    assert not known.keep(known.ticket(), attributes(5))
    assert not known.keep_name(known.ticket(), 1, b"a", 5)
    early = known.ticket()
    known.begin()
    assert not known.keep(early, attributes(5)), "found while nobody told of changes"
    assert known.keep(known.ticket(), attributes(5))
    known.begin()
    assert known.inode(5) is None, "begun anew"
    assert known.keep(known.ticket(), attributes(5))
    known.end()
    assert known.inode(5) is None
    assert not known.keep(known.ticket(), attributes(5))
    known.changed(5)
    known.name_changed((1, b"a"))
    known.all_changed()


def test_a_change_is_believed_at_once(known: KnownTable) -> None:
    known.keep(known.ticket(), attributes(5))
    known.keep_name(known.ticket(), 1, b"a", 5)
    known.changed(5)
    assert known.inode(5) is None
    assert known.name(1, b"a") is None, "a name without its inode is no answer"
    known.keep(known.ticket(), attributes(5, 9))
    assert known.name(1, b"a") == attributes(5, 9)
    known.name_changed((1, b"a"))
    assert known.name(1, b"a") is None
    assert known.inode(5) == attributes(5, 9)
    known.all_changed()
    assert known.inode(5) is None


def test_what_was_found_before_a_change_is_not_kept(known: KnownTable) -> None:
    ticket = known.ticket()
    known.changed(5)
    known.name_changed((1, b"a"))
    assert not known.keep(ticket, attributes(5))
    assert not known.keep_name(ticket, 1, b"a", 5)
    assert known.keep(ticket, attributes(6)), "another inode did not change"
    assert known.keep_name(ticket, 1, b"b", 6)
    assert known.keep(known.ticket(), attributes(5))
    ticket = known.ticket()
    known.all_changed()
    assert not known.keep(ticket, attributes(7))


def test_a_name_may_be_as_long_as_there_is_room(known: KnownTable) -> None:
    known.keep(known.ticket(), attributes(5))
    longest, longer = b"n" * LONGEST_NAME, b"n" * (LONGEST_NAME + 1)
    assert known.keep_name(known.ticket(), 1, longest, 5)
    assert known.name(1, longest) == attributes(5)
    assert not known.keep_name(known.ticket(), 1, longer, 5)
    assert known.name(1, longer) is None
    known.name_changed((1, longer))
    assert known.name(1, b"n" * 255) is None


def test_it_is_as_large_as_it_was_made(known: KnownTable) -> None:
    """Far more than there is room for: every answer is right, and most places are in use."""
    count = 6 * SET_COUNT
    for ino in range(1, count):
        ticket = known.ticket()
        assert known.keep(ticket, attributes(ino, ino))
        assert known.keep_name(ticket, ino % 7, b"%d" % ino, ino)
    found = 0
    for ino in range(1, count):
        answer = known.name(ino % 7, b"%d" % ino)
        assert answer in (None, attributes(ino, ino))
        found += answer is not None
    assert 2 * SET_COUNT < found <= 4 * SET_COUNT


def test_what_stat_has_no_room_for_is_not_kept(known: KnownTable) -> None:
    for field in range(11):
        wrong = list(attributes(5))
        wrong[field] = 1 << 64
        assert not known.keep(known.ticket(), tuple(wrong))
    assert known.inode(5) is None
    assert not known.keep(known.ticket(), attributes(0)), "there is no inode 0"
    with pytest.raises(TypeError, match="11 numbers"):
        known.keep(known.ticket(), (5, 6))
    with pytest.raises(TypeError):
        known.name_changed((1, None))  # type: ignore[arg-type]


def test_nobody_sees_what_was_before_a_change_that_was_told(known: KnownTable) -> None:
    """One thread changes, others look and keep what they found, as slowly as they like."""
    truth = [0]
    wrong: list[tuple[int, int]] = []
    over = threading.Event()

    def change() -> None:
        for size in range(1, 20_000):
            truth[0] = size
            known.changed(5)
            found = known.inode(5)
            if found is not None and found[6] < size:
                wrong.append((size, found[6]))
        over.set()

    def look() -> None:
        while not over.is_set():
            ticket = known.ticket()
            known.keep(ticket, attributes(5, truth[0]))

    threads = [threading.Thread(target=look) for _ in range(3)]
    threads.append(threading.Thread(target=change))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_names_that_were_never_in_a_new_directory_are_absent(known: KnownTable) -> None:
    assert not known.is_absent(7, b"a"), "nothing is known of it"
    known.directory_is_new(7)
    assert known.is_absent(7, b"a")
    assert not known.is_absent(8, b"a")
    known.name_changed((7, b"a"))
    assert not known.is_absent(7, b"a")
    assert known.is_absent(7, b"b")
    known.name_changed((7, b"a"))
    assert not known.is_absent(7, b"a"), "it went, and that is for others to say"
    known.directory_is_new(7)
    assert not known.is_absent(7, b"a"), "told twice"
    known.all_changed()
    assert not known.is_absent(7, b"b")
    known.end()
    known.directory_is_new(7)
    assert not known.is_absent(7, b"b")


def test_private_names_are_noted_before_their_directory_is_known(known: KnownTable) -> None:
    known.name_changed((7, b"a"), True)
    known.name_changed((7, b"b"))
    known.directory_is_new(7)
    assert not known.is_absent(7, b"a")


def test_too_many_names_or_directories_and_nothing_is_absent(known: KnownTable) -> None:
    known.directory_is_new(7)
    for number in range(HASH_COUNT):
        known.name_changed((7, b"%d" % number))
    assert known.is_absent(7, b"x"), "all of them fit"
    known.name_changed((8, b"mine"), True)
    assert not known.is_absent(7, b"x")
    known.directory_is_new(8)
    assert not known.is_absent(8, b"mine"), "a private name is noted also then"
    assert known.is_absent(8, b"x")
    known.all_changed()
    known.directory_is_new(7)
    for number in range(HASH_COUNT):
        known.name_changed((7, b"%d" % number))
    known.name_changed((7, b"one more"))
    assert not known.is_absent(7, b"x")
    for ino in range(1, DIRECTORY_COUNT + 1):
        known.directory_is_new(ino << 32)
    assert known.is_absent(1 << 32, b"x")
    known.directory_is_new(5)
    assert not known.is_absent(1 << 32, b"x"), "the older ones went"
    assert known.is_absent(5, b"x")


def test_private_names_without_end_in_directories_that_are_not_new(known: KnownTable) -> None:
    """There is always a free place in the table of hashes: whoever looks for one ends."""
    for number in range(3 * HASH_COUNT):
        known.name_changed((7, b"%d" % number), True)
    known.directory_is_new(8)
    assert known.is_absent(8, b"x")
    assert not known.is_absent(7, b"x")


def test_a_directory_that_is_touched_shows_the_time(known: KnownTable) -> None:
    found = attributes(5)
    mtime = found[9]
    known.keep(known.ticket(), found, mtime + 100)
    known.directory_touched(5, mtime + 101, 0)
    assert known.inode(5) == (*found[:9], mtime + 101, mtime + 101)
    ticket = known.ticket()
    known.directory_touched(5, mtime + 102, 0)
    assert not known.keep(ticket, found), "found before"
    known.directory_touched(5, mtime + 90, 0)
    assert known.inode(5) is None, "earlier than what is there: others have to say"
    for time_ns, more in ((mtime + 50, 0), (mtime + 200, 1), (mtime + 200, -1)):
        known.keep(known.ticket(), found, mtime + 100)
        known.directory_touched(5, time_ns, more)
        assert known.inode(5) is None
    known.keep(known.ticket(), found)
    known.directory_touched(5, mtime + 1000, 0)
    assert known.inode(5) is None, "nobody said from when on its time moves"


INODES = st.integers(1, 6)
NAMES = st.tuples(st.integers(1, 2), st.sampled_from((b"a", b"b")))


class KnownMachine(RuleBasedStateMachine):
    """What is answered is what was put last, and not since changed."""

    def __init__(self) -> None:
        super().__init__()
        self.known = KnownTable()
        self.known.begin()
        self.inodes: dict[int, tuple[int, ...]] = {}
        self.names: dict[tuple[int, bytes], int] = {}
        self.ticket = self.known.ticket()
        self.since: set[object] = set()

    @rule()
    def take_ticket(self) -> None:
        self.ticket, self.since = self.known.ticket(), set()

    @rule(ino=INODES, size=st.integers(0, 9))
    def keep(self, ino: int, size: int) -> None:
        kept = self.known.keep(self.ticket, attributes(ino, size))
        assert not (kept and ino in self.since)
        if kept:
            self.inodes[ino] = attributes(ino, size)

    @rule(name=NAMES, ino=INODES)
    def keep_name(self, name: tuple[int, bytes], ino: int) -> None:
        kept = self.known.keep_name(self.ticket, *name, ino)
        assert not (kept and name in self.since)
        if kept:
            self.names[name] = ino

    @rule(ino=INODES)
    def changed(self, ino: int) -> None:
        self.known.changed(ino)
        self.inodes.pop(ino, None)
        self.since.add(ino)

    @rule(name=NAMES)
    def name_changed(self, name: tuple[int, bytes]) -> None:
        self.known.name_changed(name)
        self.names.pop(name, None)
        self.since.add(name)

    @rule()
    def all_changed(self) -> None:
        self.known.all_changed()
        self.inodes.clear()
        self.names.clear()
        self.since = {*range(1, 7), *((parent, name) for parent in (1, 2) for name in (b"a", b"b"))}

    @rule(ino=INODES)
    def ask(self, ino: int) -> None:
        assert self.known.inode(ino) == self.inodes.get(ino)

    @rule(name=NAMES)
    def ask_name(self, name: tuple[int, bytes]) -> None:
        want = self.inodes.get(self.names.get(name, 0))
        assert self.known.name(*name) == want


TestKnown = KnownMachine.TestCase
TestKnown.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
