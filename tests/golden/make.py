"""Makes a golden filespace: `python -m tests.golden.make DIRECTORY NAME RULES`, once for each
format and each number of rules.

What it writes is then frozen: later builds must open it for ever. Two devices work in it, one after
the other and at once, so that the log has sessions, rebases, a conflict copy and holes in its ids.
The manifest is made from what was written, not from what is read back. Under rules 3 most of that
becomes eight days old; then the log is cut at a floor, and the two go on without new checkpoints.
Under rules 4 there are leases before and after that, held by some and waited for by others.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from lucid.config import Config
from lucid.crypto.passphrase import Stretch
from lucid.filespace import Filespace, connect, init
from lucid.filespace.collecting import collect
from lucid.format.checkpoint import CHECKPOINT_EVERY
from lucid.format.ops import LEASE_EXCLUSIVE, LEASE_NONE, LEASE_SHARED
from tests.golden.lockers import Lockers

PASSPHRASE = "golden words for ever"
BLOCK = 64 * 1024
EVERY = 8
"""Entries from one checkpoint to the next, until there is a floor."""
DAYS_8_S = 8 * 86_400
TIME_NS = 1_700_000_000_123_456_789


def data(seed: int, size: int) -> bytes:
    return Random(seed).randbytes(size)


class Maker:
    """Writes through a filespace and remembers what should be there."""

    def __init__(self) -> None:
        self.tree: dict[str, dict[str, Any]] = {}
        self.leases: dict[str, list[tuple[int, int]]] = {}
        """(session, mode) of all in line for a file."""

    def file(self, fs: Filespace, path: str, content: bytes) -> None:
        fs.write_bytes(path, content)
        self.holds(path, content)

    def holds(self, path: str, content: bytes) -> None:
        self.tree[path] = {
            "kind": "file", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()
        }  # fmt: skip

    def folder(self, fs: Filespace, path: str) -> None:
        fs.makedirs(path, exist_ok=True)
        self.tree[path] = {"kind": "directory"}

    def link(self, fs: Filespace, target: str, path: str) -> None:
        fs.symlink(target, path)
        self.tree[path] = {"kind": "link", "target": target}


def open_device(url: str, state: Path, every: int) -> Filespace:
    config = Config(
        state_dir=state, poll_idle_s=0.2, checkpoint_every=every, checkpoint_wait_s=0.0,
        retention_s=None, lock_policy="none",
    )  # fmt: skip
    return connect(url, passphrase=PASSPHRASE, config=config)


def fill(maker: Maker, fs: Filespace) -> None:
    """What one device does."""
    for path in ("/a", "/a/b", "/a/b/c", "/empty", "/ümläut 名前"):
        maker.folder(fs, path)
    maker.file(fs, "/a/empty", b"")
    maker.file(fs, "/a/small", b"hello, golden world\n")
    maker.file(fs, "/a/b/block", data(1, BLOCK))
    maker.file(fs, "/a/b/blocks", data(2, 2 * BLOCK + 777))
    maker.file(fs, "/ümläut 名前/ñame with spaces", data(3, 5000))
    maker.link(fs, "../small", "/a/b/to-small")
    fs.link("/a/small", "/a/b/c/also-small")
    maker.tree["/a/b/c/also-small"] = maker.tree["/a/small"]
    with fs.open("/a/sparse", "wb") as file:
        file.seek(3 * BLOCK + 5)
        file.write(b"end")
    maker.holds("/a/sparse", bytes(3 * BLOCK + 5) + b"end")
    for number in range(40):
        maker.file(fs, f"/a/b/c/f{number:02}", data(100 + number, 10 * number))
    maker.file(fs, "/a/old-name", data(4, 3000))
    fs.rename("/a/old-name", "/a/new-name")
    maker.tree["/a/new-name"] = maker.tree.pop("/a/old-name")
    fs.write_bytes("/a/gone", data(5, 3000))
    fs.remove("/a/gone")
    fs.chmod("/a/small", 0o640)
    fs.utime("/a/b/block", TIME_NS, TIME_NS)
    maker.tree["/a/b/block"]["mtime_ns"] = TIME_NS
    for path in ("/a/small", "/a/b/c/also-small"):
        maker.tree[path]["mode"] = stat.S_IFREG | 0o640
    ino = fs.stat("/a/small").ino
    fs.tree.set_xattr(ino, b"user.colour", b"gold\0and zero")
    maker.tree["/a/small"]["xattrs"] = {"user.colour": b"gold\0and zero".hex()}
    fs.sync()
    # A second version of a file, and a part of one.
    maker.file(fs, "/a/small-too", b"first")
    fs.sync()
    maker.file(fs, "/a/small-too", b"second")
    whole = bytearray(data(2, 2 * BLOCK + 777))
    with fs.open("/a/b/blocks", "r+b") as file:
        file.seek(BLOCK + 10)
        file.write(b"in the middle")
    whole[BLOCK + 10 : BLOCK + 23] = b"in the middle"
    maker.holds("/a/b/blocks", bytes(whole))
    fs.sync()


def meet(maker: Maker, one: Filespace, two: Filespace) -> None:
    """Two devices write the same file, neither having seen the other's."""
    two.refresh()
    held = two.open("/both", "wb")
    one.write_bytes("/both", b"the first one's")
    one.sync()
    held.write(b"the second one's")
    held.close()
    two.sync()
    one.refresh()
    names = sorted(name for name in one.listdir("/") if str(name).startswith("both"))
    assert len(names) == 2, names
    for name in names:
        maker.holds(f"/{name}", one.read_bytes(f"/{name}"))
    assert {one.read_bytes(f"/{name}") for name in names} == {
        b"the first one's", b"the second one's"
    }  # fmt: skip


