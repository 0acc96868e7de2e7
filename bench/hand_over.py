"""A lock that goes back and forth between two machines: how long a turn takes, and that a counter
under it misses none."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.scenarios import Distance, S3Server
from bench.together import Figures, hub, machines, percentiles, until

__all__ = ["hand_over"]

COUNT = """
import fcntl, sys, time
for _ in sys.stdin:
    with open(sys.argv[1], "r+b", 0) as file:
        began = time.perf_counter()
        fcntl.flock(file, fcntl.LOCK_EX)
        waited = time.perf_counter() - began
        number = int(file.read())
        file.seek(0)
        file.write(b"%d" % (number + 1))
    print(waited, flush=True)
"""


def hand_over(
    store: S3Server, distance: Distance, with_hub: bool, turns: int, top: Path
) -> Figures:
    """Two machines with a program each. In turns one of them locks a file, raises the number in it
    and closes it, so each turn takes the lock away from the other machine. What is measured is
    flock() alone: the other machine hears of the wish, publishes what it wrote, gives the lease
    back, and this one hears of that.

    Raises RuntimeError if the counter does not end at the number of turns.
    """
    with ExitStack() as stack:
        address = stack.enter_context(hub(distance, top)) if with_hub else ""
        team = stack.enter_context(machines(store, distance, top))
        points = [team.mount(address), team.mount(address)]
        (points[0] / "counter").write_bytes(b"0")
        team.sync()
        until((points[1] / "counter").exists)
        programs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", COUNT, str(point / "counter")],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                )
            )
            for point in points
        ]  # fmt: skip
        waited = [_turn(programs[number % 2]) for number in range(turns)]
        for program in programs:
            assert program.stdin is not None
            program.stdin.close()
        team.sync()
        for point in points:
            until(lambda path=point / "counter": int(path.read_bytes()) == turns)  # type: ignore[misc]
            if any("conflict" in name.name for name in point.iterdir()):
                raise RuntimeError("a turn lies beside the counter")
    return percentiles(waited)


def _turn(program: subprocess.Popen[str]) -> float:
    assert program.stdin is not None and program.stdout is not None
    program.stdin.write("go\n")
    said = program.stdout.readline()
    if not said:
        raise RuntimeError("a program that locks failed")
    return float(said)
