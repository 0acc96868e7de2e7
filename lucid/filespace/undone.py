"""Restores that came too late: a floor had ended what they bring back when their entry was folded.

Owns a bounded list of sentences for `lucid status`. The sync thread notes, anybody reads.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable

from lucid.format.ops import Clone, Link, Op
from lucid.meta.replica import Replica

__all__ = ["Undone"]

log = logging.getLogger(__name__)

KEPT = 100
"""Sentences, the newest."""


class Undone:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: deque[str] = deque(maxlen=KEPT)

    def settled(self, replica: Replica, ops: Iterable[Op]) -> None:
        """Own ops that were folded just now, as everybody folds them."""
        for op in ops:
            if isinstance(op, Clone):
                is_there = replica.version(op.op_id) is not None
            elif isinstance(op, Link):
                is_there = replica.inode(op.ino) is not None
            else:
                continue
            if not is_there:
                self._tell(op.name)

    def _tell(self, name: bytes) -> None:
        told = (
            f"{name.decode(errors='replace')}, which was restored or linked here, is as it was"
            " before that: when the change got to the store, what it brings back had been freed"
            " there, for it was older than the retention."
        )
        log.warning("%s", told)
        with self._lock:
            self._told.append(told)

    def sentences(self) -> list[str]:
        """Oldest first."""
        with self._lock:
            return list(self._told)
