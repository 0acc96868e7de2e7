"""Pictures of results: one for each scenario and distance, a panel for each phase, a bar a peer.

A bar is the median, its line the least and the most of the runs. The main figure of a phase is its
rate; where it has none, its seconds; the first byte has a panel of its own. A local disk may be far
ahead of whatever has a store: its bar is cut then, and its figure tells.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.bed import SMALLER_IS_BETTER
from bench.report import IN_SECONDS, RATES, WITHOUT_STORE, Result, how_far, short

__all__ = ["draw"]

COLORS = {
    "lucid": "#1f77b4",
    "juicefs": "#ff7f0e",
    "juicefs-writeback": "#ffbb78",
    "rclone": "#2ca02c",
    "gocryptfs": "#9467bd",
    "disk": "#999999",
    "raw GETs": "#bbbbbb",
}
OTHER = "#8c564b"
COLUMNS = 3
WIDTH, HEIGHT, BAR = 4.2, 0.95, 0.28
"""Inches: of a panel, of one without bars, and of a bar."""
FIRST = "first byte ms"
CUT = 1.5
"""A local bar is not longer than this times the longest of the others."""


def draw(results: Sequence[Result], folder: Path, kind: str) -> Iterator[Path]:
    """Writes `SCENARIO-Nms.KIND` for each; the paths. What has no store, and was measured once,
    stands in the pictures of every distance."""
    for scenario, far in dict.fromkeys((each.scenario, each.round_trip_ms) for each in results):
        shown = [
            each
            for each in results
            if each.scenario == scenario
            and (each.round_trip_ms == far or each.peer in WITHOUT_STORE)
        ]
        path = folder / f"{scenario}-{far:g}ms.{kind}"
        _picture(scenario, far, shown).savefig(path, dpi=110)
        yield path


def _picture(scenario: str, far: float, results: Sequence[Result]) -> Figure:
    phases = [
        (phase, name)
        for phase in dict.fromkeys(phase for each in results for phase in each.figures)
        for name in _figures(phase, results)
    ]
    columns = min(COLUMNS, max(1, len(phases)))
    rows = -(-len(phases) // columns) or 1
    height = HEIGHT + BAR * max(1, len(results))
    figure = Figure(figsize=(WIDTH * columns, height * rows + 0.5), layout="constrained")
    figure.suptitle(f"{scenario}, {how_far(far)}", fontsize=13)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels[len(phases) :]:
        axes.set_axis_off()
    for axes, (phase, name) in zip(panels, phases, strict=False):
        _panel(axes, phase, name, results)
    return figure


def _figures(phase: str, results: Sequence[Result]) -> Iterator[str]:
    """The first rate that all have who have the phase, and the first byte."""
    having = [each.figures[phase] for each in results if phase in each.figures]
    rates = ("s",) if phase.startswith(IN_SECONDS) else (*RATES, "us")
    for names in ((*rates, "peak MiB"), (FIRST,)):
        yield from [name for name in names if all(name in each for each in having)][:1]


def _panel(axes: Axes, phase: str, name: str, results: Sequence[Result]) -> None:
    having = [each for each in results if name in each.figures.get(phase, {})]
    values = [each.figures[phase][name] for each in having]
    middles = [statistics.median(found) for found in values]
    below = [middle - min(found) for middle, found in zip(middles, values, strict=True)]
    above = [max(found) - middle for middle, found in zip(middles, values, strict=True)]
    places = range(len(having))
    end = _end(having, values)
    colors = [COLORS.get(each.peer, OTHER) for each in having]
    axes.barh(places, middles, xerr=(below, above), color=colors, ecolor="#333333", capsize=2.5)
    axes.set_yticks(places, [each.peer for each in having], fontsize=8)
    axes.set_ylim(len(having) - 0.4, -0.6)
    edge = end * 1.25
    axes.set_xlim(0, edge)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for place, middle, found in zip(places, middles, values, strict=True):
        shown = f"{middle:.1g}" if 0.0001 <= middle < 0.001 else short(middle)
        if middle > end:
            shown += ", cut" if middle > edge else ""
            axes.text(min(middle, edge) * 0.98, place, shown, va="center", ha="right", fontsize=8)
        else:
            where = min(max(found), end) + end * 0.02
            axes.text(where, place, shown, va="center", fontsize=8)
    axes.set_title(f"{phase}, first byte" if name == FIRST else phase, fontsize=9)
    better = "less is better" if name in SMALLER_IS_BETTER else "more is better"
    axes.set_xlabel(f"{name} ({better})", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _end(having: Sequence[Result], values: Sequence[Sequence[float]]) -> float:
    """Up to where the bars have room."""
    most = max((max(found) for found in values), default=0.0)
    stored = [
        max(found)
        for each, found in zip(having, values, strict=True)
        if each.peer not in WITHOUT_STORE and max(found) > 0
    ]
    return min(most, CUT * max(stored)) if stored else most or 1.0
