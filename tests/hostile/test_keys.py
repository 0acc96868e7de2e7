"""Whoever holds the bucket replaces what says who is who: superblock, member record, key boxes. No
secret is ever sealed for a key that the store brought, and nothing is written on its word."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from lucid.crypto.keyring import wrap_generation
from lucid.crypto.member import MemberKeys
from lucid.errors import (
    CorruptObject,
    DataError,
    FilespaceMissing,
    HistoryFork,
    KeyringError,
    LucidError,
    StateForeign,
    WrongPassphrase,
)
from lucid.filespace import connect, fsck, init
from lucid.format.superblock import decode_superblock
from lucid.store.memory import MemoryStore
from tests.filespace.spaces import BLOCK, PASSPHRASE, STRETCH, WAIT_S, open_on, some_bytes
from tests.hostile.scene import Lies, Objects, Scene, flipped, other_filespace

DATA = some_bytes(1, 2 * BLOCK)
GUESS = "what the attacker chose"
KINDS = ("superblock", "members/", "keys/")


def named(objects: Objects, prefix: str) -> str:
    """The one key that begins so."""
    (key,) = [key for key in objects if key.startswith(prefix)]
    return key


def assert_refused(scene: Scene, errors: tuple[type[LucidError], ...]) -> None:
    """By a new device, by one that was here, and by fsck; nothing is written."""
    before = scene.copy()
    for name in ("new", "a"):
        with pytest.raises(errors) as caught:
            scene.connect(name)
        assert caught.value.exit_code in (8, 9, 10, 11, 12, 22)
        assert str(caught.value).endswith((".", ".)"))
    with pytest.raises(errors):
        scene.check()
    assert scene.copy() == before


def assert_open(scene: Scene, new: str = "new") -> None:
    """Everything is as it was, for both."""
    for name in (new, "a"):
        with scene.connect(name) as fs:
            assert fs.read_bytes("/file") == DATA
            assert fs.status().problem == ""


@pytest.fixture
def known(scene: Scene) -> Scene:
    """A scene with a file, and with machine "a", which has seen it."""
    with scene.connect("a") as fs:
        fs.write_bytes("/file", DATA)
        fs.sync(timeout=WAIT_S)
    return scene


@pytest.mark.parametrize("passphrase", [PASSPHRASE, GUESS], ids=["same passphrase", "own"])
@pytest.mark.parametrize("prefix", KINDS)
def test_one_object_of_another_filespace(known: Scene, prefix: str, passphrase: str) -> None:
    theirs = other_filespace(passphrase)
    mine = named(known.copy(), prefix)
    before = known.get(mine)
    known.replace(mine, theirs[named(theirs, prefix)])
    assert_refused(known, (DataError, StateForeign, FilespaceMissing))
    known.replace(mine, before)
    assert_open(known)


def test_all_key_objects_of_another_filespace(known: Scene) -> None:
    """Whose passphrase is the same: everything opens, but for the log and what is known here."""
    theirs, before = other_filespace(), known.copy()
    known.remove(*[key for key in before if key.startswith(KINDS)])
    for key, data in theirs.items():
        if key.startswith(KINDS):
            known.put(key, data)
    for name, error in {"new": HistoryFork, "a": StateForeign}.items():
        with pytest.raises(error):
            known.connect(name)
    known.restore(before)
    assert_open(known, "newer")


def test_another_filespace_at_the_address(tmp_path: Path) -> None:
    """Whole, sound, and with the same passphrase; the state directory is the usual one."""
    places = [tmp_path / name for name in ("team", "other")]
    for place in places:
        init(f"file://{place}", passphrase=PASSPHRASE, stretch=STRETCH)
    url = f"file://{places[0]}"
    with connect(url, passphrase=PASSPHRASE) as fs:
        fs.write_bytes("/file", DATA)
    places[0].rename(tmp_path / "aside")
    places[1].rename(places[0])
    with pytest.raises(HistoryFork, match="another filespace than this device has seen") as caught:
        connect(url, passphrase=PASSPHRASE)
    assert caught.value.exit_code == 10
    places[0].rename(places[1])
    (tmp_path / "aside").rename(places[0])
    with connect(url, passphrase=PASSPHRASE) as fs:
        assert fs.read_bytes("/file") == DATA
    shutil.rmtree(places[0])
    init(url, passphrase=PASSPHRASE, stretch=STRETCH)
    with connect(url, passphrase=PASSPHRASE) as fs:
        assert fs.listdir("/") == [], "made anew by whoever uses this device"


ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "a bit at the beginning": lambda data: flipped(data, 3),
    "a bit in the middle": lambda data: flipped(data, len(data) // 2),
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "junk": lambda data: Random(1).randbytes(len(data)),
}


@pytest.mark.parametrize("how", ALTERED)
@pytest.mark.parametrize("prefix", KINDS)
def test_an_object_that_is_altered(known: Scene, prefix: str, how: str) -> None:
    mine = named(known.copy(), prefix)
    before = known.get(mine)
    known.replace(mine, ALTERED[how](before))
    assert_refused(known, (DataError, KeyringError))
    known.replace(mine, before)
    assert_open(known)


def test_an_altered_slot_of_the_recovery_code(tmp_path: Path) -> None:
    """Each slot stands for itself: who comes with the passphrase does not notice. The code opens
    nothing until the store shows the right record."""
    store = MemoryStore(name="team")
    made = init("memory://team", passphrase=PASSPHRASE, stretch=STRETCH, store=store)
    (mine,) = [info.key for info in store.list("members/")]
    before = store.get(mine)
    store.delete([mine])
    store.put_if_absent(mine, flipped(before, len(before) - 1))

    def opens(secret: str) -> None:
        client = MemoryStore(store.bucket, name="team")
        open_on(client, tmp_path / "state", passphrase=secret).close()

    opens(PASSPHRASE)
    with pytest.raises(WrongPassphrase):
        opens(made.recovery_code)
    store.delete([mine])
    store.put_if_absent(mine, before)
    opens(made.recovery_code)


def test_a_filespace_key_that_the_store_made(known: Scene) -> None:
    """A well-formed box for the member's own public key, with a key that the store knows: what was
    sealed under it, the store could read."""
    superblock, _, _ = decode_superblock(known.get("superblock"))
    box = wrap_generation(
        superblock.filespace, superblock.generation, bytes(32), superblock.founder_box_key,
        Random(1).randbytes,
    )  # fmt: skip
    mine = named(known.copy(), "keys/")
    before = known.get(mine)
    known.replace(mine, box)
    assert_refused(known, (CorruptObject,))
    known.replace(mine, before)
    assert_open(known)


def test_a_box_that_changes_after_it_was_believed(known: Scene) -> None:
    """What is kept for opening without the store are the very bytes that were checked."""
    mine = named(known.copy(), "keys/")
    fs = known.connect("b", away=False)
    fs.close()
    kept = known.root / "b" / "generation"
    assert kept.read_bytes() == known.get(mine)
    gets: list[str] = []
    real = Lies.get

    def get(self: Lies, key: str, start: int = 0, length: int | None = None) -> bytes:
        gets.append(key)
        data = real(self, key, start, length)
        return data if gets.count(mine) < 2 or key != mine else flipped(data, 20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lies, "get", get)
        known.connect("b").close()
    assert kept.read_bytes() == known.get(mine)
    with known.connect("b", away=True) as fs:
        assert fs.listdir("/") == ["file"]


def test_a_newer_member_record_that_nobody_wrote(known: Scene) -> None:
    """The highest number counts, so the member is locked out, but nobody gets in; it passes with
    the object."""
    mine = named(known.copy(), "members/")
    theirs = other_filespace(GUESS)
    newer = f"{mine.rpartition('/')[0]}/{(1 << 63) - 1:016x}"
    for data in (theirs[named(theirs, "members/")], b"junk", flipped(known.get(mine), 200)):
        known.put(newer, data)
        assert_refused(known, (DataError, KeyringError))
        with pytest.raises((DataError, WrongPassphrase)):
            known.connect("thief", passphrase=GUESS)
        known.remove(newer)
    assert_open(known)


def test_a_member_record_with_another_public_key(known: Scene) -> None:
    """Public keys count as the log and the sealed slot have them, not as the record shows them."""
    mine = named(known.copy(), "members/")
    before = known.get(mine)
    superblock, _, _ = decode_superblock(known.get("superblock"))
    stranger = MemberKeys.create(Random(3).randbytes)
    altered = before.replace(superblock.founder_box_key, stranger.box_key)
    assert altered != before
    known.replace(mine, altered)
    assert_refused(known, (CorruptObject,))
    known.replace(mine, before)
    assert_open(known)


@pytest.mark.parametrize("prefix", KINDS)
def test_an_object_without_an_end(known: Scene, prefix: str) -> None:
    """Nobody reads more of it than it may have."""
    mine = named(known.copy(), prefix)
    lies = [Lies(known.hand), Lies(known.hand)]
    for one in lies:
        one.endless.add(mine)
    known.connect("a").close()
    known.lies["a"].endless.add(mine)
    with pytest.raises((DataError, KeyringError)):
        known.connect("a")
    told = known.lies["a"]
    assert (told.asked_max, told.asked_all) == ((64 << 10) + 1, False)
    with pytest.raises((DataError, KeyringError)):
        fsck.check("the store", PASSPHRASE, store=lies[0])
    assert (lies[0].asked_max, lies[0].asked_all) == ((64 << 10) + 1, False)


def test_the_keys_are_missing(known: Scene) -> None:
    before = known.copy()
    for prefix in KINDS:
        known.remove(named(before, prefix))
        assert_refused(known, (LucidError,))
        known.restore(before)
    assert_open(known)
