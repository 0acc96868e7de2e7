"""A rig of its own for each test that asks for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.engine.rig import EXAMPLES, Rig

if "ENGINE_EXAMPLES" in os.environ:
    hypothesis.settings.register_profile(
        "engine", hypothesis.settings.get_profile("lucid"), max_examples=EXAMPLES
    )
    hypothesis.settings.load_profile("engine")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as made:
        yield made
