"""The files of this project, as the tidy tests see them: what git tracks, or would."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BINARY = {".bin", ".png", ".gz", ".xz", ".zip"}


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project by its path from the root, symlinks left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    paths = {Path(name) for name in listed.stdout.split("\0") if name}
    return tuple(sorted(p for p in paths if (ROOT / p).is_file() and not (ROOT / p).is_symlink()))


def ending(*suffixes: str) -> list[Path]:
    """The files with one of these suffixes."""
    return [path for path in files() if path.suffix in suffixes]


@cache
def text(path: Path) -> str:
    """A file's text."""
    return (ROOT / path).read_text("utf-8")


def product() -> list[Path]:
    """The Python files that are installed."""
    return [path for path in ending(".py") if path.parts[0] in ("lucid", "engine")]


def module_name(path: Path) -> str:
    """Dotted name under which a file of the package or the engine is imported."""
    parts = ("lucid", *path.parts) if path.parts[0] == "engine" else path.parts
    dotted = ".".join(parts).removesuffix(path.suffix)
    return dotted.removesuffix(".__init__")
