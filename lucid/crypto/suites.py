"""Which suite a new filespace gets, unless the founder says. Pure but for a short measurement."""

from __future__ import annotations

import time

from lucid.crypto.aead import Place, open_object, seal_object
from lucid.crypto.sealing import NO_GENERATION, TAG_LOCAL
from lucid.errors import ConfigError
from lucid.format.superblock import SUITE_AEGIS256, SUITE_XCHACHA20, SUITES

__all__ = ["default_suite", "measure_gb_s", "suite_of_name"]

SLOW_GB_S = 0.2
"""AEGIS-256 opens 0.03 GB/s without AES instructions, and several with them."""

_SAMPLE = 1 << 20
_ROUNDS = 3


def suite_of_name(name: str) -> int:
    """The suite of a name as `--cipher` takes it. Raises ConfigError."""
    for suite, known in SUITES.items():
        if name.lower() == known:
            return suite
    raise ConfigError(f"There is no cipher {name}. Choose one of: {', '.join(SUITES.values())}.")


def measure_gb_s(suite: int) -> float:
    """Speed of opening on this machine, the best of a few tries: about 100 ms where it is slow."""
    key = bytes(32)
    place = Place(TAG_LOCAL, suite, bytes(16), NO_GENERATION, bytes(32))
    sealed = seal_object(key, place, bytes(_SAMPLE))
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        open_object(key, place, sealed)
        best = min(best, time.perf_counter() - start)
    return _SAMPLE / best / 1e9


def default_suite(aegis_gb_s: float | None = None) -> int:
    """AEGIS-256 where the processor has AES instructions, else XChaCha20-Poly1305.

    `aegis_gb_s` is the measured speed of AEGIS-256, if the caller has it.
    """
    speed = measure_gb_s(SUITE_AEGIS256) if aegis_gb_s is None else aegis_gb_s
    return SUITE_AEGIS256 if speed >= SLOW_GB_S else SUITE_XCHACHA20
