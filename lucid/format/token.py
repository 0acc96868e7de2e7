"""The token of a moment in a filespace's history: what `lucid sync` gives and `lucid wait` takes.

`1a2b3c4d-1234-0123456789abcdef`: the beginning of the filespace's id, the sequence of an entry, the
beginning of that entry's hash. Nothing in it is secret. Pure; any thread.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lucid.errors import UsageError
from lucid.format.entry import EntryRef
from lucid.format.limits import INT63_MAX

__all__ = ["Token", "format_token", "parse_token"]

_FORM = re.compile(r"([0-9a-f]{8})-([0-9]{1,19})-([0-9a-f]{16})")


class Token(NamedTuple):
    """`filespace` and `hash` are the beginnings, in hex."""

    filespace: str
    sequence: int
    hash: str


def format_token(filespace: bytes, head: EntryRef) -> str:
    """The token of an entry."""
    return f"{filespace.hex()[:8]}-{head.sequence}-{head.hash.hex()[:16]}"


def parse_token(text: str) -> Token:
    """Raises UsageError for what `lucid sync` has not given."""
    found = _FORM.fullmatch(text.strip())
    if found is None or int(found[2]) > INT63_MAX:
        raise UsageError(f"'{text[:80]}' is no token; lucid sync prints one.")
    return Token(found[1], int(found[2]), found[3])
