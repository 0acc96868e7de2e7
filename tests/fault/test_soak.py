"""The crash soak of tests/soak, in short, and the proof that it sees what is lost."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.local.forgetful import ForgetfulDisk
from tests.soak.__main__ import directory_store
from tests.soak.cuts import cut_power_again_and_again
from tests.soak.kills import Plan, soak
from tests.soak.ledger import Mismatch

pytestmark = [pytest.mark.slow, pytest.mark.mount]


@pytest.fixture(autouse=True)
def own_registry(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_home / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own_home / "run"))


@pytest.mark.timeout(900)
def test_thirty_kills(tmp_path: Path) -> None:
    done = soak(Plan(kills=30, seed=5), tmp_path, directory_store)
    assert done.kills >= 30
    assert done.in_flight, "no kill met anything in the middle"


@pytest.mark.parametrize("left_out", ["ops", "images"])
def test_a_record_that_is_not_written_is_missed(tmp_path: Path, left_out: str) -> None:
    broken = (sys.executable, "-m", "tests.soak.broken", left_out)
    with pytest.raises(Mismatch, match=r"round .* the store: |CorruptBlock"):
        soak(Plan(kills=20, seed=5, command=broken), tmp_path, directory_store)


def test_twelve_power_cuts(tmp_path: Path) -> None:
    assert cut_power_again_and_again(12, 5, tmp_path) > 12


class Forgets(ForgetfulDisk):
    """Leaves out what `left_out` names, below one directory of the state directory."""

    left_out = ""
    below = ""

    def fdatasync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if self.left_out != "fdatasync" or f"/{self.below}" not in path:
            super().fdatasync(fd)

    def fsync_dir(self, path: Path) -> None:
        if self.left_out != "fsync_dir" or f"/{self.below}" not in str(path):
            super().fsync_dir(path)


@pytest.mark.parametrize(
    ("left_out", "below"),
    [("fdatasync", "journal"), ("fdatasync", "staging"), ("fsync_dir", "journal")],
)
def test_a_sync_that_is_left_out_is_missed(tmp_path: Path, left_out: str, below: str) -> None:
    disk = type("Broken", (Forgets,), {"left_out": left_out, "below": below})
    with pytest.raises(Mismatch, match=r"cut \d+, seed 5: "):
        cut_power_again_and_again(20, 5, tmp_path, disk)
