"""`./build.sh bench micro`: parts of the engine and of the daemon, each alone, timed by pyperf.

pyperf runs each in several processes of its own and tells how far they are apart. What needs a
filespace has one over a store in memory: nothing but the work of this process is measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import engine_parts, report
from bench.engine_parts import CachedFile
from bench.report import Result
from lucid.config import Config
from lucid.crypto.passphrase import Stretch
from lucid.data.cache import SegmentCache
from lucid.data.fetch import UNIT, Fetcher
from lucid.data.memory import Share
from lucid.engine import addr, sodium
from lucid.engine.cachemap import CacheMap
from lucid.filespace import Filespace, connect, init
from lucid.format.names import segment_key
from lucid.local.disk import RealDisk
from lucid.store.directory import DirectoryStore
from lucid.store.memory import Bucket, MemoryStore
from lucid.types import SystemClock

__all__ = ["BENCHMARKS", "Job", "main"]

KiB = 1 << 10
READ = 128 * KiB
SIZES = (4 * KiB, 16 * KiB, 128 * KiB, 1024 * KiB)
SUITES = {"aegis-256": sodium.SUITE_AEGIS256, "xchacha20": sodium.SUITE_XCHACHA20}
SECRET = "bench bench bench"
ROOT = 1


class Job(NamedTuple):
    """`work` is timed; what `prepare` does before each is not."""

    work: Callable[[], object]
    prepare: Callable[[], object] | None = None


Make = Callable[[ExitStack], Job]
"""What the job needs is closed with the stack."""


def _sealing(suite: int, size: int, opens: bool) -> Make:
    def make(stack: ExitStack) -> Job:
        context = sodium.AdContext(suite, b"BNCH", bytes(16), bytes(16))
        name, key, plain = bytes(sodium.OBJECT_ID_BYTES), bytes(sodium.KEY_BYTES), os.urandom(size)
        if not opens:
            return Job(lambda: sodium.seal(context, name, key, 0, 0, plain))
        sealed = sodium.seal(context, name, key, 0, 0, plain)
        return Job(lambda: sodium.open_(context, name, key, 0, 0, sealed))

    return make


def _addressing(stack: ExitStack) -> Job:
    return Job(lambda: addr.block_range(123_456_789, READ, 1 << 30, READ))


def _cache_map(stack: ExitStack) -> Job:
    slots = stack.enter_context(CacheMap())
    context = sodium.AdContext(sodium.SUITE_AEGIS256, b"BNCH", bytes(16), bytes(16))
    names = [number.to_bytes(32, "little") for number in range(1000)]
    for name in names:
        slots.acquire(name, bytes(sodium.KEY_BYTES), context, 8 << 20)
    return Job(lambda: slots.find(names[500]))


def _known_name(stack: ExitStack) -> Job:
    known = engine_parts.known_names()
    return Job(lambda: known.name(engine_parts.ROOT, engine_parts.NAME))


def _hit(stack: ExitStack) -> Job:
    file = CachedFile(stack)
    file.fill()
    hits = file.hits()
    return Job(lambda: hits.read(engine_parts.FILE, 0, 4 * KiB))


def _fetch(stack: ExitStack) -> Job:
    """One GET of a unit. What is in the cache is never asked for: it is forgotten before each."""
    file, clock = CachedFile(stack), SystemClock()
    root = file.top / "store"
    root.mkdir()
    store = DirectoryStore(root)
    stack.callback(store.close)
    store.put_if_absent(segment_key(file.segment), file.sealed)
    cache = SegmentCache(
        RealDisk(), file.cache, file.slots, file.pool, clock, limit_bytes=1 << 30, free_bytes=0
    )
    memory = Share("fetching", 1 << 24)
    fetcher = Fetcher(store, file.slots, cache, memory, clock, workers=4, timeout_s=30.0)
    stack.callback(fetcher.close)
    unit = [(file.slot, 0, UNIT)]
    return Job(lambda: fetcher.demand(unit), lambda: file.slots.clear_present(file.slot, 0, UNIT))


def _filespace(stack: ExitStack) -> Filespace:
    """An empty one."""
    bucket, url = Bucket(), "memory://bench"
    top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lucid-bench-")))
    init(url, passphrase=SECRET, stretch=Stretch(1, 64 << 20), store=MemoryStore(bucket))
    config = Config(state_dir=top / "state")
    made = connect(url, passphrase=SECRET, config=config, store=MemoryStore(bucket))
    stack.callback(made.close, wait=False)
    return made


def _reading(stack: ExitStack) -> Job:
    made = _filespace(stack)
    made.write_bytes("/file", os.urandom(READ))
    made.sync()
    tree = made.tree
    handle = tree.open(tree.lookup(ROOT, b"file").ino, os.O_RDONLY)
    stack.callback(tree.release, handle)
    return Job(lambda: tree.read(handle, 0, READ))


def _lookup(stack: ExitStack) -> Job:
    made = _filespace(stack)
    made.write_bytes("/file", b"")
    return Job(lambda: made.tree.lookup(ROOT, b"file"))


def _create(stack: ExitStack) -> Job:
    tree, made = _filespace(stack).tree, 0

    def work() -> None:
        nonlocal made
        made += 1
        handle, _ = tree.create(ROOT, b"file-%d" % made, 0o644, 0, 0, os.O_WRONLY)
        tree.release(handle)

    return Job(work)


def _commit(stack: ExitStack) -> Job:
    filespace, made = _filespace(stack), 0

    def change() -> None:
        nonlocal made
        made += 1
        filespace.mkdir(f"/d{made}")

    return Job(filespace.sync, change)


BENCHMARKS: dict[str, Make] = {
    f"{verb} {suite} {size // KiB} KiB": _sealing(number, size, verb == "open")
    for verb in ("seal", "open")
    for suite, number in SUITES.items()
    for size in SIZES
} | {
    "addressing": _addressing,
    "cache map": _cache_map,
    "known name": _known_name,
    "hit 4 KiB": _hit,
    "fetch one unit": _fetch,
    "read 128 KiB, cached": _reading,
    "lookup": _lookup,
    "create": _create,
    "commit": _commit,
}


def _clock(make: Make, stack: ExitStack) -> Callable[[int], float]:
    """Seconds of so many jobs. The first call makes what they need, outside of the time."""
    made: list[Job] = []

    def seconds(loops: int) -> float:
        if not made:
            made.append(make(stack))
            _once(made[0])
        if made[0].prepare is not None:
            return sum(_once(made[0]) for _ in range(loops))
        work = made[0].work
        began = time.perf_counter()
        for _ in range(loops):
            work()
        return time.perf_counter() - began

    return seconds


def _once(job: Job) -> float:
    if job.prepare is not None:
        job.prepare()
    began = time.perf_counter()
    job.work()
    return time.perf_counter() - began


def _measure(arguments: Sequence[str]) -> dict[str, list[float]]:
    """By name, microseconds of each run; nothing in a worker process of pyperf."""
    import pyperf

    def pass_on(command: list[str], asked: Any) -> None:
        command += asked.names

    runner = pyperf.Runner(program_args=("-m", "bench.micro"), add_cmdline_args=pass_on)
    runner.argparser.add_argument("names", nargs="*")
    names = runner.parse_args(list(arguments)).names
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for name in names:
            measured = runner.bench_time_func(name, _clock(BENCHMARKS[name], stack))
            if measured is not None and not runner.args.worker:
                found[name] = [value * 1e6 for value in measured.get_values()]
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure those that were asked for, print a table, keep it as JSON."""
    parser = argparse.ArgumentParser(
        prog="./build.sh bench micro",
        description="Parts of the engine and of the daemon, each alone; microseconds a call.",
    )
    parser.add_argument("names", nargs="*", help=f"or their beginnings: {'; '.join(BENCHMARKS)}")
    parser.add_argument("--fast", action="store_true", help="fewer runs")
    parser.add_argument("--tiny", action="store_true", help="to see whether it works, once")
    parser.add_argument("--json", type=Path, help="write all figures there, for bench compare")
    asked = parser.parse_args(arguments)
    report.check_place(parser, asked.json)
    starts = tuple(asked.names) or ("",)
    names = [name for name in BENCHMARKS if name.startswith(starts)]
    unknown = [one for one in asked.names if not any(name.startswith(one) for name in names)]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there is {'; '.join(BENCHMARKS)}")
    how = ["--debug-single-value"] if asked.tiny else ["--fast"] if asked.fast else []
    result = Result("micro", "lucid", 0.0, 0.0)
    for name, values in _measure(["--quiet", *how, *names]).items():
        result.add({name: {}}, {})
        result.figures[name]["us"] = values
    print("\n".join(report.table(result)))
    if asked.json:
        report.save(asked.json, [result], ["./build.sh", "bench", "micro", *arguments])


if __name__ == "__main__":
    _measure(sys.argv[1:])
