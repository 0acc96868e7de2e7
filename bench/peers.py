"""The file systems that are measured, each with the same store, the same data and the same rules.

Lucid; JuiceFS, encrypted, its metadata in SQLite, also with --writeback; `rclone mount` over crypt
with a full cache; gocryptfs over the local disk, as the limit of an encrypted file system without a
store; and the plain disk. Each has a local cache on the same disk that is large enough for all.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from bench.peer import (
    COMMAND_S,
    LOOK_S,
    Durable,
    Peer,
    Place,
    program,
    variables,
    with_children,
)  # fmt: skip
from lucid.mount.control import Call

__all__ = ["PEERS", "Peer", "Place"]

SECRET = "bench bench bench"
CACHE_MIB = 20_000
SETTLE_S = 1800
RCLONE_QUIET_S = 0.3
"""So long nothing waits any more before all is believed to be there. No figure holds it."""
KILLED = "a killed process"
POWER = "loss of power"
MACHINE = "loss of the machine"


class Lucid(Peer):
    """This project."""

    name = "lucid"
    durable = Durable(close=KILLED, fsync=POWER, settle=MACHINE)

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.store = f"s3://{place.bucket}/lucid?endpoint={place.endpoint}&region=us-east-1"
        self._states = 0
        self._state = place.top / "state-0"
        self._pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def why_not(cls) -> str:
        return ""

    def lucid(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "lucid", *arguments, **self._variables())

    def keys(self) -> AbstractContextManager[None]:
        """Within, this process may open the store too."""
        return variables(self._variables())

    def _variables(self) -> dict[str, str]:
        return {
            "LUCID_PASSPHRASE": SECRET,
            "AWS_ACCESS_KEY_ID": self.place.access_key,
            "AWS_SECRET_ACCESS_KEY": self.place.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }

    def make(self) -> None:
        self.lucid("init", self.store)

    def start(self, fresh: bool) -> None:
        if fresh:
            self._states += 1
            self._state = self.place.top / f"state-{self._states}"
        self.lucid(*self._mount())
        self._pid = int((self._state / "lock").read_text().strip())

    def _mount(self) -> list[str]:
        options = ["--state-dir", str(self._state), "--cache-size", f"{CACHE_MIB}M"]
        return ["mount", self.store, str(self.mountpoint), *options]

    def start_by(self, module: str) -> None:
        """Mount it again, in the foreground, by a module that takes the arguments of `lucid`."""
        log = self.place.top / "foreground.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *self._mount(), "--foreground"],
                env={**os.environ, **self._variables()},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.until_mounted(self._process, log)
        self._pid = self._process.pid

    def stop(self) -> None:
        self.lucid("umount", str(self.mountpoint))
        self._pid = 0
        self._reap()

    def give_up(self) -> None:
        super().give_up()
        self._reap()

    def _reap(self) -> None:
        """Wait for a daemon that is a child of this process."""
        if self._process is not None:
            self._process.wait(COMMAND_S)
            self._process = None

    def settle(self) -> float:
        # As `lucid sync` does, without the start of an interpreter in between.
        with Call(self._state, "sync", ino=None) as call:
            while "result" not in (message := call.next(SETTLE_S) or {}):
                if not message:
                    raise RuntimeError("The drive did not send all it had.")
        return 0.0

    def pids(self) -> Sequence[int]:
        return [self._pid] if self._pid else []


class Daemon(Peer):
    """A peer whose daemon runs in the foreground, as a process of ours."""

    _process: subprocess.Popen[bytes] | None = None
    binary: str
    install = "./build.sh bench peers --install"

    @classmethod
    def why_not(cls) -> str:
        if program(cls.binary):
            return ""
        return f"{cls.binary} is not installed: {cls.install}"

    @property
    def path(self) -> str:
        found = program(self.binary)
        assert found is not None
        return found

    def launch(self, *command: str, **variables: str) -> None:
        log = self.place.top / "daemon.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **variables},
                cwd=self.place.top,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.until_mounted(self._process, log)

    def stop(self) -> None:
        assert self._process is not None
        self.unmount(self._process)
        self._process = None

    def give_up(self) -> None:
        super().give_up()
        if self._process is not None:
            self._process.wait(COMMAND_S)

    def pids(self) -> Sequence[int]:
        return with_children(self._process.pid) if self._process else []

    @property
    def cache(self) -> Path:
        return self.place.top / "cache"

    def empty_cache(self) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)
        self.cache.mkdir()


class JuiceFS(Daemon):
    """Data is in the store when a file is closed or synced; its names never leave this disk, and
    the data is worth nothing without them."""

    name = "juicefs"
    binary = "juicefs"
    durable = Durable(close=POWER, fsync=POWER, settle=POWER)
    options: tuple[str, ...] = ()

    def settle(self) -> float:
        """The close of each file has done it."""
        return 0.0

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._meta = f"sqlite3://{place.top}/juicefs.db"

    def make(self) -> None:
        key = self.place.top / "key.pem"
        self.run("openssl", "genrsa", "-aes256", "-passout", f"pass:{SECRET}", "-out", str(key))
        self._call(
            "format", "--storage", "s3", "--bucket", f"{self.place.endpoint}/{self.place.bucket}",
            "--access-key", self.place.access_key, "--secret-key", self.place.secret_key,
            "--encrypt-rsa-key", str(key), "--trash-days", "0", self._meta, "bench",
        )  # fmt: skip

    def _call(self, *arguments: str) -> str:
        return self.run(self.path, *arguments, JFS_RSA_PASSPHRASE=SECRET)

    def start(self, fresh: bool) -> None:
        if fresh:
            self.empty_cache()
        self.launch(
            self.path, "mount", "--no-usage-report", "--no-syslog", "--backup-meta", "0",
            "--metrics", f"127.0.0.1:{free_port()}", "--cache-dir", str(self.cache),
            "--cache-size", str(CACHE_MIB), *self.options, self._meta, str(self.mountpoint),
            JFS_RSA_PASSPHRASE=SECRET,
        )  # fmt: skip


class JuiceFSWriteback(JuiceFS):
    """The same, but what is written waits on the disk, not encrypted, and goes up later."""

    name = "juicefs-writeback"
    durable = Durable(close=KILLED, fsync=f"{KILLED}, at least", settle=POWER)
    options = ("--writeback",)

    def settle(self) -> float:
        until_true(lambda: not any(self._waiting()), "JuiceFS did not send all it had staged.")
        return 0.0

    def _waiting(self) -> list[Path]:
        return [
            path
            for staging in self.cache.glob("*/rawstaging")
            for path in staging.rglob("*")
            if path.is_file()
        ]


class Rclone(Daemon):
    """Files are whole objects, sent a moment after they were closed; a close itself is local."""

    name = "rclone"
    binary = "rclone"
    durable = Durable(close=KILLED, fsync=KILLED, settle=MACHINE)

    def make(self) -> None:
        self._control = free_port()

    def start(self, fresh: bool) -> None:
        if fresh:
            self.empty_cache()
        place = self.place
        secret = self.run(self.path, "obscure", SECRET).strip()
        self.launch(
            self.path, "mount", "sealed:", str(self.mountpoint), "--vfs-cache-mode", "full",
            "--vfs-write-back", "100ms", "--cache-dir", str(self.cache),
            "--vfs-cache-max-size", f"{CACHE_MIB}M", "--rc", "--rc-no-auth",
            "--rc-addr", f"127.0.0.1:{self._control}",
            RCLONE_CONFIG="/dev/null", RCLONE_CONFIG_STORE_TYPE="s3",
            RCLONE_CONFIG_STORE_PROVIDER="Other", RCLONE_CONFIG_STORE_ENDPOINT=place.endpoint,
            RCLONE_CONFIG_STORE_ACCESS_KEY_ID=place.access_key,
            RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY=place.secret_key,
            RCLONE_CONFIG_SEALED_TYPE="crypt", RCLONE_CONFIG_SEALED_PASSWORD=secret,
            RCLONE_CONFIG_SEALED_REMOTE=f"store:{place.bucket}/rclone",
        )  # fmt: skip

    def settle(self) -> float:
        """It is quiet for a while: a file that was closed is not queued at once."""
        busy_at = time.monotonic()

        def is_quiet() -> bool:
            nonlocal busy_at
            if self._waiting():
                busy_at = time.monotonic()
            return time.monotonic() - busy_at > RCLONE_QUIET_S

        until_true(is_quiet, "rclone did not send all its files.")
        return time.monotonic() - busy_at

    def _waiting(self) -> int:
        """Files that are not in the store yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=60)
        try:
            connection.request("POST", "/vfs/stats", b"{}", {"Content-Type": "application/json"})
            cache = json.loads(connection.getresponse().read())["diskCache"]
        finally:
            connection.close()
        return int(cache["uploadsInProgress"]) + int(cache["uploadsQueued"])


