"""Which suite a new filespace gets."""

from __future__ import annotations

import pytest

from lucid.crypto.suites import default_suite, measure_gb_s, suite_of_name
from lucid.errors import ConfigError
from lucid.format.superblock import SUITE_AEGIS256, SUITE_XCHACHA20, SUITES


def test_a_processor_without_aes_gets_the_other_suite() -> None:
    assert default_suite(10.0) == SUITE_AEGIS256
    assert default_suite(0.03) == SUITE_XCHACHA20
    assert default_suite() in SUITES


def test_names() -> None:
    for suite, name in SUITES.items():
        assert suite_of_name(name) == suite
        assert suite_of_name(name.upper()) == suite
    with pytest.raises(ConfigError, match="aegis-256"):
        suite_of_name("rot13")


@pytest.mark.parametrize("suite", SUITES)
def test_speed_is_measured(suite: int) -> None:
    assert measure_gb_s(suite) > 0
