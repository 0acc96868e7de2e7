"""Whoever holds the bucket meddles with the log (S-51, S-52, S-54): what no member signed changes
nothing, what a member signed is not taken away unnoticed, and what was accepted here is kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from lucid.errors import HistoryFork, ObjectExists
from lucid.filespace import Filespace
from lucid.format.limits import ENTRY_MAX
from lucid.format.names import log_key
from lucid.meta.fold_floor import VALUE_FLOOR
from lucid.store.faulty import Fault
from lucid.sync import committer
from tests.filespace.spaces import BLOCK, WAIT_S, parts_of, some_bytes
from tests.hostile.scene import Lies, Scene, bucket_of, flipped, other_filespace, stopped_by

FILES = {f"/file{number}": some_bytes(number, 2 * BLOCK + number) for number in range(3)}


def write_files(scene: Scene, name: str = "a") -> None:
    """Machine "a" makes a session and one entry for each file: entries 2 to 5."""
    with scene.connect(name) as fs:
        for path, data in FILES.items():
            fs.write_bytes(path, data)
            fs.sync(timeout=WAIT_S)
    assert scene.entries() == [log_key(number) for number in range(1, 6)]


def contents(fs: Filespace) -> dict[str, bytes]:
    return {f"/{name}": fs.read_bytes(f"/{name}") for name in fs.listdir("/")}


def assert_fork(error: BaseException, says: str) -> None:
    """One sentence or two, the same for a person and a script."""
    assert isinstance(error, HistoryFork)
    assert error.exit_code == 10
    assert says in str(error)
    assert str(error).endswith(".")
    assert "\n" not in str(error)


def assert_refuses(scene: Scene, name: str, says: str) -> None:
    """The machine does not open to write, and leaves the log as it is."""
    before = scene.entries()
    for _ in range(2):
        with pytest.raises(HistoryFork) as caught:
            scene.connect(name)
        assert_fork(caught.value, says)
    assert scene.entries() == before


def foreign_entry(number: int) -> bytes:
    return other_filespace()[log_key(number)]


def quick_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "COMPARE_S", 0.1)


NO_ENTRIES: dict[str, Callable[[Scene], bytes]] = {
    "junk": lambda scene: some_bytes(9, 1000),
    "nothing": lambda scene: b"",
    "an old entry again": lambda scene: scene.get(log_key(4)),
    "the newest entry again": lambda scene: scene.get(log_key(5)),
    "a session again": lambda scene: scene.get(log_key(2)),
    "the first entry again": lambda scene: scene.get(log_key(1)),
    "an altered entry": lambda scene: flipped(scene.get(log_key(5)), 100),
    "an altered head of an entry": lambda scene: flipped(scene.get(log_key(5)), 30),
    "a cut entry": lambda scene: scene.get(log_key(5))[:-1],
    "an entry with more behind it": lambda scene: scene.get(log_key(5)) + b"x",
    "an entry of another filespace": lambda scene: foreign_entry(4),
    "one for this very number": lambda scene: foreign_entry(6),
    "the first entry of another filespace": lambda scene: foreign_entry(1),
}


@pytest.mark.parametrize("what", NO_ENTRIES)
def test_what_no_member_signed_for_its_number(scene: Scene, what: str) -> None:
    """It is void for everyone, counted, and life goes on."""
    write_files(scene)
    with scene.connect() as fs:
        scene.put(scene.next_entry(), NO_ENTRIES[what](scene))
        assert fs.refresh(WAIT_S)
        assert fs.status().void_entries == 1
        fs.write_bytes("/more", b"more")
        fs.sync(timeout=WAIT_S)
        assert fs.status().problem == ""
    with scene.connect("b") as other:
        assert contents(other) == {**FILES, "/more": b"more"}
        assert other.status().void_entries == 1
        assert other.status().problem == ""
    found = scene.check(read_data=True)
    assert (found.problems, found.void_entries) == ([], 1)


def test_an_entry_that_somebody_puts_while_ours_is_under_way(scene: Scene) -> None:
    """The number is lost, not the op."""
    with scene.connect() as fs:
        fs.sync(timeout=WAIT_S)
        for number in range(3, 9):
            scene.put(log_key(number), some_bytes(number, 100))
        for path, data in FILES.items():
            fs.write_bytes(path, data)
        fs.sync(timeout=WAIT_S)
        assert fs.status().void_entries == 6
    with scene.connect("b") as other:
        assert contents(other) == FILES


def test_junk_behind_the_end_of_the_log(scene: Scene) -> None:
    """It is no entry before the log has come to it, and no alarm."""
    write_files(scene)
    for key in (log_key(8), log_key(9), log_key((1 << 63) - 1)):
        scene.put(key, foreign_entry(4))
    scene.put("log/readme", b"not an entry")
    for name in ("a", "b"):
        with scene.connect(name) as fs:
            assert contents(fs) == FILES
            assert fs.status().problem == ""
            fs.write_bytes(f"/of-{name}", b"")
            fs.sync(timeout=WAIT_S)
            fs.remove(f"/of-{name}")
    with scene.connect("c") as fs:
        assert contents(fs) == FILES
        assert fs.status().void_entries == 2


def test_a_giant_where_an_entry_should_be(scene: Scene) -> None:
    write_files(scene)
    with scene.connect() as fs:
        scene.put(log_key(6), bytes(ENTRY_MAX + 4097))
        assert fs.refresh(WAIT_S)
        assert fs.status().void_entries == 1
        fs.write_bytes("/more", b"more")
    with scene.connect("b") as other:
        assert other.read_bytes("/more") == b"more"
        assert other.status().void_entries == 1


def test_an_object_without_an_end_where_an_entry_should_be(scene: Scene) -> None:
    """No request asks for more than an entry may have."""
    write_files(scene)
    fs = scene.connect()
    lies = scene.lies["a"]
    lies.endless.add(log_key(6))
    assert fs.refresh(WAIT_S)
    assert fs.status().void_entries == 1
    assert (lies.asked_max, lies.asked_all) == (ENTRY_MAX + 1, False)
    assert contents(fs) == FILES


def test_answers_that_are_lost_after_success(scene: Scene) -> None:
    """S-56: stored, and then 503. Everything is in the log exactly once."""
    with scene.connect() as fs:
        fs.sync(timeout=WAIT_S)
        plan = scene.plans["a"]
        entries = len(scene.entries())
        plan.script("put", [Fault.LOSE_ANSWER] * 2, prefix="log/")
        plan.script("put", [Fault.LOSE_ANSWER] * 2, prefix="data/")
        for path, data in FILES.items():
            fs.write_bytes(path, data)
        fs.sync(timeout=WAIT_S)
        assert [fault for _, _, fault in plan.happened] == [Fault.LOSE_ANSWER] * 4
        assert len(scene.entries()) <= entries + len(FILES)
    with scene.connect("b") as other:
        assert contents(other) == FILES
        for path in FILES:
            assert len(parts_of(other).replica.versions(other.stat(path).ino)) == 1
    assert scene.check(read_data=True).clean


def test_wrong_bytes_of_an_entry_once(scene: Scene) -> None:
    """S-52: read again before anything is called void."""
    with scene.connect("b") as other:
        other.sync(timeout=WAIT_S)
        plan = scene.plans["b"]
        for fault in (Fault.WRONG_BYTES, Fault.TRUNCATE):
            plan.script("get", [fault], prefix=scene.next_entry())
            with scene.connect() as fs:
                fs.write_bytes(f"/{fault.name}", b"bytes")
            assert other.refresh(WAIT_S)
            assert other.read_bytes(f"/{fault.name}") == b"bytes"
        assert other.status().void_entries == 0
        assert other.status().problem == ""


def test_wrong_bytes_of_an_entry_for_some_time(scene: Scene) -> None:
    """One device is shown junk where the others see an entry. It is parted from them, and stops as
    soon as it sees what follows; what it holds is kept, and no other device is harmed."""
    with scene.connect("a") as fs:
        fs.write_bytes("/first", b"first")
        fs.sync(timeout=WAIT_S)
        other = scene.connect("b")
        assert fs.refresh(WAIT_S)
        number = scene.next_entry()
        lies = scene.lies["b"]
        lies.instead[number] = b"junk"
        assert other.refresh(WAIT_S)
        assert other.status().void_entries == 1
        fs.write_bytes("/second", b"second")
        fs.sync(timeout=WAIT_S)
        lies.honest()
        fs.write_bytes("/third", b"third")
        fs.sync(timeout=WAIT_S)
        assert_fork(stopped_by(other), "another history")
        with pytest.raises(HistoryFork):
            other.write_bytes("/more", b"more")
        assert contents(other) == {"/first": b"first"}
        other.close(wait=False)
        for read_only in (False, True):
            again = scene.connect("b", read_only=read_only)
            assert again.status().problem
            assert again.read_bytes("/first") == b"first"
            again.close(wait=False)
    with scene.connect("new") as fs:
        assert sorted(contents(fs)) == ["/first", "/second", "/third"]


class _Denies:
    """A store that keeps an entry, and says that another one was there."""

    def __init__(self, scene: Scene, lies: Lies) -> None:
        self._scene = scene
        self._lies = lies

    def put_if_absent(self, key: str, body: Any) -> None:
        self._scene.hand.put_if_absent(key, body)
        if key.startswith("log/") and not self._lies.instead:
            self._lies.instead[key] = flipped(bytes(body), 90)
            raise ObjectExists("Somebody else was faster.")


def test_an_own_entry_that_is_shown_altered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its author takes it for lost and writes its ops again. Nobody applies them twice; both the
    author and who reads the log notice that there are two histories."""
    quick_compare(monkeypatch)
    fs = scene.connect("a")
    fs.sync(timeout=WAIT_S)
    lies = scene.lies["a"]
    lies.taken = _Denies(scene, lies)  # type: ignore[assignment]
    for path, data in FILES.items():
        fs.write_bytes(path, data)
    fs.sync(timeout=WAIT_S)
    assert fs.status().void_entries == 1
    lies.honest()
    assert_fork(stopped_by(fs), "is another one")
    assert contents(fs) == FILES
    fs.close(wait=False)
    assert_refuses(scene, "a", "is another one")
    with scene.connect("reader", read_only=True) as other:
        assert "another history" in other.status().problem
        assert contents(other).items() <= FILES.items()
        assert "file0" in other.listdir("/")
        for name in other.listdir("/"):
            assert len(parts_of(other).replica.versions(other.stat(f"/{name}").ino)) == 1


ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda data: flipped(data, len(data) // 2),
    "cut": lambda data: data[:-7],
    "longer": lambda data: data + b"x",
    "another filespace's": lambda data: foreign_entry(4),
    "gone": lambda data: b"",
}


