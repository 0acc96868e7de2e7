"""Scenarios on many files: small ones, a tree that is copied, unpacked or cloned, and names."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from bench import ProgramMissing
from bench.bed import Bed

__all__ = ["copy_tree", "git", "names", "small_files", "untar"]

COMMAND_S = 3600
IN_DIRECTORY = 100
IDENTITY = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]


def call(*command: object, cwd: Path | None = None) -> str:
    """A program's output. Raises RuntimeError with its last words."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-800:]}")
    return done.stdout


def small_body(bed: Bed, number: int) -> bytes:
    """4 to 16 KiB, each another."""
    return number.to_bytes(8, "little") + bed.seed[8 : 4096 + number * 7919 % 12_288]


def make_tree(bed: Bed, top: Path, count: int) -> list[Path]:
    """`count` small files, so many a directory."""
    made = []
    for number in range(count):
        folder = top / f"{number // IN_DIRECTORY}"
        if number % IN_DIRECTORY == 0:
            folder.mkdir(parents=True)
        made.append(folder / f"{number}.txt")
        made[-1].write_bytes(small_body(bed, number))
    return made


def small_files(bed: Bed) -> None:
    """Files of 4 to 16 KiB: created, until they are in the store, read cold and cached, deleted."""
    count = bed.sizes.files
    paths: list[Path] = []
    (bed.top / "small").mkdir()
    with bed.phase("create", "close") as phase:
        phase.count = count
        for number in range(count):
            folder = bed.top / "small" / f"{number // IN_DIRECTORY}"
            if number % IN_DIRECTORY == 0:
                folder.mkdir()
            paths.append(folder / f"{number}.txt")
            with phase.one():
                paths[-1].write_bytes(small_body(bed, number))
    with bed.phase("from there until in the store", "settle"):
        pass
    bed.cold()
    for how in ("cold", "cached"):
        if how == "cached":
            bed.drop_pages()
        with bed.phase(f"read {how}") as phase:
            phase.count = count
            for number, path in enumerate(paths):
                with phase.one():
                    data = path.read_bytes()
                if data != small_body(bed, number):
                    raise RuntimeError(f"{bed.peer.name} gave other bytes: {path}")
    with bed.phase("delete", "close") as phase:
        phase.count = count
        for path in paths:
            with phase.one():
                path.unlink()


def copy_tree(bed: Bed) -> None:
    """cp -r of many small files into the drive, and out of it again, cold."""
    source = bed.scratch / "source"
    count = len(make_tree(bed, source, bed.sizes.files))
    with bed.phase("cp -r in", "close") as phase:
        phase.count = count
        call("cp", "-r", source, bed.top / "copy")
    bed.cold()
    with bed.phase("cp -r out, cold") as phase:
        phase.count = count
        call("cp", "-r", bed.top / "copy", bed.scratch / "back")
    call("diff", "-r", source, bed.scratch / "back")


def source_tree(bed: Bed) -> Path:
    """Python files of the standard library, as many as there are to be, on the local disk."""
    top = bed.scratch / "library"
    library = Path(os.__file__).parent
    for path in islice(_python_files(library), bed.sizes.files):
        target = top / path.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return top


def _python_files(library: Path) -> Iterator[Path]:
    """In an order that is the same each time."""
    for folder, folders, names in os.walk(library):
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))


def untar(bed: Bed) -> None:
    """tar -x of a source tree, and until it is in the store."""
    top = source_tree(bed)
    packed = bed.scratch / "library.tar"
    with tarfile.open(packed, "w") as archive:
        archive.add(top, "library")
    files = [path for path in top.rglob("*") if path.is_file()]
    with bed.phase("tar -x", "close") as phase:
        phase.count = len(files)
        phase.size = sum(path.stat().st_size for path in files)
        call("tar", "-xf", packed, "-C", bed.top)
    with bed.phase("from there until in the store", "settle"):
        pass
    call("diff", "-r", top, bed.top / "library")


def git(bed: Bed) -> None:
    """git clone of a source tree into the drive; git status after it, and cold."""
    if shutil.which("git") is None:
        raise ProgramMissing("git is not installed: apt-get install git")
    origin = source_tree(bed)
    call("git", "init", "-q", ".", cwd=origin)
    call("git", "add", ".", cwd=origin)
    call("git", *IDENTITY, "commit", "-qm", "All of it.", cwd=origin)
    clone, count = bed.top / "clone", call("git", "ls-files", cwd=origin).count("\n")
    with bed.phase("git clone", "close") as phase:
        phase.count = count
        # Without links into the origin: everything is written.
        call("git", "clone", "-q", "--no-local", origin, clone)
    for how in ("warm", "cold"):
        if how == "cold":
            bed.cold()
        with bed.phase(f"git status, {how}"):
            changed = call("git", "-c", "safe.directory=*", "status", "--porcelain", cwd=clone)
        if changed:
            raise RuntimeError(f"{bed.peer.name} shows changes that nobody made: {changed[:200]}")


def names(bed: Bed) -> None:
    """Many empty files, a thousand a directory: made, ls -lR cold and warm, find; and stat of
    each after a remount."""
    count = bed.sizes.names
    top = bed.top / "names"
    top.mkdir()
    with bed.phase("make", "close") as phase:
        phase.count = count
        for number in range(count):
            if number % 1000 == 0:
                (top / f"{number // 1000}").mkdir()
            (top / f"{number // 1000}" / f"{number}").touch()
    bed.cold()
    for name, command in _looks(top):
        with bed.phase(name) as phase:
            phase.count = count
            found = call(*command)
        lines = sum(line.rpartition(" ")[2].rpartition("/")[2].isdigit()
                    for line in found.splitlines())  # fmt: skip
        if lines < count:
            raise RuntimeError(f"{bed.peer.name} shows {lines} of {count} names to {name}")
    bed.cold()
    with bed.phase("stat, cold") as phase:
        phase.count = count
        for number in range(count):
            with phase.one():
                (top / f"{number // 1000}" / f"{number}").stat()


def _looks(top: Path) -> Sequence[tuple[str, Sequence[object]]]:
    return (
        ("ls -lR, cold", ("ls", "-lR", top)),
        ("ls -lR, warm", ("ls", "-lR", top)),
        ("find, warm", ("find", top, "-type", "f", "-name", "*[0-9]")),
    )
