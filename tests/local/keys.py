"""Keys of the tests: fixed, so that every run writes the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from lucid.local.frames import JournalKeys

AEGIS, XCHACHA = 1, 2


def journal_keys(suite: int = AEGIS, seed: bytes = b"seed") -> JournalKeys:
    """Keys of a journal; another seed makes others."""
    return JournalKeys(
        suite, b"filespace-id-16b", lambda o: blake2b(o, key=seed, digest_size=32).digest()
    )


def entropy() -> Callable[[int], bytes]:
    """Random bytes that are the same in every run and never twice in one."""
    count = 0

    def take(size: int) -> bytes:
        nonlocal count
        count += 1
        return blake2b(count.to_bytes(8, "little"), digest_size=size).digest()

    return take
