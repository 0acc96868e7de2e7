"""A whole file system without a mount: composed here from the rooms below.

The names are looked up at first use: who needs one module of this room, as the mount needs the
protocol, does not load all that an open filespace needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lucid.filespace.filespace import BLOCK_SIZE, Filespace, change_passphrase, connect, init
    from lucid.filespace.founding import Created

__all__ = ["BLOCK_SIZE", "Created", "Filespace", "change_passphrase", "connect", "init"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "founding" if name == "Created" else "filespace"
    return getattr(import_module(f"lucid.filespace.{home}"), name)
