"""What is kept of the runs: JSON, a table for the terminal, and ratios of two such files."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.bed import COUNTS, SMALLER_IS_BETTER

__all__ = [
    "IN_SECONDS", "WITHOUT_STORE", "Result", "aligned", "at_least_one", "check_place", "compare",
    "doubts", "how_far", "in_lines", "load", "origin", "ratio_lines", "round_trips", "save",
    "short", "side_by_side", "table", "under_way",
]  # fmt: skip

RATES = ("per s", "MB/s", "s")
MAIN = (*RATES, "us", "first byte ms", "p50 ms", "p99 ms", "cpu s", "peak MiB")
"""Figures of every table, in order, before those that only some phases have."""
AT_STORE = ("requests", "sent MB", "fetched MB")
"""Told together: what a phase asks of the store."""
PAGE = 140
"""Columns of a page; a table that is wider becomes two."""
INDENT = 4
IN_SECONDS = "mount, "
"""Phases that are told in seconds, although they have a rate."""
WITHOUT_STORE = ("gocryptfs", "disk")
"""Peers without a store: they are measured once, at whatever distance comes first."""
RUNS_ENOUGH = 3
WAYS = (
    "--tiny", "--rate", "--size-mib", "--copy-mib", "--files", "--names", "--filespace",
    "--pending", "--log-files", "--segments",
)  # fmt: skip
"""Options without which figures are those of something else. Scenarios, peers and distances are
told of each figure."""
NOTEWORTHY = 1.1
"""A ratio nearer to 1 is noise on most machines."""

Key = tuple[str, str, float, str, str]
"""Scenario, peer, round trip, phase, figure."""


@dataclass
class Result:
    """All runs of one scenario by one peer at one distance; by phase and figure, a value a run."""

    scenario: str
    peer: str
    round_trip_ms: float
    rate_mb_s: float
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    durable: dict[str, str] = field(default_factory=dict)

    def add(self, figures: Mapping[str, Mapping[str, float]], durable: Mapping[str, str]) -> None:
        """One more run."""
        self.durable |= durable
        for phase, found in figures.items():
            kept = self.figures.setdefault(phase, {})
            for name, value in found.items():
                kept.setdefault(name, []).append(value)


def machine() -> dict[str, Any]:
    """What it was measured on, and how busy that was."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def version() -> str:
    """The commit that is measured, with a plus for what is not committed."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def save(path: Path, results: list[Result], command: list[str]) -> None:
    """As JSON, with what it takes to repeat it."""
    document = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": version(),
        "command": " ".join(command),
        "machine": machine(),
        "results": [asdict(result) for result in results],
    }
    # Whole or not at all: it may be ended while it writes what hours have brought.
    half = path.with_name(f"{path.name}.half")
    half.write_text(json.dumps(document, indent=1) + "\n")
    half.replace(path)


def at_least_one(text: str) -> int:
    """A number of an option; anything below 1 would measure nothing."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: it must be a number, and at least 1")
    return int(text)


def check_place(
    parser: argparse.ArgumentParser, path: Path | None, folder: Path | None = None
) -> None:
    """Ends with a sentence when results cannot be written to `path`, or `folder` cannot be worked
    in, before anything is measured."""
    if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK)):
        parser.error(f"cannot write {path}: its directory must be there, and be writable")
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        parser.error(f"cannot work in {folder}: it must be a directory, and be writable")


def round_trips(parser: argparse.ArgumentParser, text: str) -> list[float]:
    """Milliseconds, with commas between; ends with a sentence for anything else."""
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = [-1.0]
    if not all(0 <= each < math.inf for each in found):
        parser.error(f"--round-trips {text}: these are milliseconds, as 0,20")
    return found


