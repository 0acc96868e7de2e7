"""Waiting for uploads of a mounted drive, with a bar; shared by umount, sync and mount.

Where nobody sees a bar, a wait that gets nowhere is told in a line now and then.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import click

from lucid.cli.terminal import Bar, count, size
from lucid.errors import NotMounted
from lucid.mount.control import Call, ask
from lucid.mount.wire import Message
from lucid.types import Clock, SystemClock

__all__ = ["LOOK_S", "Standstill", "follow_call", "show_progress", "what_is_left"]

LOOK_S = 0.2
FIRST_S = 5.0
"""A wait in which nothing moves, or with a problem, is told after so long,"""
AGAIN_S = 60.0
"""and then each time after so long."""


def what_is_left(progress: Message) -> str:
    """`3 changes, 1.5 MiB`; empty when all is in the store."""
    changes, staged = int(progress["pending_ops"]), int(progress["staged_bytes"])
    parts = [count(changes, "change")] if changes else []
    parts += [size(staged)] if staged else []
    return ", ".join(parts)


class Standstill:
    """Tells on stderr, in one line, of a wait in which nothing moves or that has a problem.

    Tells nothing on a terminal, where the bar shows it. One thread.
    """

    def __init__(self, give_up: str, clock: Clock | None = None) -> None:
        """give_up: the sentence that says how not to wait any longer."""
        self._give_up = give_up
        self._clock = clock or SystemClock()
        self._left = ""
        self._due = self._clock.monotonic() + FIRST_S

    def look(self, progress: Message) -> None:
        """Called now and then with how far it is."""
        now = self._clock.monotonic()
        left, problem = what_is_left(progress), str(progress["problem"])
        if left != self._left and not problem:
            self._left, self._due = left, max(self._due, now + FIRST_S)
        if now < self._due:
            return
        self._due = now + AGAIN_S
        if not sys.stderr.isatty():
            why = f"{problem.rstrip('.')}." if problem else "Nothing moves."
            what = f"{left} still to go" if left else "still waiting for the store"
            click.echo(f"lucid: {what}. {why} {self._give_up}", err=True)


def show_progress(bar: Bar, progress: Message) -> None:
    # Bytes where there are some; a change without bytes counts as a little.
    remaining = int(progress["staged_bytes"]) + 1024 * int(progress["pending_ops"])
    text = f"{what_is_left(progress)} to go" if remaining else ""
    bar.left(remaining, text, note=str(progress["problem"]))


def follow_call(bar: Bar, directory: Path, call: Call, standstill: Standstill) -> Message:
    """Waits for a command's result; draws the progress it sends, or asks for it beside.

    Raises TimedOut when the daemon lives but answers nothing any more.
    """

    def show(progress: Message) -> None:
        show_progress(bar, progress)
        standstill.look(progress)

    while True:
        message = call.next(LOOK_S)
        if message is None:
            # NotMounted: the drive is just closing, and the call itself tells how that ends.
            with suppress(NotMounted):
                show(ask(directory, "progress"))
        elif "progress" in message:
            show(message["progress"])
        else:
            result: Message = message["result"]
            return result
