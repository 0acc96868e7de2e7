"""How fast this processor seals and opens blocks: for `lucid bench`. One core only.

Sealing is measured as a write does it, with the digest of each sealed block. Pure but for time.
"""

from __future__ import annotations

from lucid.engine.bulk import open_blocks, seal_blocks
from lucid.engine.sodium import AdContext, tag_bytes
from lucid.format.superblock import SUITES
from lucid.types import Clock

__all__ = ["measure"]

BLOCK = 128 << 10
BLOCKS = 32
ROUNDS = 3


def measure(clock: Clock, rounds: int = ROUNDS) -> dict[str, float]:
    """Bytes a second by what was done: `seal aegis-256` and the like. The best of a few rounds: an
    interruption makes a round slow, and nothing makes it fast."""
    found: dict[str, float] = {}
    plain = [bytes([number]) * BLOCK for number in range(BLOCKS)]
    for suite, name in SUITES.items():
        context = AdContext(suite, b"rate", bytes(16), bytes(16))
        sealed = bytearray(BLOCKS * (BLOCK + tag_bytes(suite)))
        opened = bytearray(BLOCKS * BLOCK)
        sealing, opening = [], []
        for _ in range(rounds):
            began = clock.monotonic()
            lengths, _ = seal_blocks(context, bytes(32), bytes(32), 0, 0, plain, sealed)
            sealing.append(clock.monotonic() - began)
            began = clock.monotonic()
            open_blocks(context, bytes(32), bytes(32), 0, 0, sealed, lengths, opened)
            opening.append(clock.monotonic() - began)
        found[f"seal {name}"] = len(opened) / max(min(sealing), 1e-9)
        found[f"open {name}"] = len(opened) / max(min(opening), 1e-9)
    return found