def give_way(maker: Maker, fs: Filespace, path: str, content: bytes) -> None:
    """A drive writes a file that another session has leased: it finds a conflict copy."""
    parent, _, name = path.rpartition("/")
    before = set(fs.listdir(parent or "/"))
    fs.write_bytes(path, content)
    fs.sync()
    (copy,) = set(fs.listdir(parent or "/")) - before
    assert str(copy).startswith(f"{name} (conflict ")
    assert fs.read_bytes(f"{parent}/{copy}") == content
    maker.holds(f"{parent}/{copy}", content)


def lock(maker: Maker, fs: Filespace, lockers: Lockers) -> list[int]:
    """Leases in all their states, before the floor; what is given and taken over besides."""
    one, two = lockers.join(b"one"), lockers.join(b"two")
    paths = ("/leased", "/shared", "/wanted", "/given", "/taken over")
    for number, path in enumerate(paths):
        maker.file(fs, path, data(400 + number, 2000))
    fs.sync()
    inodes = [fs.stat(path).ino for path in paths]
    alone, together = LEASE_EXCLUSIVE, LEASE_SHARED
    for ino, mode in zip(inodes, (alone, together, together, alone, alone), strict=True):
        lockers.take(one, ino, mode)
        lockers.take(two, ino, mode)
    _, _, wanted, given, taken = inodes
    lockers.take(one, wanted, LEASE_EXCLUSIVE)
    lockers.give(one, given, LEASE_SHARED)
    lockers.takeover(two, taken, one)
    give_way(maker, fs, "/leased", b"came while it was leased")
    give_way(maker, fs, "/taken over", b"came while it was taken over")
    maker.leases = {
        "/leased": [(one, 2), (two, 2)], "/shared": [(one, 1), (two, 1)],
        "/wanted": [(one, 1), (two, 1), (one, 2)], "/given": [(one, 1), (two, 2)],
        "/taken over": [(two, 2)],
    }  # fmt: skip
    for ino, path in zip(inodes, paths, strict=True):
        assert lockers.line(ino) == maker.leases[path], (path, lockers.line(ino))
    return inodes


def lock_on(maker: Maker, fs: Filespace, lockers: Lockers, inodes: list[int]) -> None:
    """After the floor: some of it goes, and somebody new stands in line."""
    (one, _), (two, _) = maker.leases["/leased"]
    three = lockers.join(b"three")
    leased, shared, _, given, _ = inodes
    lockers.take(three, leased, LEASE_SHARED)
    lockers.takeover(three, leased, one)
    lockers.take(three, shared, LEASE_EXCLUSIVE)
    lockers.take(three, given, LEASE_SHARED)
    lockers.takeover(three, given, one)
    lockers.takeover(three, given, two)
    lockers.give(three, given, LEASE_NONE)
    give_way(maker, fs, "/leased", b"came after the floor")
    maker.file(fs, "/given", b"nobody has it any more")
    fs.sync()
    maker.leases |= {
        "/leased": [(two, 2), (three, 1)], "/shared": [(one, 1), (two, 1), (three, 2)],
        "/given": [],
    }  # fmt: skip
    for ino, path in zip(inodes, maker.leases, strict=True):
        assert lockers.line(ino) == maker.leases[path], (path, lockers.line(ino))


