"""`lucid bench`: which of store, network, disk, processor and mount is the limit."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import platformdirs

from lucid.cli import filespaces
from lucid.cli.bench_verdict import COLOURS, Figure, Limit, judge, limits
from lucid.cli.terminal import Bar, examples, show_json, table
from lucid.cli.uploads import Standstill, follow_call
from lucid.config import parse_size
from lucid.errors import UsageError
from lucid.mount import registry
from lucid.mount.control import Call
from lucid.types import SystemClock, SystemEntropy

__all__ = ["command"]

CLOCK = SystemClock()
SIZE_MIN = 1 << 20
NAMES = {"crypto": "processor"}
"""Of parts that people call otherwise."""
GIVE_UP = "Ctrl-C gives up measuring."


@click.command(
    "bench",
    epilog=examples(
        "lucid bench",
        "lucid bench ~/team",
        "lucid bench s3://bucket/team",
        "lucid bench ~/team --json | jq '.limits'",
    ),
)
@click.argument("where", metavar="[DIRECTORY | STORE]", required=False)
@click.option(
    "--size",
    default="128M",
    show_default=True,
    metavar="SIZE",
    help="Of the file that is written to the disk, and to the drive; of a large one as much as is"
    " written in some seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(where: str | None, size: str, as_json: bool) -> None:
    """Measure store, network, disk, processor and mount, and say which is the limit.

    Takes less than a minute. With a DIRECTORY of a mounted drive everything is measured, with a
    STORE all but a mount, without either only this machine.

    Beside each figure stands what is typical: below that it is poor, above it good. How fast a file
    is read for the first time follows from store, processor and cache.

    About 50 MiB go into the store and are deleted again. What is written to a drive is removed, and
    frees its place in the store with the next `lucid gc`.
    """
    bytes_ = parse_size(size)
    if bytes_ < SIZE_MIN:
        raise UsageError("The size must be at least 1M. What is smaller tells nothing.")
    found = _measure(where, bytes_)
    figures, bounds = judge(found), limits(found)
    if as_json:
        show_json(_json(where, figures, bounds))
    else:
        _show(figures, bounds)


def _measure(where: str | None, size: int) -> dict[str, Mapping[str, float]]:
    """Figures by part. Raises NotMounted, UsageError, StoreError, LocalError."""
    if where is None:
        return _machine(_state_folder(), size)
    if "://" in where:
        store = filespaces.tidy(where)
        return _machine(_state_folder(), size) | _store(store)
    if not Path(where).exists():
        raise UsageError(
            f"{where} is not there. Give a directory of a mounted drive, a store as s3://bucket/name"
            " or file:///directory, or nothing."
        )
    record = registry.containing(Path(where).resolve())
    state = Path(record.state_directory)
    found = _machine(state, size) | _store(record.store)
    return found | {"mount": _mount(Path(where), state, size)}


def _machine(folder: Path, size: int) -> dict[str, Mapping[str, float]]:
    from lucid.crypto import rates as crypto
    from lucid.local import rates as disk
    from lucid.local.disk import RealDisk

    with Bar("Measuring") as bar:
        bar.show(0, 2, "the processor")
        sealing = crypto.measure(CLOCK)
        bar.show(1, 2, "the disk")
        kept = disk.measure(RealDisk(), folder, size, CLOCK, SystemEntropy)
    return {"crypto": sealing, "disk": kept}


def _state_folder() -> Path:
    """Where state directories lie, or would: the nearest directory above that is there."""
    place = platformdirs.user_state_path("lucid")
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def _store(store: str) -> dict[str, Mapping[str, float]]:
    from lucid.data import store_rates
    from lucid.store import open_store

    found: dict[str, Mapping[str, float]] = {}
    with Bar("Measuring") as bar, closing(open_store(store)) as opened:
        if store.startswith("s3://"):
            connect_s = store_rates.connect_s(lambda: open_store(store, check=False), CLOCK)
            found["network"] = {"connect": connect_s}

        def report(done: int, total: int) -> None:
            bar.show(done, total, "the store")

        found["store"] = store_rates.measure(opened, CLOCK, SystemEntropy, report=report)
    return found


def _mount(folder: Path, state: Path, size: int) -> Mapping[str, float]:
    from lucid.mount import rates

    def sync(path: Path) -> None:
        with Bar("Uploading") as bar, Call(state, "sync", ino=path.stat().st_ino) as call:
            follow_call(bar, state, call, Standstill(GIVE_UP))

    return rates.measure(folder, size, CLOCK, SystemEntropy, sync)


def _json(where: str | None, figures: list[Figure], bounds: list[Limit]) -> dict[str, Any]:
    return {
        "where": where,
        "figures": [
            {
                "part": figure.part,
                "name": figure.key,
                "value": figure.value,
                "unit": figure.unit,
                "typical": sorted((figure.poor, figure.good)),
                "verdict": figure.verdict,
            }
            for figure in figures
        ],
        "limits": [
            {"job": bound.job, "part": bound.part, "bytes_per_s": bound.rate,
             "parts": dict(bound.rates), "why": bound.why}
            for bound in bounds
        ],
    }  # fmt: skip


def _show(figures: list[Figure], bounds: list[Limit]) -> None:
    lines = [
        (
            (
                NAMES.get(figure.part, figure.part),
                figure.what,
                figure.shown,
                figure.typical,
                figure.verdict,
            ),
            COLOURS[figure.verdict],
        )
        for figure in figures
    ]
    table(("part", "what", "here", "typical", ""), lines)
    click.echo("\nThe limit is, when")
    for bound in bounds:
        part = NAMES.get(bound.part, bound.part)
        click.echo(f"  {bound.job + ':':<31}the {part}, {bound.rate / 1e6:,.0f} MB/s")
        if bound.why:
            click.echo(f"    {bound.why}")
