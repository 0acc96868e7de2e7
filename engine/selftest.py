"""Is the cipher library right, and is it fast?  Called once at start, by one thread.

A wrong answer is an EngineError at import.  A slow AEGIS (no AES instructions, or a libsodium that
was not initialised) is not an error: the caller decides what to tell the user.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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


_PLAINTEXT: Final = b"Lucid known answer " * 40
_OBJECT_ID: Final = bytes(range(32, 64))
_KEY: Final = bytes(range(64, 96))
_ORDINAL: Final = 0x0102030405060708
_FLAGS: Final = 0x11

#: BLAKE2b-256 of the sealed plaintext, by suite.  Tests recompute them without this engine.
_ANSWERS: Final = {
    SUITE_AEGIS256: "274e20b2941a96503f4cea31e6992c920c496cecc73172e6f449770d2adceecc",
    SUITE_XCHACHA20: "128112039abbb1a40a247eb92342ee5a6ea694d764fc00e97155ad210fc1c81f",
}


def _context(suite: int) -> AdContext:
    return AdContext(suite, b"test", bytes(range(16)), bytes(range(16, 32)))


def check_answers() -> None:
    """Compare both suites and BLAKE2b with pinned answers.  Raises EngineError."""
    for suite, answer in _ANSWERS.items():
        ctx = _context(suite)
        sealed = seal(ctx, _OBJECT_ID, _KEY, _ORDINAL, _FLAGS, _PLAINTEXT)
        if digest32(sealed).hex() != answer:
            raise EngineError(f"suite {suite} of the installed libsodium gives wrong answers")
        if open_(ctx, _OBJECT_ID, _KEY, _ORDINAL, _FLAGS, sealed) != _PLAINTEXT:
            raise EngineError(f"suite {suite} of the installed libsodium does not open its own")
        altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
        try:
            open_(ctx, _OBJECT_ID, _KEY, _ORDINAL, _FLAGS, altered)
        except CorruptBlock:
            continue
        raise EngineError(f"suite {suite} of the installed libsodium accepts altered bytes")


def _speed_gb_s(suite: int, clock: Callable[[], float]) -> float:
    """The best of a few rounds: an interruption makes a round slow, nothing makes it fast."""
    ctx = _context(suite)
    sealed = seal(ctx, _OBJECT_ID, _KEY, 0, 0, bytes(_SPEED_BYTES))
    best = float("inf")
    for _ in range(_SPEED_ROUNDS):
        began = clock()
        open_(ctx, _OBJECT_ID, _KEY, 0, 0, sealed)
        best = min(best, clock() - began)
    return _SPEED_BYTES / max(best, 1e-9) / 1e9


def selftest(clock: Callable[[], float] = time.perf_counter) -> SelfTest:
    """Known answers, then a speed check of some milliseconds.  `clock` counts seconds."""
    check_answers()
    aegis = _speed_gb_s(SUITE_AEGIS256, clock)
    xchacha = _speed_gb_s(SUITE_XCHACHA20, clock)
    warnings = (SLOW_AEGIS,) if aegis < SLOW_AEGIS_GB_S else ()
    return SelfTest(aegis, xchacha, warnings)
