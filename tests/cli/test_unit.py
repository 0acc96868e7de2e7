"""The unit for systemd's user manager: it is one, and it calls the command as that is."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import lucid
from lucid.cli.mount import command as mount
from lucid.cli.umount import command as umount

UNIT = Path(lucid.__path__[0]) / "share" / "lucid@.service"


def settings(name: str) -> list[str]:
    """The values of one setting, lines that go on joined."""
    text = UNIT.read_text().replace("\\\n", " ")
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_systemd_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing")
    shutil.copy(UNIT, tmp_path / "lucid@team.service")
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    done = subprocess.run(
        [program, "--user", "verify", tmp_path / "lucid@team.service"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "command"), [("ExecStart", mount), ("ExecStop", umount)])
def test_it_calls_the_command_as_it_is(name: str, command: object) -> None:
    (line,) = settings(name)
    program, lucid_, verb, *words = line.split()
    known = {option for each in (mount, umount) for p in each.params for option in p.opts}
    assert (program, lucid_) == ("/usr/bin/env", "lucid")
    assert verb == getattr(command, "name", "")
    assert {word for word in words if word.startswith("--")} <= known


def test_a_path_in_the_drives_file_counts() -> None:
    """What lies elsewhere than in the usual places is found by it: later settings win."""
    text = UNIT.read_text()
    assert text.index("\nEnvironment=PATH=") < text.index("\nEnvironmentFile=")
    (path,) = settings("Environment")
    assert {"%h/.local/bin", "/usr/local/bin", "/usr/bin", "/bin"} <= set(
        path.removeprefix("PATH=").split(":")
    )


def test_the_steps_of_the_readme(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They make what the unit reads, with the modes it should have."""
    readme = Path(__file__).resolve().parents[2] / "README.md"
    page = readme.read_text().partition("## Mount at login")[2].partition("\n## ")[0]
    lines = [line[4:] for line in page.splitlines() if line.startswith("    ")]
    script = "\n".join(line.removeprefix("$ ") for line in lines)
    script = re.sub(r"(?m)^(systemctl|journalctl) .*$", "", script)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run(
        ["bash", "-euc", script], input="secret words\n", capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (file,) = settings("EnvironmentFile")
    written = (own_home / file.removeprefix("%h/").replace("%i", "team")).read_text()
    given = dict(line.split("=", 1) for line in written.splitlines())
    wanted = set(re.findall(r"\$\{?([A-Z_]+)", " ".join(settings("ExecStart"))))
    assert wanted <= set(given)
    assert given["LUCID_MOUNTPOINT"] == str(own_home / "team")
    assert Path(given["LUCID_MOUNTPOINT"]).is_dir()
    assert shutil.which("lucid", path=given["PATH"]) is not None
    secret = own_home / ".config" / "lucid" / "team.passphrase"
    assert secret.read_text() == "secret words\n"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert (own_home / ".config" / "systemd" / "user" / UNIT.name).read_text() == UNIT.read_text()
