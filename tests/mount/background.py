"""A drive over a MemorySurface in a process of its own, as `lucid mount` makes it.

    python -m tests.mount.background POINT STATE [--foreground] [--pending N] [--uploads N]
                                     [--pace SECONDS] [--problem SENTENCE]
                                     [--fail-open CLASS] [--hang CALL] [--die] [--slow-open]

Prints `ready PID` or `CLASS: sentence`, and exits with the status of the error.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as lucid.cli.main does, before numpy is loaded

from lucid import errors
from lucid.filespace.surface import Surface
from lucid.mount.daemon import in_background
from lucid.mount.options import MountOptions
from lucid.mount.serve import serve
from lucid.mount.wire import sentence
from tests.mount.memory_surface import MemorySurface


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("point", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--pending", type=int, default=0)
    parser.add_argument("--uploads", type=int, default=1_000_000)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--problem", default="")
    parser.add_argument("--fail-open")
    parser.add_argument("--hang")
    parser.add_argument("--die", action="store_true")
    parser.add_argument("--slow-open", action="store_true")
    return parser.parse_args()


def hang() -> None:
    logging.info("a request hangs")
    threading.Event().wait(60)


def opener(chosen: argparse.Namespace) -> Callable[[], Surface]:
    def open_surface() -> Surface:
        logging.basicConfig(
            filename=chosen.state / "log", level=logging.INFO, format="%(levelname)s %(message)s"
        )
        if chosen.die:
            os.kill(os.getpid(), signal.SIGKILL)
        if chosen.slow_open:
            hang()
        if chosen.fail_open:
            raise getattr(errors, chosen.fail_open, RuntimeError)("told to fail")
        surface = MemorySurface(
            state_directory=str(chosen.state),
            pending_ops=chosen.pending,
            uploads=chosen.uploads,
            pace_s=chosen.pace,
            problem=chosen.problem,
        )
        if chosen.hang:
            surface.hooks[chosen.hang] = hang
        return surface

    return open_surface


def main() -> int:
    chosen = arguments()
    if chosen.foreground:
        return serve(
            opener(chosen), chosen.point, MountOptions(name="test"), store="memory:",
            on_ready=lambda: print("ready", os.getpid(), flush=True),
        )  # fmt: skip

    def work(ready: Callable[[], None]) -> int:
        return serve(
            opener(chosen), chosen.point, MountOptions(name="test"), store="memory:", on_ready=ready
        )

    try:
        print("ready", in_background(work), flush=True)
    except errors.LucidError as error:
        print(f"{type(error).__name__}: {sentence(error)}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
