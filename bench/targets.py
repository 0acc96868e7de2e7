"""What this drive is to reach, as data, and what measured results say of it.

A target is a figure of ours and a bound: a number, or a multiple of what others reach in the same
scenario at the same distance. Figures are medians; how many runs they are of is told beside them.
Where a target speaks of equal durability, a peer whose data survives less than ours at the end of
that phase is left out; one whose data survives more is not.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.bed import SMALLER_IS_BETTER
from bench.report import WITHOUT_STORE, Result, aligned
from bench.scenarios import SCENARIOS

__all__ = ["TARGETS", "Row", "Target", "judge", "lines"]

BEST = ("juicefs", "juicefs-writeback", "rclone")
RAW = ("raw GETs",)
GROUPS = {BEST: "best peer", BEST[:2]: "juicefs"}
"""How a page calls them. Who was the best stands beside it."""
CPU = "cpu s/GB"
"""Made of the seconds and the bytes of a phase."""
RUNS = 5
"""A median of fewer says little."""
SURVIVES = ("a killed process", "loss of power", "loss of the machine")
"""From less to more: what survives one survives those before it."""
NOT_MEASURED = "not measured"
MEMORY = "memory"


@dataclass(frozen=True)
class Target:
    """`figure` of a scenario's phase; of several phases, the seconds of all."""

    name: str
    scenario: str
    phase: str | tuple[str, ...]
    figure: str
    round_trip_ms: float
    bound: float
    """A number, or with `peers` or `beside` a multiple of theirs."""
    peers: tuple[str, ...] = ()
    """The best of them counts."""
    beside: str = ""
    """Another phase of ours that is compared with."""
    equal_durability: bool = False
    least_count: int = 0
    """Files or names without which the figure means something else."""

    @property
    def phases(self) -> tuple[str, ...]:
        return (self.phase,) if isinstance(self.phase, str) else self.phase

    @property
    def smaller(self) -> bool:
        """Is less better?"""
        return self.figure in SMALLER_IS_BETTER or self.figure == CPU


def _far(*given: object, **more: object) -> Target:
    """At 20 ms."""
    name, scenario, phase, figure, bound = given
    return Target(name, scenario, phase, figure, 20.0, bound, **more)  # type: ignore[arg-type]


def _near(*given: object, **more: object) -> Target:
    name, scenario, phase, figure, bound = given
    return Target(name, scenario, phase, figure, 0.0, bound, **more)  # type: ignore[arg-type]


def _equal(name: str, scenario: str, phase: str) -> Target:
    return _far(name, scenario, phase, "per s", 5, peers=BEST, equal_durability=True)


JUICEFS = BEST[:2]
SMALL = ("create", "from there until in the store")
COLD = "read cold"
LOCAL = "read local cache"
FSYNC = "write to fsync"
SUSTAINED = "4 KiB, one thread, cached, sustained"
STORED = "write until in the store"

