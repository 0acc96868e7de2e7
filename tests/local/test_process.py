"""A process that holds keys leaves no core file, and nobody reads its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import ctypes, os, resource, sys
from lucid.local.process import forbid_core_dumps
libc = ctypes.CDLL(None)
before = libc.prctl(3, 0, 0, 0, 0)
forbid_core_dumps()
print(before, libc.prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0])
sys.stdout.flush()
os.abort()
"""


def test_no_core_file_is_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["1", "0", "0"], done.stderr
    assert done.returncode < 0
    assert list(tmp_path.iterdir()) == []
