"""A first mount tells the kernel nothing about what it folded before it was ready.

A kernel that is told to forget a directory takes it from under whoever stands in it: the working
directory of a shell then reads as `(deleted)`. So only what comes after the mount may be told.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from lucid.filespace.surface import Invalidation
from lucid.types import SystemClock
from tests.filespace.spaces import WAIT_S, Space
from tests.mount.machines import Machines

STANDS = """
import os, sys
os.chdir(sys.argv[1])
print("stands", flush=True)
sys.stdin.readline()
print(os.getcwd())
print(sorted(os.listdir(".")))
"""


def test_only_what_comes_later_is_told(tmp_path: Path) -> None:
    space = Space(tmp_path)
    try:
        with space.connect("maker") as maker:
            maker.makedirs("/tree/project")
            maker.write_bytes("/tree/project/file", b"bytes")
        here, maker = space.connect("here"), space.connect("maker")
        told: list[Invalidation] = []
        came = threading.Event()

        def listen(changes: Sequence[Invalidation]) -> None:
            told.extend(changes)
            if any(change.name == b"later" for change in changes):
                came.set()

        here.tree.subscribe(listen)
        maker.mkdir("/later")
        maker.sync(timeout=WAIT_S)
        assert came.wait(WAIT_S)
        names = {change.name for change in told if change.name is not None}
        assert names == {b"later"}
        inodes = {change.ino for change in told}
        assert here.stat("/tree").ino not in inodes
        assert here.stat("/tree/project").ino not in inodes
    finally:
        space.close()


@pytest.mark.mount
def test_a_working_directory_stays_one(machines: Machines) -> None:
    """S-5: by another machine that mounts for the first time, and goes in at once."""
    project = machines.mount() / "tree" / "project"
    project.mkdir(parents=True)
    (project / "file").write_text("bytes")
    machines.lucid.run("sync", project)
    there = machines.mount_beside() / "tree" / "project"
    with subprocess.Popen(
        [sys.executable, "-c", STANDS, there],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as shell:  # fmt: skip
        assert shell.stdin is not None and shell.stdout is not None
        assert shell.stdout.readline() == "stands\n"
        (project.parent.parent / "later").mkdir()
        machines.lucid.run("sync", project)
        clock, pause = SystemClock(), threading.Event()
        until = clock.monotonic() + WAIT_S
        while not (there.parent.parent / "later").is_dir():  # now all that came before is told too
            assert clock.monotonic() < until
            pause.wait(0.05)
        (there.parent.parent / "later").rmdir()
        assert os.readlink(f"/proc/{shell.pid}/cwd") == str(there)
        answer, _ = shell.communicate("go on\n", timeout=WAIT_S)
        assert answer.splitlines() == [str(there), "['file']"]
        assert shell.returncode == 0
