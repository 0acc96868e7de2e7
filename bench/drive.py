"""A filespace on a real S3 server, mounted by the `lucid` command, for the measurements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.peer import drop_page_cache, kill, unmount_dead

if TYPE_CHECKING:
    from tests.mount.stopping_proxy import StoppingProxy

__all__ = ["Drive", "drop_page_cache", "seaweed"]

COMMAND_S = 1800


class Drive:
    """One filespace and at most one mount of it. `state` is the state directory in use."""

    def __init__(self, top: Path, store: str, environment: dict[str, str]) -> None:
        self.top = top
        self.store = store
        self.mountpoint = top / "drive"
        self.mountpoint.mkdir()
        self._environment = {**os.environ, **environment, "LUCID_PASSPHRASE": "bench bench"}
        self._states = 0
        self.state = top / "state-0"

    def run(self, *arguments: str) -> str:
        """A `lucid` command; its output. Raises CalledProcessError."""
        done = subprocess.run(
            [sys.executable, "-m", "lucid", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        if done.returncode:
            raise RuntimeError(f"lucid {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def init(self) -> None:
        self.run("init", self.store)

    def mount(self, fresh: bool = False) -> float:
        """Mount, with an empty state directory if `fresh`; the seconds it took."""
        if fresh:
            self._states += 1
            self.state = self.top / f"state-{self._states}"
        began = time.perf_counter()
        self.run("mount", self.store, str(self.mountpoint), "--state-dir", str(self.state))
        return time.perf_counter() - began

    def umount(self) -> None:
        self.run("umount", str(self.mountpoint))

    def sync(self) -> None:
        self.run("sync", str(self.mountpoint))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", str(self.mountpoint), "--json"))
        return found

    def kill(self) -> None:
        """kill -9 of the daemon; returns when it has gone. The next mount clears its mount away."""
        kill(self.pid())

    def give_up(self) -> None:
        """End the daemon and the mount, whatever state they are in. After a signal that was for all
        of us the store is dead, and an unmount would wait for it."""
        with suppress(OSError, ValueError):
            self.kill()
        unmount_dead(self.mountpoint)

    @contextmanager
    def behind_proxy(self) -> Iterator[StoppingProxy]:
        """Within, mounts reach the server through a proxy that can stop. REQUIRES: not mounted."""
        from tests.mount.stopping_proxy import StoppingProxy

        store, endpoint = self.store, urlsplit(self._environment["AWS_ENDPOINT_URL_S3"])
        assert endpoint.port is not None
        proxy = StoppingProxy(endpoint.port)
        try:
            self.store = f"{store}?endpoint={proxy.endpoint}"
            yield proxy
        finally:
            self.store = store
            proxy.close()

    def pid(self) -> int:
        return int((self.state / "lock").read_text().strip())

    def cpu_s(self) -> float:
        """CPU seconds of the daemon so far."""
        fields = Path(f"/proc/{self.pid()}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        """Largest resident size of the daemon so far."""
        for line in Path(f"/proc/{self.pid()}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("the kernel does not tell the peak of memory")


@contextmanager
def seaweed(top: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A SeaweedFS server: the URL of an empty bucket, and the environment that opens it."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.seaweed import running_server

    folder = top / "seaweed"
    folder.mkdir()
    servers = running_server(folder)
    try:
        server = next(servers)
        bucket = server.make_bucket()
        yield f"s3://{bucket}/bench", server.environment()
    finally:
        servers.close()  # type: ignore[attr-defined]
