"""One filespace, seen by machines: state directories that know nothing of each other."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Lucid

PROGRAM_S = 120.0


class Machines:
    """Mounts one filespace, each time from the state directory of another machine."""

    def __init__(self, lucid: Lucid, top: Path) -> None:
        self.lucid = lucid
        self.store = f"file://{top}/store"
        self._top = top
        self._numbers = itertools.count(1)
        self._drive: Path | None = None
        self._beside: Path | None = None
        (top / "store").mkdir()
        lucid.run("init", self.store, "--name", "Apps")

    def _mount(self) -> Path:
        number = next(self._numbers)
        point = self._top / f"drive{number}"
        point.mkdir()
        self.lucid.run("mount", self.store, point, "--state-dir", self._top / f"machine{number}")
        return point

    def mount(self) -> Path:
        """The first machine's drive."""
        self._drive = self._mount()
        return self._drive

    def mount_elsewhere(self) -> Path:
        """Unmounts, and mounts on a machine with nothing local."""
        assert self._drive is not None
        self.lucid.run("umount", self._drive)
        return self.mount()

    def mount_beside(self) -> Path:
        """A second machine, while the first goes on."""
        self._beside = self._mount()
        return self._beside

    def umount_beside(self) -> None:
        self.lucid.run("umount", self._beside)

    def runner(self, directory: Path) -> Callable[..., str]:
        """Runs programs in a directory; what they print. They must end well and say nothing."""

        def run(*command: object) -> str:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=PROGRAM_S,
                env=os.environ | {"LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1"},
                stdin=subprocess.DEVNULL,
                check=False,
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            return done.stdout

        return run
