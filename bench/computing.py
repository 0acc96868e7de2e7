"""`python -m bench.computing`: the `lucid` command with one more Python thread that computes.

What it has besides the arguments of `lucid` is a thread that holds the interpreter whenever it gets
it, as a long piece of Python would. Mount with --foreground: threads do not survive a fork.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lucid.cli.main import main

__all__ = ["compute"]


def compute(ended: threading.Event) -> None:
    """Pure Python, until `ended`."""
    number = 1
    while not ended.is_set():
        for _ in range(10_000):
            number = number * 1_103_515_245 + 12_345 & 0x7FFFFFFF


def computing_main() -> int:
    ended = threading.Event()
    threading.Thread(target=compute, args=(ended,), name="computes", daemon=True).start()
    try:
        return main()
    finally:
        ended.set()


if __name__ == "__main__":
    sys.exit(computing_main())
