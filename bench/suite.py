"""`./build.sh bench NAME`: what a drive does here, step by step, with a real S3 server beside it.

Each scenario runs on a real mount. Rates are of decimal megabytes; `cpu` is the daemon's CPU time;
`cold` means an empty state directory and a dropped page cache. From the local cache a file is read
twice: with the disk's pages dropped too, where the disk is the limit (it is measured beside it),
and with only the drive's own pages dropped. `replica` and `gc` (see scale.py) are run when they are
named. Run it on a quiet machine, and look at the spread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import report
from bench.drive import Drive, drop_page_cache, seaweed
from bench.report import Result
from bench.scale import gc_figures, replica_figures

MB = 1_000_000
MiB = 1 << 20
CHUNK = MiB

Figures = dict[str, float]

UNITS = {"MB/s", "files/s", "s", "ms", "s/GB", "ms/file"}
"""With which a figure's name ends."""
WHOLE = "all of it"
"""The phase of a figure whose name is more than a phase and a unit."""
TINY = {"size_mib": 2, "copy_mib": 4, "files": 12, "pending": 20, "log_files": 40, "segments": 20}


def write_file(path: Path, size: int, seed: bytes) -> None:
    """`size` bytes that do not compress and are no zeros."""
    with path.open("wb", buffering=0) as file:
        done = 0
        while done < size:
            head = done.to_bytes(8, "little")
            file.write(head + seed[len(head) : min(CHUNK, size - done)])
            done += min(CHUNK, size - done)
        os.fsync(file.fileno())


def read_file(path: Path) -> tuple[float, float]:
    """(seconds to the first 4 KiB, seconds to the end)."""
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        file.read(4096)
        first = time.perf_counter() - began
        while file.read(CHUNK):
            pass
    return first, time.perf_counter() - began


