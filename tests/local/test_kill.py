"""kill -9 of a real process that appends: what it said was accepted is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lucid.local.disk import RealDisk
from tests.local.journals import open_journal, patch, read_back

REPOSITORY = Path(__file__).parents[2]


def killed_after(root: Path, first: int, lines: int) -> int:
    """Runs the appender, kills it, and answers the number that it had said last by then."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.local.appender", str(root), str(first)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for _ in range(lines):
            said = process.stdout.readline()
            assert said, "the appender ended by itself"
        process.kill()
        rest = process.stdout.read()
    complete = (said + rest).rsplit("\n", 1)[0].split("\n")
    return int(complete[-1])


def test_what_was_accepted_survives_kill(disk: RealDisk, root: Path) -> None:
    first = 0
    for lines in (1, 150, 37):
        said = killed_after(root, first, lines)
        found, report = read_back(disk, root)
        assert found == list(range(len(found))), "in order, and nothing twice or invented"
        assert said <= len(found) <= said + 2, "at most the one that it was about to say"
        assert report.damage is None
        first = len(found)
    with open_journal(disk, root) as journal:
        journal.append(patch(first))
    assert read_back(disk, root)[0] == list(range(first + 1))
