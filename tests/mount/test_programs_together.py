"""Real programs on two mounts of one filespace at once: vim and rsync that save one file, and git
that pushes from one machine and pulls on the other. Nothing is lost, and each loser lies beside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lucid.types import SystemClock
from tests.mount.machines import PROGRAM_S, Machines

pytestmark = [pytest.mark.mount, pytest.mark.slow]

HEARD_S = 60.0
LOOK_S = 0.05
COPY = r"report \(conflict \S+ \S+ \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\)( \d+)?\.txt"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"not installed: {program}")


@pytest.fixture
def both(machines: Machines) -> tuple[Path, Path]:
    """One drive on two machines, with a report that both know."""
    points = machines.mount(), machines.mount_beside()
    (points[0] / "report.txt").write_text("the old report\n")
    seen(lambda: (points[1] / "report.txt").exists())
    return points


def seen(holds: Callable[[], object]) -> None:
    """Waits until the other machine has heard: nothing tells a program of that."""
    end = SystemClock().monotonic() + HEARD_S
    pause = threading.Event()
    while not holds():
        assert SystemClock().monotonic() < end, "the other machine does not hear of it"
        pause.wait(LOOK_S)


def at_once(*commands: tuple[Path, Sequence[object]]) -> None:
    """Programs that run at the same time, each in a directory; all must end well."""
    running = [
        subprocess.Popen([str(part) for part in command], cwd=place, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for place, command in commands
    ]  # fmt: skip
    for process in running:
        said, _ = process.communicate(timeout=PROGRAM_S)
        assert process.returncode == 0, said


def texts(point: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in point.iterdir()}


def agree(machines: Machines, both: tuple[Path, Path], wanted: set[str]) -> dict[str, str]:
    """All is sent, and both show the same, with these texts."""
    for point in both:
        machines.lucid.run("sync", point)
    seen(lambda: texts(both[0]) == texts(both[1]) and set(texts(both[0]).values()) >= wanted)
    return texts(both[0])


def check_copies(machines: Machines, both: tuple[Path, Path], found: dict[str, str]) -> None:
    """S-14, S-81, S-86: what lies beside says whose it is, and the drive tells of it."""
    copies = [name for name in found if name != "report.txt"]
    for name in copies:
        assert re.fullmatch(COPY, name)
        assert os.getxattr(both[0] / name, "user.lucid.state") == b"conflict"
        for point in both:
            assert f"/{name}" in machines.lucid.json("status", point)["conflicts"]
    assert copies, "both saved what they had opened before the other saved"


@needs("vim")
def test_vim(machines: Machines, both: tuple[Path, Path]) -> None:
    """Both have read the old report before one of them writes."""
    ready = [point.parent / f"ready-{number}" for number, point in enumerate(both)]
    for path in ready:
        os.mkfifo(path)

    def edit(number: int) -> tuple[Path, list[object]]:
        # It says that it has read the file, and waits until it may write.
        wait = f"silent !echo read > {ready[number]}; cat {ready[number]} > /dev/null"
        say = f"%s/old report/report of {number}/"
        return both[number], ["vim", "-u", "NONE", "-es", "-c", say, "-c", wait, "-c", "wq!",
                              "report.txt"]  # fmt: skip

    def let_both_write() -> None:
        for path in ready:
            path.read_text()
        for path in ready:
            path.write_text("go")

    leader = threading.Thread(target=let_both_write)
    leader.start()
    at_once(edit(0), edit(1))
    leader.join(PROGRAM_S)
    found = agree(machines, both, {"the report of 0\n", "the report of 1\n"})
    assert len(found) == 2
    check_copies(machines, both, found)


@needs("rsync")
def test_rsync(machines: Machines, both: tuple[Path, Path], tmp_path: Path) -> None:
    commands: list[tuple[Path, Sequence[object]]] = []
    for number, point in enumerate(both):
        source = tmp_path / f"source{number}"
        source.mkdir()
        (source / "report.txt").write_text(f"the report of {number}, in full\n")
        commands.append((source, ["rsync", "-a", "report.txt", f"{point}/"]))
    at_once(*commands)
    # Who hears of the other in time writes over it, and the version stays.
    for point in both:
        machines.lucid.run("sync", point)
    seen(lambda: texts(both[0]) == texts(both[1]))
    found = texts(both[0])
    assert set(found.values()) <= {f"the report of {number}, in full\n" for number in range(2)}
    if len(found) == 2:
        check_copies(machines, both, found)
    else:
        sizes = machines.lucid.json("versions", both[0] / "report.txt")
        assert len(sizes) >= 2


@needs("git")
def test_git_pushes_from_one_and_pulls_on_the_other(
    machines: Machines, both: tuple[Path, Path], tmp_path: Path
) -> None:
    a = both[0]
    run = machines.runner(a)
    run("git", "init", "-q", "--bare", "-b", "main", "repo.git")
    heads: list[str] = []
    clones = [tmp_path / "clone-a", tmp_path / "clone-b"]
    for number, point in enumerate(both):
        machines.lucid.run("sync", a)
        seen((point / "repo.git" / "HEAD").exists)
        machines.runner(tmp_path)("git", "clone", "-q", point / "repo.git", clones[number])
        git = machines.runner(clones[number])
        git("git", "config", "user.email", "a@example.org")
        git("git", "config", "user.name", "A")
    for turn in range(4):
        here, there = (0, 1) if turn % 2 == 0 else (1, 0)
        git = machines.runner(clones[here])
        (clones[here] / f"file{turn}").write_text(f"content {turn}\n" * 2000)
        git("git", "add", ".")
        git("git", "commit", "-q", "-m", f"commit {turn}")
        git("git", "push", "-q", "origin", "HEAD:main")
        heads.append(git("git", "rev-parse", "HEAD").strip())
        token = machines.lucid.json("sync", both[here])["token"]
        machines.lucid.run("wait", token, both[there])
        other = machines.runner(clones[there])
        other("git", "pull", "-q", "origin", "main")
        assert other("git", "rev-parse", "HEAD").strip() == heads[-1]
        assert (clones[there] / f"file{turn}").read_text() == f"content {turn}\n" * 2000
    for point in both:
        machines.runner(point / "repo.git")("git", "fsck", "--strict", "--no-progress")
    assert not [path for path in (a / "repo.git").rglob("*") if "(conflict " in path.name]
