"""The recovery code: 160 random bits that a person writes down (FORMAT section 5). Pure."""

from __future__ import annotations

import base64
import binascii

from lucid.errors import FormatError, WrongPassphrase
from lucid.format.member import RECOVERY_SIZE

__all__ = ["format_recovery_code", "looks_like_recovery_code", "parse_recovery_code"]

_GROUP = 4
_SIGNS = 32
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
# The alphabet has no 0, 1 and 8: whoever writes one has misread a letter.
_MISREAD = str.maketrans("018", "OIB")


def format_recovery_code(secret: bytes) -> str:
    """8 groups of 4 signs. Raises FormatError unless `secret` has 20 bytes."""
    if len(secret) != RECOVERY_SIZE:
        raise FormatError(f"The secret of a recovery code has {RECOVERY_SIZE} bytes.")
    signs = base64.b32encode(secret).decode("ascii")
    return "-".join(signs[at : at + _GROUP] for at in range(0, _SIGNS, _GROUP))


def looks_like_recovery_code(text: str) -> bool:
    """Whether `text` can be parsed: a passphrase hardly ever can."""
    signs = _signs(text)
    return len(signs) == _SIGNS and set(signs) <= _ALPHABET


def parse_recovery_code(text: str) -> bytes:
    """The secret. Spaces, dashes and case do not count; 0, 1 and 8 are read as O, I and B.

    Raises WrongPassphrase for what is no recovery code.
    """
    if not looks_like_recovery_code(text):
        raise WrongPassphrase(
            "This is no recovery code: it has 8 groups of 4 letters and digits from 2 to 7."
        )
    try:
        return base64.b32decode(_signs(text))
    except binascii.Error as error:
        raise WrongPassphrase("This is no recovery code.") from error


def _signs(text: str) -> str:
    return "".join(text.split()).replace("-", "").upper().translate(_MISREAD)
