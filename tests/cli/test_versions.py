"""`lucid versions` and `lucid restore` on a mounted drive, as people type them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from lucid.cli import drive_paths, restore, versions
from lucid.cli.main import main
from lucid.cli.terminal import local_time, printable, table
from lucid.errors import NotMounted
from lucid.mount.registry import Record
from lucid.mount.wire import Message
from tests.cli.conftest import Team

mounted = pytest.mark.mount


def shown(team: Team, path: Path) -> list[Message]:
    found: list[Message] = team.lucid.json("versions", path)
    return found


def save(team: Team, path: Path, text: str) -> None:
    """A version of its own: the kernel tells of a close a moment after it, and what is removed or
    written anew before that was never published."""
    path.write_text(text)
    team.lucid.run("sync", path)


@mounted
def test_the_story_of_a_file(team: Team) -> None:
    """S-91, S-94: seen and restored through the mount, whose kernel sees it at once."""
    team.mount()
    plan, lucid = team.point / "plan.txt", team.lucid
    for text in ("first", "the second", "third"):
        save(team, plan, text)
        assert plan.read_text() == text
    first, second, third = shown(team, plan)
    assert [version["size"] for version in (first, second, third)] == [5, 10, 5]
    assert [version["current"] for version in (first, second, third)] == [False, False, True]
    out = lucid.run("versions", plan).stdout
    head, *lines = out.splitlines()
    assert head.split() == ["version", "modified", "size", "written", "by", "in", "the", "store"]
    assert [line.split()[0] for line in lines] == [one["number"] for one in (first, second, third)]
    assert lines[2].endswith("current") and f"{third['member']} on {third['device']}" in lines[2]
    with plan.open() as held:
        assert held.read() == "third"
        restored = lucid.json("restore", plan, "--version", second["number"])
        assert restored["path"] == str(plan)
        assert plan.read_text() == "the second"
        assert plan.stat().st_size == 10
        held.seek(0)
        assert held.read() == "the second"
    assert [one["number"] for one in shown(team, plan)][-1] == restored["version"]
    lucid.run("sync", plan)
    assert {one["stored"] for one in lucid.json("versions", plan, "--check")} == {"whole"}


@mounted
def test_beside_and_into_a_directory(team: Team) -> None:
    """S-94."""
    team.mount()
    plan, lucid = team.point / "plan.txt", team.lucid
    save(team, plan, "first")
    save(team, plan, "second")
    number = shown(team, plan)[0]["number"]
    docs = team.point / "docs"
    docs.mkdir()
    said = lucid.run("restore", plan, "--version", number, "--to", docs).stdout
    assert said.startswith(f"Restored: {docs / 'plan.txt'}, version ")
    lucid.run("restore", plan, "--version", number, "--to", team.point / "old.txt")
    assert (docs / "plan.txt").read_text() == (team.point / "old.txt").read_text() == "first"
    assert plan.read_text() == "second"
    taken = lucid.error(3, "restore", plan, "--version", number, "--to", docs)
    assert "--to" in taken and "taken" in taken


@mounted
def test_what_was_removed(team: Team) -> None:
    """S-93, S-95: also a whole directory, and what lay in one that is gone."""
    team.mount()
    lucid, work = team.lucid, team.point / "work"
    (work / "src").mkdir(parents=True)
    (work / "src" / "main.c").write_text("int main;")
    (work / "notes").write_text("note")
    assert lucid.run("versions", work, "--deleted").stdout == (
        f"Nothing is known to have been removed from {work}.\n"
    )
    shutil.rmtree(work)
    found = lucid.json("versions", team.point, "--deleted")
    assert [(one["name"], one["kind"]) for one in found] == [("work", "directory")]
    inside = lucid.json("versions", work, "--deleted")
    assert {one["name"] for one in inside} == {"notes", "src"}
    assert all(one["member"] and one["device"] for one in inside)
    listed = lucid.run("versions", work, "--deleted").stdout
    assert "notes" in listed and "2 names." in listed
    assert [one["size"] for one in shown(team, work / "src" / "main.c")] == [9]
    assert lucid.run("restore", "--deleted", work).stdout == (
        f"Restored: {work} with 3 names in it\n"
    )
    assert (work / "src" / "main.c").read_text() == "int main;"
    (work / "notes").unlink()
    lucid.run("restore", "--deleted", work / "notes")
    assert (work / "notes").read_text() == "note"


@mounted
def test_names_that_are_no_text(team: Team) -> None:
    """S-1: go through the socket and come back."""
    team.mount()
    name = os.fsdecode(b"\xff odd\nname")
    path = team.point / name
    save(team, path, "x")
    path.unlink()
    (found,) = team.lucid.json("versions", team.point, "--deleted")
    assert found["name"] == name
    listed = team.lucid.run("versions", team.point, "--deleted").stdout
    assert r"\udcff odd\nname" in listed
    team.lucid.run("restore", "--deleted", path)
    assert path.read_text() == "x"


@mounted
def test_what_cannot_be(team: Team, tmp_path: Path) -> None:
    """S-92: sentences and exit codes."""
    lucid, plan = team.lucid, team.point / "plan.txt"
    assert "not on a drive" in lucid.error(20, "versions", tmp_path / "elsewhere")
    team.mount()
    save(team, plan, "x")
    number = shown(team, plan)[0]["number"]
    assert "lucid versions PATH" in lucid.error(2, "restore", plan, "--version", "yesterday")
    assert f"{plan}: It has no version 99-1" in lucid.error(3, "restore", plan, "--version", "99-1")
    assert "/nothing" in lucid.error(3, "versions", team.point / "nothing")
    (team.point / "docs").mkdir()
    assert "no versions" in lucid.error(3, "versions", team.point / "docs")
    assert "removed" in lucid.error(3, "restore", "--deleted", plan)
    for name in (plan, team.point / "nothing"):
        assert f"{name} is no directory" in lucid.error(3, "versions", name, "--deleted")
    assert "not on a drive" in lucid.error(
        20, "restore", plan, "--version", number, "--to", tmp_path / "out"
    )


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(list(arguments))
    return status, capsys.readouterr().err


def test_calls_that_cannot_be_right(capsys: pytest.CaptureFixture[str]) -> None:
    status, err = said(capsys, "restore", "/drive/f")
    assert status == 2 and "--version VERSION" in err
    status, err = said(capsys, "versions", "/drive/f", "--deleted", "--check")
    assert status == 2 and "--check" in err


def test_where_a_path_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last part is not followed, and need not be there; the others are."""
    point = tmp_path / "drive"
    (point / "docs").mkdir(parents=True)
    (tmp_path / "link").symlink_to(point / "docs")
    record = Record(str(point), "state", "memory:", 1, 1)

    def containing(path: Path) -> Record:
        if not path.is_relative_to(point):
            raise NotMounted("Not there.")
        return record

    monkeypatch.setattr(drive_paths.registry, "containing", containing)
    inner = {
        point: "/", point / "docs." : "/docs.", tmp_path / "link" / "gone": "/docs/gone",
        point / "docs" / "..": "/", point / "no" / "dir": "/no/dir",
    }  # fmt: skip
    for path, wanted in inner.items():
        assert drive_paths.find(path).inner == wanted
    with pytest.raises(NotMounted):
        drive_paths.find(tmp_path / "link")
    assert drive_paths.find(tmp_path / "link", follow=True).inner == "/docs"
    assert drive_paths.find(point / "docs").outer == str(point / "docs")