def load(path: Path) -> list[Result]:
    """The results of a file that `save` wrote. Raises SystemExit with a sentence."""
    try:
        return [Result(**each) for each in json.loads(path.read_text())["results"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"bench: {path} holds no results that --json wrote: {error}") from None


def how_far(round_trip_ms: float, peer: str = "") -> str:
    """The store's distance as people read it; a peer without one has none."""
    if peer in WITHOUT_STORE:
        return "local disk"
    return f"{round_trip_ms:g} ms away" if round_trip_ms else "near"


def table(result: Result, width: int = 0) -> Iterator[str]:
    """Lines for a terminal of so many columns (0: this one's): median, and least to most where
    there were several runs."""
    width = width or max(80, shutil.get_terminal_size((100, 24)).columns)
    yield f"{result.scenario}, {result.peer}, {how_far(result.round_trip_ms, result.peer)}"
    for phase, figures in result.figures.items():
        shown = _in_order(figures)
        # Seconds say nothing more where there is a rate; a mount is judged by them.
        if {"MB/s", "per s"} & set(shown) and "s" in shown and not phase.startswith(IN_SECONDS):
            shown.remove("s")
        words = [f"{_spread(figures[name])} {name}" for name in shown]
        if at_store := _at_store(figures):
            count, sent, fetched = at_store
            noun = "request" if count == "1" else "requests"
            words.append(f"store: {count} {noun}, {sent} MB sent, {fetched} MB fetched")
        if phase in result.durable:
            words.append(f"[survives {result.durable[phase]}]")
        yield from in_lines(f"  {phase:<36} ", words, width)


def in_lines(head: str, words: Sequence[str], width: int) -> Iterator[str]:
    """Words that are not parted, two blanks between them; what has no room goes below, under the
    first of them where the head leaves enough."""
    at = len(head) if len(head) <= width * 2 // 5 else INDENT
    line = head.rstrip(" ") if not words else head
    for number, word in enumerate(words):
        if number and len(line) + len(word) + 2 > width:
            yield line
            line = " " * at + word
        else:
            line += f"  {word}" if number else word
    yield line


def _in_order(figures: Mapping[str, list[float]]) -> list[str]:
    """Those that each table has, and then those that only this phase has."""
    first = [name for name in MAIN if name in figures]
    return first + [name for name in figures if name not in (*MAIN, *AT_STORE)]


def _at_store(figures: Mapping[str, list[float]]) -> tuple[str, str, str] | None:
    """Medians of requests, MB sent and MB fetched; None where the store was not asked."""
    if not any(figures.get("requests", ())):
        return None
    count, sent, fetched = (short(statistics.median(figures[name])) for name in AT_STORE)
    return count, sent, fetched


def side_by_side(results: Sequence[Result]) -> Iterator[str]:
    """Tables as pages have them: one a scenario and distance, with a column for each peer."""
    for scenario, far in dict.fromkeys((each.scenario, each.round_trip_ms) for each in results):
        columns = [
            each for each in results if (each.scenario, each.round_trip_ms) == (scenario, far)
        ]
        heads = (
            f"{each.peer} (local)" if each.peer in WITHOUT_STORE else each.peer for each in columns
        )
        lines = [[f"{scenario}, {how_far(far)}", *heads]]
        for phase in dict.fromkeys(phase for each in columns for phase in each.figures):
            lines += _rows(phase, columns)
        for part in _pages(lines):
            yield from aligned(part)
            yield ""


def _rows(phase: str, columns: Sequence[Result]) -> Iterator[list[str]]:
    """Of one phase: each figure, behind its rate what is safe, and what was asked of the store."""
    having = [each.figures.get(phase, {}) for each in columns]
    for name in dict.fromkeys(name for one in having for name in _telling(phase, one)):
        yield [f"{phase}, {name}", *(_spread(one[name]) if name in one else "" for one in having)]
        if name in RATES and any(phase in each.durable for each in columns):
            yield ["  survives", *(each.durable.get(phase, "") for each in columns)]
    asked = [_at_store(one) for one in having]
    if any(asked):
        cells = (", ".join(one) if one else "" for one in asked)
        yield ["  store: requests, MB sent, fetched", *cells]


def _pages(lines: Sequence[Sequence[str]]) -> Iterator[list[list[str]]]:
    """Tables that are not wider than a page, each with the first column; one that must be is."""
    widths = [max(len(line[at]) for line in lines) + 3 for at in range(len(lines[0]))]
    taken: list[int] = []
    for at in range(1, len(widths)):
        if taken and widths[0] + sum(widths[one] for one in (*taken, at)) + 1 > PAGE:
            yield _with(taken, lines)
            taken = []
        taken.append(at)
    yield _with(taken, lines)


def _with(columns: Sequence[int], lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """The first column and these; without rows in which they are empty."""
    cut = [[line[0], *(line[at] for at in columns)] for line in lines]
    return [line for line in cut if any(line[1:])]


def _telling(phase: str, figures: Mapping[str, list[float]]) -> list[str]:
    """The first rate that a phase has, what one waits, what it costs, and what only it has."""
    rates = ("s",) if phase.startswith(IN_SECONDS) else RATES
    rate = next((name for name in rates if name in figures), None)
    return [name for name in _in_order(figures) if name not in RATES or name == rate]


def aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table as pages have it; the first line is its head."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    for number, line in enumerate(lines):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"


def under_way(what: str) -> None:
    """On a terminal: what is measured now, in a line that the next one overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def origin(path: Path) -> Iterator[str]:
    """What was measured when, with which command, on what."""
    kept = json.loads(path.read_text())
    yield f"{kept.get('version', 'of unknown version')}, {kept.get('when', 'at an unknown time')}"
    yield f"    {kept.get('command', '')}"
    yield ", ".join(f"{name} {value}" for name, value in kept.get("machine", {}).items())
    yield ""


def is_of_peers(path: Path) -> bool:
    """Whether whole scenarios were measured, which `bench peers` does, and no other command."""
    words = str(json.loads(path.read_text()).get("command", "peers")).split()
    return words[:2] != ["./build.sh", "bench"] or "peers" in words[2:3]


def _spread(values: list[float]) -> str:
    middle = short(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({short(min(values))} to {short(max(values))})"


def short(value: float) -> str:
    """Three digits that say something, or all before the point."""
    if abs(value) < 0.0001:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _medians(results: list[Result]) -> dict[Key, float]:
    return {
        (each.scenario, each.peer, each.round_trip_ms, phase, name): statistics.median(values)
        for each in results
        for phase, figures in each.figures.items()
        for name, values in figures.items()
    }


def compare(old: list[Result], new: list[Result]) -> dict[Key, float]:
    """New over old, of the medians of all that both have."""
    before, after = _medians(old), _medians(new)
    return {key: after[key] / before[key] for key in before if key in after and before[key] > 0}


def doubts(old: Path, new: Path) -> Iterator[str]:
    """Sentences about what makes ratios of two files say less than they seem to."""
    ways = [_way(path) for path in (old, new)]
    if ways[0] != ways[1]:
        yield f"Not run in the same way: {ways[0] or 'as by default'}; {ways[1] or 'as by default'}"
    keys = [set(_medians(load(path))) for path in (old, new)]
    if lone := len(keys[0] ^ keys[1]):
        yield f"Left out: {lone} {'figure' if lone == 1 else 'figures'} that only one of them has."
    fewest = min((_runs(load(path)) for path in (old, new)), default=0)
    if fewest < RUNS_ENOUGH:
        yield f"Of {fewest} {'run' if fewest == 1 else 'runs'}: a median of so few may be noise."


def _way(path: Path) -> str:
    """The options of the command that say how much was done, and how far away."""
    words = str(json.loads(path.read_text()).get("command", "")).split()
    options = dict(zip(words, [*words[1:], ""], strict=False))
    return " ".join(
        f"{name} {options[name]}" if name != "--tiny" else name for name in WAYS if name in options
    )


def _runs(results: list[Result]) -> int:
    """The fewest values that a figure has."""
    return min(
        (
            len(values)
            for each in results
            for one in each.figures.values()
            for values in one.values()
        ),
        default=0,
    )


def ratio_lines(ratios: Mapping[Key, float]) -> Iterator[str]:
    """One line a figure; what became better or worse by more than noise says so."""
    for (scenario, peer, round_trip, phase, name), ratio in ratios.items():
        what = f"{scenario}, {peer}, {round_trip:g} ms: {phase}, {name}"
        gain = ratio
        if name in SMALLER_IS_BETTER:
            gain = 1 / ratio if ratio else math.inf
        word = "better" if gain > NOTEWORTHY else "worse" if gain * NOTEWORTHY < 1 else ""
        word = "" if name in COUNTS else word
        yield f"{what:<76} {ratio:6.2f}  {word}".rstrip()
