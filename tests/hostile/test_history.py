"""The whole store is put back, or shows each device a history of its own (S-54). Who has seen more
notices; who has not cannot know, and is told so."""

from __future__ import annotations

import pytest

from lucid.errors import HistoryFork
from lucid.filespace import Filespace
from lucid.store.base import ObjectStore
from lucid.sync import committer
from tests.filespace.spaces import BLOCK, WAIT_S, some_bytes
from tests.hostile.scene import Scene, bucket_of, stopped_by

OLD, NEW = some_bytes(1, 2 * BLOCK + 1), some_bytes(2, 2 * BLOCK + 1)


def write(fs: Filespace, path: str, data: bytes) -> None:
    """And have it in the store."""
    fs.write_bytes(path, data)
    fs.sync(timeout=WAIT_S)


def offline_write(scene: Scene, name: str, path: str, data: bytes) -> None:
    """Machine `name` accepts a change that the store does not hear of."""
    fs = scene.connect(name)
    scene.plans[name].die()
    fs.write_bytes(path, data)
    fs.close(wait=False)


def assert_alarm(error: BaseException) -> None:
    """It says what to do, and a script can tell it from others."""
    assert isinstance(error, HistoryFork)
    assert error.exit_code == 10
    assert "Nothing is written from here on. Compare `lucid status`" in str(error)


def test_a_store_put_back_to_an_earlier_state(scene: Scene) -> None:
    """Across a remount, with bytes that wait here: they are sent when the newer state is back."""
    with scene.connect("a") as fs:
        write(fs, "/file", OLD)
        earlier = scene.copy()
        write(fs, "/file", NEW)
    offline_write(scene, "a", "/pending", b"accepted")
    later = scene.copy()
    scene.restore(earlier)
    for _ in range(2):
        with pytest.raises(HistoryFork, match="is gone: the store was rolled back") as caught:
            scene.connect("a")
        assert_alarm(caught.value)
    assert scene.copy() == earlier
    with scene.connect("a", read_only=True) as fs:
        assert fs.read_bytes("/file") == NEW
        assert "rolled back" in fs.status().problem
    scene.restore(later)
    with scene.connect("a") as fs:
        fs.sync(timeout=WAIT_S)
        assert fs.status().problem == ""
        assert fs.status().freshness.startswith("proven")
    with scene.connect("b") as other:
        assert other.read_bytes("/file") == NEW
        assert other.read_bytes("/pending") == b"accepted"


