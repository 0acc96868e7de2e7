"""Two machines that lock: what one has the other waits for, and what was written under a lock is
there for the next one (SEMANTICS.md, 14). An S3 server, no hub."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.program import Program
from tests.mount.test_two_mounts import LIMIT_S, Team, until
from tests.mount.test_two_mounts import team as team
from tests.mount.watchdog import watchdog

pytestmark = [pytest.mark.mount, pytest.mark.slow]

COUNT = """
import fcntl, sys, time
path, rounds, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
lock = fcntl.flock if how == "flock" else fcntl.lockf
for _ in range(rounds):
    with open(path, "r+b", 0) as file:
        lock(file, fcntl.LOCK_EX)
        number = int(file.read() or b"0")
        file.seek(0)
        file.write(b"%d" % (number + 1))
        lock(file, fcntl.LOCK_UN)
"""

INSERT = """
import sqlite3, sys
path, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(rounds):
    base = sqlite3.connect(path, timeout=60, isolation_level=None)
    base.execute("BEGIN IMMEDIATE")
    (last,) = base.execute("SELECT coalesce(max(n), 0) FROM t").fetchone()
    base.execute("INSERT INTO t VALUES (?, ?)", (last + 1, name))
    base.execute("COMMIT")
    base.close()
"""


@contextmanager
def programs(*directories: Path) -> Iterator[list[Program]]:
    started = [Program(directory) for directory in directories]
    try:
        yield started
    finally:
        for program in started:
            program.end()


def run_all(*commands: list[str]) -> None:
    """At once, to their ends."""
    running = [
        subprocess.Popen([sys.executable, "-c", *command], stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in running:
        _, said = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said


def beside(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if "conflict" in name]


def file_of(team: Team, name: str, content: bytes = b"") -> tuple[Path, Path]:
    """A file in a directory of its own, as A and as B see it."""
    a, b = team.directory(name)
    (a / "file").write_bytes(content)
    team.sync(a)
    until((b / "file").exists)
    return a, b


LOCKS = {
    "flock": ("fcntl.flock(fd, LOCK_EX | LOCK_NB)", "fcntl.flock(fd, LOCK_EX)", "EAGAIN"),
    "fcntl": ("take(fd, F_WRLCK)", "wait(fd, F_WRLCK)", "EAGAIN"),
}


@pytest.mark.parametrize("how", LOCKS)
def test_a_lock_on_another_machine(team: Team, how: str) -> None:
    """S-42, S-800, S-801, S-814."""
    a, b = file_of(team, f"lock {how}")
    now, wait, refused = LOCKS[how]
    with programs(a, b) as (one, other):
        for program in (one, other):
            program.ask("globals().update(fd=open_('file'))")
        assert one.ask(now) == "None"
        assert other.ask(now) == refused
        if how == "fcntl":
            assert other.ask("ask(fd, F_RDLCK)")[1:-1].split(", ") == ["1", "0", "0", "0"]
        other.begin(wait)
        until(lambda: "waiting" in team.lucid.run("lock", "ls", b).stdout)
        shown = json.loads(team.lucid.run("lock", "ls", b / "file", "--json").stdout)
        assert [row["state"] for row in shown["leases"]] == ["held", "waiting"]
        assert [row["here"] for row in shown["leases"]] == [False, True]
        assert [row["pid"] for row in shown["here"]] == [other.pid]
        assert {row["path"] for rows in shown.values() for row in rows} == {f"/lock {how}/file"}
        assert not other.has_answered()
        one.ask("os.write(fd, b'under the lock')")
        one.ask("os.close(fd)")
        assert other.answer() == "None"
        assert other.ask("os.pread(fd, 100, 0)") == "b'under the lock'"
    assert not beside(a)


def test_shared_locks_are_on_both(team: Team) -> None:
    """S-800."""
    a, b = file_of(team, "shared")
    with programs(a, b) as (one, other):
        for program in (one, other):
            program.ask("globals().update(fd=open_('file'))")
            assert program.ask("fcntl.flock(fd, LOCK_SH | LOCK_NB)") == "None"
        assert one.ask("fcntl.flock(fd, LOCK_EX | LOCK_NB)") == "EAGAIN"
        other.ask("fcntl.flock(fd, LOCK_UN)")
        assert one.ask("fcntl.flock(fd, LOCK_EX)") == "None"


def test_a_signal_ends_a_wait_for_another_machine(team: Team) -> None:
    """S-801: and what waits no more is in nobody's way."""
    a, b = file_of(team, "signal")
    with programs(a, b, b) as (one, other, third):
        for program in (one, other, third):
            program.ask("globals().update(fd=open_('file'))")
        one.ask("fcntl.flock(fd, LOCK_EX)")
        other.begin("fcntl.flock(fd, LOCK_EX)")
        until(lambda: "waiting" in team.lucid.run("lock", "ls", b).stdout)
        other.signal()
        assert other.answer() == "EINTR"
        one.end()
        assert third.ask("fcntl.flock(fd, LOCK_EX)") == "None"


