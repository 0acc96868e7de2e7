"""What `lucid fsck` found. Values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["FsckReport", "Progress"]

Progress = Callable[[str, int, "int | None"], None]
"""stage, done, total (None while it is not known)."""


@dataclass
class FsckReport:
    """What was found. `problems` is empty when everything is as it should be."""

    filespace: str
    name: str = ""
    entries: int = 0
    void_entries: int = 0
    first_entry: int = 1
    """The first entry that was read. Above 1, the log was cut there, and the check began with the
    state of a checkpoint."""
    checkpoint: int = 0
    """The newest checkpoint in the store, which was compared with the log; 0 for none."""
    inodes: int = 0
    segments: int = 0
    segment_bytes: int = 0
    blocks_read: int = 0
    orphans: int = 0
    """Objects under data/ that the state does not name: uploads that were not committed, or not
    yet, and what a floor has ended and no collector has deleted."""
    orphan_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "clean": self.clean}