TARGETS = (
    _far("first byte, cold", "sequential", COLD, "first byte ms", 20 + 12),
    _far("sequential read, cold", "sequential", COLD, "MB/s", 3, peers=JUICEFS),
    _far("sequential read, cold", "sequential", COLD, "MB/s", 0.8, peers=RAW),
    _near("sequential read, cold", "sequential", COLD, "MB/s", 1.5, peers=BEST),
    _near("sequential read, local cache", "sequential", LOCAL, "MB/s", 1.3, peers=BEST),
    _near("sequential read, local cache", "sequential", LOCAL, "MB/s", 1, peers=("gocryptfs",)),
    _far("random 4 KiB, cold", "random", "4 KiB, one thread, cold", "p50 ms", 20 + 8),
    _far("random 4 KiB, cold", "random", "4 KiB, one thread, cold", "p99 ms", 2 * (20 + 8)),
    _near("random 4 KiB, cached", "random", "4 KiB, one thread, cached", "per s", 1.5, peers=BEST),
    _near("random 4 KiB, cached, sustained", "random", SUSTAINED, "per s", 1.5, peers=BEST),
    _near("sequential write to fsync", "sequential", FSYNC, "MB/s", 1.3, peers=BEST),
    _near("write until in the store", "sequential", STORED, "MB/s", 1.5, peers=JUICEFS),
    _far("write until in the store", "sequential", STORED, "MB/s", 1.5, peers=JUICEFS),
    _near("small files, create", "small", "create", "per s", 2000),
    _near("small files, create", "small", "create", "per s", 5, peers=BEST, equal_durability=True),
    _far("2,000 small files in the store", "small", SMALL, "s", 3, least_count=2000),
    _far("small files, read cold", "small", COLD, "per s", 1000),
    _near(
        "stat of 100,000 after remount", "names", "stat, cold", "per s", 1,
        peers=BEST, least_count=100_000,
    ),
    _equal("untar", "untar", "tar -x"),
    _equal("git clone", "git", "git clone"),
    _equal("cp -r", "copy", "cp -r in"),
    _far("mount, new device", "mount", "mount, new device", "s", 15, least_count=1_000_000),
    _far("mount, known device", "mount", "mount, known device", "s", 1, least_count=1_000_000),
    _near(
        "stat of what is known, computing", "computing", "stat, computing", "per s", 0.5,
        beside="stat, idle",
    ),
    _near(
        "first stat, computing", "computing", "first stat, computing", "per s", 0.5,
        beside="first stat, idle",
    ),
    _near(
        "4 KiB cached, computing", "computing", "4 KiB cached, computing", "per s", 0.5,
        beside="4 KiB cached, idle",
    ),
    _near("CPU of cold reads", "sequential", COLD, CPU, 1, peers=BEST),
    _far("CPU of cold reads", "sequential", COLD, CPU, 1, peers=BEST),
)  # fmt: skip
PEAK_MIB = 300
"""In every scenario that was measured."""


