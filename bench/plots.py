"""Pictures of results: one for each scenario and distance, a panel for each phase, a bar a peer.

A bar is the median, its line the least and the most of the runs. The main figure of a phase is its
rate; where it has none, its seconds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.bed import SMALLER_IS_BETTER
from bench.report import RATES, Result

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
PANEL = (4.2, 2.6)
"""Inches."""


def draw(results: Sequence[Result], folder: Path, kind: str) -> Iterator[Path]:
    """Writes `SCENARIO-Nms.KIND` for each; the paths. What has no store, and was measured once,
    stands in the pictures of every distance."""
    for scenario, far in dict.fromkeys((each.scenario, each.round_trip_ms) for each in results):
        shown = [
            each
            for each in results
            if each.scenario == scenario
            and (each.round_trip_ms == far or each.peer in ("gocryptfs", "disk"))
        ]
        path = folder / f"{scenario}-{far:g}ms.{kind}"
        _picture(scenario, far, shown).savefig(path, dpi=110)
        yield path


def _picture(scenario: str, far: float, results: Sequence[Result]) -> Figure:
    phases = [
        (phase, name)
        for phase in dict.fromkeys(phase for each in results for phase in each.figures)
        if (name := _main_figure(phase, results))
    ]
    columns = min(COLUMNS, max(1, len(phases)))
    rows = -(-len(phases) // columns) or 1
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.5), layout="constrained")
    figure.suptitle(f"{scenario}, {f'{far:g} ms away' if far else 'near'}", fontsize=13)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels[len(phases) :]:
        axes.set_axis_off()
    for axes, (phase, name) in zip(panels, phases, strict=False):
        _panel(axes, phase, name, results)
    return figure


def _main_figure(phase: str, results: Sequence[Result]) -> str:
    """The first rate that all have who have the phase; empty where there is none."""
    having = [each.figures[phase] for each in results if phase in each.figures]
    names = (*RATES, "peak MiB")
    return next((name for name in names if all(name in each for each in having)), "")


def _panel(axes: Axes, phase: str, name: str, results: Sequence[Result]) -> None:
    having = [each for each in results if name in each.figures.get(phase, {})]
    values = [each.figures[phase][name] for each in having]
    middles = [statistics.median(found) for found in values]
    below = [middle - min(found) for middle, found in zip(middles, values, strict=True)]
    above = [max(found) - middle for middle, found in zip(middles, values, strict=True)]
    places = range(len(having))
    colors = [COLORS.get(each.peer, OTHER) for each in having]
    axes.barh(places, middles, xerr=(below, above), color=colors, ecolor="#333333", capsize=2.5)
    axes.set_yticks(places, [each.peer for each in having], fontsize=8)
    axes.invert_yaxis()
    most = max((max(found) for found in values), default=0.0)
    axes.set_xlim(0, most * 1.25 or 1)
    for place, middle, found in zip(places, middles, values, strict=True):
        axes.text(max(found) + most * 0.02, place, _short(middle), va="center", fontsize=8)
    axes.set_title(phase, fontsize=9)
    better = "less is better" if name in SMALLER_IS_BETTER else "more is better"
    axes.set_xlabel(f"{name} ({better})", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
