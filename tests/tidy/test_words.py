"""Words: what no file says, and how files and classes are not called."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.tidy import tree

# Written so that this file does not contain what it looks for.
NEVER = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:wor[k]|roo[t]|hom[e]/\w+)/"),
    "unfinished work": re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X]|HAC[K])\b"),
    "a number of a tracker": re.compile(r"\b(?:[Ii]ssu[e]|[Tt]icke[t])[ -]?#?\d"),
}
LAZY_NAMES = re.compile(r"(?:^|_)(?:utils?|helpers?|managers?|misc|common|stuff)$", re.IGNORECASE)
LAZY_CLASSES = re.compile(r"(?:Manager|Helper|Utils?)$")


@pytest.mark.parametrize("what", NEVER)
def test_no_file_says(what: str) -> None:
    faults = [
        f"{path}: {found[0]}"
        for path in tree.files()
        if path.suffix not in tree.BINARY
        for found in NEVER[what].finditer(tree.text(path))
    ]
    assert not faults


def test_the_words_are_found() -> None:
    assert NEVER["a path of one machine"].search("see /wor" + "k/main")
    assert not NEVER["a path of one machine"].search("bench/wor" + "k/main")
    assert NEVER["unfinished work"].search("# TO" + "DO: later")
    assert NEVER["a number of a tracker"].search("fixes issu" + "e #12")


@pytest.mark.parametrize("path", tree.ending(".py", ".pyx"), ids=str)
def test_files_have_a_name_that_says_something(path: Path) -> None:
    assert not LAZY_NAMES.search(path.stem)


@pytest.mark.parametrize("path", tree.product(), ids=str)
def test_it_is_python_3_10_and_classes_have_a_name_that_says_something(path: Path) -> None:
    module = ast.parse(tree.text(path), feature_version=(3, 10))
    classes = [node.name for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    assert not [name for name in classes if LAZY_CLASSES.search(name)]


@pytest.mark.parametrize("path", [*tree.product(), *tree.ending(".pyx", ".pyi")], ids=str)
def test_every_module_says_what_it_is(path: Path) -> None:
    if path.suffix == ".pyx":
        assert re.match(r'(?:#[^\n]*\n|\s)*(?:r?""")', tree.text(path))
    elif tree.text(path).strip() and path.suffix == ".py":
        assert ast.get_docstring(ast.parse(tree.text(path)))
