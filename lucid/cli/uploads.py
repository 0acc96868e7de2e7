"""Waiting for uploads of a mounted drive, with a bar; shared by umount, sync and mount."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lucid.cli.terminal import Bar, count, size
from lucid.errors import NotMounted
from lucid.mount.control import Call, ask
from lucid.mount.wire import Message

__all__ = ["LOOK_S", "follow_call", "show_progress", "what_is_left"]

LOOK_S = 0.2


def what_is_left(progress: Message) -> str:
    """`3 changes, 1.5 MiB`; empty when all is in the store."""
    changes, staged = int(progress["pending_ops"]), int(progress["staged_bytes"])
    parts = [count(changes, "change")] if changes else []
    parts += [size(staged)] if staged else []
    return ", ".join(parts)


def show_progress(bar: Bar, progress: Message) -> None:
    # Bytes where there are some; a change without bytes counts as a little.
    remaining = int(progress["staged_bytes"]) + 1024 * int(progress["pending_ops"])
    text = f"{what_is_left(progress)} to go" if remaining else ""
    problem = str(progress["problem"])
    bar.left(remaining, f"{text}  {problem}" if problem else text)


def follow_call(bar: Bar, directory: Path, call: Call) -> Message:
    """Waits for a command's result; draws the progress it sends, or asks for it beside.

    Raises TimedOut when the daemon lives but answers nothing any more.
    """
    while True:
        message = call.next(LOOK_S)
        if message is None:
            # NotMounted: the drive is just closing, and the call itself tells how that ends.
            with suppress(NotMounted):
                show_progress(bar, ask(directory, "progress"))
        elif "progress" in message:
            show_progress(bar, message["progress"])
        else:
            result: Message = message["result"]
            return result
