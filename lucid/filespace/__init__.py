"""A whole file system without a mount: composed here from the rooms below."""

from __future__ import annotations

from lucid.filespace.filespace import BLOCK_SIZE, Filespace, change_passphrase, connect, init
from lucid.filespace.founding import Created

__all__ = ["BLOCK_SIZE", "Created", "Filespace", "change_passphrase", "connect", "init"]
