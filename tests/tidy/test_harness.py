"""The guards of tests/conftest.py really guard: each is shown a test that it must fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_pytest(directory: Path, body: str, **environment: str) -> str:
    """Runs one test file below the project's conftest; its whole output."""
    (directory / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (directory / "test_it.py").write_text(body)
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(directory)]
    options += ["-p", "no:cacheprovider", "--basetemp", str(directory / "tmp")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(directory / "test_it.py")],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_thread_left_behind_fails(tmp_path: Path) -> None:
    body = """
import threading
end = threading.Event()
def test_leaves():
    threading.Thread(target=end.wait, args=(30,), name="lucid-test", daemon=True).start()
def test_next():
    end.set()
"""
    output = run_pytest(tmp_path, body)
    assert "threads left running: lucid-test" in output
    assert "2 passed, 1 error" in output


def test_an_unclosed_file_fails_its_own_test(tmp_path: Path) -> None:
    body = """
def test_leaks():
    class Ring: pass
    ring = Ring(); ring.self = ring; ring.file = open("/dev/null")
def test_next():
    pass
"""
    output = run_pytest(tmp_path, body)
    assert "ResourceWarning" in output
    assert "test_leaks" in output.rpartition("short test summary")[2]
    assert "test_next" not in output.rpartition("short test summary")[2]


def test_settings_of_the_caller_do_not_reach_a_test(tmp_path: Path) -> None:
    body = """
import os, pathlib
def test_environment():
    assert "LUCID_PASSPHRASE" not in os.environ
    assert "AWS_PROFILE" not in os.environ
    assert pathlib.Path(os.environ["HOME"]).is_relative_to(pathlib.Path(__file__).parent)
"""
    output = run_pytest(tmp_path, body, LUCID_PASSPHRASE="x", AWS_PROFILE="y", HOME="/nowhere")
    assert "1 passed" in output


@pytest.mark.parametrize(("ci", "result"), [("true", "1 error"), ("", "1 skipped")])
def test_a_mount_test_without_fusermount(tmp_path: Path, ci: str, result: str) -> None:
    body = """
import pytest
@pytest.mark.mount
def test_mounts():
    pass
"""
    output = run_pytest(tmp_path, body, PATH="/nowhere", CI=ci)
    assert result in output
    assert "fusermount is missing" in output
