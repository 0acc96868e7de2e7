"""Whether this device has opened a filespace before, and where: told without the store.

Reads the state root only, and loads little: a command asks before it opens anything. Any thread.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from lucid.config import Config
from lucid.local.statedir import default_place

__all__ = ["is_known_device", "known_place", "url_digest", "url_file"]


def is_known_device(url: str, config: Config) -> bool:
    """Whether this device has opened what is at `url` before, and so can without the store."""
    place = known_place(url, config)
    return place is not None and (place / "device").is_file()


def known_place(url: str, config: Config) -> Path | None:
    """The state directory, as far as it can be told without the store."""
    if config.state_dir is not None:
        return config.state_dir
    try:
        return default_place(bytes.fromhex(url_file(url).read_text().strip()))
    except (OSError, ValueError):
        return None


def url_file(url: str) -> Path:
    """Where the state root remembers which filespace was last seen at a URL."""
    return default_place(bytes(16)).parent / "stores" / url_digest(url)


def url_digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]
