"""Lucid: an encrypted, multi-writer team drive on nothing but an S3 bucket.

This module owns the public names of the package. They are looked up at first use, so that
`import lucid` costs nothing and needs no extension. Any thread may import it.
"""

from __future__ import annotations

from importlib import import_module, metadata

__all__ = ["__version__"]

_HOMES: dict[str, str] = {}
"""Public name -> module that holds it."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        return metadata.version("lucidfs")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
