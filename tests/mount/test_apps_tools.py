"""Real programs on a real drive, and their work read back by another machine with nothing local.

git, SQLite, tar, rsync, ffmpeg, a C project, shell redirects, a forking writer, shared mappings
and a log that stays open. Each test runs the program, unmounts, mounts with an empty state
directory, and looks again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

from tests.mount.machines import Machines

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def digest_of_tree(top: Path) -> dict[str, tuple[int, str]]:
    """Path -> (mode, digest of content or link target)."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(path))
        else:
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(top))] = (status.st_mode, hashlib.sha256(content).hexdigest())
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with every kind of thing that archives know."""
    top = tmp_path / "tree"
    for number in range(120):
        path = top / f"part{number % 7}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"line {number}\n" * (number * number % 997))
    (top / "large").write_bytes(os.urandom(1_500_000))
    (top / "empty").touch()
    (top / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (top / "run.sh").chmod(0o755)
    (top / "secret").write_text("x")
    (top / "secret").chmod(0o600)
    (top / "link").symlink_to("part1/file1.txt")
    os.link(top / "empty", top / "empty too")
    return top


@needs("git")
def test_git(machines: Machines) -> None:
    drive = machines.mount()
    run = machines.runner(drive / "repo")
    (drive / "repo").mkdir()
    run("git", "init", "-q", "-b", "main", ".")
    run("git", "config", "user.email", "a@example.org")
    run("git", "config", "user.name", "A")
    for number in range(5):
        (drive / "repo" / f"file{number}").write_text(f"content {number}\n" * 1000)
        run("git", "add", ".")
        run("git", "commit", "-q", "-m", f"commit {number}")
    run("git", "checkout", "-q", "-b", "other", "HEAD~2")
    (drive / "repo" / "more").write_text("more\n")
    run("git", "add", "more")
    run("git", "commit", "-q", "-m", "on a branch")
    run("git", "merge", "-q", "-m", "merge", "main")
    run("git", "gc", "-q")
    head = run("git", "rev-parse", "HEAD")
    drive = machines.mount_elsewhere()
    run = machines.runner(drive / "repo")
    run("git", "fsck", "--strict", "--no-progress")
    assert run("git", "rev-parse", "HEAD") == head
    assert run("git", "status", "--porcelain") == ""
    run("git", "clone", "-q", ".", "../clone")
    assert (drive / "clone" / "more").read_text() == "more\n"


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_sqlite(machines: Machines, mode: str) -> None:
    drive = machines.mount()
    code = textwrap.dedent("""
        import sqlite3, sys
        db = sqlite3.connect("data.db", isolation_level=None)
        assert db.execute(f"pragma journal_mode={sys.argv[1]}").fetchone()[0] == sys.argv[1]
        db.execute("create table t (id integer primary key, v blob)")
        for n in range(30):
            db.execute("begin")
            db.executemany("insert into t (v) values (?)", [(bytes([n]) * 3000,)] * 10)
            db.execute("rollback" if n % 5 == 4 else "commit")
        db.execute("update t set v = zeroblob(100) where id % 3 = 0")
        db.execute("delete from t where id % 7 = 0")
        db.execute("vacuum")
        print(db.execute("select count(*), sum(length(v)) from t").fetchone())
        db.close()
    """)
    counted = machines.runner(drive)(sys.executable, "-c", code, mode)
    drive = machines.mount_elsewhere()
    database = sqlite3.connect(drive / "data.db")
    try:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        found = database.execute("select count(*), sum(length(v)) from t").fetchone()
        assert f"{found}\n" == counted
    finally:
        database.close()


@needs("tar")
def test_tar(machines: Machines, tree: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-C", tree, "-cf", tmp_path / "a.tar", "."], check=True, timeout=60)
    drive = machines.mount()
    (drive / "out").mkdir()
    machines.runner(drive / "out")("tar", "-xf", tmp_path / "a.tar")
    assert digest_of_tree(drive / "out") == digest_of_tree(tree)
    machines.runner(drive)("tar", "-czf", "packed.tar.gz", "out")
    drive = machines.mount_elsewhere()
    assert digest_of_tree(drive / "out") == digest_of_tree(tree)
    assert (drive / "out" / "empty").stat().st_nlink == 2
    assert (drive / "out" / "empty").samefile(drive / "out" / "empty too")
    assert int((drive / "out" / "large").stat().st_mtime) == int((tree / "large").stat().st_mtime)
    with tarfile.open(drive / "packed.tar.gz") as archive:
        assert len(archive.getnames()) == len(digest_of_tree(tree)) + 1


@needs("rsync")
def test_rsync(machines: Machines, tree: Path) -> None:
    """S-16: directory times that were set stand"""
    drive = machines.mount()
    run = machines.runner(drive)
    run("rsync", "-aH", f"{tree}/", "copy/")
    assert digest_of_tree(drive / "copy") == digest_of_tree(tree)
    (tree / "part1" / "file1.txt").write_text("changed\n")
    (tree / "part2" / "file2.txt").unlink()
    run("rsync", "-aH", "--delete", f"{tree}/", "copy/")
    assert run("rsync", "-aHn", "--delete", "--itemize-changes", f"{tree}/", "copy/") == ""
    drive = machines.mount_elsewhere()
    run = machines.runner(drive)
    assert run("rsync", "-aHnc", "--delete", "--itemize-changes", f"{tree}/", "copy/") == ""
    run("rsync", "-aH", "--inplace", "--no-whole-file", f"{tree}/", "copy/")
    run("rsync", "-aH", "copy/", "second/")
    assert digest_of_tree(drive / "second") == digest_of_tree(tree)


@needs("ffmpeg", "ffprobe")
def test_ffmpeg(machines: Machines) -> None:
    """Writes a film whose index is put in at the end, then seeks in it."""
    drive = machines.mount()
    run = machines.runner(drive)
    picture = "testsrc2=size=640x360:rate=25:duration=8"
    run("ffmpeg", "-v", "error", "-f", "lavfi", "-i", picture, "-c:v", "mjpeg", "-q:v", "3",
        "-movflags", "+faststart", "film.mp4")  # fmt: skip
    run("ffmpeg", "-v", "error", "-i", "film.mp4", "-c:v", "mpeg4", "-b:v", "1M", "other.mkv")
    drive = machines.mount_elsewhere()
    run = machines.runner(drive)
    for film in ("film.mp4", "other.mkv"):
        duration = run("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of",
                       "csv=p=0", film)  # fmt: skip
        assert abs(float(duration) - 8) < 0.1
        run("ffmpeg", "-v", "error", "-ss", "5", "-i", film, "-frames:v", "1", "-y", "frame.png")
        assert (drive / "frame.png").stat().st_size > 1000
        run("ffmpeg", "-v", "error", "-xerror", "-i", film, "-f", "null", "-")


@needs("gcc", "make")
def test_a_c_project(machines: Machines) -> None:
    drive = machines.mount()
    project = drive / "project"
    (project / "include").mkdir(parents=True)
    for number in range(12):
        (project / "include" / f"part{number}.h").write_text(f"int part{number}(void);\n")
        (project / f"part{number}.c").write_text(
            f'#include "part{number}.h"\n#include <stdio.h>\n'
            f"int part{number}(void) {{ return {number}; }}\n"
        )
    names = "".join(f'#include "part{number}.h"\n' for number in range(12))
    total = " + ".join(f"part{number}()" for number in range(12))
    (project / "main.c").write_text(
        f'#include <stdio.h>\n{names}int main(void) {{ printf("%d\\n", {total}); return 0; }}\n'
    )
    (project / "Makefile").write_text(
        "CFLAGS = -Iinclude -O1\nOBJECTS = main.o $(patsubst %,part%.o,"
        f"{' '.join(map(str, range(12)))})\n"
        "program: $(OBJECTS)\n\t$(CC) -o $@ $^\n"
        "library.a: $(OBJECTS)\n\tar rcs $@ $^\n"
    )
    run = machines.runner(project)
    run("make", "-j4", "program", "library.a")
    assert run("./program") == "66\n"
    assert "up to date" in run("make", "program")
    (project / "part3.c").write_text('#include "part3.h"\nint part3(void) { return 1003; }\n')
    run("make", "program")
    assert run("./program") == "1066\n"
    run = machines.runner(machines.mount_elsewhere() / "project")
    assert run("./program") == "1066\n"
    assert "up to date" in run("make", "program"), "times came over exactly"


def test_redirects_and_a_forking_writer(machines: Machines) -> None:
    drive = machines.mount()
    script = """
        echo first > f; echo second >> f; cat f f > g; : > empty; (echo a; echo b) > h
        for i in 1 2 3 4 5; do echo "line $i"; done > loop
        seq 1 20000 | tee numbers | tail -1 > last
        exec 3> kept; echo one >&3; (echo child >&3); sh -c 'echo grandchild >&3'; echo two >&3
        exec 3>&-; cp numbers copy; mv copy moved; sed -i s/first/erst/ f
        { while read -r line; do echo "$line!"; done < h; } > i; cat > j <<END
        here
        END
    """
    machines.runner(drive)("sh", "-ec", textwrap.dedent(script))
    drive = machines.mount_elsewhere()
    contents = {path.name: path.read_text() for path in drive.iterdir()}
    numbers = "".join(f"{number}\n" for number in range(1, 20_001))
    assert contents == {
        "f": "erst\nsecond\n",
        "g": "first\nsecond\n" * 2,
        "empty": "",
        "h": "a\nb\n",
        "loop": "".join(f"line {number}\n" for number in range(1, 6)),
        "numbers": numbers,
        "moved": numbers,
        "last": "20000\n",
        "kept": "one\nchild\ngrandchild\ntwo\n",
        "i": "a!\nb!\n",
        "j": "here\n",
    }


def test_shared_mappings_of_two_processes(machines: Machines) -> None:
    """S-10"""
    drive = machines.mount()
    code = textwrap.dedent("""
        import mmap, os, sys
        size = 700_000
        with open("f", "w+b") as file:
            file.truncate(size)
            view = mmap.mmap(file.fileno(), size)
        pid = os.fork()
        for place in range(0 if pid else 4096, size, 8192):
            view[place : place + 4096] = (b"p" if pid else b"c") * min(4096, size - place)
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        view.flush()
        view[:5] = b"later"
        view.close()
    """)
    machines.runner(drive)(sys.executable, "-c", code)
    wanted = b"".join((b"c" if n % 2 else b"p") * 4096 for n in range(171))[:700_000]
    drive = machines.mount_elsewhere()
    assert (drive / "f").read_bytes() == b"later" + wanted[5:]


def test_a_log_that_stays_open(machines: Machines) -> None:
    """S-24: it is read elsewhere while its writer goes on: sync publishes what is there."""
    drive = machines.mount()
    with (drive / "log").open("a") as log:
        for number in range(2000):
            log.write(f"{number}\n")
            log.flush()
            if number in (500, 1500):
                machines.lucid.run("sync", drive / "log")
                second = machines.mount_beside()
                lines = (second / "log").read_text().splitlines()
                assert lines == [str(n) for n in range(number + 1)]
                machines.umount_beside()
    drive = machines.mount_elsewhere()
    assert (drive / "log").read_text() == "".join(f"{number}\n" for number in range(2000))


@needs("sqlite3")
def test_the_sqlite_shell(machines: Machines) -> None:
    drive = machines.mount()
    run = machines.runner(drive)
    run("sqlite3", "x.db", "create table t(a); insert into t values (1), (2);", ".backup copy.db")
    drive = machines.mount_elsewhere()
    assert machines.runner(drive)("sqlite3", "copy.db", "select sum(a) from t") == "3\n"