def test_a_store_put_back_under_a_mount(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-54: writing stops within a minute. Here it does not have to last so long."""
    monkeypatch.setattr(committer, "COMPARE_S", 0.1)
    fs = scene.connect("a")
    write(fs, "/file", OLD)
    earlier = scene.copy()
    write(fs, "/file", NEW)
    later = scene.copy()
    scene.restore(earlier)
    assert_alarm(stopped_by(fs))
    with pytest.raises(HistoryFork):
        fs.write_bytes("/more", b"more")
    assert fs.read_bytes("/file") == NEW
    fs.close(wait=False)
    scene.restore(later)
    with scene.connect("a") as fs:
        write(fs, "/more", b"more")
        assert fs.status().problem == ""


def test_a_store_that_comes_back_older_and_then_right(scene: Scene) -> None:
    """A device that began without the store: what it accepted meanwhile is not lost."""
    with scene.connect("a") as fs:
        write(fs, "/file", OLD)
        earlier = scene.copy()
        write(fs, "/file", NEW)
    later = scene.copy()
    scene.restore(earlier)
    offline_write_alarmed(scene)
    scene.restore(later)
    with scene.connect("a") as fs:
        fs.sync(timeout=WAIT_S)
    with scene.connect("b") as other:
        assert other.read_bytes("/pending") == b"accepted"
        assert other.read_bytes("/file") == NEW


def offline_write_alarmed(scene: Scene) -> None:
    """Open while the store is away, write, and meet the older store with a file still open."""
    fs = scene.connect("a", away=True)
    with fs.open("/pending", "wb", 0) as file:
        file.write(b"accepted")
        scene.plans["a"].revive()
        assert_alarm(stopped_by(fs))
    assert fs.read_bytes("/pending") == b"accepted"
    with pytest.raises(HistoryFork):
        fs.sync(timeout=WAIT_S)
    assert fs.read_bytes("/pending") == b"accepted"
    fs.close(wait=False)


def test_a_new_device_cannot_know_that_the_store_was_put_back(scene: Scene) -> None:
    """Nothing is wrong with what it sees but its age. It says so itself; whoever has seen more
    notices as soon as the two meet."""
    with scene.connect("a") as fs:
        write(fs, "/file", OLD)
        earlier = scene.copy()
        write(fs, "/file", NEW)
    scene.restore(earlier)
    with scene.connect("new") as fs:
        status = fs.status()
        assert fs.read_bytes("/file") == OLD
        assert status.freshness.startswith("unproven")
        assert status.newest_entry_age_s is not None
        write(fs, "/of-new", b"new")
    with scene.connect("new") as fs:
        assert fs.status().freshness.startswith("proven")
    with pytest.raises(HistoryFork) as caught:
        scene.connect("a")
    assert_alarm(caught.value)


class Fork:
    """Machines "a" and "b" have one history, and from then on each has one of its own."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.a, self.b = scene.connect("a"), scene.connect("b")
        write(self.a, "/common", OLD)
        assert self.b.refresh(WAIT_S)
        self.other: ObjectStore = bucket_of(scene.copy())
        lies = scene.lies["b"]
        lies.shown = lies.taken = self.other

    def meet(self, name: str) -> None:
        """Show this machine the other one's history from now on."""
        lies = self.scene.lies[name]
        if name == "a":
            lies.shown = lies.taken = self.other
        else:
            lies.honest()


def test_two_histories_that_meet(scene: Scene) -> None:
    """Whoever is shown a longer one meets an entry that is signed upon another."""
    fork = Fork(scene)
    write(fork.a, "/of-a", b"a")
    for number in range(3):
        write(fork.b, f"/of-b{number}", b"b")
    assert fork.a.status().problem == fork.b.status().problem == ""
    entries = scene.entries()
    fork.meet("a")
    error = stopped_by(fork.a)
    assert_alarm(error)
    assert "another history" in str(error)
    with pytest.raises(HistoryFork):
        fork.a.write_bytes("/more", b"more")
    assert fork.a.read_bytes("/of-a") == b"a"
    assert fork.a.read_bytes("/common") == OLD
    assert scene.entries() == entries
    fork.a.close(wait=False)
    fs = scene.connect("a", read_only=True)
    assert "another history" in fs.status().problem or "another one" in fs.status().problem


def test_a_shorter_history_is_met_under_a_mount(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "COMPARE_S", 0.1)
    fork = Fork(scene)
    write(fork.a, "/of-a", b"a")
    for number in range(3):
        write(fork.b, f"/of-b{number}", b"b")
    fork.meet("b")
    error = stopped_by(fork.b)
    assert_alarm(error)
    assert "is gone" in str(error) or "is another one" in str(error)
    assert fork.b.read_bytes("/of-b2") == b"b"


@pytest.mark.parametrize("name", ["a", "b"])
def test_two_histories_that_meet_at_a_mount(scene: Scene, name: str) -> None:
    """Whichever is shown the other's."""
    fork = Fork(scene)
    write(fork.a, "/of-a", b"a")
    for number in range(2):
        write(fork.b, f"/of-b{number}", b"b")
    fork.a.close()
    fork.b.close()
    before = scene.copy()
    fork.meet(name)
    with pytest.raises(HistoryFork) as caught:
        scene.connect(name)
    assert_alarm(caught.value)
    assert scene.copy() == before
    with scene.connect(name, read_only=True) as fs:
        assert fs.read_bytes("/common") == OLD
        assert fs.read_bytes("/of-a" if name == "a" else "/of-b1") == (
            b"a" if name == "a" else b"b"
        )


def test_a_fork_that_is_undone(scene: Scene) -> None:
    """The one whose own history is shown again goes on; nothing of it was harmed."""
    fork = Fork(scene)
    write(fork.b, "/of-b", b"b")
    write(fork.a, "/of-a", b"a")
    fork.a.close()
    fork.b.close()
    fork.meet("b")
    with pytest.raises(HistoryFork):
        scene.connect("b")
    lies = scene.lies["b"]
    lies.shown = lies.taken = fork.other
    with scene.connect("b") as fs:
        write(fs, "/more", b"more")
        assert fs.status().problem == ""
