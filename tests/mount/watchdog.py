"""Frees a test that hangs in a mount of another process.

A test may wait in a page fault, with the interpreter in its hands, so that no thread of its own
could help it. This is a process: it ends the connection of every drive below a directory when its
time is over, and every caller that waits there gets an error.
"""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lucid.mount import mountpoint


def abort_all_below(top: Path) -> None:
    for mount in list(mountpoint.mounts()):
        if mount.is_ours and top in mount.point.parents:
            mountpoint.abort(mount)


@contextmanager
def watchdog(top: Path, seconds: float) -> Iterator[None]:
    """Within: drives below `top` live at most this long. Fails the test that needed it."""
    dog = subprocess.Popen(
        [sys.executable, "-m", "tests.mount.watchdog", str(top), str(seconds)],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield
    finally:
        dog.communicate()
        assert dog.returncode == 0, f"a drive hung for {seconds:.0f} s, and the watchdog ended it"


def main(top: str, seconds: str) -> int:
    ended, _, _ = select.select([sys.stdin], [], [], float(seconds))
    if ended:
        return 0
    abort_all_below(Path(top))
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
