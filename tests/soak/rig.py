"""One filespace of the soak: mounted by the command, killed, and looked at from elsewhere.

`Rig.mount` runs `lucid mount` as anybody does and finds the daemon by the registry; `Rig.kill` is
kill -9 of it. A watchdog ends a round that hangs. Everything lies below one directory.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lucid.config import Config
from lucid.filespace import Filespace, connect, init
from lucid.filespace.fsck import check as fsck
from lucid.mount import mountpoint, registry
from lucid.mount.control import Call
from tests.filespace.spaces import PASSPHRASE, STRETCH
from tests.soak.ledger import Mismatch
from tests.soak.steps import LOGS, SHARED, Tree

__all__ = ["COMMAND", "REPOSITORY", "Rig", "Times"]

REPOSITORY = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "lucid")
LIMIT_S = 60.0
"""How long one thing may take. Only a soak that fails ever waits for so long."""

HANGS_S = 180.0
"""How long a round may take."""


class Times:
    """Where the time of the rounds went, in seconds by part."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent[part] += time.monotonic() - began


class Rig:
    """A filespace, its drive, and the daemon behind that."""

    def __init__(
        self, root: Path, url: str, times: Times, command: Sequence[str] = COMMAND
    ) -> None:
        self.url = url
        self.point = root / "drive"
        self.state = root / "state"
        self._root = root
        self._times = times
        self._command = command
        self._daemon: int | None = None
        self._log_at = 0
        self.hung = False
        self.point.mkdir()
        init(url, passphrase=PASSPHRASE, stretch=STRETCH)
        with connect(url, passphrase=PASSPHRASE, config=Config(state_dir=self.state)) as fs:
            for path in (*SHARED, LOGS):
                fs.mkdir(path)
            fs.sync(timeout=LIMIT_S)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"LUCID_PASSPHRASE": PASSPHRASE, "PYTHONPATH": str(REPOSITORY)}

    # -- the drive

    def _mounting(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, "mount", self.url, str(self.point), "--state-dir", str(self.state)],
            env=self.environment,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def mount(self) -> None:
        """Returns when the drive is usable."""
        with self._mounting() as process:
            _, said = process.communicate(timeout=LIMIT_S)
        record = registry.find(self.point)
        if process.returncode != 0 or record is None:
            raise Mismatch(f"lucid mount ended with {process.returncode}: {said}")
        self._daemon = os.pidfd_open(record.pid)

    def kill_while_mounting(self, after_s: float) -> bool:
        """kill -9 of a daemon so long after its start, usable or not. False: there was none yet."""
        with self._mounting() as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
            record = registry.find(self.point)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            daemons = [record.pid] if record else []
            with suppress(FileNotFoundError, ProcessLookupError):
                daemons = daemons or [int(pid) for pid in children.read_text().split()]
            for pid in daemons:
                self._daemon = os.pidfd_open(pid)
                self.kill()
            if not daemons:
                process.kill()
            process.communicate(timeout=LIMIT_S)
        return bool(daemons)

    def kill(self) -> None:
        """kill -9. Returns when the process is gone, and what is left of the mount is away."""
        if self._daemon is not None:
            daemon, self._daemon = self._daemon, None
            try:
                signal.pidfd_send_signal(daemon, signal.SIGKILL)
                ended = select.poll()
                ended.register(daemon, select.POLLIN)
                if not ended.poll(LIMIT_S * 1000):
                    raise Mismatch("The daemon does not die.")
            except ProcessLookupError:
                raise Mismatch(f"The daemon ended by itself. {self.log_tail()}") from None
            finally:
                os.close(daemon)
        if mountpoint.find(self.point) is not None:
            mountpoint.unmount(self.point, lazy=True)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Frees who hangs in the drive: after HANGS_S the connection is ended."""

        def end() -> None:
            self.hung = True
            if (mounted := mountpoint.find(self.point)) is not None:
                mountpoint.abort(mounted)

        watchdog = threading.Timer(HANGS_S, end)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            watchdog.join()
            if self.hung:
                raise Mismatch(f"The drive hung. {self.log_tail()}")

    # -- looking

    def sync(self) -> None:
        """`lucid sync`, and nothing is left or set aside. Raises Mismatch."""
        with Call(self.state, "sync") as call:
            answer = call.next(LIMIT_S)
            while answer is not None and "result" not in answer:
                answer = call.next(LIMIT_S)
        with Call(self.state, "status") as call:
            status = (call.next(LIMIT_S) or {}).get("result", {})
        facts = {name: status.get(name) for name in ("failed", "problem", "pending_ops")}
        wanted = {"failed": [], "problem": "", "pending_ops": 0}
        if answer is None or facts != wanted or status["read_only"]:
            raise Mismatch(f"after the sync: {facts}. {self.log_tail()}")

    def drive(self) -> Tree:
        """Everything that the drive shows."""
        found: Tree = {}
        top = str(self.point)
        for directory, directories, files in os.walk(top, onerror=_raise):
            for name in directories:
                found[f"{directory}/{name}".removeprefix(top)] = None
            for name in files:
                path = Path(directory, name)
                found[str(path).removeprefix(top)] = path.read_bytes()
        return found

    def elsewhere(self) -> Tree:
        """Everything that a machine sees which has only the store."""
        state = self._root / "elsewhere"
        config = Config(state_dir=state, read_only=True)
        try:
            with connect(self.url, passphrase=PASSPHRASE, config=config) as fs:
                return dict(_walk(fs, ""))
        finally:
            shutil.rmtree(state, ignore_errors=True)

    def check_store(self, *, read_data: bool) -> None:
        """`lucid fsck`. Raises Mismatch."""
        found = fsck(self.url, PASSPHRASE, read_data=read_data)
        if not found.clean or found.void_entries:
            raise Mismatch(f"fsck: {found.problems[:5]} {found.warnings[:5]}")

    def check_log(self) -> None:
        """The daemon has reported nothing that must not be. Raises Mismatch."""
        text = self._log_text()[self._log_at :]
        self._log_at += len(text)
        bad = [line for line in text.splitlines() if " ERROR " in line or "Traceback" in line]
        if bad:
            raise Mismatch(f"The daemon's log: {bad[:5]}")

    def log_tail(self) -> str:
        return f"Its log ends with: {self._log_text()[-1500:]}"

    def _log_text(self) -> str:
        try:
            return (self.state / "lucid.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""


def _raise(error: OSError) -> None:
    raise error


def _walk(fs: Filespace, top: str) -> Iterator[tuple[str, bytes | None]]:
    for name in fs.listdir(top or "/"):
        path = f"{top}/{name}"
        if stat.S_ISDIR(fs.stat(path).mode):
            yield path, None
            yield from _walk(fs, path)
        else:
            yield path, fs.read_bytes(path)
