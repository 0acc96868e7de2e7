"""Paths that people write, as paths within the drive that they lie on; and asking that drive."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lucid.cli.terminal import Bar
from lucid.errors import LucidError
from lucid.mount import registry
from lucid.mount.control import Call
from lucid.mount.wire import Message

__all__ = ["DrivePath", "ask_drive", "find", "hand_over"]

TURN_S = 0.5


class DrivePath(NamedTuple):
    """A path on a drive. `inner` begins with a slash at the drive's root."""

    record: registry.Record
    inner: str

    @property
    def outer(self) -> str:
        """The path on this machine."""
        return self.outer_of(self.inner)

    def outer_of(self, inner: str) -> str:
        """Another path of the same drive, on this machine."""
        return str(Path(self.record.point) / inner.lstrip("/"))


def find(path: Path, follow: bool = False) -> DrivePath:
    """Where a path lies, which need not exist. Raises NotMounted.

    If its last part is a symbolic link, that is meant itself unless `follow`.
    """
    plain = path.name not in ("", "..") and not follow
    whole = path.parent.resolve() / path.name if plain else path.resolve()
    record = registry.containing(whole)
    return DrivePath(record, "/" + "/".join(whole.relative_to(record.point).parts))


def hand_over(path: DrivePath) -> None:
    """What programs wrote into mappings of a file is given to the drive, if that can be."""
    with suppress(OSError):
        fd = os.open(path.outer, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def ask_drive(path: DrivePath, what: str, command: str, **fields: object) -> Message:
    """The drive's answer, however long it takes. Raises NotMounted, and what the drive raises,
    with paths as they are on this machine."""
    try:
        return _ask(path, what, command, **fields)
    except LucidError as error:
        inner = [path.inner, str(fields["to"])] if fields.get("to") else [path.inner]
        before, outer = " -> ".join(inner), " -> ".join(map(path.outer_of, inner))
        if not str(error).startswith(f"{before}: "):
            raise
        raise type(error)(outer + str(error)[len(before) :]) from None


def _ask(path: DrivePath, what: str, command: str, **fields: object) -> Message:
    directory = Path(path.record.state_directory)
    with Bar(what) as bar, Call(directory, command, path=path.inner, **fields) as call:
        while True:
            message = call.next(TURN_S)
            if message is None:
                bar.show(0, 0, "")
            elif "result" in message:
                result: Message = message["result"]
                return result