def test_tables_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "size"), [(("a", "12 B"), ""), (("longer", "1 B"), "red")])
    assert capsys.readouterr().out == "name    size\na       12 B\nlonger  1 B\n"
    assert printable("plain ü") == "plain ü"
    assert printable("a\x1b[2J\n") == r"a\x1b[2J\n"
    assert re.fullmatch(r"2026-11-2[123] \d\d:\d\d:00", local_time(1_795_342_500 * 10**9))
    assert local_time(1 << 62) and local_time(-(1 << 62))


def test_a_terminal_gets_colours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    version = {
        "number": "2-15", "file": 7, "size": 5, "mtime_ns": 0, "member": "ann", "device": "desk",
        "current": True, "stored": "whole", "earlier": False,
    }  # fmt: skip
    lines = versions._lines([version, version | {"stored": "lost", "current": False}])
    assert [style for _, style in lines] == ["green", "red"]
    table(("version",), [((cells[0],), style) for cells, style in lines])
    out = capsys.readouterr().out
    assert "\x1b[32m2-15" in out and "\x1b[31m2-15" in out


def test_json_is_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    place = drive_paths.DrivePath(Record("/drive", "state", "memory:", 1, 1), "/f")
    answer = {"path": "/f", "file": 7, "version": "2-16", "files": 1}
    monkeypatch.setattr(restore, "find", lambda _: place)
    monkeypatch.setattr(restore, "ask_drive", lambda *_, **__: dict(answer))
    assert main(["restore", "/drive/f", "--version", "2-15", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer | {"path": "/drive/f"}
