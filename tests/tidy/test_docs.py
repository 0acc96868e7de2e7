"""The pages say what is so: error table, files named, version."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import lucid
from lucid import errors
from tests.tidy import tree

ROOMS = "bench|docs|engine|lucid|packaging|tests"
NAMED = re.compile(rf"`((?:{ROOMS})/[\w./*-]*)`|\]\((?!https?:|#)([^)#\s]+)[^)]*\)")


def named_files(page: Path) -> set[str]:
    """The project's files and directories that a page names."""
    return {first or second for first, second in NAMED.findall(tree.text(page))}


@pytest.mark.parametrize("page", tree.ending(".md"), ids=str)
def test_files_that_a_page_names_exist(page: Path) -> None:
    missing = [
        name
        for name in sorted(named_files(page))
        if not any(tree.ROOT.glob(name.rstrip("/")))
        and not (tree.ROOT / page.parent / name).exists()
    ]
    assert not missing


def exit_codes_of_readme() -> dict[str, int]:
    """Error class -> exit code, from the table of README.md."""
    table = tree.text(Path("README.md")).partition("## Exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]*) \|$", table, re.MULTILINE)
    return {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}


def test_the_exit_codes_are_those_of_the_errors() -> None:
    classes = {name: getattr(errors, name) for name in errors.__all__}
    assert exit_codes_of_readme() == {name: c.exit_code for name, c in classes.items()}


def test_every_error_stands_in_the_tree_of_its_module() -> None:
    assert errors.__doc__ is not None
    words = set(re.findall(r"\w+", errors.__doc__))
    assert set(errors.__all__) <= words
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.LucidError)


def test_the_version_is_one() -> None:
    version = lucid.__version__
    assert version == metadata.version("lucidfs")
    declared = re.search(r'^version = "(.+)"$', tree.text(Path("pyproject.toml")), re.MULTILINE)
    assert declared and declared[1] == version
    assert f"## {version}" in tree.text(Path("CHANGELOG.md"))
