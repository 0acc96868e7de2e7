"""Errors are sentences: a capital, a full stop, and no Python in between."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid import errors
from tests.tidy import tree

ERRORS = frozenset(errors.__all__)
COMMAND = re.compile(r": (?:lucid|mkdir|pip|ln|kill|chmod) [^.]*$")
"""A sentence may end with a command to copy, which a full stop would spoil."""
QUOTES = frozenset({"said", "caught", "failed", "sentence", "next_step", "at_once"})
"""A sentence or command of its own, or what another program said: it ends as it ends."""


def raised(module: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call of an error class: its name and the call."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in ERRORS:
                yield name, node


def pieces(node: ast.expr) -> list[str | ast.FormattedValue] | None:
    """The literal as text and fields; None for what is no literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.BinOp):
        return pieces(node.left)
    if not isinstance(node, ast.JoinedStr):
        return None
    return [
        value.value if isinstance(value, ast.Constant) else value  # type: ignore[misc]
        for value in node.values
    ]


def faults_of(name: str, sentence: list[str | ast.FormattedValue]) -> Iterator[str]:
    """What is wrong with one sentence."""
    first, last = sentence[0], sentence[-1]
    if isinstance(first, str) and not re.match(
        r"[A-Z]|/dev/|-o |user\.|(?:ll|lib)fuse|fuserm|'", first
    ):
        yield f"does not begin with a capital: {first[:40]}"
    if isinstance(last, ast.FormattedValue):
        inner = ast.unparse(last.value)
        before = sentence[-2] if len(sentence) > 1 else ""
        is_command = isinstance(before, str) and COMMAND.search(before)
        is_quote = name == "InternalError" or QUOTES & set(re.findall(r"\w+", inner))
        if not is_command and not is_quote:
            yield f"ends with a field: {inner}"
    elif not re.search(r"\.['\")]*$", last) and not COMMAND.search(last):
        yield f"does not end with a full stop: {last[-40:]}"
    for piece in sentence:
        if isinstance(piece, ast.FormattedValue) and piece.conversion == ord("r"):
            yield f"shows a repr: {ast.unparse(piece.value)}"


def faults_in(text: str) -> list[str]:
    return [
        f"{call.lineno}: {name} {fault}"
        for name, call in raised(ast.parse(text))
        if call.args and (sentence := pieces(call.args[0]))
        for fault in faults_of(name, sentence)
    ]


@pytest.mark.parametrize("path", tree.product(), ids=str)
def test_errors_are_sentences(path: Path) -> None:
    assert not faults_in(tree.text(path))


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("StoreError('the store failed.')", "capital"),
        ("StoreError('The store failed')", "full stop"),
        ("StoreError(f'The store failed: {reason}')", "ends with a field"),
        ("StoreError(f'{name!r} is no store.')", "repr"),
        ("errors.NotFound('nothing is there.')", "capital"),
    ],
)
def test_faults_are_found(call: str, fault: str) -> None:
    (found,) = faults_in(f"raise {call}")
    assert fault in found


@pytest.mark.parametrize(
    "call",
    [
        "StoreError('The store failed.')",
        "StoreError(f'{name} is no store. Write s3://bucket.')",
        "MountError(f'It is not there. Make it: mkdir -p {point}')",
        "ValueError('anything')",
        "StoreError()",
    ],
)
def test_sentences_pass(call: str) -> None:
    assert not faults_in(f"raise {call}")
