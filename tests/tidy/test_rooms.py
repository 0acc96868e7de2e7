"""What may be used only in certain rooms: clocks, randomness, threads, boto3, llfuse, PyNaCl.

The import rules between rooms stand in pyproject.toml and are checked by `./build.sh check`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy import tree

CLOCK_AND_ENTROPY = ("lucid/types.py",)
THREADS = ("lucid/data/", "lucid/sync/", "lucid/mount/", "lucid/hub/", "lucid/store/probe.py")

ROOMS: dict[str, tuple[str, ...]] = {
    "boto3": ("lucid/store/s3.py",),
    "botocore": ("lucid/store/s3.py",),
    "builtins.print": ("lucid/cli/",),
    "concurrent.futures": THREADS,
    "datetime.datetime.now": (),
    "datetime.datetime.today": (),
    "datetime.datetime.utcnow": (),
    "llfuse": ("lucid/mount/",),
    "multiprocessing": (),
    "nacl": ("lucid/crypto/", "engine/sodium"),
    "os.getrandom": (),
    "os.urandom": CLOCK_AND_ENTROPY,
    "random.Random()": ("lucid/filespace/", "lucid/store/"),
    "random.SystemRandom": (),
    "random.choice": (),
    "random.getrandbits": (),
    "random.randbytes": (),
    "random.randint": (),
    "random.random": (),
    "random.randrange": (),
    "random.sample": (),
    "random.shuffle": (),
    "random.uniform": (),
    "secrets": (),
    "sqlcipher3": ("lucid/meta/", "engine/tableload"),
    "threading.Thread": THREADS,
    "threading.Timer": (),
    "time.clock_gettime": CLOCK_AND_ENTROPY,
    "time.clock_gettime_ns": CLOCK_AND_ENTROPY,
    "time.monotonic": CLOCK_AND_ENTROPY,
    "time.monotonic_ns": CLOCK_AND_ENTROPY,
    "time.sleep()": (),
    "time.time": CLOCK_AND_ENTROPY,
    "time.time_ns": CLOCK_AND_ENTROPY,
    "uuid": (),
}
"""Dotted name -> the beginnings of the paths that may use it. With `()`: call it; others may still
name it, as the default of what a test passes in."""

CYTHON_IMPORT = re.compile(r"^\s*(?:from|cimport|import)\s+([\w.]+)", re.MULTILINE)
SWALLOWERS = {"Exception", "BaseException"}


def imported_names(tree_: ast.AST) -> dict[str, str]:
    """Local name -> dotted name, for every import of a module."""
    names: dict[str, str] = {}
    for node in ast.walk(tree_):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """The full name of `a.b.c`, with `a` replaced by what it was imported from.

    What is not imported is a builtin, or a variable that only looks like a module.
    """
    if isinstance(node, ast.Name):
        return names.get(node.id, f"builtins.{node.id}")
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, names)
        return f"{base}.{node.attr}" if base else None
    return None


def used_names(source: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything that a module imports or refers to."""
    module = ast.parse(source)
    names = imported_names(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
        elif isinstance(node, ast.Call):
            yield node.lineno, f"{dotted(node.func, names)}()"
        elif isinstance(node, ast.Name | ast.Attribute):
            yield node.lineno, dotted(node, names) or ""


def trespasses(path: Path, source: str) -> list[str]:
    """Uses of what has a room elsewhere."""
    if path.suffix == ".py":
        used = set(used_names(source))
    else:
        used = {
            (source.count("\n", 0, found.start()) + 1, found[1])
            for found in CYTHON_IMPORT.finditer(source)
        }
    return [
        f"line {line}: {name} belongs in {', '.join(rooms) or 'no room of the product'}"
        for line, name in sorted(used)
        for banned, rooms in ROOMS.items()
        if name == banned or name.startswith(f"{banned}.")
        if not str(path).startswith(rooms or ("\0",))
    ]


def names_in(node: ast.AST | None) -> set[str]:
    """The plain names below a node."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node else set()


def swallowed(source: str) -> list[str]:
    """Where everything is caught and nothing is done."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            everything = node.type is None or names_in(node.type) & SWALLOWERS
            if everything and all(isinstance(line, ast.Pass) for line in node.body):
                lines.append(node.lineno)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("suppress")
            and any(names_in(argument) & SWALLOWERS for argument in node.args)
        ):
            lines.append(node.lineno)
    return [f"line {line}: an error is swallowed" for line in lines]


SOURCES = [*tree.product(), *(p for p in tree.ending(".pyx") if p.parts[0] != "tests")]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_everything_is_in_its_room(path: Path) -> None:
    assert not trespasses(path, tree.text(path))


@pytest.mark.parametrize("path", tree.product(), ids=str)
def test_no_error_is_swallowed(path: Path) -> None:
    assert not swallowed(tree.text(path))


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()\n",
        "from time import monotonic as now\nnow()\n",
        "import time as t\nclock = t.time_ns\n",
        "from datetime import datetime\ndatetime.now()\n",
        "import os\nkey = os.urandom(32)\n",
        "import random\nrandom.random()\n",
        "import random\njitter = random.Random()\n",
        "from botocore.config import Config\n",
        "import llfuse\n",
        "from nacl.signing import SigningKey\n",
        "import threading\nthreading.Thread(target=run).start()\n",
        "from concurrent.futures import ThreadPoolExecutor\n",
        "print('hello')\n",
        "from time import sleep\nsleep(1)\n",
    ],
)
def test_a_trespass_is_found(source: str) -> None:
    assert trespasses(Path("lucid/meta/fold.py"), source)


def test_a_room_is_a_room() -> None:
    assert not trespasses(Path("lucid/store/retry.py"), "import time\npause = time.sleep\n")
    assert not trespasses(Path("lucid/store/s3.py"), "import boto3\n")
    assert not trespasses(Path("lucid/crypto/keys.py"), "def wrap(secrets):\n    secrets.pop()\n")
    assert not trespasses(Path("lucid/mount/session.py"), "import llfuse\n")
    assert not trespasses(Path("engine/sodium.pyx"), "from nacl._sodium import ffi, lib\n")
    assert trespasses(Path("engine/bulk.pyx"), "from nacl._sodium import ffi, lib\n")


def test_a_swallowed_error_is_found() -> None:
    assert swallowed("try:\n    go()\nexcept:\n    pass\n")
    assert swallowed("try:\n    go()\nexcept (OSError, Exception):\n    pass\n")
    assert swallowed("with contextlib.suppress(Exception):\n    go()\n")
    assert not swallowed("try:\n    go()\nexcept FileNotFoundError:\n    pass\n")
