"""A program of its own that opens files and locks them, as it is told, one expression a line.

What waits in the kernel must not wait in the test's process, and a lock belongs to a process.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ANSWER_S = 20.0

CODE = """
import errno, fcntl, os, signal, struct, sys
from fcntl import F_GETLK, F_SETLK, F_SETLKW, F_RDLCK, F_UNLCK, F_WRLCK
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN

LAYOUT = "hhqqi4x"

def open_(name):
    return os.open(name, os.O_RDWR | os.O_CREAT, 0o644)

def control(fd, command, kind, start=0, length=0):
    packed = struct.pack(LAYOUT, kind, 0, start, length, 0)
    kind, _, start, length, pid = struct.unpack(LAYOUT, fcntl.fcntl(fd, command, packed))
    return kind, start, length, pid

def take(fd, kind, start=0, length=0):
    control(fd, F_SETLK, kind, start, length)

def wait(fd, kind, start=0, length=0):
    control(fd, F_SETLKW, kind, start, length)

def ask(fd, kind, start=0, length=0):
    return control(fd, F_GETLK, kind, start, length)

def interrupted(number, frame):
    raise InterruptedError(errno.EINTR, "a signal came")

signal.signal(signal.SIGUSR1, interrupted)
print(os.getpid(), flush=True)
for line in sys.stdin:
    try:
        print(repr(eval(line, globals())), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


class Program:
    """One process in a directory. `ask` evaluates; errors come back as the name of their errno."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE], cwd=directory, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self._poll = select.poll()
        assert self._process.stdout is not None
        self._poll.register(self._process.stdout, select.POLLIN)
        self.pid = int(self.answer())

    def begin(self, expression: str) -> None:
        """It may wait; `answer` tells what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(expression + "\n")

    def has_answered(self) -> bool:
        return bool(self._poll.poll(0))

    def answer(self) -> str:
        assert self._process.stdout is not None
        assert self._poll.poll(ANSWER_S * 1000), "the program still waits"
        return self._process.stdout.readline().rstrip("\n")

    def ask(self, expression: str) -> str:
        self.begin(expression)
        return self.answer()

    def signal(self, number: int = signal.SIGUSR1) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        """With kill -9, if it has not ended."""
        self._process.kill()
        self._process.wait(ANSWER_S)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
