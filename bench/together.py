"""Several machines in one filespace: when the others see a change, and what they do at once.

Every machine is a mount of its own, with a state directory of its own, over one S3 server behind
the delay line; the hub stands behind one too. See `contention` for commits alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.contention import contest
from bench.delay import delay_line
from bench.report import round_trips
from bench.scenarios import Distance, S3Server, own_bucket, server

__all__ = [
    "PARTS", "Machines", "crowd", "hub", "machines", "main", "percentiles", "until", "visibility",
]  # fmt: skip

Figures = dict[str, float]

COMMAND_S = 600.0
LOOK_S = 0.001
"""How often it is looked whether a change has arrived."""
GIVE_UP_S = 60.0
SIZE = 5000
RATE_MB_S = 100.0


class Machines:
    """Mounts of one filespace, by name."""

    def __init__(self, top: Path, store: str, environment: dict[str, str]) -> None:
        self.top = top
        self.store = store
        self.points: list[Path] = []
        (top / "run").mkdir(mode=0o700)
        self._environment = {
            **os.environ, **environment, "LUCID_PASSPHRASE": "bench bench",
            "XDG_RUNTIME_DIR": str(top / "run"),
        }  # fmt: skip
        self.run("init", store)

    def run(self, *arguments: object) -> str:
        """A `lucid` command; its output. Raises RuntimeError."""
        done = subprocess.run(
            [sys.executable, "-m", "lucid", *map(str, arguments)],
            env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=COMMAND_S,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"lucid {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def mount(self, hub: str = "") -> Path:
        """One machine more."""
        point = self.top / f"machine-{len(self.points)}"
        point.mkdir()
        options = ["--hub", hub] if hub else []
        state = self.top / f"state-{len(self.points)}"
        self.run("mount", self.store, point, "--state-dir", state, *options)
        self.points.append(point)
        if hub:
            until(lambda: self.status(point)["hub"]["connected"], 0.1)
        return point

    def status(self, point: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", point, "--json"))
        return found

    def sync(self) -> None:
        """All that was written anywhere is in the store."""
        with ThreadPoolExecutor(len(self.points)) as threads:
            list(threads.map(lambda point: self.run("sync", point), self.points))

    def end(self) -> None:
        for point in self.points:
            self.run("umount", "--no-wait", point)
        self.points.clear()


def until(true: Callable[[], object], pause_s: float = LOOK_S) -> float:
    """Wait until something holds; when that was. Nothing tells a program of another's change."""
    end = time.perf_counter() + GIVE_UP_S
    while not true():
        if time.perf_counter() > end:
            raise RuntimeError("a change did not arrive within a minute")
        time.sleep(pause_s)
    return time.perf_counter()


@contextmanager
def machines(store: S3Server, distance: Distance, top: Path) -> Iterator[Machines]:
    """A new filespace in a bucket of its own, so far away; unmounted afterwards."""
    port = urlsplit(store.endpoint).port
    assert port is not None
    with (
        tempfile.TemporaryDirectory(prefix="lucid-bench-", dir=top) as folder,
        delay_line(port, Path(folder), *distance) as line,
        own_bucket(store) as bucket,
    ):
        url = f"s3://{bucket}/together?endpoint={line.endpoint}"
        made = Machines(Path(folder), url, store.environment())
        try:
            yield made
        finally:
            made.end()