@pytest.mark.parametrize("how", ALTERED)
def test_an_entry_that_is_altered_after_it_was_written(scene: Scene, how: str) -> None:
    """A new device meets the next entry, which names another one before it."""
    write_files(scene)
    before = scene.get(log_key(4))
    scene.replace(log_key(4), ALTERED[how](before))
    assert_refuses(scene, "b", "another history")
    with scene.connect("reader", read_only=True) as fs:
        assert "another history" in fs.status().problem
    assert any("another history" in problem for problem in scene.check().problems)
    scene.replace(log_key(4), before)
    with scene.connect("c") as fs:
        assert contents(fs) == FILES


@pytest.mark.parametrize("how", ALTERED)
def test_the_newest_entry_is_altered(scene: Scene, how: str) -> None:
    """Its author notices; what the author has here is kept, and sent when it is put right."""
    write_files(scene)
    with_pending(scene)
    before = scene.get(log_key(5))
    scene.replace(log_key(5), ALTERED[how](before))
    assert_refuses(scene, "a", "is another one")
    assert_still_readable(scene)
    scene.replace(log_key(5), before)
    assert_goes_on(scene)


def with_pending(scene: Scene) -> None:
    """Machine "a" accepts a change while it is cut off."""
    fs = scene.connect("a")
    scene.plans["a"].die()
    fs.write_bytes("/pending", b"accepted")
    fs.close(wait=False)


