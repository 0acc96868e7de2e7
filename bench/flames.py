"""Flame graphs of the drive's daemon while a scenario runs, native frames too. Needs py-spy."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench import ProgramMissing
from bench.peer import Peer, program

__all__ = ["Flames"]

END_S = 120
RATE = "200"
"""Samples a second."""


class Flames:
    """Records each daemon from its mount to its end: one SVG each, `profile-SCENARIO-N.svg`."""

    def __init__(self, scenario: str, folder: Path) -> None:
        """Raises ProgramMissing when py-spy is not installed."""
        self._spy = program("py-spy")
        if self._spy is None:
            raise ProgramMissing("py-spy is not installed: ./build.sh bench peers --install")
        self._scenario = scenario
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._said = folder / "py-spy.log"
        self._said.unlink(missing_ok=True)
        self.made: list[Path] = []

    def watch(self, peer: Peer) -> None:
        """Records the daemon that runs now, and each that follows it."""
        self._record(peer)
        start = peer.start

        def start_and_record(fresh: bool) -> None:
            start(fresh)
            self._record(peer)

        peer.start = start_and_record  # type: ignore[method-assign]

    def _record(self, peer: Peer) -> None:
        assert self._spy is not None
        path = self._folder / f"profile-{self._scenario}-{len(self.made)}.svg"
        self.made.append(path)
        options = ["--native", "--threads", "--rate", RATE, "--format"]
        command = [self._spy, "record", *options, "flamegraph", "--output", str(path)]
        with self._said.open("ab") as said:
            self._running += [
                subprocess.Popen(
                    [*command, "--pid", str(pid)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                )
                for pid in peer.pids()[:1]
            ]

    def finish(self) -> list[Path]:
        """The graphs that were drawn; a recorder ends with its daemon."""
        for recorder in self._running:
            recorder.wait(END_S)
        return [path for path in self.made if path.exists()]

    def why(self) -> str:
        """The last words of the recorders."""
        return self._said.read_text(errors="replace")[-800:].strip()
