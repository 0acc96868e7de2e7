"""Is the cipher library right, and is it fast?  Called once at start, by one thread.

A wrong answer is an EngineError at import.  A slow AEGIS (no AES instructions, or a libsodium that
was not initialised) is not an error: the caller decides what to tell the user.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from .errors import CorruptBlock, EngineError
from .sodium import SUITE_AEGIS256, SUITE_XCHACHA20, AdContext, digest32, open_, seal

__all__ = ["SLOW_AEGIS", "SelfTest", "check_answers", "selftest"]

#: The name of the warning: XChaCha20 would be the better suite on this machine.
SLOW_AEGIS: Final = "slow-aegis"

#: Software AES ran at 0.03 GB/s and hardware at 10, so anything between tells them apart.
SLOW_AEGIS_GB_S: Final = 0.2

_SPEED_BYTES: Final = 1 << 20
_SPEED_ROUNDS: Final = 3


class SelfTest(NamedTuple):
    """Speeds of opening in GB/s of one core, and the names of what is wrong with them."""

    aegis_gb_s: float
    xchacha_gb_s: float
    warnings: tuple[str, ...]