def assert_still_readable(scene: Scene) -> None:
    """Machine "a" shows what it has seen, and says what is wrong."""
    with scene.connect("a", read_only=True) as fs:
        assert contents(fs).items() >= FILES.items()
        assert "which this device has seen" in fs.status().problem
        assert not fs.status().online


def assert_goes_on(scene: Scene) -> None:
    """All is well again: what machine "a" had accepted comes into the store by itself."""
    with scene.connect("a") as fs:
        fs.sync(timeout=WAIT_S)
        assert fs.status().problem == ""
        assert fs.status().freshness.startswith("proven")
    with scene.connect("other") as other:
        assert contents(other) == {**FILES, "/pending": b"accepted"}
    assert scene.check(read_data=True).clean


def test_an_entry_taken_from_the_middle(scene: Scene) -> None:
    """Neither a new device nor one that has seen it writes into the gap."""
    write_files(scene)
    with_pending(scene)
    before = scene.get(log_key(4))
    scene.remove(log_key(4))
    assert_refuses(scene, "a", "Entry 4 of the log, which this device has seen, is gone")
    assert_refuses(scene, "b", "Entry 4 of the log is gone, and entry 5 is there")
    with scene.connect("reader", read_only=True) as fs:
        assert list(contents(fs)) == ["/file0"]
        assert "Entry 4 of the log is gone" in fs.status().problem
    assert any("behind it" in problem for problem in scene.check().problems)
    scene.put(log_key(4), before)
    assert_goes_on(scene)
    with scene.connect("b") as fs:
        assert contents(fs) == {**FILES, "/pending": b"accepted"}


