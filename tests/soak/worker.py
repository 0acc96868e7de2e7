"""A process that works on a drive until the drive is gone, and says what it does.

Arguments: the drive, the worker's number, the number of this run, and the names it has already, as
JSON: path -> true for a directory. It prints `open`, before each step `do` and the step, after it
`did`, and at its end `stopped`, when that was (CLOCK_MONOTONIC) and why. A step was acknowledged
when its line `did` is there: nothing is printed before the last system call has returned.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from tests.soak.steps import Step, log_path, steps

PIECE = 1 << 20
READ = os.O_RDONLY
WRITE = os.O_WRONLY
MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
APPEND = os.O_WRONLY | os.O_APPEND
LOG = APPEND | os.O_CREAT


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class Hands:
    """Does steps below a directory, by system calls, or by what stands in for them."""

    def __init__(self, root: str, worker: int, calls: Any = os) -> None:
        self._root = root
        self._os = calls
        self._kept = calls.open(self.place(log_path(worker)), LOG, 0o644)

    def place(self, path: str) -> str:
        return f"{self._root}{path}"

    def do(self, step: Step) -> None:
        getattr(self, f"_{step.kind}")(self.place(step.path), step)

    def _put(self, path: str, step: Step, flags: int, offset: int | None = None) -> None:
        """Open, write, close: also when the write fails, whose error is the one that counts."""
        fd = self._os.open(path, flags, 0o644)
        try:
            if offset is not None:
                self._os.lseek(fd, offset, os.SEEK_SET)
            self._all(fd, step.data())
        except BaseException:
            self._os.close(fd)
            raise
        self._os.close(fd)

    def _make(self, path: str, step: Step) -> None:
        self._put(path, step, MAKE)

    def _append(self, path: str, step: Step) -> None:
        self._put(path, step, APPEND)

    def _patch(self, path: str, step: Step) -> None:
        self._put(path, step, WRITE, step.offset)

    def _save(self, path: str, step: Step) -> None:
        self._put(path, step, WRITE | os.O_TRUNC)

    def _cut(self, path: str, step: Step) -> None:
        self._os.truncate(path, step.size)

    def _rename(self, path: str, step: Step) -> None:
        self._os.rename(path, self.place(step.other))

    def _remove(self, path: str, step: Step) -> None:
        self._os.unlink(path)

    def _mkdir(self, path: str, step: Step) -> None:
        self._os.mkdir(path)

    def _rmdir(self, path: str, step: Step) -> None:
        self._os.rmdir(path)

    def _sync(self, path: str, step: Step) -> None:
        fd = self._os.open(path, READ)
        try:
            self._os.fsync(fd)
        finally:
            self._os.close(fd)

    def _syncdir(self, path: str, step: Step) -> None:
        self._sync(str(Path(path).parent), step)

    def _write(self, path: str, step: Step) -> None:
        self._all(self._kept, step.data())

    def _fsync(self, path: str, step: Step) -> None:
        self._os.fsync(self._kept)

    def _reopen(self, path: str, step: Step) -> None:
        self._os.close(self._kept)
        self._kept = self._os.open(path, LOG, 0o644)

    def _all(self, fd: Any, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._os.write(fd, view[:PIECE]) :]


def main() -> None:
    root, worker, run = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    names: dict[str, bool] = json.loads(sys.argv[4])
    tree = {path: None if is_directory else b"" for path, is_directory in names.items()}
    chance = Random(run * 100 + worker)
    try:
        hands = Hands(root, worker)
        say("open")
        for step in steps(chance, worker, run, tree):
            say(f"do {json.dumps(step)}")
            hands.do(step)
            say("did")
    except OSError as error:
        say(f"stopped {time.monotonic()} {error}")


if __name__ == "__main__":
    main()
