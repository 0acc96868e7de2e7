"""kill -9 of a real process at any moment, again and again: what it said was done is there, whole,
once, here and for a machine that has only the store (S-22, S-27)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from lucid.config import Config
from lucid.filespace import Filespace, connect, init
from tests.fault.worker import PASSPHRASE, Step, apply
from tests.filespace.spaces import STRETCH, WAIT_S

REPOSITORY = Path(__file__).parents[2]
Files = dict[str, bytes]


class Killed:
    """A filespace in a directory, a worker, and what must be there."""

    def __init__(self, root: Path) -> None:
        (root / "store").mkdir()
        self.url = f"file://{root}/store"
        self.root = root
        self.files: Files = {}
        init(self.url, passphrase=PASSPHRASE, stretch=STRETCH)

    def run(self, number: int, steps: int) -> list[Files]:
        """Let a worker do `steps` steps, and then some until it dies. What may be there now."""
        arguments = [
            self.url,
            str(self.root / "state"),
            str(number),
            json.dumps(sorted(self.files)),
        ]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.fault.worker", *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines = []
            done = 0
            while done < steps:
                line = process.stdout.readline()
                assert line, "the worker ended by itself"
                lines.append(line)
                done += line.startswith("did")
            process.kill()
            rest = process.stdout.read()
        lines += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        return self.may_be(lines)

    def may_be(self, lines: list[str]) -> list[Files]:
        """The states that the last of these lines may have left."""
        begun: Step | None = None
        for line in lines:
            word, _, what = line.partition(" ")
            if word == "do":
                begun = Step(*json.loads(what))
            elif word == "did":
                assert begun is not None
                self.files, begun = apply(self.files, begun), None
        if begun is None:
            return [self.files]
        states = [self.files, apply(self.files, begun)]
        if begun.kind == "make":
            # A file is there, empty, from its creation on, if something makes just that durable.
            states.append({**self.files, begun.path: b""})
        return states

    def open(self, state: str) -> Filespace:
        config = Config(state_dir=self.root / state)
        return connect(self.url, passphrase=PASSPHRASE, config=config)


def content_of(fs: Filespace) -> Files:
    """Every file."""
    return {
        f"/{directory}/{name}": fs.read_bytes(f"/{directory}/{name}")
        for directory in fs.listdir("/")
        for name in fs.listdir(f"/{directory}")
    }


def check_one_of(found: Files, states: list[Files]) -> Files:
    """`found` is one of `states`; else the nearest difference is told."""
    for state in states:
        if found == state:
            return state
    want = states[0]
    wrong = sorted(path for path in {*found, *want} if found.get(path) != want.get(path))
    told = [(p, len(found.get(p, b"")), len(want.get(p, b""))) for p in wrong]
    raise AssertionError(f"path, bytes found, bytes wanted: {told}")


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    chance = Random(3)
    for number in range(10):
        states = killed.run(number, chance.choice((1, 2, 5, 20, 40)))
        if number % 3 == 1:
            continue_blind(killed, states)
            continue
        with killed.open("state") as fs:
            killed.files = check_one_of(content_of(fs), states)
    with killed.open("state") as fs:
        fs.sync(timeout=WAIT_S)
        assert content_of(fs) == killed.files
        assert fs.status().failed == ()
    with killed.open("empty") as other:
        assert content_of(other) == killed.files


def continue_blind(killed: Killed, states: list[Files]) -> None:
    """The next process is killed while it takes up what the one before it left."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fault.worker", killed.url,
         str(killed.root / "state"), "999", "[]"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("open")
        process.kill()
        first = process.stdout.read().splitlines()
    states = killed_states(killed, states, first)
    with killed.open("state") as fs:
        killed.files = check_one_of(content_of(fs), states)


def killed_states(killed: Killed, states: list[Files], lines: list[str]) -> list[Files]:
    """What may be there after these steps on top of one of `states`."""
    found = []
    for state in states:
        killed.files = state
        found.extend(killed.may_be(lines))
    return found
