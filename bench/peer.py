"""What every measured file system can do, whatever it is: be made, mounted, emptied, asked."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Durable", "Peer", "Place", "drop_page_cache", "program", "variables"]

COMMAND_S = 1800
READY_S = 60
LOOK_S = 0.01
UNMOUNT = (shutil.which("fusermount3") or "fusermount", "-u")
INSTALLED = Path(__file__).resolve().parents[1] / "build" / "peers" / "bin"
"""Where `./build.sh bench peers --install` puts programs that are not the system's."""


def program(name: str) -> str | None:
    """The path of a program, here or on the PATH; None where it is not installed."""
    for folder in (INSTALLED, Path(sys.executable).parent):
        if (folder / name).exists():
            return str(folder / name)
    return shutil.which(name)


def drop_page_cache() -> bool:
    """Forget what the kernel has cached; False when we may not."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


@contextmanager
def variables(given: dict[str, str]) -> Iterator[None]:
    """Set in this process's environment, and as they were afterwards."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Place:
    """Where a peer works: an empty directory, and a bucket behind an endpoint with its keys."""

    top: Path
    endpoint: str
    bucket: str
    access_key: str
    secret_key: str


class Durable(NamedTuple):
    """What a file would survive when a program has waited for its close, for fsync, or for
    `settle`."""

    close: str
    fsync: str
    settle: str


class Peer(ABC):
    """One file system and at most one mount of it."""

    name: str
    durable: Durable
    uses_store = True

    def __init__(self, place: Place) -> None:
        self.place = place
        self.mountpoint = place.top / "drive"
        self.mountpoint.mkdir()
        self._cpu_before = 0.0
        self._peak_mib = 0.0

    @classmethod
    @abstractmethod
    def why_not(cls) -> str:
        """Why it cannot be measured here; empty if it can."""

    @abstractmethod
    def make(self) -> None:
        """Make the file system, once."""

    @abstractmethod
    def start(self, fresh: bool) -> None:
        """Mount it, with nothing in any local cache if `fresh`."""

    @abstractmethod
    def stop(self) -> None:
        """Unmount it, when all is in the store."""

    @abstractmethod
    def settle(self) -> float:
        """Return when all that was written is where it is to stay; the seconds since it was."""

    @abstractmethod
    def pids(self) -> Sequence[int]:
        """The processes that do its work."""

    def remount(self) -> None:
        """Mount it as a machine would that has nothing of it."""
        self.settle()
        self.end()
        self.start(fresh=True)

    def end(self) -> None:
        """Unmount, and keep the figures of the processes that end with it."""
        self._cpu_before, self._peak_mib = self.cpu_s(), self.peak_mib()
        self.stop()

    def cpu_s(self) -> float:
        """CPU seconds of its processes so far, those of earlier mounts too."""
        return self._cpu_before + sum(_cpu_s(pid) for pid in self.pids())

    def peak_mib(self) -> float:
        """The largest resident size of its processes so far."""
        return max(self._peak_mib, sum(_peak_mib(pid) for pid in self.pids()))

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Make it, and have it mounted within; what fails leaves neither mount nor process."""
        self.make()
        try:
            self.start(fresh=True)
            yield
            self.end()
        except BaseException:
            self.give_up()
            raise

    def give_up(self) -> None:
        """End it at once, whatever waits to be sent."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                kill(pid)
        unmount_dead(self.mountpoint)

    def run(self, *command: str, **variables: str) -> str:
        """A command's output. Raises RuntimeError with its last words."""
        done = subprocess.run(
            command,
            env={**os.environ, **variables},
            cwd=self.place.top,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:2])}: {(done.stderr or done.stdout)[-800:]}")
        return done.stdout

    def until_mounted(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until a daemon in the foreground has mounted. Raises RuntimeError if it ends."""
        until = time.monotonic() + READY_S
        # No event tells of a mount that another process makes.
        while not self.mountpoint.is_mount():
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise RuntimeError(f"{self.name} did not mount: {log.read_text()[-800:]}")
            time.sleep(LOOK_S)

    def unmount(self, process: subprocess.Popen[bytes]) -> None:
        """Unmount, and wait for the daemon's end."""
        self.run(*UNMOUNT, str(self.mountpoint))
        process.wait(COMMAND_S)


def unmount_dead(mountpoint: Path) -> None:
    """Whether it is mounted cannot be asked: a mount of the dead answers nothing."""
    subprocess.run(
        [*UNMOUNT, "-z", str(mountpoint)],
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=COMMAND_S,
    )


def kill(pid: int) -> None:
    """Returns when the process has ended. Raises ProcessLookupError when it is not there."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], READY_S)
    finally:
        os.close(handle)


def with_children(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for listed in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in listed.read_text().split()]
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