@dataclass(frozen=True)
class Row:
    """What became of a target. None where nothing was measured."""

    name: str
    far: str
    what: str
    ours: float | None
    runs: int
    bound: str
    theirs: float | None = None
    who: str = ""
    """The best of the peers."""
    reached: bool | None = None
    why: str = ""
    """Why nothing is said."""

    @property
    def ratio(self) -> float | None:
        """Of our figure to theirs."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None


@dataclass(frozen=True)
class _Found:
    value: float
    runs: int
    count: float
    survives: int
    name: str = field(default="")


def judge(results: Sequence[Result]) -> list[Row]:
    """A row for each target."""
    return [*(_row(target, results) for target in TARGETS), _memory(results)]


def _row(target: Target, results: Sequence[Result]) -> Row:
    ours = _found(target, target.phases, "lucid", results)
    sign = "<=" if target.smaller else ">="
    against = GROUPS.get(target.peers) or ", ".join(target.peers) or target.beside
    bound = f"{sign} {target.bound:,g}" + (f" x {against}" if against else "")
    bound += ", as durable" if target.equal_durability else ""

    def row(why: str = "", theirs: _Found | None = None, reached: bool | None = None) -> Row:
        shown = theirs or _Found(0, 0, 0, 0)
        return Row(
            target.name, f"{target.round_trip_ms:g} ms", target.figure,
            ours.value if ours else None, ours.runs if ours else 0, bound,
            theirs.value if theirs else None, shown.name, reached, why,
        )  # fmt: skip

    if ours is None:
        return row(NOT_MEASURED)
    if ours.count < target.least_count:
        return row(f"of {ours.count:.0f}, not {target.least_count:,}")
    limit, theirs = target.bound, None
    if against:
        theirs = _theirs(target, ours, results)
        if theirs is None:
            return row("nobody to compare with")
        limit *= theirs.value
    return row("", theirs, ours.value <= limit if target.smaller else ours.value >= limit)


def _theirs(target: Target, ours: _Found, results: Sequence[Result]) -> _Found | None:
    if target.beside:
        return _found(target, (target.beside,), "lucid", results)
    found = [_found(target, target.phases, peer, results) for peer in target.peers]
    fair = [
        one
        for one in found
        if one is not None and (not target.equal_durability or one.survives >= ours.survives)
    ]
    choose = min if target.smaller else max
    return choose(fair, key=lambda one: one.value) if fair else None


def _found(
    target: Target, phases: Sequence[str], peer: str, results: Sequence[Result]
) -> _Found | None:
    """The figure of one peer. What has no store is measured once, and is as far everywhere."""
    fitting = [
        each
        for each in results
        if (each.scenario, each.peer) == (target.scenario, peer)
        and (each.round_trip_ms == target.round_trip_ms or peer in WITHOUT_STORE)
    ]
    if not fitting or not all(phase in fitting[0].figures for phase in phases):
        return None
    result = fitting[0]
    figures = [result.figures[phase] for phase in phases]
    if target.figure == CPU and {"cpu s", "MB/s"} <= set(figures[0]):
        values = _cpu_per_gb(figures[0])
    elif target.figure in figures[0]:
        values = [sum(run) for run in zip(*(one[target.figure] for one in figures), strict=True)]
    else:
        return None
    count = _count(figures[0])
    survives = _survives(result.durable.get(phases[0], ""))
    return _Found(statistics.median(values), len(values), count, survives, peer)


def _cpu_per_gb(figures: dict[str, list[float]]) -> list[float]:
    runs = zip(figures["cpu s"], figures["MB/s"], figures["s"], strict=True)
    return [cpu / (rate * seconds) * 1000 for cpu, rate, seconds in runs]


def _count(figures: dict[str, list[float]]) -> float:
    """Files, names or reads of each run; 0 where none are counted."""
    runs = zip(figures.get("per s", ()), figures["s"], strict=False)
    return min((float(round(rate * seconds)) for rate, seconds in runs), default=0.0)


def _survives(word: str) -> int:
    """How much, as a number that can be compared. A peer of which more may be true than it
    promises has what it promises."""
    return next((at for at, known in enumerate(SURVIVES) if word.startswith(known)), -1)


def _memory(results: Sequence[Result]) -> Row:
    """The largest peak, and where it was. The name says of how many scenarios."""
    peaks = [
        (statistics.median(values), len(values), f"{each.scenario}, {each.round_trip_ms:g} ms")
        for each in results
        if each.peer == "lucid" and (values := each.figures.get("all of it", {}).get("peak MiB"))
    ]
    bound = f"< {PEAK_MIB}"
    if not peaks:
        return Row(f"{MEMORY}, every scenario", "", "peak MiB", None, 0, bound, why=NOT_MEASURED)
    left = len(_without_memory(results))
    covers = f"{len(SCENARIOS) - left} of {len(SCENARIOS)} scenarios" if left else "every scenario"
    name = f"{MEMORY}, {covers}"
    peak, runs, where = max(peaks)
    return Row(name, where, "peak MiB", peak, runs, bound, reached=peak < PEAK_MIB)


def _without_memory(results: Sequence[Result]) -> list[str]:
    """Scenarios of which no peak was measured."""
    having = {
        each.scenario
        for each in results
        if each.peer == "lucid" and each.figures.get("all of it", {}).get("peak MiB")
    }
    return [name for name in SCENARIOS if name not in having]


def lines(results: Sequence[Result]) -> Iterator[str]:
    """A table as pages have it, how many are reached, and what the figure of memory covers."""
    rows = judge(results)
    heads = ("target", "where", "figure", "ours", "runs", "bound", "theirs", "ratio", "reached")
    table: list[Sequence[str]] = [heads]
    for row in rows:
        verdict = {True: "yes", False: "no", None: row.why}[row.reached]
        theirs = f"{_short(row.theirs)} {row.who}".strip() if row.theirs is not None else ""
        runs = "" if row.ours is None else f"{row.runs}"
        if row.ours is not None and row.runs < RUNS:
            runs += f" (of {RUNS})"
        cells = (row.name, row.far, row.what, _short(row.ours), runs, row.bound, theirs)
        table.append((*cells, _short(row.ratio), verdict))
    yield from aligned(table)
    said = [row.reached for row in rows if row.reached is not None]
    yield ""
    yield f"{sum(said)} of {len(rows)} reached, {len(rows) - len(said)} not told."
    if left := _without_memory(results):
        yield f"Of {len(left)} scenarios no memory was measured: {', '.join(left)}."


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