def test_entries_below_a_floor_may_be_gone(scene: Scene) -> None:
    """That is no attack: whoever has folded the floor misses nothing above it."""
    write_files(scene)
    with scene.connect("a") as fs:
        replica = parts_of(fs).replica
        replica.state.put_value(VALUE_FLOOR, b"4")
        replica.commit_now()
    before = scene.copy()
    scene.remove(log_key(2), log_key(3))
    with scene.connect("a") as fs:
        assert contents(fs) == FILES
        assert fs.status().problem == ""
    scene.restore(before)
    with scene.connect("a") as fs:
        fs.write_bytes("/more", b"more")
    scene.remove(log_key(5))
    assert_refuses(scene, "a", "Entry 5 of the log, which this device has seen, is gone")


def test_the_newest_entries_taken_away(scene: Scene) -> None:
    write_files(scene)
    with_pending(scene)
    before = {key: scene.get(key) for key in (log_key(4), log_key(5))}
    scene.remove(*before)
    assert_refuses(scene, "a", "Entry 5 of the log, which this device has seen, is gone")
    assert_still_readable(scene)
    for key, data in before.items():
        scene.put(key, data)
    assert_goes_on(scene)


def test_entries_in_another_order(scene: Scene) -> None:
    """Each is signed for its number."""
    write_files(scene)
    with_pending(scene)
    scene.swap(log_key(3), log_key(4))
    assert_refuses(scene, "b", "another history")
    assert len(scene.check().problems) > 0
    scene.swap(log_key(3), log_key(4))
    scene.swap(log_key(4), log_key(5))
    assert_refuses(scene, "a", "is another one")
    assert scene.check().void_entries == 2
    scene.swap(log_key(4), log_key(5))
    assert_goes_on(scene)


def test_another_first_entry(scene: Scene) -> None:
    write_files(scene)
    before = scene.get(log_key(1))
    for data in (foreign_entry(1), flipped(before, 100), b"", scene.get(log_key(2))):
        scene.replace(log_key(1), data)
        with pytest.raises(HistoryFork) as caught:
            scene.connect("b")
        assert_fork(caught.value, "first entry")
    scene.replace(log_key(1), before)
    with scene.connect("b") as fs:
        assert contents(fs) == FILES


def create(fs: Filespace, name: bytes) -> None:
    fs.tree.create(1, name, 0o644, 0, 0, os.O_WRONLY)


