"""What people and programs read: JSON, sizes, tables, and bars for what takes longer than a second.

Results go to stdout, all else to stderr. rich is imported only when something is drawn with it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from lucid.types import Clock, SystemClock

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

__all__ = [
    "Bar",
    "count",
    "examples",
    "local_time",
    "printable",
    "rows",
    "show_json",
    "size",
    "table",
]

BAR_AFTER_S = 1.0
"""What is quicker needs no bar."""


def examples(*lines: str) -> str:
    """The end of a command's help, line by line; click fills paragraphs otherwise."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def show_json(value: object) -> None:
    """As JSON that is UTF-8, also where a name is not."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    click.echo(text)


def size(count_bytes: float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count_bytes < 1024 or unit == "TiB":
            break
        count_bytes /= 1024
    return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"


def count(number: int, noun: str, nouns: str = "") -> str:
    """`1 change`, `2 changes`; `nouns` is the plural where it is not with an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def rows(title: str, pairs: Iterable[tuple[str, str, str]]) -> None:
    """A table of (name, value, style) under a title; plain where stdout is no terminal."""
    if not sys.stdout.isatty():
        click.echo(title)
        for name, value, _ in pairs:
            click.echo(f"  {name:<17} {value}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(title, style="bold"))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value, style in pairs:
        table.add_row("  " + name, Text(value, style=style))
    console.print(table)


def printable(text: str) -> str:
    """A name on one line of a terminal, whatever bytes it has."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def local_time(time_ns: int) -> str:
    """`2026-11-22 10:15:00` where this machine is."""
    try:
        return datetime.fromtimestamp(time_ns // 10**9).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{time_ns // 10**9} s"


def table(heads: Sequence[str], lines: Sequence[tuple[Sequence[str], str]]) -> None:
    """Lines of (cells, style) under heads; plain where stdout is no terminal."""
    if not sys.stdout.isatty():
        widths = [
            max(len(cells[place]) for cells in (heads, *(cells for cells, _ in lines)))
            for place in range(len(heads))
        ]
        for cells in (heads, *(cells for cells, _ in lines)):
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            click.echo("  ".join(padded).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        drawn.add_column(head, overflow="fold")
    for cells, style in lines:
        drawn.add_row(*(Text(cell, style=style) for cell in cells))
    Console(highlight=False).print(drawn)


class Bar:
    """A progress bar on stderr: only on a terminal, and only after a second. A context manager."""

    def __init__(self, what: str, clock: Clock | None = None) -> None:
        self._what = what
        self._clock = clock or SystemClock()
        self._began = self._clock.monotonic()
        self._drawn: Progress | None = None
        self._task: TaskID | None = None
        self._total = 0.0
        self._note = ""

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn is not None:
            self._drawn.stop()

    def left(self, remaining: float, text: str, note: str = "") -> None:
        """`remaining` of something countable is left; what has been done is what came down."""
        self._total = max(self._total, remaining)
        self.show(self._total - remaining, self._total, text, note)

    def show(self, done: float, total: float, text: str, note: str = "") -> None:
        """`done` of `total`; `text` says it in words, a `note` stands whole on lines of its own."""
        if not sys.stderr.isatty() or self._clock.monotonic() - self._began < BAR_AFTER_S:
            return
        if self._drawn is None:
            self._draw()
        assert self._drawn is not None and self._task is not None
        self._note = note
        self._drawn.update(self._task, completed=done, total=total or None, text=text, refresh=True)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.text import Text

        bar = self

        class Noted(Progress):
            """With a line below that is folded, not cut off."""

            def get_renderables(self) -> Iterable[RenderableType]:
                yield from super().get_renderables()
                if bar._note:
                    yield Text(bar._note, overflow="fold")

        columns: tuple[Any, ...] = (
            TextColumn(self._what),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
        )
        # Without its refreshing thread: whoever calls `show` draws.
        self._drawn = Noted(
            *columns, console=Console(stderr=True), auto_refresh=False, transient=True
        )
        self._task = self._drawn.add_task(self._what, text="", total=None)
        self._drawn.start()
