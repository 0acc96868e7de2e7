"""Two machines on one bucket: what one closed the other reads, and no save is lost.

Two mounts with state directories of their own, an S3 server, no hub: they hear of each other by
looking at the log (S-38).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lucid.config import Config
from lucid.mount import mountpoint
from tests.cli.conftest import Lucid
from tests.mount import twins
from tests.mount.watchdog import watchdog
from tests.seaweed import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.slow]

LIMIT_S = 150.0
SLACK_S = 5.0
"""For a machine that is busy with other things."""
VISIBLE_S = Config().poll_idle_s + SLACK_S
BLOCK = 128 * 1024


@dataclass
class OwnLucid(Lucid):
    """Keeps the surroundings it was made with, so that it outlives one test."""

    surroundings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.surroundings


@dataclass
class Team:
    """One filespace on a server, and the machines A and B. Each test has a directory of its own."""

    lucid: Lucid
    store: str
    top: Path

    def mount(self, name: str) -> Path:
        point = self.top / name
        point.mkdir(exist_ok=True)
        self.lucid.run("mount", self.store, point, "--state-dir", self.top / f"state-{name}")
        return point

    def sync(self, path: Path) -> None:
        self.lucid.run("sync", path)

    def show(self, here: Path, there: Path) -> None:
        """All that was done here is to be seen there (S-40), whatever its kernel had cached."""
        token = self.lucid.json("sync", here)["token"]
        self.lucid.run("wait", token, there)

    def directory(self, name: str) -> tuple[Path, Path]:
        """As A and as B see it."""
        a, b = self.top / "a" / name, self.top / "b" / name
        a.mkdir()
        self.sync(a)
        until(b.exists)
        return a, b

    def agree(self) -> None:
        """All is sent, and both show the same tree."""
        a, b = self.top / "a", self.top / "b"
        self.sync(a)
        self.sync(b)
        until(lambda: not twins.difference(twins.whole(a), twins.whole(b)))


def until(true: Callable[[], object], within_s: float = VISIBLE_S) -> float:
    """Waits until something holds; how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, "it does not become visible in time"
        time.sleep(0.02)  # nothing tells a program of a change that another machine made
    return time.monotonic() - began


def shows(path: Path, content: bytes) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return path.read_bytes() == content
        except FileNotFoundError:
            return False

    return look


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Team]:
    """One for all tests here: making and mounting it takes longer than any of them."""
    top = tmp_path_factory.mktemp("team")
    (top / "run").mkdir(mode=0o700)
    surroundings = s3_server.environment() | {"HOME": str(top), "XDG_RUNTIME_DIR": f"{top}/run"}
    lucid = OwnLucid(top, surroundings=surroundings)
    made = Team(lucid, f"s3://{s3_server.make_bucket()}/team", top)
    with watchdog(top, LIMIT_S):
        try:
            lucid.run("init", made.store)
            made.mount("a")
            made.mount("b")
            yield made
        finally:
            for name in ("a", "b", "c"):
                if mountpoint.find(top / name) is not None:
                    lucid.run("umount", "--no-wait", top / name)


def test_what_one_closed_the_other_reads(team: Team) -> None:
    """S-31, S-33, S-37, S-38, S-40, in both directions; files, names, attributes, removals."""
    a, b = team.directory("closed")
    for number, (here, there) in enumerate([(a, b), (b, a)]):
        top = f"from {number}"
        (here / top / "deep").mkdir(parents=True)
        contents = {f"f{size}": os.urandom(size) for size in (0, 1, 5000, BLOCK, 3 * BLOCK + 77)}
        for name, content in contents.items():
            (here / top / name).write_bytes(content)
        (here / top / "link").symlink_to("f5000")
        os.link(here / top / "f1", here / top / "deep" / "again")
        team.sync(here)
        until((there / top / "deep" / "again").exists)
        for name, content in contents.items():
            assert (there / top / name).read_bytes() == content
        (here / top / "f5000").rename(here / top / "deep" / "moved")
        (here / top / "f0").unlink()
        (here / top / f"f{BLOCK}").chmod(0o600)
        os.utime(here / top / f"f{BLOCK}", ns=(5, 1_000_000_007))
        os.setxattr(here / top / f"f{BLOCK}", "user.colour", b"green")
        team.show(here, there)
        seen = there / top / f"f{BLOCK}"
        assert "user.colour" in os.listxattr(seen)
        assert seen.stat().st_mode & 0o7777 == 0o600
        assert (seen.stat().st_atime_ns, seen.stat().st_mtime_ns) == (5, 1_000_000_007)
        assert (there / top / "deep" / "moved").read_bytes() == contents["f5000"]
        assert not (there / top / "f0").exists()
        assert not (there / top / "f5000").exists()


