"""The promises of docs/SEMANTICS.md: each is numbered once and named by a test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tidy import tree

PAGE = Path("docs/SEMANTICS.md")
PROMISE = re.compile(r"\*\*(S-\d+)\*\*")
MENTION = re.compile(r"\bS-\d+\b")

NOT_YET_TESTED: frozenset[str] = frozenset()
"""Promises that no test names. This set only shrinks: whoever names one takes it out here."""


def promises() -> list[str]:
    return PROMISE.findall(tree.text(PAGE))


def named_by_tests() -> set[str]:
    """The numbers that stand in a test file other than this one."""
    return {
        number
        for path in tree.ending(".py")
        if path.parts[0] == "tests" and path != Path("tests/tidy/test_semantics.py")
        for number in MENTION.findall(tree.text(path))
    }


def test_no_number_is_given_twice() -> None:
    assert len(promises()) == len(set(promises()))


def test_every_promise_is_named_by_a_test() -> None:
    assert set(promises()) - named_by_tests() - NOT_YET_TESTED == set()


def test_every_number_that_is_named_is_a_promise() -> None:
    assert named_by_tests() <= set(promises())
    assert set(MENTION.findall(tree.text(PAGE))) <= set(promises())


def test_every_test_that_the_page_names_exists() -> None:
    there = {
        name
        for path in tree.ending(".py")
        if path.parts[0] == "tests"
        for name in re.findall(r"^def (test_\w+)", tree.text(path), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", tree.text(PAGE)))
    assert len(named) > 20
    assert named - there == set()


def test_what_was_not_yet_tested_shrinks() -> None:
    assert NOT_YET_TESTED & named_by_tests() == set(), "take these out of NOT_YET_TESTED"
    assert set(promises()) >= NOT_YET_TESTED
