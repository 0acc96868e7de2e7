"""Conflict copies that this drive has heard of since it was opened, for `lucid status`.

Owns a bounded list of names. The sync thread notes, whoever asks for the status reads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from lucid.meta.conflict_names import MARK

__all__ = ["Conflicts"]

KEPT = 100
"""Names, the newest. Each may be 255 bytes."""


class Conflicts:
    """(directory, name) of what lies beside a winner, newest last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[tuple[int, bytes], None] = {}

    def note(self, names: Iterable[tuple[int, bytes]]) -> None:
        """These names appeared, vanished or lead elsewhere; those that are no conflict names are
        passed over."""
        found = [name for name in names if MARK in name[1]]
        if not found:
            return
        with self._lock:
            for name in found:
                self._names.pop(name, None)
                self._names[name] = None
            for name in list(self._names)[:-KEPT]:
                del self._names[name]

    def names(self) -> list[tuple[int, bytes]]:
        """Newest last. Some may be gone by now."""
        with self._lock:
            return list(self._names)
