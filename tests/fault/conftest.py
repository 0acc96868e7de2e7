"""A space for each test, as in tests/filespace."""

from __future__ import annotations

from tests.filespace.conftest import quick_passphrase, space

__all__ = ["quick_passphrase", "space"]
