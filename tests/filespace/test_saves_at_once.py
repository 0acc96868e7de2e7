"""How programs save, by two machines that have not heard of each other: the first into the log has
the name, the other lies beside it, and everybody is told (S-14, S-81, S-82, S-86)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import product

import pytest

from lucid.filespace import Filespace
from tests.filespace.spaces import WAIT_S, Space

PATH = "/report.odt"
COPY = r"report \(conflict \S+ \S+ \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\)\.odt"
Save = Callable[[Filespace, bytes], None]


def in_place(fs: Filespace, text: bytes) -> None:
    """open with O_TRUNC, write, close."""
    fs.write_bytes(PATH, text)


def nano(fs: Filespace, text: bytes) -> None:
    """Written over, and cut after that."""
    with fs.open(PATH, "r+b", 0) as file:
        file.write(text)
        file.truncate(len(text))
        file.fsync()


def vim(fs: Filespace, text: bytes) -> None:
    """A swap file; the old file renamed away, a new one synced, the old one removed."""
    with fs.open("/.report.odt.swp", "x+b", 0) as swap:
        swap.write(b"b0VIM")
        fs.rename(PATH, f"{PATH}~")
        with fs.open(PATH, "xb", 0) as file:
            file.write(text)
            file.fsync()
        fs.chmod(PATH, 0o644)
        fs.remove(f"{PATH}~")
    fs.remove("/.report.odt.swp")


def libreoffice(fs: Filespace, text: bytes) -> None:
    """A lock file, a new file under a name of its own, renamed over, the lock removed."""
    fs.write_bytes("/.~lock.report.odt#", b",ann,desk,22.11.2026 10:15;")
    fs.write_bytes("/lu83k2.tmp", text)
    fs.rename("/lu83k2.tmp", PATH)
    fs.remove("/.~lock.report.odt#")


def word(fs: Filespace, text: bytes) -> None:
    """An owner file; the new file, the old one renamed away, the new one renamed, the old one
    removed."""
    fs.write_bytes("/~$report.odt", b"ann")
    fs.write_bytes("/~WRD0000.tmp", text)
    fs.rename(PATH, "/~WRL0001.tmp")
    fs.rename("/~WRD0000.tmp", PATH)
    fs.remove("/~WRL0001.tmp")
    fs.remove("/~$report.odt")


def rsync(fs: Filespace, text: bytes) -> None:
    """A hidden file, its attributes, renamed over."""
    with fs.open("/.report.odt.Xy12ab", "xb", 0) as file:
        file.write(text)
    fs.utime("/.report.odt.Xy12ab", 5, 6)
    fs.chmod("/.report.odt.Xy12ab", 0o600)
    fs.rename("/.report.odt.Xy12ab", PATH)


def git(fs: Filespace, text: bytes) -> None:
    """A lock that nobody may have, which becomes the file; twice."""
    for content in (b"first, " + text, text):
        with fs.open(f"{PATH}.lock", "xb", 0) as file:
            file.write(content)
            file.fsync()
        fs.rename(f"{PATH}.lock", PATH)


def both(space: Space) -> tuple[Filespace, Filespace]:
    """Two machines that know the file, and hear nothing of each other from now on."""
    one, other = space.connect("a"), space.connect("b")
    one.write_bytes(PATH, b"the old report")
    one.sync(timeout=WAIT_S)
    assert other.refresh(WAIT_S)
    for name in ("a", "b"):
        space.plans[name].die()
    return one, other


def meet(space: Space, *machines: tuple[str, Filespace]) -> None:
    """They come back, in this order."""
    for name, fs in machines:
        space.plans[name].revive()
        fs.sync(timeout=WAIT_S)
    for _, fs in machines:
        assert fs.refresh(WAIT_S)


def state(fs: Filespace, path: str) -> bytes:
    return fs.tree.get_xattr(fs.stat(path).ino, b"user.lucid.state")


SAVES = (in_place, nano, vim, libreoffice, word, rsync, git)


@pytest.mark.parametrize("save", SAVES)
def test_two_save_at_once(space: Space, save: Save) -> None:
    one, other = both(space)
    save(one, b"as ann has it")
    save(other, b"as bea has it, longer")
    meet(space, ("a", one), ("b", other))
    (path,) = [name for name in one.listdir("/") if name != "report.odt"]
    assert re.fullmatch(COPY, path)
    for fs in (one, other):
        assert sorted(fs.listdir("/")) == sorted(["report.odt", path])
        assert fs.read_bytes(PATH) == b"as ann has it"
        assert fs.read_bytes(f"/{path}") == b"as bea has it, longer"
        assert (state(fs, PATH), state(fs, f"/{path}")) == (b"clean", b"conflict")
        assert fs.status().conflicts == (f"/{path}",)


@pytest.mark.parametrize(
    ("of_one", "of_other"),
    [pair for pair in product((in_place, vim, rsync), (nano, vim, word, git)) if len({*pair}) > 1],
)
def test_two_programs_save_at_once(space: Space, of_one: Save, of_other: Save) -> None:
    """Both texts are there, and nothing else lies about. Who moves the old file away moves what
    another wrote into it: then that lies under the name of the backup."""
    one, other = both(space)
    of_one(one, b"as ann has it")
    of_other(other, b"as bea has it, longer")
    meet(space, ("a", one), ("b", other))
    shown = [{name: fs.read_bytes(f"/{name}") for name in fs.listdir("/")} for fs in (one, other)]
    assert shown[0] == shown[1]
    assert sorted(shown[0].values()) == [b"as ann has it", b"as bea has it, longer"]
    assert "report.odt" in shown[0]
    (beside,) = set(shown[0]) - {"report.odt"}
    assert re.fullmatch(COPY, beside) or beside in ("report.odt~", "~WRL0001.tmp")


def test_a_copy_that_is_gone_or_renamed_is_not_shown(space: Space) -> None:
    """S-86: nor is one whose directory is."""
    one, other = both(space)
    in_place(one, b"one")
    in_place(other, b"other")
    meet(space, ("a", one), ("b", other))
    (path,) = other.status().conflicts
    other.mkdir("/d")
    other.rename(path, f"/d{path}")
    other.sync(timeout=WAIT_S)
    assert one.refresh(WAIT_S)
    assert one.status().conflicts == (f"/d{path}",)
    assert path not in other.status().conflicts
    other.rename(f"/d{path}", "/kept.odt")
    other.sync(timeout=WAIT_S)
    assert one.refresh(WAIT_S)
    assert one.status().conflicts == other.status().conflicts == ()
    assert state(one, "/kept.odt") == b"clean"


def test_what_is_kept_of_conflicts_is_bounded(space: Space) -> None:
    one, other = both(space)
    for number in range(130):
        for fs in (one, other):
            fs.write_bytes(f"/f{number}", os.urandom(4))
    meet(space, ("a", one), ("b", other))
    assert len(one.listdir("/")) == 261
    assert len(one.status().conflicts) == len(other.status().conflicts) == 100
    assert one.status().conflicts[-1].startswith("/f")
