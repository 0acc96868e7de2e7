"""What a collector found and did: figures and sentences. Values; any thread."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lucid.config import RETENTION_S

__all__ = ["Collection", "Figure"]


@dataclass
class Figure:
    """So many objects, of so many bytes."""

    count: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        self.count += 1
        self.bytes += size


@dataclass
class Collection:
    """The outcome of `lucid gc`. What is freed was deleted if `deleted`; else it would be."""

    filespace: str
    name: str = ""
    retention_s: int = RETENTION_S
    deleted: bool = False
    head: int = 0
    """The newest entry of the log that was folded."""
    floor_before: int = 0
    floor: int = 0
    """The floor that is in force now, or would be; 0 for none."""
    checkpoint: int = 0
    """The newest checkpoint that is to be believed; read back, if anything was to be deleted."""
    first_entry: int = 1
    """The first entry of the log that is kept, but for entry 1."""
    log: Figure = field(default_factory=Figure)
    checkpoints: Figure = field(default_factory=Figure)
    segments: Figure = field(default_factory=Figure)
    """What is freed, by kind."""
    kept_segments: Figure = field(default_factory=Figure)
    """Segments that the state names."""
    young_segments: Figure = field(default_factory=Figure)
    """Segments that it does not name, and that are too young to be deleted."""
    current_bytes: int = 0
    """Of the segments that are kept: blocks of files as they are now."""
    retained_bytes: int = 0
    """Blocks that only older versions and removed files still have."""
    repacked: Figure = field(default_factory=Figure)
    """Segments of which little is alive that were written anew, or would be, and how many bytes of
    the store that gives back once the retention has passed."""
    notes: list[str] = field(default_factory=list)
    """Why something is kept, one sentence each."""
    warnings: list[str] = field(default_factory=list)

    @property
    def freed_bytes(self) -> int:
        return self.log.bytes + self.checkpoints.bytes + self.segments.bytes

    @property
    def freed_objects(self) -> int:
        return self.log.count + self.checkpoints.count + self.segments.count

    @property
    def live_ratio(self) -> float:
        """What part of the bytes of the segments that are kept belongs to files as they are now."""
        stored = self.kept_segments.bytes
        return self.current_bytes / stored if stored else 1.0

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "freed_bytes": self.freed_bytes,
            "freed_objects": self.freed_objects,
            "live_ratio": round(self.live_ratio, 4),
        }
