"""How a drive is mounted: what `-o` takes, and what libfuse is told. Pure; any thread."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lucid.errors import UsageError

__all__ = ["CONGESTION_THRESHOLD", "MAX_BACKGROUND", "MountOptions"]

MAX_BACKGROUND = 256
CONGESTION_THRESHOLD = 192
"""Buffered reads are background requests to the kernel, which lets 12 be under way by default: with
that, 16 readers of a hung store freeze every cached read (measured: 5 to 30 s; with these 1 ms)."""

KNOWN = ("owners", "allow_other", "nonempty")


@dataclass(frozen=True)
class MountOptions:
    """What a user may choose about a mount."""

    name: str = "filespace"
    """Shown as the device: `lucid:<name>`."""
    read_only: bool = False
    owners: bool = False
    """Show stored owners. Else every inode is shown as the mounting user's."""
    allow_other: bool = False
    """Let other users of this machine in."""
    nonempty: bool = False
    """Mount over a directory that has files in it."""

    @classmethod
    def parse(cls, texts: tuple[str, ...], *, read_only: bool = False) -> MountOptions:
        """From `-o a,b -o c`. `ro` and `rw` are taken too, because fstab has them.

        Raises UsageError for an option that is not known.
        """
        chosen: dict[str, bool] = {"read_only": read_only}
        for option in (part.strip() for text in texts for part in text.split(",")):
            if option == "ro":
                chosen["read_only"] = True
            elif option in KNOWN:
                chosen[option] = True
            elif option not in ("", "rw"):
                raise UsageError(f"-o {option} is unknown; there are: {', '.join(KNOWN)}, ro.")
        return cls(**chosen)  # type: ignore[arg-type]  # only the booleans are in it

    def for_libfuse(self) -> set[str]:
        """The options of llfuse.init.

        atomic_o_trunc: O_TRUNC comes with the open, so that `cmd > f` is one change and not a
        truncation of its own that could be published. big_writes: 128 KiB a request, not 4.
        """
        options = {
            "atomic_o_trunc",
            "big_writes",
            "default_permissions",
            "nodev",
            "nosuid",
            "no_splice_read",
            "splice_write",
            "splice_move",
            "subtype=lucid",
            # libfuse takes ASCII, and reads a comma as the next option.
            "fsname=lucid:" + re.sub(r"[^A-Za-z0-9._-]", "_", self.name),
            f"max_background={MAX_BACKGROUND}",
            f"congestion_threshold={CONGESTION_THRESHOLD}",
        }
        options |= {"allow_other"} if self.allow_other else set()
        options |= {"nonempty"} if self.nonempty else set()
        options |= {"ro"} if self.read_only else set()
        return options