@pytest.mark.parametrize("how", ["flock", "lockf"])
def test_a_counter_that_both_raise(team: Team, how: str) -> None:
    """S-800, S-802: two programs on each machine; no step is lost, nothing lies beside."""
    a, b = file_of(team, f"counter {how}", b"0")
    rounds = "12"
    run_all(*([COUNT, str(top / "file"), rounds, how] for top in (a, b, a, b)))
    with programs(a) as (one,):
        one.ask("globals().update(fd=open_('file'))")
        one.ask("fcntl.flock(fd, LOCK_EX)")
        assert one.ask("os.pread(fd, 100, 0)") == "b'48'"
    assert not beside(a) and not beside(b)


def test_a_database_that_both_write(team: Team) -> None:
    """S-800, S-802: sqlite with a rollback journal, whose file lies beside the base."""
    a, b = team.directory("database")
    with sqlite3.connect(a / "base") as base:
        base.execute("PRAGMA journal_mode = DELETE")
        base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, who TEXT)")
    base.close()
    team.sync(a)
    until((b / "base").exists)
    run_all(*([INSERT, str(top / "base"), name, "10"] for top, name in ((a, "a"), (b, "b"))))
    for top in (a, b):
        base = sqlite3.connect(top / "base", timeout=60)
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = base.execute("SELECT n, who FROM t ORDER BY n").fetchall()
        base.close()
        assert [n for n, _ in rows] == list(range(1, 21))
        assert sorted(who for _, who in rows) == ["a"] * 10 + ["b"] * 10
        assert not beside(top)


def test_what_was_written_through_a_mapping(team: Team) -> None:
    """S-802: the kernel hands it over though no program asked for that."""
    a, b = file_of(team, "mapping", b"-" * 8192)
    with programs(a, b) as (one, other):
        for program in (one, other):
            program.ask("globals().update(fd=open_('file'))")
            program.ask("fcntl.flock(fd, LOCK_EX)")
            if program is one:
                program.ask("globals().update(mmap=__import__('mmap'))")
                program.ask("globals().update(m=mmap.mmap(fd, 8192))")
                program.ask("m.__setitem__(slice(5000, 5006), b'mapped')")
                program.ask("fcntl.flock(fd, LOCK_UN)")
        assert other.ask("os.pread(fd, 6, 5000)") == "b'mapped'"
        other.ask("os.pwrite(fd, b'MAPPED', 5000)")
        other.ask("fcntl.flock(fd, LOCK_UN)")
        one.ask("fcntl.flock(fd, LOCK_EX)")
        assert one.ask("m[5000:5006]") == "b'MAPPED'"
    assert not beside(a) and not beside(b)


def appended(path: Path) -> Callable[[], bool]:
    return lambda: path.read_bytes().count(b"\n") == 40


def test_two_that_append_under_a_lock(team: Team) -> None:
    """S-802, S-19: the end is where the other machine has left it."""
    a, b = file_of(team, "append")
    append = (
        "import fcntl, sys\n"
        "for number in range(20):\n"
        "    with open(sys.argv[1], 'ab', 0) as file:\n"
        "        fcntl.flock(file, fcntl.LOCK_EX)\n"
        "        file.write(b'%s %d\\n' % (sys.argv[2].encode(), number))\n"
    )
    run_all(*([append, str(top / "file"), name] for top, name in ((a, "a"), (b, "b"))))
    for top in (a, b):
        until(appended(top / "file"))
        lines = (top / "file").read_bytes().split(b"\n")[:-1]
        for name in (b"a", b"b"):
            assert [x for x in lines if x.startswith(name)] == [
                b"%s %d" % (name, number) for number in range(20)
            ]
    assert not beside(a)


@contextmanager
def third_machine(team: Team) -> Iterator[Path]:
    point = team.mount("c")
    try:
        yield point
    finally:
        team.lucid.run("umount", "--no-wait", point)


def test_a_machine_that_dies_while_it_has_a_lock(team: Team) -> None:
    """S-807, S-806: its next mount gives the lock back, with what was written under it."""
    a, _ = file_of(team, "dies")
    with (
        watchdog(team.top, LIMIT_S),
        third_machine(team) as point,
        programs(a, point / "dies") as (one, other),
    ):
        for program in (one, other):
            program.ask("globals().update(fd=open_('file'))")
        other.ask("fcntl.flock(fd, LOCK_EX)")
        other.ask("os.write(fd, b'before it died')")
        other.ask("os.fsync(fd)")
        one.begin("fcntl.flock(fd, LOCK_EX)")
        until(lambda: "waiting" in team.lucid.run("lock", "ls", a).stdout)
        drives = json.loads(team.lucid.run("status", "--json").stdout)
        (pid,) = [drive["pid"] for drive in drives if drive["mountpoint"] == str(point)]
        os.kill(pid, signal.SIGKILL)
        assert not one.has_answered()
        team.lucid.run("mount", team.store, point, "--state-dir", team.top / "state-c")
        assert one.answer() == "None"
        assert one.ask("os.pread(fd, 100, 0)") == "b'before it died'"
    assert not beside(a)