def to_be_freed(maker: Maker, fs: Filespace) -> None:
    """Older versions of a file, each in a segment of its own, and a file that is gone."""
    fs.write_bytes("/a/gone for good", data(6, 3000))
    fs.sync()
    fs.remove("/a/gone for good")
    fs.sync()
    for number in range(2 * EVERY):
        maker.file(fs, "/a/rewritten", data(200 + number, 3000))
        fs.sync()
        assert fs.tree._opened.checkpoints.wait_idle(60)


def cut(url: str, store: Path, one: Filespace) -> int:
    """All of it is old; something is new; then it is collected. Returns the floor."""
    for path in store.rglob("*"):
        if path.is_file():
            # Data is put long before its entry, as if uploads took that long: it is to go.
            days = DAYS_8_S + 7200 if path.relative_to(store).parts[0] == "data" else DAYS_8_S
            then = path.stat().st_mtime - days
            os.utime(path, (then, then))
    one.write_bytes("/a/new", b"to be gone again")
    one.sync()
    one.remove("/a/new")
    one.sync()
    done = collect(url, PASSPHRASE, delete=True, every=EVERY)
    assert done.segments.count > EVERY and done.log.count and done.checkpoint, done
    assert one.refresh()
    return done.floor


def go_on(maker: Maker, fs: Filespace) -> None:
    """More entries than there are up to the last checkpoint, and what rules 2 brought."""
    for number in range(6 * EVERY):
        maker.file(fs, f"/later {number:02}", data(300 + number, 50))
        fs.sync()
    for seed in (7, 8):
        fs.write_bytes("/restored", data(seed, 9000))
        fs.sync()
    fs.restore("/restored", fs.versions("/restored")[0].number)
    maker.holds("/restored", data(7, 9000))
    fs.sync()


def make(folder: Path, name: str, cipher: str, rules: int) -> None:
    maker, floor, inodes = Maker(), 0, list[int]()
    every = EVERY if rules >= 3 else CHECKPOINT_EVERY
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        (top / "store").mkdir()
        url = f"file://{top}/store"
        created = init(
            url, passphrase=PASSPHRASE, name="Golden", block_size=BLOCK, cipher=cipher,
            member="founder", stretch=Stretch(1, 64 << 20), rules=rules,
        )  # fmt: skip
        with open_device(url, top / "one", every) as one:
            fill(maker, one)
            if rules >= 4:
                with closing(Lockers(url, PASSPHRASE, every)) as lockers:
                    inodes = lock(maker, one, lockers)
            if rules >= 3:
                to_be_freed(maker, one)
                floor = cut(url, top / "store", one)
        with open_device(url, top / "one", CHECKPOINT_EVERY) as one:
            if floor:
                go_on(maker, one)
            if rules >= 4:
                with closing(Lockers(url, PASSPHRASE, EVERY)) as lockers:
                    lock_on(maker, one, lockers, inodes)
            with open_device(url, top / "two", CHECKPOINT_EVERY) as two:
                meet(maker, one, two)
        about = {
            "cipher": cipher, "passphrase": PASSPHRASE, "recovery": created.recovery_code,
            "rules": rules, "floor": floor, "leases": maker.leases,
            "tree": dict(sorted(maker.tree.items())),
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        with tarfile.open(folder / f"{name}.tar.xz", "w:xz") as archive:
            for path in sorted((top / "store").rglob("*")):
                archive.add(path, path.relative_to(top / "store"), recursive=False)


if __name__ == "__main__":
    for cipher in ("aegis-256", "xchacha20-poly1305"):
        name = f"{sys.argv[2]}-{cipher.partition('-')[0]}"
        make(Path(sys.argv[1]), name, cipher, int(sys.argv[3]))
