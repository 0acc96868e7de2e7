"""Lucid: an encrypted, multi-writer team drive on nothing but an S3 bucket.

This module owns the public names of the package. They are looked up at first use, so that
`import lucid` costs nothing and needs no extension. Any thread may import it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lucid.config import Config
    from lucid.errors import LucidError
    from lucid.filespace import Filespace, change_passphrase, connect, init

    __version__: str

__all__ = [
    "Config",
    "Filespace",
    "LucidError",
    "__version__",
    "change_passphrase",
    "connect",
    "init",
]

_HOMES = {
    "Config": "lucid.config",
    "Filespace": "lucid.filespace",
    "LucidError": "lucid.errors",
    "change_passphrase": "lucid.filespace",
    "connect": "lucid.filespace",
    "init": "lucid.filespace",
}
"""Public name -> module that holds it."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        # Imported here: it costs more than all else that `lucid --help` needs.
        from importlib import metadata

        return metadata.version("lucidfs")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
