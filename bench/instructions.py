"""`./build.sh bench --profile engine`: instructions of the engine, counted by callgrind.

A count does not depend on what else the machine does, as times do. Counted are the calls into the
engine and all that they call, not the interpreter around them. The processor that valgrind shows to
the cipher library has AES instructions, so that AEGIS takes the same way as everywhere else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from bench import ProgramMissing
from bench.peer import program

__all__ = ["count", "lines", "parse", "top_functions"]

CALLS = "__pyx_pw_5lucid_6engine_*"
"""What Python calls of the engine, as the compiler names it: inside of these is counted."""
TOP = 20
TIMES = 20
LIMIT_S = 300
_LINE = re.compile(r"^\s*([\d,]+) \([^)]*\)\s+(.*)$")


def count(folder: Path) -> Path:
    """Run the workload under callgrind; the raw file. Raises ProgramMissing without valgrind."""
    valgrind = program("valgrind")
    if valgrind is None:
        raise ProgramMissing("valgrind is not installed: apt-get install valgrind")
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "callgrind.engine.out"
    done = subprocess.run(
        [
            valgrind, "--tool=callgrind", "--quiet", "--collect-atstart=no",
            f"--toggle-collect={CALLS}", f"--callgrind-out-file={raw}",
            sys.executable, "-m", "bench.instructions",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"The workload failed under valgrind: {done.stderr.strip()[-2000:]}")
    return raw


def top_functions(raw: Path) -> tuple[int, list[tuple[str, int]]]:
    """All instructions, and those of each function itself, most first."""
    annotate = program("callgrind_annotate")
    if annotate is None:
        raise ProgramMissing("callgrind_annotate is not installed: apt-get install valgrind")
    done = subprocess.run(
        [annotate, "--threshold=100", "--auto=no", str(raw)],
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return parse(done.stdout)


def parse(page: str) -> tuple[int, list[tuple[str, int]]]:
    """The same, of what callgrind_annotate has printed. Parts of a function that come from several
    source files are one."""
    total, functions, libraries = 0, Counter[str](), dict[str, str]()
    for line in page.splitlines():
        if (match := _LINE.match(line)) is None:
            continue
        number, what = int(match[1].replace(",", "")), match[2]
        if what.startswith("PROGRAM TOTALS"):
            total = number
            continue
        where, _, library = what.partition(" [")
        name = where.rpartition(":")[2]
        functions[name] += number
        if library:
            libraries[name] = f" [{Path(library.rstrip(']')).name.partition('.')[0]}]"
    return total, [
        (name + libraries.get(name, ""), number) for name, number in functions.most_common()
    ]


def lines(raw: Path) -> list[str]:
    """The table, the sum and where the raw file lies."""
    total, functions = top_functions(raw)
    if not total:
        raise RuntimeError(f"Nothing was counted: {raw}")
    table = [f"{number:>14,} {number / total:>6.1%}  {name}" for name, number in functions[:TOP]]
    return [
        f"{'instructions':>14} {'share':>6}  function",
        *table,
        f"{total:>14,}         all of the engine's calls",
        f"raw file: {raw}",
    ]


def workload() -> None:
    """Each part of the engine some times; small, for valgrind takes fifty times as long."""
    from bench import engine_parts as parts
    from lucid.engine import sodium
    from lucid.engine.reader import Miss

    plain, name, key = bytes(parts.BLOCK), bytes(sodium.OBJECT_ID_BYTES), bytes(sodium.KEY_BYTES)
    context = sodium.AdContext(sodium.SUITE_AEGIS256, b"BNCH", bytes(16), bytes(16))
    with ExitStack() as stack:
        file = parts.CachedFile(stack)
        file.fill()
        if isinstance(file.reader.read(file.blocks(), 0, parts.BLOCK), Miss):
            raise RuntimeError("The cache file was not read.")
        hits, known = file.hits(), parts.known_names()
        for _ in range(TIMES):
            sealed = sodium.seal(context, name, key, 0, 0, plain)
            sodium.open_(context, name, key, 0, 0, sealed)
            file.slots.find(file.segment)
            if hits.read(parts.FILE, 0, 4096) is None:
                raise RuntimeError("The table of hits passed a read on.")
            if known.name(parts.ROOT, parts.NAME) is None:
                raise RuntimeError("The name is not known.")


if __name__ == "__main__":
    workload()
