"""What the control socket answers about other machines: their changes, waiting for a moment, locks.

Called by control threads; owns nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from lucid.errors import LucidError, NotMounted
from lucid.filespace.locks import LockRow
from lucid.filespace.surface import Others, Surface
from lucid.mount.control import Command, Progressing
from lucid.mount.wire import Message

__all__ = ["commands"]

WATCH_S = 20.0
"""An answer without changes comes after so long: whoever watches asks again."""
WAIT_S = 20.0
"""The same for a wait: the command asks again until its own time is over."""
AT_ONCE = 8
"""Who waits holds one of the socket's connections; the others are for commands that do not."""


def commands(
    surface: Callable[[], Surface], here: Callable[[], list[LockRow]]
) -> dict[str, Command]:
    """The commands by name; `surface` gives the open filespace, or raises NotMounted, and `here`
    the locks of this machine's programs."""

    turns = threading.BoundedSemaphore(AT_ONCE)

    def waiting(run: Command) -> Command:
        """The command, within what may wait at once."""

        def command(request: Message, progressing: Progressing) -> Message:
            if not turns.acquire(blocking=False):
                raise LucidError(f"{AT_ONCE} commands watch this drive or wait; end one of them.")
            try:
                return run(request, progressing)
            finally:
                turns.release()

        return command

    def others() -> Others:
        found = surface().others
        if found is None:
            raise NotMounted("This drive knows of no other machines.")
        return found

    def changes(request: Message, progressing: Progressing) -> Message:
        """{"after": sequence or 0, "path": ..., "wait_s": ...} -> {"changes", "after", "missed"}

        Only what lies at or below the path. Waits a while for the first change.
        """
        wait_s = min(float(request.get("wait_s", WATCH_S)), WATCH_S)
        below = os.fsencode(str(request.get("path", "/"))).rstrip(b"/")
        found, after, missed = others().changes(int(request.get("after", 0)), wait_s)
        told = [
            change._asdict() | {"path": os.fsdecode(change.path), "to": os.fsdecode(change.to)}
            for change in found
            if _is_below(change.path, below) or _is_below(change.to, below)
        ]
        return {"changes": told, "after": after, "missed": missed}

    def wait(request: Message, progressing: Progressing) -> Message:
        """{"token": ..., "timeout_s": ...} -> {"head": ...}. Raises TimedOut."""
        timeout_s = min(float(request.get("timeout_s", WAIT_S)), WAIT_S)
        return {"head": others().wait(str(request["token"]), timeout_s)}

    def locks(request: Message, progressing: Progressing) -> Message:
        """{"path": ...} -> {"leases": [...], "here": [...]}, at or below the path."""
        below = os.fsencode(str(request.get("path", "/"))).rstrip(b"/")

        def is_asked(row: Message) -> bool:
            return not below or _is_below(os.fsencode(row["path"]), below)

        return {
            "leases": list(filter(is_asked, others().leases())),
            "here": list(filter(is_asked, (_shown(row, others().path(row.ino)) for row in here()))),
        }

    return {"changes": waiting(changes), "wait": waiting(wait), "locks": locks}


def _is_below(path: bytes, above: bytes) -> bool:
    return path == above or path.startswith(above + b"/")


def _shown(row: LockRow, path: bytes | None) -> Message:
    return {
        "path": os.fsdecode(path or b""),
        "inode": row.ino,
        "kind": "flock" if row.is_flock else "fcntl",
        "mode": row.mode.name.lower(),
        "start": row.start,
        "end": row.end,
        "pid": row.pid,
        "state": "waiting" if row.waits else "held",
        "since_ns": row.since_ns,
    }
