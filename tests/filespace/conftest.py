"""A space for each test; a passphrase is stretched once only."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from lucid.crypto import passphrase
from tests.filespace.spaces import Space


@pytest.fixture(scope="session", autouse=True)
def quick_passphrase() -> Iterator[None]:
    """The same passphrase and salt give the same key: no need to work it out at each open."""
    patch = pytest.MonkeyPatch()
    real = passphrase.bindings.crypto_pwhash_alg
    patch.setattr(passphrase.bindings, "crypto_pwhash_alg", lru_cache(maxsize=64)(real))
    yield
    patch.undo()


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    made = Space(tmp_path)
    yield made
    made.close()