def test_entries_taken_away_under_a_mount(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-19, S-54: writing stops within a minute. Here it does not have to last so long."""
    quick_compare(monkeypatch)
    write_files(scene)
    fs = scene.connect()
    before = {key: scene.get(key) for key in scene.entries()[-2:]}
    newest = max(before)
    scene.remove(*before)
    assert_fork(stopped_by(fs), "is gone")
    assert "is gone" in fs.status().problem
    for change in (lambda: create(fs, b"more"), lambda: fs.tree.mkdir(1, b"more", 0o755, 0, 0)):
        with pytest.raises(HistoryFork) as caught:
            change()
        assert caught.value.errno == errno.EROFS
    assert contents(fs) == FILES
    fs.close(wait=False)
    assert newest not in scene.entries()
    for key, data in before.items():
        scene.put(key, data)
    with_pending(scene)
    assert_goes_on(scene)


def test_an_entry_that_the_store_says_it_kept(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did not. The author notices, has its bytes, and puts nothing upon the gap."""
    quick_compare(monkeypatch)
    write_files(scene)
    fs = scene.connect()
    fs.sync(timeout=WAIT_S)
    scene.lies["a"].swallowed = ("log/",)
    fs.write_bytes("/lost", b"lost")
    fs.sync(timeout=WAIT_S)
    scene.lies["a"].honest()
    assert_fork(stopped_by(fs), "is gone")
    assert fs.read_bytes("/lost") == b"lost"
    fs.close(wait=False)
    assert_refuses(scene, "a", "is gone")
    assert_still_readable(scene)
    with scene.connect("a", read_only=True) as fs:
        assert fs.read_bytes("/lost") == b"lost"


def test_a_number_that_is_won_again(scene: Scene) -> None:
    """An entry is taken away, and another machine wins its number in good faith."""
    write_files(scene)
    fs = scene.connect("a")
    other = scene.connect("b")
    other.sync(timeout=WAIT_S)
    assert fs.refresh(WAIT_S)
    scene.lies["b"].shown = bucket_of(scene.copy())
    fs.write_bytes("/of-a", b"a")
    fs.sync(timeout=WAIT_S)
    scene.remove(scene.entries()[-1])
    scene.lies["b"].honest()
    for number in range(2):
        other.write_bytes(f"/of-b{number}", b"b")
        other.sync(timeout=WAIT_S)
    assert_fork(stopped_by(fs), "another history")
    with pytest.raises(HistoryFork):
        fs.write_bytes("/more", b"more")
    assert fs.read_bytes("/of-a") == b"a"
    fs.close(wait=False)
    fs = scene.connect("a")
    assert "another history" in fs.status().problem
    with pytest.raises(HistoryFork):
        fs.write_bytes("/more", b"more")
    with scene.connect("c") as third:
        assert sorted(contents(third)) == [*FILES, "/of-b0", "/of-b1"]


def test_an_old_copy_for_some_time(scene: Scene) -> None:
    """Stale lists and stale reads: nothing is put where it does not belong, and it passes."""
    with scene.connect("b") as other:
        other.write_bytes("/first", b"first")
        other.sync(timeout=WAIT_S)
        scene.lies["b"].shown = bucket_of(scene.copy())
        with scene.connect("a") as fs:
            fs.write_bytes("/of-a", b"a")
        entries = scene.entries()
        assert other.refresh(WAIT_S)
        assert other.listdir("/") == ["first"]
        other.write_bytes("/of-b", b"b")
        with parts_of(other).order.news:
            assert parts_of(other).order.pending == 1
        other.refresh(1.0)
        assert scene.entries() == entries
        scene.lies["b"].honest()
        other.sync(timeout=WAIT_S)
        assert contents(other) == {"/first": b"first", "/of-a": b"a", "/of-b": b"b"}
        assert other.status().problem == ""
    with scene.connect("c") as third:
        assert contents(third) == {"/first": b"first", "/of-a": b"a", "/of-b": b"b"}


def test_an_old_copy_at_a_mount(scene: Scene) -> None:
    """It looks like a roll-back, and is forgiven when the store shows the newer one again."""
    with scene.connect("a") as fs:
        fs.sync(timeout=WAIT_S)
    older = bucket_of(scene.copy())
    scene.remove(*scene.entries()[2:])
    with scene.connect("a") as fs:
        for path, data in FILES.items():
            fs.write_bytes(path, data)
            fs.sync(timeout=WAIT_S)
    with_pending(scene)
    scene.lies["a"].shown = older
    assert_refuses(scene, "a", "is gone")
    scene.lies["a"].honest()
    assert_goes_on(scene)
