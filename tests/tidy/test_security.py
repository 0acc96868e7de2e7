"""The attacks of docs/SECURITY.md: each names its tests, and each hostile test stands there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.tidy import tree

PAGE = Path("docs/SECURITY.md")
HOSTILE = Path("tests/hostile")
ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
NAMED = re.compile(r"`(test_\w+)`")


def named_by_the_page() -> list[str]:
    """The tests in the rows of its tables."""
    return [name for row in ROW.findall(tree.text(PAGE)) for name in NAMED.findall(row)]


def hostile_tests() -> set[str]:
    """The test functions below tests/hostile."""
    return {
        node.name
        for path in tree.ending(".py")
        if HOSTILE in path.parents
        for node in ast.parse(tree.text(path)).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_each_test_that_the_page_names_exists() -> None:
    assert set(named_by_the_page()) - hostile_tests() == set()


def test_each_hostile_test_stands_in_the_page() -> None:
    assert hostile_tests() - set(named_by_the_page()) == set()
    assert len(named_by_the_page()) > 40


def test_each_row_of_an_attack_names_a_test() -> None:
    tables = re.findall(r"^\| attack .*\n\|[-|]+\n((?:\|.*\n)+)", tree.text(PAGE), re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) == 4
    assert [row for row in rows if not NAMED.search(row)] == []