def forget_pages(path: Path) -> None:
    """Drop what the kernel holds of one file of the drive."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_rate(folder: Path, size: int, seed: bytes) -> float:
    """MB/s at which the disk itself gives a file of this size, once its pages are dropped."""
    path = folder / "raw"
    write_file(path, size, seed)
    drop_page_cache()
    seconds = read_file(path)[1]
    path.unlink()
    return size / seconds / MB


def sequential(drive: Drive, size: int, seed: bytes) -> Figures:
    """Write to fsync and until committed, then read cold, from the local cache, from memory."""
    target = drive.mountpoint / "large"
    cpu = drive.cpu_s()
    began = time.perf_counter()
    write_file(target, size, seed)
    written = time.perf_counter() - began
    drive.sync()
    committed = time.perf_counter() - began
    figures = {
        "write to fsync MB/s": size / written / MB,
        "write until in the store MB/s": size / committed / MB,
        "write cpu s/GB": (drive.cpu_s() - cpu) / size * 1e9,
    }
    drop_page_cache()
    figures["read own file, local MB/s"] = size / read_file(target)[1] / MB
    drive.umount()
    drive.mount(fresh=True)
    drop_page_cache()
    cpu, fetched = drive.cpu_s(), drive.status()["bytes_fetched"]
    first, seconds = read_file(target)
    figures["read cold MB/s"] = size / seconds / MB
    figures["first byte cold ms"] = first * 1000
    figures["read cold cpu s/GB"] = (drive.cpu_s() - cpu) / size * 1e9
    figures["fetched / read"] = (drive.status()["bytes_fetched"] - fetched) / size
    drop_page_cache()
    cpu = drive.cpu_s()
    figures["read local cache MB/s"] = size / read_file(target)[1] / MB
    figures["read local cpu s/GB"] = (drive.cpu_s() - cpu) / size * 1e9
    forget_pages(target)
    figures["read local cache, disk warm MB/s"] = size / read_file(target)[1] / MB
    figures["the disk itself MB/s"] = disk_rate(drive.top, size, seed)
    figures["peak MiB"] = drive.peak_mib()
    target.unlink()
    return figures


def small_files(drive: Drive, count: int, seed: bytes) -> Figures:
    """Files of 4 to 16 KiB, 100 a directory: create, stat after remount, read cold and again."""
    top = drive.mountpoint / "small"
    top.mkdir()
    cpu = drive.cpu_s()
    began = time.perf_counter()
    for number in range(count):
        if number % 100 == 0:
            (top / f"{number // 100}").mkdir()
        size = 4096 + number * 7919 % 12288
        with (top / f"{number // 100}" / f"{number}").open("wb", buffering=0) as file:
            file.write(number.to_bytes(8, "little") + seed[8:size])
    created = time.perf_counter() - began
    drive.sync()
    committed = time.perf_counter() - began
    figures = {
        "create files/s": count / created,
        "create until in the store files/s": count / committed,
        "create cpu ms/file": (drive.cpu_s() - cpu) / count * 1000,
    }
    drive.umount()
    figures["mount new device s"] = drive.mount(fresh=True)
    drop_page_cache()
    began = time.perf_counter()
    paths = [entry for folder in sorted(top.iterdir()) for entry in sorted(folder.iterdir())]
    for path in paths:
        path.stat()
    figures["list and stat after remount files/s"] = count / (time.perf_counter() - began)
    for name in ("read cold files/s", "read local cache files/s"):
        drop_page_cache()
        began = time.perf_counter()
        for path in paths:
            path.read_bytes()
        figures[name] = count / (time.perf_counter() - began)
    began = time.perf_counter()
    for path in paths:
        path.unlink()
    figures["delete files/s"] = count / (time.perf_counter() - began)
    return figures


def copy_large(drive: Drive, size: int, seed: bytes) -> Figures:
    """Memory while a large file is copied in and out again."""
    target = drive.mountpoint / "copy"
    write_file(target, size, seed)
    drive.sync()
    drive.umount()
    inward = 0.0
    drive.mount(fresh=True)
    drop_page_cache()
    read_file(target)
    inward = drive.peak_mib()
    write_file(drive.mountpoint / "again", size // 4, seed)
    return {"peak MiB, copied out and in": max(inward, drive.peak_mib())}


def recover(drive: Drive, count: int, seed: bytes) -> Figures:
    """Files of 4 KiB wait while the store is away, and then the daemon is killed: how long until a
    drive is there again, without the store and with it, and until all is in the store."""
    drive.umount()
    with drive.behind_proxy() as proxy:
        drive.mount()
        proxy.stop()
        top = drive.mountpoint / "waiting"
        top.mkdir()
        began = time.perf_counter()
        for number in range(count):
            if number % 100 == 0:
                (top / f"{number // 100}").mkdir()
            path = top / f"{number // 100}" / f"{number}"
            path.write_bytes(number.to_bytes(8, "little") + seed[8:4096])
        figures = {"made without the store files/s": count / (time.perf_counter() - began)}
        drive.kill()
        figures["mount after kill -9, store away s"] = drive.mount()
        waiting = drive.status()["pending_ops"]
        drive.kill()
        proxy.go_on()
        began = time.perf_counter()
        figures["mount after kill -9, store back s"] = drive.mount()
        drive.sync()
        figures["from there until all is in the store s"] = time.perf_counter() - began
        figures["changes that waited"] = waiting
        figures["peak MiB"] = drive.peak_mib()
        drive.umount()
    figures["mount new device s"] = drive.mount(fresh=True)
    found = sum(len(list(folder.iterdir())) for folder in top.iterdir())
    if found != count or waiting < count:
        raise RuntimeError(f"{count} files were made, {waiting} waited, {found} are there")
    return figures


SCENARIOS: dict[str, Callable[[Drive, argparse.Namespace, bytes], Figures]] = {
    "sequential": lambda drive, args, seed: sequential(drive, args.size_mib * MiB, seed),
    "small": lambda drive, args, seed: small_files(drive, args.files, seed),
    "recover": lambda drive, args, seed: recover(drive, args.pending, seed),
    "copy": lambda drive, args, seed: copy_large(drive, args.copy_mib * MiB, seed),
}


LARGE: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {
    "replica": lambda top, args: replica_figures(top, args.log_files),
    "gc": lambda top, args: gc_figures(top, args.segments),
}
"""Without a mount and a server, and only when they are asked for: they take minutes."""


def run_once(name: str, args: argparse.Namespace) -> Figures:
    seed = os.urandom(CHUNK)
    with tempfile.TemporaryDirectory(prefix="lucid-bench-", dir=args.directory) as folder:
        top = Path(folder)
        if name in LARGE:
            return LARGE[name](top, args)
        with seaweed(top) as (store, environment):
            drive = Drive(top, store, environment)
            drive.init()
            try:
                drive.mount()
                figures = SCENARIOS[name](drive, args, seed)
                drive.umount()
            except BaseException:
                drive.give_up()
                raise
            return figures


def main(arguments: Sequence[str]) -> None:
    """Run what is named and print it."""
    parser = argparse.ArgumentParser(prog="./build.sh bench", description=__doc__)
    names, count = [*SCENARIOS, *LARGE], report.at_least_one
    parser.add_argument(
        "scenarios", nargs="*", choices=[*names, []], metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--runs", type=count, default=3)
    parser.add_argument("--size-mib", type=count, default=512, help="of the sequential file")
    parser.add_argument("--copy-mib", type=count, default=4096)
    parser.add_argument("--files", type=count, default=2000)
    parser.add_argument("--pending", type=count, default=10_000, help="changes to recover")
    parser.add_argument(
        "--log-files", type=count, default=1_000_000, help="in the log, for replica"
    )
    parser.add_argument("--segments", type=count, default=100_000, help="for gc")
    parser.add_argument("--tiny", action="store_true", help="to see whether it works, once")
    parser.add_argument("--directory", type=Path, help="where to work: a disk, not a tmpfs")
    parser.add_argument("--json", type=Path, help="write all figures there, for bench compare")
    args = parser.parse_args(arguments)
    if args.tiny:
        given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
        vars(args).update({k: v for k, v in {**TINY, "runs": 1}.items() if k not in given})
    report.check_place(parser, args.json, args.directory)
    results: list[Result] = []
    for name in args.scenarios or SCENARIOS:
        runs = 1 if name == "copy" or name in LARGE else args.runs
        found: dict[str, list[float]] = {}
        for _ in range(runs):
            for figure, value in run_once(name, args).items():
                found.setdefault(figure, []).append(value)
        print("\n".join(_lines(name, runs, found)), flush=True)
        results.append(_result(name, found))
        if args.json:
            # As it goes: whatever ends this, what was measured is not lost.
            report.save(args.json, results, ["./build.sh", "bench", "--steps", *arguments])


def _lines(name: str, runs: int, found: dict[str, list[float]]) -> Iterator[str]:
    yield ""
    if runs == 1:
        yield f"{name}, 1 run"
    else:
        yield f"{f'{name}, {runs} runs':<40} {'median':>10} {'least':>10} {'most':>10}"
    for figure, values in found.items():
        three = (statistics.median(values), min(values), max(values))
        shown = three[:1] if runs == 1 else three
        yield f"  {figure:<38} {' '.join(f'{report.short(value):>10}' for value in shown)}"


def _result(name: str, found: dict[str, list[float]]) -> Result:
    """As bench compare takes it: by phase and unit."""
    made = Result(name, "lucid", 0.0, 0.0)
    for figure, values in found.items():
        phase, _, unit = figure.rpartition(" ")
        if unit not in UNITS:
            phase, unit = WHOLE, figure
        made.figures.setdefault(phase, {})[unit] = values
    return made
