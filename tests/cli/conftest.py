"""The command, as people run it: in a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lucid.mount import mountpoint, registry

LIMIT_S = 60.0


@dataclass
class Lucid:
    """Runs `lucid`, and ends what it left mounted."""

    home: Path
    passphrase: str | None = "correct horse"

    @property
    def environment(self) -> dict[str, str]:
        given = {} if self.passphrase is None else {"LUCID_PASSPHRASE": self.passphrase}
        return os.environ | given

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "lucid", *map(str, arguments)]

    def run(self, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def json(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def error(self, status: int, *arguments: object) -> str:
        """What it says when it fails with this status; nothing but that."""
        done = self.run(*arguments, status=status)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("lucid: ")
        return done.stderr

    def clean(self) -> None:
        for record in registry.records():
            point = Path(record.point)
            if mountpoint.find(point) is not None:
                mountpoint.unmount(point, lazy=True)
            if not registry.wait_for_end(record, 10_000):
                os.kill(record.pid, 9)


@pytest.fixture(autouse=True)
def own_registry(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_home / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own_home / "run"))


@pytest.fixture
def lucid(own_home: Path, own_registry: None) -> Iterator[Lucid]:
    made = Lucid(own_home)
    yield made
    made.clean()


@dataclass
class Team:
    """A filespace in a directory, and a place to mount it."""

    lucid: Lucid
    store: str
    directory: Path
    point: Path
    recovery_code: str

    def mount(self, *options: object) -> None:
        self.lucid.run("mount", self.store, self.point, *options)


@pytest.fixture
def team(lucid: Lucid, tmp_path: Path) -> Team:
    directory, point = tmp_path / "store", tmp_path / "drive"
    directory.mkdir()
    point.mkdir()
    store = f"file://{directory}"
    made = lucid.json("init", store, "--name", "Team")
    return Team(lucid, store, directory, point, made["recovery_code"])
