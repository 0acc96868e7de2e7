"""Files, functions and lines stay small enough to read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy import tree

FILE_LINES = 600
FUNCTION_LINES = 70
LINE_CHARACTERS = 100
TEXT = (".pyx", ".pxd", ".sh", ".toml", ".service")  # ruff sees to the lines of Python

CYTHON_FUNCTION = re.compile(r"^( *)(?:cp?def|def)\b(?!.*\bclass\b).*\(")


def python_functions(source: str) -> Iterator[tuple[str, int]]:
    """(name, number of lines) of each function, decorators left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def cython_functions(source: str) -> Iterator[tuple[str, int]]:
    """(first line, number of lines) of each function, found by indentation."""
    lines = source.splitlines()
    for start, line in enumerate(lines):
        found = CYTHON_FUNCTION.match(line)
        if not found:
            continue
        depth, end = len(found[1]), start
        for number in range(start + 1, len(lines)):
            inner = lines[number]
            outside = inner.strip() and len(inner) - len(inner.lstrip()) <= depth
            if outside and not inner.lstrip().startswith(")"):
                break
            end = number if inner.strip() else end
        yield line.strip(), end - start + 1


@pytest.mark.parametrize("path", tree.ending(".py", ".pyx", ".pyi", ".sh"), ids=str)
def test_a_file_is_not_long(path: Path) -> None:
    assert len(tree.text(path).splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", tree.ending(".py", ".pyx"), ids=str)
def test_functions_are_not_long(path: Path) -> None:
    functions = cython_functions if path.suffix == ".pyx" else python_functions
    long = [f"{name}: {n} lines" for name, n in functions(tree.text(path)) if n > FUNCTION_LINES]
    assert not long


@pytest.mark.parametrize("path", tree.ending(*TEXT), ids=str)
def test_lines_are_neat(path: Path) -> None:
    faults = []
    for number, line in enumerate(tree.text(path).splitlines(), 1):
        if len(line) > LINE_CHARACTERS:
            faults.append(f"{number}: {len(line)} characters")
        if "\t" in line or line != line.rstrip():
            faults.append(f"{number}: a tab or a blank at the end")
    assert not faults


def test_the_measures_measure() -> None:
    python = "def f(\n    a,\n):\n    return a\n\n\nasync def g(): ...\n"
    assert list(python_functions(python)) == [("f", 4), ("g", 1)]
    cython = (
        "cdef class C:\n"
        "    cdef int f(\n"
        "        self\n"
        "    ) except -1 nogil:\n"
        "        return 1\n"
        "\n"
        "    def g(self):\n"
        "        return 2\n"
        "\n"
        "cdef inline int h(int a) noexcept nogil:\n"
        "    return a\n"
    )
    assert [lines for _, lines in cython_functions(cython)] == [4, 2, 2]
