"""Several machines in one filespace: when the others see a change, and what they do at once.

Every machine is a mount of its own, with a state directory of its own, over one S3 server behind
the delay line; the hub stands behind one too. See `contention` for commits alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
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
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench import report
from bench.contention import contest
from bench.delay import delay_line
from bench.report import Result
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
CONTEST_MS = 20.0
CONTESTS = ((1, False), (4, False), (16, False), (16, True))
"""Devices, and whether one of them is far away."""


class Told(NamedTuple):
    """What was measured, in which way, how far away, and what came of it."""

    what: str
    how: str
    distance: Distance
    figures: Figures


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
    found = {
        f"p{percent} ms": ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000
        for percent in (50, 99)
    }
    return found | {"max ms": ordered[-1] * 1000, "n": float(len(ordered))}


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


def _visibility(asked: argparse.Namespace, store: S3Server, top: Path) -> Iterator[Told]:
    for distance, with_hub, how in _ways(asked):
        figures = visibility(store, distance, with_hub, asked.rounds, top)
        yield Told("visible elsewhere", how, distance, figures)


def _contention(asked: argparse.Namespace, store: S3Server, top: Path) -> Iterator[Told]:
    for devices, far in asked.contests:
        found = contest(devices, asked.seconds, CONTEST_MS / 1000, far).figures()
        who = "1 device" if devices == 1 else f"{devices} devices"
        how = who + (", one of them ten times as far away" if far else "")
        yield Told("commits", how, (CONTEST_MS, 0.0), found)


def _crowd(asked: argparse.Namespace, store: S3Server, top: Path) -> Iterator[Told]:
    figures = crowd(store, (0.0, 0.0), 4, asked.files, top)
    how = f"{asked.files:,} files of each of 4 machines"
    yield Told("made in one directory", how, (0.0, 0.0), figures)


def _locks(asked: argparse.Namespace, store: S3Server, top: Path) -> Iterator[Told]:
    from bench.hand_over import hand_over

    for distance, with_hub, how in _ways(asked):
        figures = hand_over(store, distance, with_hub, asked.turns, top)
        yield Told("a lock changes machines", how, distance, figures)


def _ways(asked: argparse.Namespace) -> Iterator[tuple[Distance, bool, str]]:
    """Each distance, with a hub and without."""
    for round_trip in asked.round_trips:
        distance = (round_trip, RATE_MB_S if round_trip else 0.0)
        yield distance, True, "with a hub"
        yield distance, False, "by polling"


PARTS = {"visibility": _visibility, "contention": _contention, "crowd": _crowd, "locks": _locks}
"""What is measured, by name."""


def _lines(told: Told, width: int) -> Iterator[str]:
    """What it is, and below it what came of it; `load` is how busy the machine was."""
    far = f"{told.distance[0]:g} ms away" if told.distance[0] else "near"
    yield f"{told.what}, {told.how}, {far}"
    words = [_words(name, value) for name, value in told.figures.items()]
    yield from report.in_lines("    ", words, width)


def _words(name: str, value: float) -> str:
    """A figure with its unit behind the number."""
    what, _, unit = name.rpartition(" ")
    if unit in ("ms", "s"):
        return f"{what} {report.short(value)} {unit}"
    if name.endswith("/s"):
        return f"{name[:-2]} {report.short(value)}/s"
    return f"{name} {report.short(value)}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./build.sh bench together",
        description="When other machines see a change, commits of devices that contend, files "
        "that machines make at once in one directory, and a lock that goes back and forth.",
    )
    count = report.at_least_one
    parser.add_argument("parts", nargs="*", help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=count, default=200, help="of each figure of visibility")
    parser.add_argument("--turns", type=count, default=1000, help="of a lock between two machines")
    parser.add_argument("--round-trips", default="0,20", metavar="MS,...", help="%(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each contest of commits")
    parser.add_argument("--files", type=count, default=10_000, help="of each machine in a crowd")
    parser.add_argument("--tiny", action="store_true", help="to see whether it works, once")
    parser.add_argument("--directory", type=Path, help="where to work: a disk, not a tmpfs")
    parser.add_argument("--json", type=Path, help="write all figures there, for bench compare")
    asked = parser.parse_args(arguments)
    asked.round_trips = report.round_trips(parser, asked.round_trips)
    asked.contests = CONTESTS
    report.check_place(parser, asked.json, asked.directory)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(PARTS)}")
    if asked.tiny:
        asked.rounds, asked.turns, asked.seconds, asked.files = 4, 4, 0.5, 60
        asked.round_trips, asked.contests = asked.round_trips[:1], ((1, False), (3, True))
    return asked


def main(arguments: Sequence[str]) -> None:
    """`./build.sh bench together`."""
    asked = _options(arguments)
    width = max(80, shutil.get_terminal_size((100, 24)).columns)
    results: dict[tuple[str, float], Result] = {}
    with tempfile.TemporaryDirectory(prefix="lucid-bench-", dir=asked.directory) as folder:
        top = Path(folder)
        (top / "server").mkdir()
        with server(top / "server") as store:
            for part in asked.parts or PARTS:
                for told in PARTS[part](asked, store, top):
                    told.figures["load"] = os.getloadavg()[0]
                    print("\n".join(_lines(told, width)), flush=True)
                    kept = Result(part, "lucid", *told.distance)
                    kept = results.setdefault((part, told.distance[0]), kept)
                    kept.add({told.how: told.figures}, {})
                    if asked.json:
                        command = ["./build.sh", "bench", "together", *arguments]
                        report.save(asked.json, list(results.values()), command)
