"""A process of its own that works in a filespace until it is killed, and says what it does.

Arguments: the store's directory, the state directory, the number of this run, whether it may use
the store. Before each step it prints `do` and the step, after it `did` and the number of the step.
A step is made from run and number alone, so that whoever reads knows every byte.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import NamedTuple

from lucid.config import Config
from lucid.filespace import Filespace, connect

PASSPHRASE = "four words and salt"
KINDS = ("make", "make", "make", "large", "patch", "append", "rename", "remove", "cut")


class Step(NamedTuple):
    """One thing to do. `seed` and `size` say which bytes."""

    kind: str
    path: str
    other: str = ""
    seed: int = 0
    size: int = 0
    offset: int = 0

    def data(self) -> bytes:
        return Random(self.seed).randbytes(self.size)


def next_step(chance: Random, run: int, number: int, paths: list[str]) -> Step:
    """A step on these files."""
    seed = run * 100_000 + number
    kind = chance.choice(KINDS)
    if kind in ("make", "large") or len(paths) < 4:
        size = chance.choice((300, 5_000, 70_000)) if kind != "large" else 1_500_000
        return Step("make", f"/dir{number % 3}/run{run}-{number}", "", seed, size)
    path = chance.choice(paths)
    if kind == "rename":
        other = chance.choice(paths) if number % 2 else f"{path}-moved{seed}"
        return Step(kind, path, other)
    return Step(kind, path, "", seed, chance.choice((1, 700, 66_000)), chance.choice((0, 65_000)))


def apply(files: dict[str, bytes], step: Step) -> dict[str, bytes]:
    """The files after the step."""
    after = dict(files)
    old = after.get(step.path, b"")
    if step.kind == "make":
        after[step.path] = step.data()
    elif step.kind == "append":
        after[step.path] = old + step.data()
    elif step.kind == "patch":
        padded = old.ljust(step.offset, b"\0")
        after[step.path] = padded[: step.offset] + step.data() + padded[step.offset + step.size :]
    elif step.kind == "cut":
        after[step.path] = old[: step.size]
    elif step.kind == "remove":
        del after[step.path]
    elif step.path != step.other:
        after[step.other] = after.pop(step.path)
    return after


def do(fs: Filespace, step: Step) -> None:
    """The same on the filespace."""
    if step.kind == "make":
        fs.write_bytes(step.path, step.data())
    elif step.kind == "append":
        with fs.open(step.path, "ab") as file:
            file.write(step.data())
    elif step.kind == "patch":
        with fs.open(step.path, "r+b", 0) as file:
            file.seek(step.offset)
            file.write(step.data())
    elif step.kind == "cut":
        fs.truncate(step.path, min(step.size, fs.stat(step.path).size))
    elif step.kind == "remove":
        fs.remove(step.path)
    else:
        fs.rename(step.path, step.other)


def say(word: str, what: object) -> None:
    sys.stdout.write(f"{word} {json.dumps(what)}\n")
    sys.stdout.flush()


def main() -> None:
    store, state, run = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    files: list[str] = json.loads(sys.argv[4])
    fs = connect(store, passphrase=PASSPHRASE, config=Config(state_dir=state))
    for number in range(3):
        fs.makedirs(f"/dir{number}", exist_ok=True)
    say("open", None)
    chance = Random(run)
    now = dict.fromkeys(files, b"")
    for number in range(100_000):
        step = next_step(chance, run, number, sorted(now))
        say("do", step)
        do(fs, step)
        say("did", number)
        now = dict.fromkeys(apply(now, step._replace(size=0)), b"")


if __name__ == "__main__":
    main()