def test_no_page_of_an_open_file_is_older(team: Team) -> None:
    """S-36, S-37: an overwrite of the same size, of what the other holds open and has cached."""
    first, second = os.urandom(2 * BLOCK), os.urandom(2 * BLOCK)
    a, b = team.directory("overwritten")
    for number, (here, there) in enumerate([(a, b), (b, a)]):
        name = f"f{number}"
        (here / name).write_bytes(first)
        team.sync(here)
        until(shows(there / name, first))
        with (there / name).open("rb", buffering=0) as kept:
            assert kept.read() == first
            descriptor = os.open(here / name, os.O_WRONLY)
            assert os.write(descriptor, second) == len(second)
            os.close(descriptor)
            team.sync(here)
            until(lambda kept=kept: os.pread(kept.fileno(), 2 * BLOCK, 0) == second)  # type: ignore[misc]
            assert (there / name).read_bytes() == second


def test_a_file_is_seen_whole(team: Team) -> None:
    """S-2, S-32, S-33: `cmd > file` and a rename over it show the old bytes or the new ones."""
    a, b = team.directory("whole")
    texts = [bytes([number]) * (50_000 + number) for number in range(12)]
    (a / "f").write_bytes(texts[0])
    team.sync(a)
    until(shows(b / "f", texts[0]))
    seen = []
    for number, text in enumerate(texts[1:], 1):
        if number % 2:
            (a / "f").write_bytes(text)
        else:
            (a / "new").write_bytes(text)
            (a / "new").rename(a / "f")
        team.sync(a)
        with (b / "f").open("rb") as file:
            seen.append(file.read())
    until(shows(b / "f", texts[-1]))
    assert set(seen) <= set(texts)
    assert [texts.index(text) for text in seen] == sorted(texts.index(text) for text in seen)


def test_both_create_in_one_directory(team: Team) -> None:
    """S-41: none of 120 files is lost, and those of one name are both there."""
    a, b = team.directory("shared")
    for number in range(60):
        for point, letter in ((a, "a"), (b, "b")):
            (point / f"{letter}{number}").write_text(f"{letter} {number}")
    for point in (a, b):
        (point / "both.txt").write_text(f"of {point.parent.name}")
    team.agree()
    names = sorted(path.name for path in a.iterdir())
    assert len(names) == 122
    (copy,) = (name for name in names if "(conflict " in name)
    assert re.fullmatch(r"both \(conflict .+ .+ \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\)\.txt", copy)
    texts = {(b / name).read_text() for name in ("both.txt", copy)}
    assert texts == {"of a", "of b"}
    for number in range(60):
        assert (b / f"a{number}").read_text() == f"a {number}"
        assert (a / f"b{number}").read_text() == f"b {number}"


def test_conflicting_saves_keep_both(team: Team) -> None:
    """S-36: both opened the same version; who comes second finds its save beside the other's."""
    a, b = team.directory("conflict")
    (a / "text.txt").write_text("old")
    team.sync(a)
    until(shows(b / "text.txt", b"old"))
    with (a / "text.txt").open("r+") as of_a, (b / "text.txt").open("r+") as of_b:
        for file, name in ((of_a, "a"), (of_b, "b")):
            file.write(f"saved by {name}")
            file.flush()
    team.agree()
    texts = {path.name: path.read_text() for path in a.iterdir()}
    assert len(texts) == 2
    assert sorted(texts.values()) == ["saved by a", "saved by b"]
    assert "text.txt" in texts


def test_a_file_that_the_other_removed(team: Team) -> None:
    """S-7: who has it open goes on reading; a save brings it back."""
    a, b = team.directory("removed")
    for name in ("read", "saved"):
        (a / name).write_text("there")
    team.sync(a)
    until(shows(b / "saved", b"there"))
    with (b / "read").open("rb", buffering=0) as read, (b / "saved").open("r+") as saved:
        saved.write("kept!")
        saved.flush()
        for name in ("read", "saved"):
            (a / name).unlink()
        team.sync(a)
        until(lambda: not (b / "read").exists())
        assert os.pread(read.fileno(), 10, 0) == b"there"
    team.agree()
    assert [path.read_text() for path in a.iterdir()] == ["kept!"]


def test_a_third_machine_with_nothing_local(team: Team) -> None:
    """It shows what the two showed, and every byte in the store opens."""
    (team.directory("last")[1] / "f").write_bytes(os.urandom(100_000))
    team.agree()
    shown = twins.whole(team.top / "a")
    team.lucid.run("umount", team.top / "a")
    team.lucid.run("umount", team.top / "b")
    difference = twins.difference(twins.whole(team.mount("c")), shown)
    assert not difference, "\n".join(difference)
    team.lucid.run("umount", team.top / "c")
    assert team.lucid.json("fsck", team.store, "--read-data")["clean"] is True