@contextmanager
def hub(distance: Distance, top: Path) -> Iterator[str]:
    """The address of a hub that is as far away as the store."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "lucid", "hub", "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _answers(port), 0.02)
            with delay_line(port, top, *distance) as line:
                yield line.endpoint.replace("http://", "ws://")
        finally:
            process.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def percentiles(seconds: Sequence[float]) -> Figures:
    """In milliseconds."""
    ordered = sorted(seconds)
    found = {"n": float(len(ordered)), "max ms": ordered[-1] * 1000}
    for percent in (50, 99):
        found[f"p{percent} ms"] = (
            ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000
        )
    return found


def visibility(
    store: S3Server, distance: Distance, with_hub: bool, rounds: int, top: Path
) -> Figures:
    """From the return of close() on one machine until another reads the content: new files of 5 kB
    and files written anew, in turns, in both directions."""
    chance = random.Random(1)
    with ExitStack() as stack:
        address = stack.enter_context(hub(distance, top)) if with_hub else ""
        team = stack.enter_context(machines(store, distance, top))
        points = [team.mount(address), team.mount(address)]
        took = []
        for number in range(rounds):
            here, there = points if number % 4 < 2 else points[::-1]
            name = f"f{number - number % 2}"
            content = os.urandom(SIZE)
            (here / name).write_bytes(content)
            closed = time.perf_counter()
            took.append(until(lambda path=there / name, c=content: _shows(path, c)) - closed)  # type: ignore[misc]
            time.sleep(chance.uniform(0.05, 0.55))  # not in step with who looks at the log
    return percentiles(took)


def _shows(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def crowd(store: S3Server, distance: Distance, writers: int, files: int, top: Path) -> Figures:
    """So many machines make so many files each in one directory, all at once; then all of them
    must show all of them."""
    with machines(store, distance, top) as team:
        points = [team.mount() for _ in range(writers)]
        (points[0] / "all").mkdir()
        team.sync()
        for point in points:
            until((point / "all").exists)
        begin = threading.Barrier(writers + 1)

        def write(number: int) -> None:
            folder = points[number] / "all"
            begin.wait()
            for each in range(files):
                (folder / f"{number}-{each}").write_bytes(b"%d %d" % (number, each))

        with ThreadPoolExecutor(writers) as threads:
            work = [threads.submit(write, number) for number in range(writers)]
            begin.wait()
            began = time.perf_counter()
            for each in work:
                each.result()
            created = time.perf_counter() - began
        team.sync()
        stored = time.perf_counter() - began
        until(lambda: all(len(os.listdir(p / "all")) == writers * files for p in points), 0.2)
        seen = time.perf_counter() - began
        _check_crowd(points, writers, files)
    return {
        "files": float(writers * files),
        "created/s": writers * files / created,
        "in the store/s": writers * files / stored,
        "seen by all after s": seen,
    }


def _check_crowd(points: Sequence[Path], writers: int, files: int) -> None:
    """Every name is there once on every machine, and some contents are looked at."""
    names = {f"{number}-{each}" for number in range(writers) for each in range(files)}
    for point in points:
        if set(os.listdir(point / "all")) != names:
            raise RuntimeError("a file is missing, or has a conflict name")
        for number in range(writers):
            each = files * (number + 1) // (writers + 1)
            if (point / "all" / f"{number}-{each}").read_bytes() != b"%d %d" % (number, each):
                raise RuntimeError("a file has other bytes than were written")


# -- the verb


def _visibility(asked: argparse.Namespace, store: S3Server, top: Path) -> Iterator[str]:
    for round_trip in asked.round_trips:
        for with_hub in (True, False):
            how = "with a hub" if with_hub else "by polling"
            distance = (round_trip, RATE_MB_S if round_trip else 0.0)
            figures = visibility(store, distance, with_hub, asked.rounds, top)
            yield _line(f"visible elsewhere, {how}, {round_trip:g} ms", figures)


def _contention(asked: argparse.Namespace, store: S3Server, top: Path) -> Iterator[str]:
    for devices, far in ((1, False), (4, False), (16, False), (16, True)):
        found = contest(devices, asked.seconds, 0.02, far).figures()
        what = f"{devices} devices commit" + (", one of them ten times as far away" if far else "")
        yield _line(f"{what}, 20 ms", found)


def _crowd(asked: argparse.Namespace, store: S3Server, top: Path) -> Iterator[str]:
    figures = crowd(store, (0.0, 0.0), 4, asked.files, top)
    yield _line(f"4 machines make {asked.files:,} files each in one directory", figures)


def _locks(asked: argparse.Namespace, store: S3Server, top: Path) -> Iterator[str]:
    from bench.hand_over import hand_over

    for round_trip in asked.round_trips:
        for with_hub in (True, False):
            how = "with a hub" if with_hub else "by polling"
            distance = (round_trip, RATE_MB_S if round_trip else 0.0)
            figures = hand_over(store, distance, with_hub, asked.turns, top)
            yield _line(f"a lock changes machines, {how}, {round_trip:g} ms", figures)


PARTS = {"visibility": _visibility, "contention": _contention, "crowd": _crowd, "locks": _locks}
"""What is measured, by name."""


def _line(what: str, figures: Figures) -> str:
    shown = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
    return f"{what}: {shown}"


def main(arguments: Sequence[str]) -> None:
    """`./build.sh bench together`."""
    parser = argparse.ArgumentParser(
        prog="./build.sh bench together",
        description="When other machines see a change, commits of devices that contend, and files "
        "that machines make at once in one directory.",
    )
    parser.add_argument("parts", nargs="*", help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=200, help="of each figure of visibility")
    parser.add_argument("--turns", type=int, default=1000, help="of a lock between two machines")
    parser.add_argument("--round-trips", default="0,20", metavar="MS,...", help="%(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each contest of commits")
    parser.add_argument("--files", type=int, default=10_000, help="of each machine in a crowd")
    parser.add_argument("--directory", type=Path, help="where to work: a disk, not a tmpfs")
    asked = parser.parse_args(arguments)
    asked.round_trips = round_trips(parser, asked.round_trips)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="lucid-bench-", dir=asked.directory) as folder:
        top = Path(folder)
        (top / "server").mkdir()
        with server(top / "server") as store:
            for part in asked.parts or PARTS:
                for line in PARTS[part](asked, store, top):
                    load = os.getloadavg()[0]
                    print(f"{line} (load {load:.1f})", flush=True)
