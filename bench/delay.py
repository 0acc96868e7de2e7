"""A store that is further away: runs the proxy of delay_line.c, and what passed through it."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["DelayLine", "Passed", "delay_line"]

SOURCE = Path(__file__).with_name("delay_line.c")
PROGRAM = SOURCE.parents[1] / "build" / "delay_line"
COMPILE_S = 120


class Passed(NamedTuple):
    """What went through since it began: connections, HTTP requests, bytes with their heads."""

    connections: int
    requests: int
    sent: int
    received: int

    def since(self, earlier: Passed) -> Passed:
        return Passed(*(now - then for now, then in zip(self, earlier, strict=True)))


class DelayLine:
    """A running proxy. `endpoint` is where to go instead of the store."""

    def __init__(self, port: int, counters: Path, process: subprocess.Popen[str]) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self._counters = counters
        self._process = process

    def passed(self) -> Passed:
        return Passed(*struct.unpack("=4Q", self._counters.read_bytes()))

    def cpu_s(self) -> float:
        """CPU seconds of the proxy itself, which shares the cores with what is measured."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = text.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _program() -> Path:
    """The compiled proxy, compiled anew when its source is newer. Needs gcc."""
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(exist_ok=True)
        fresh = PROGRAM.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(fresh), str(SOURCE)]
        subprocess.run(command, check=True, timeout=COMPILE_S)
        fresh.replace(PROGRAM)
    return PROGRAM


@contextmanager
def delay_line(
    port: int, folder: Path, round_trip_ms: float = 20.0, rate_mb_s: float = 100.0
) -> Iterator[DelayLine]:
    """Within, a port of this machine is so far away, and a connection carries so much each way.

    A rate of 0 sets no limit.
    """
    counters = folder / f"delay-line-{os.urandom(4).hex()}"
    numbers = [port, round(round_trip_ms * 1000), round(rate_mb_s * 1e6)]
    command = [str(_program()), *map(str, numbers), str(counters)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield DelayLine(int(process.stdout.readline()), counters, process)
        finally:
            process.kill()
