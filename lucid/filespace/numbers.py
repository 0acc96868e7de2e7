"""Numbers of versions as people see them: `2-15` is what counter 15 of session 2 wrote. Pure."""

from __future__ import annotations

from lucid.errors import UsageError
from lucid.format.limits import SESSION_MAX, UINT32_MAX
from lucid.format.ops import counter_of, make_op_id, session_of

__all__ = ["number_of", "version_of"]


def number_of(version: int) -> str:
    """`2-15`: the version that counter 15 of session 2 wrote."""
    return f"{session_of(version)}-{counter_of(version)}"


def version_of(number: str | int) -> int:
    """The id of a version from its number. Raises UsageError."""
    if isinstance(number, int):
        return number
    session, _, counter = number.partition("-")
    if session.isascii() and session.isdigit() and counter.isascii() and counter.isdigit():
        found = int(session), int(counter)
        if found[0] <= SESSION_MAX and found[1] <= UINT32_MAX:
            return make_op_id(*found)
    raise UsageError(f"{number} is no version. They look like 2-15; see: lucid versions PATH.")
