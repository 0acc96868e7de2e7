"""Every setting of an open filespace, with its trade-off. Frozen: a running filespace never
changes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lucid.errors import ConfigError, UsageError

__all__ = [
    "DAY_S",
    "DURABILITIES",
    "LOCK_POLICIES",
    "RETENTION_MIN_S",
    "RETENTION_S",
    "Config",
    "KiB",
    "MiB",
    "check_retention",
    "parse_retention",
    "parse_size",
]

KiB = 1024
MiB = 1024 * 1024
GiB = 1024 * MiB

DURABILITIES = ("local", "store")
LOCK_POLICIES = ("none", "advisory", "on-open")

DAY_S = 86_400
RETENTION_S = 7 * DAY_S
RETENTION_MIN_S = 2 * DAY_S
"""Who was away for less than this never finds the log cut."""

_RETENTION = re.compile(r"([0-9]{1,5})([hdw])\Z")
_SECONDS = {"h": 3600, "d": DAY_S, "w": 7 * DAY_S}
_SUFFIXES = {"": 1, "B": 1, "K": KiB, "M": MiB, "G": GiB, "T": 1024 * GiB}


@dataclass(frozen=True)
class Config:
    """How one device opens a filespace."""

    state_dir: Path | None = None
    """Where journal, staging, cache and replica live. None: a directory of the user's own, by
    filespace id."""

    read_only: bool = False
    """Take no session and write nothing to the store."""

    durability: str = "local"
    """"local": fsync waits for the local disk. "store": fsync, and close after a write, wait for
    the store."""

    cache_bytes: int = 20 * GiB
    """Upper limit of cached segments on the local disk (allocated bytes)."""

    cache_free_bytes: int = 1 * GiB
    """The cache leaves at least this much free on its disk."""

    staging_bytes: int = 32 * GiB
    """What may wait for the store on the local disk before writers wait, or get ENOSPC when cut
    off."""

    memory_bytes: int = 128 * MiB
    """Budget of buffers for writing, fetching and reading ahead. The process stays under 300 MiB.
    """

    pool_bytes: int = 16 * MiB
    """Opened blocks kept for reads that are not aligned to blocks. Part of the memory budget."""

    upload_workers: int = 6
    """Segments on their way to the store at once."""

    fetch_workers: int = 10
    """GETs under way at once; three of them are kept for reads somebody waits for."""

    read_timeout_s: float = 30.0
    """How long a read waits for the store before it fails with EIO."""

    write_wait_s: float = 30.0
    """How long a write waits for room in memory or staging before it fails."""

    poll_fast_s: float = 0.5
    """How often the log is looked at while others are active."""

    poll_idle_s: float = 5.0
    """How often the log is looked at when nothing has come for a while."""

    poll_told_s: float = 30.0
    """How often the log is looked at while a hub tells of all changes. Never less often than
    poll_idle_s says."""

    hub: str = ""
    """Where a hub is: wss://host or ws://host:port. Empty: changes of others are heard of by
    polling alone."""

    publish_interval_s: float = 60.0
    """How often a file that stays open is published."""

    block_pool_descriptors: int = 512
    """Open descriptors of cached segments."""

    state_wait_s: float = 0.0
    """How long to wait for another process that still uses the state directory."""

    checkpoint_every: int = 4096
    """Entries from one checkpoint to the next; 0 for none. All devices of a filespace should keep
    to one number. A smaller one makes first mounts quicker, and costs uploads."""

    checkpoint_wait_s: float = 60.0
    """How long to leave a checkpoint to who committed its entry, before this device writes it."""

    lock_policy: str = "advisory"
    """Whether locks of programs hold across machines: "none" (on this machine only), "advisory"
    (for programs that lock), or "on-open" (a file that is open for writing is locked too)."""

    retention_s: int | None = RETENTION_S
    """How long what was replaced or removed is kept at least. After that an admin's device that is
    open for writing frees it, about once a day. None: it frees nothing."""

    def __post_init__(self) -> None:
        if self.durability not in DURABILITIES:
            raise ConfigError(f"The durability is 'local' or 'store', not '{self.durability}'.")
        if self.lock_policy not in LOCK_POLICIES:
            known = ", ".join(LOCK_POLICIES)
            raise ConfigError(f"'{self.lock_policy}' is no policy of locks; write one of {known}.")
        for name in ("cache_bytes", "staging_bytes", "memory_bytes", "pool_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"The {name} cannot be negative.")
        if self.hub and not self.hub.startswith(("ws://", "wss://")):
            raise ConfigError(f"'{self.hub}' is no hub; write wss://host or ws://host:port.")
        if self.checkpoint_every < 0 or self.checkpoint_wait_s < 0:
            raise ConfigError("The settings of checkpoints cannot be negative.")
        if self.retention_s is not None:
            check_retention(self.retention_s)
        if self.memory_bytes < 48 * MiB:
            raise ConfigError("The memory_bytes must be at least 48 MiB.")


def check_retention(seconds: int) -> None:
    """Raises UsageError for a retention that is too short."""
    if seconds < RETENTION_MIN_S:
        raise UsageError(
            f"The retention is at least {RETENTION_MIN_S // DAY_S} days: a device that was cut off"
            " for less must find the log as it left it."
        )


def parse_retention(text: str) -> int:
    """Seconds from "48h", "30d" or "8w". Raises UsageError for anything else, or too short."""
    match = _RETENTION.match(text)
    if match is None:
        raise UsageError(f"{text} is no time. Write 48h, 30d or 8w.")
    seconds = int(match[1]) * _SECONDS[match[2]]
    check_retention(seconds)
    return seconds


def parse_size(text: str) -> int:
    """Bytes from "512M", "20G", "1.5T" or a plain number (powers of 1024).

    Raises ConfigError for anything else.
    """
    cleaned = text.strip().upper().removesuffix("IB")
    number, suffix = cleaned.rstrip("BKMGT"), cleaned.lstrip("0123456789.")
    try:
        value = float(number) if "." in number else int(number)
        size = int(value * _SUFFIXES[suffix.removesuffix("B") if len(suffix) > 1 else suffix])
    except (ValueError, KeyError, OverflowError):
        raise ConfigError(f"'{text}' is not a size; write it like 512M or 20G.") from None
    if size < 0:
        raise ConfigError(f"'{text}' is not a size; write it like 512M or 20G.")
    return size