class Gocryptfs(Daemon):
    """Over the local disk: what an encrypted file system can do that has no store to wait for."""

    name = "gocryptfs"
    binary = "gocryptfs"
    install = "apt-get install gocryptfs"
    durable = Durable(close=KILLED, fsync=POWER, settle=POWER)
    uses_store = False

    def make(self) -> None:
        self._cipher = self.place.top / "cipher"
        self._cipher.mkdir()
        self._secret = self.place.top / "secret"
        self._secret.write_text(SECRET)
        options = ["-q", "-scryptn", "10", "-passfile", str(self._secret)]
        self.run(self.path, "-init", *options, str(self._cipher))

    def start(self, fresh: bool) -> None:
        options = ["-q", "-fg", "-passfile", str(self._secret)]
        self.launch(self.path, *options, str(self._cipher), str(self.mountpoint))

    def settle(self) -> float:
        self.run("sync", "--file-system", str(self._cipher))
        return 0.0


class Disk(Peer):
    """The local disk itself, nothing sealed, nothing mounted: the limit of every cache."""

    name = "disk"
    durable = Durable(close=KILLED, fsync=POWER, settle=POWER)
    uses_store = False

    @classmethod
    def why_not(cls) -> str:
        return ""

    def make(self) -> None:
        """It is there."""

    def start(self, fresh: bool) -> None:
        """It is there."""

    def stop(self) -> None:
        """It stays."""

    def settle(self) -> float:
        self.run("sync", "--file-system", str(self.mountpoint))
        return 0.0

    def pids(self) -> Sequence[int]:
        return []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def until_true(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until another program has done something of which no event tells."""
    until = time.monotonic() + SETTLE_S
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(otherwise)
        time.sleep(LOOK_S)


PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Lucid, JuiceFS, JuiceFSWriteback, Rclone, Gocryptfs, Disk)
}
