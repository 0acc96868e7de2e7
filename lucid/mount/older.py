"""What the control socket answers about older versions: see them, bring them back.

Paths in messages are those within the drive, as Python's file system encoding has them. Called by
control threads; owns nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from lucid.errors import NamespaceError
from lucid.filespace.paths import PathApi
from lucid.filespace.surface import Surface
from lucid.mount.control import Command, Progressing
from lucid.mount.wire import Message

__all__ = ["commands"]


def commands(surface: Callable[[], Surface]) -> dict[str, Command]:
    """The commands by name; `surface` gives the open filespace, or raises NotMounted."""

    def versions(request: Message) -> Message:
        """{"path": ..., "check": bool} -> {"versions": [...]}"""
        check = bool(request.get("check"))
        found = PathApi(surface()).versions(str(request["path"]), check=check)
        return {"versions": [version._asdict() for version in found]}

    def removed(request: Message) -> Message:
        """{"path": of a directory} -> {"removed": [...]}"""
        found = PathApi(surface()).removed(str(request["path"]))
        return {"removed": [one._asdict() | {"name": os.fsdecode(one.name)} for one in found]}

    def restore(request: Message) -> Message:
        """{"path": ..., "version": number or null, "to": path or null, "deleted": bool} -> where"""
        restored = PathApi(surface()).restore(
            str(request["path"]),
            request.get("version"),
            to=request.get("to"),
            deleted=bool(request.get("deleted")),
        )
        return restored._asdict() | {"path": os.fsdecode(restored.path)}

    return {
        "versions": _telling(versions),
        "removed": _telling(removed),
        "restore": _telling(restore),
    }


def _telling(run: Callable[[Message], Message]) -> Command:
    """The command, whose errors name their paths: only their sentence goes over the socket."""

    def command(request: Message, progressing: Progressing) -> Message:
        try:
            return run(request)
        except NamespaceError as error:
            raise type(error)(str(error)) from None

    return command
