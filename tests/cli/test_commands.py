"""Help, errors, exit codes and passphrases: what a command says before it does anything."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lucid import errors
from lucid.cli import filespaces, secrets
from lucid.cli.hints import BELIEVE, HINTS, WRONG_CODE, hint_for
from lucid.cli.main import COMMANDS, main
from lucid.cli.mount import little_room
from lucid.cli.terminal import Bar, count, size
from lucid.config import Config
from lucid.errors import LucidError
from lucid.hub.limits import Limits
from tests.cli.conftest import Lucid, Team

STORE = "file:///nowhere/store"
BUCKET = "s3://bucket/team"
"""A store of which nothing can be told before it is asked."""


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs a command in this process: status, stdout, stderr."""
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Any:
    """fails(error): making a filespace raises that."""
    monkeypatch.setenv(secrets.ENVIRONMENT, "x")

    def fails(error: BaseException) -> None:
        def create(*arguments: object, **named: object) -> dict[str, Any]:
            raise error

        monkeypatch.setattr(filespaces, "create", create)

    return fails


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: lucid {command}")
    assert "  -h, --help" in out
    assert f"Examples:\n    lucid {command}" in out
    assert "..." not in out.replace("[ARGS]...", "")
    assert all(len(line) <= 100 for line in out.splitlines())


def test_the_help_of_status_tells_both_forms_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "status", "--help")
    assert "a list with one object a drive; with PATH that one object alone." in " ".join(
        out.split()
    )
    assert "lucid status --json | jq '.[].pending_ops'" in out
    assert "lucid status ~/team --json | jq .pending_ops" in out


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "--help")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    for command, summary in COMMANDS.items():
        assert f"  {command:<10}  {summary}" in lines, "on one line, and whole"
    assert "Examples:" in out


def test_without_a_command_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    asked = said(capsys, "--help")
    assert said(capsys) == asked
    assert said(capsys, "--debug") == asked


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["status"], []])
def test_a_quick_answer_loads_little(lucid: Lucid, arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *lucid.command(*arguments)[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, env=lucid.environment
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "lucid.cli.main" in loaded
    heavy = {"boto3", "botocore", "numpy", "llfuse", "rich", "lucid.engine", "lucid.crypto"}
    assert not loaded & heavy
    assert not any(name.startswith("lucid.filespace.") for name in loaded)


def test_a_drive_is_opened_without_what_it_may_never_need() -> None:
    """A mount waits for each module that it loads. The collector does not look through them all."""
    program = (
        "import gc, sys, lucid.cli.main, lucid.cli.mount, lucid.mount.serve\n"
        "import lucid.filespace.filespace\n"
        "print(gc.get_threshold()[0], *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    threshold, *loaded = done.stdout.split()
    assert "lucid.filespace.opening" in loaded and int(threshold) >= 10_000
    of_some_stores = {"boto3", "botocore", "ssl", "http.client", "urllib.request"}
    of_some_drives = {"numpy", "websockets", "rich", "email.message", "asyncio"}
    assert not set(loaded) & (of_some_stores | of_some_drives)


def test_the_protocol_of_a_filespace_loads_without_one() -> None:
    """What a mount is written against stands alone; the names at the door come when asked for."""
    program = (
        "import sys, lucid.filespace.surface as s; print('lucid.filespace.opening' in sys.modules);"
        "from lucid.filespace import connect, Created; print('lucid.filespace.opening' in "
        "sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "lucid: No such command 'nonsense'.\n  See: lucid --help\n"),
        (["mount"], "lucid: Missing argument 'STORE'.\n  See: lucid mount --help\n"),
        (["mount", "x", "/mnt"], "lucid: x is no store. Write s3://bucket/prefix or file:///dir"),
        (["mount", STORE, "/mnt", "-o", "nonsense"], "lucid: -o nonsense is unknown; there are:"),
        (["mount", STORE, "/mnt", "--cache-size", "big"], "lucid: 'big' is not a size"),
        (
            ["mount", STORE, "/mnt", "--cache-size", "20"],
            "lucid: A cache of 20 is too small. Give ",
        ),
        (
            ["mount", STORE, "/mnt", "--cache-size", "63M"],
            "lucid: A cache of 63M is too small. Give --cache-size at least 64M, or 0 to keep",
        ),
        (["mount", STORE, "/mnt", "--durability", "x"], "lucid: Invalid value for '--durability'"),
        (["init", BUCKET, "--block-size", "3M"], "lucid: A block is 64K, 128K, 256K, 512K or 1M"),
        (
            ["init", BUCKET, "--passphrase-file", "/proc/x"],
            "lucid: The passphrase file /proc/x cann",
        ),
        (["init", BUCKET], "lucid: There is no terminal to ask for the passphrase. Set LUCID_"),
    ],
)
def test_wrong_calls(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    status, out, err = said(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.startswith(sentence)


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_has_its_exit_code(
    name: str, fails: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = getattr(errors, name)
    fails(kind("This is the sentence."))
    status, out, err = said(capsys, "init", BUCKET)
    assert (status, out) == (kind.exit_code, "")
    assert err.splitlines()[0] == "lucid: This is the sentence."
    assert "Traceback" not in err


def test_the_hint_to_a_wrong_recovery_code_is_another() -> None:
    """Whoever gave the recovery code need not hear that it is taken too."""
    assert hint_for(errors.WrongPassphrase("Wrong recovery code.")) == WRONG_CODE
    assert "give the passphrase" in WRONG_CODE
    hint = hint_for(errors.WrongPassphrase("Wrong passphrase."))
    assert hint == HINTS[errors.WrongPassphrase]
    assert "give the recovery code" in hint


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "help") == said(capsys, "--help")
    for name in COMMANDS:
        assert said(capsys, "help", name) == said(capsys, name, "--help")
    assert said(capsys, "help", "nonsense") == (
        2, "", "lucid: No such command 'nonsense'.\n  See: lucid --help\n",
    )  # fmt: skip


def test_the_package_shows_its_public_names_only() -> None:
    import lucid

    assert dir(lucid) == sorted(lucid.__all__)


def test_hints_are_for_classes_and_not_twice() -> None:
    assert hint_for(errors.SlowDown()) == HINTS[errors.StoreUnavailable]
    assert hint_for(errors.MountPointMissing("Make it: mkdir -p x")) == ""
    assert hint_for(errors.StateInUse("busy; see: lucid status")) == ""
    assert hint_for(errors.StoreDenied("The key is unknown.")) == HINTS[errors.StoreDenied]
    assert hint_for(errors.StoreDenied("The key is unknown. Check AWS_PROFILE.")) == ""
    assert hint_for(errors.InternalError("It failed. And so on.")) == HINTS[errors.InternalError]
    alarm = "Compare `lucid status` with another device before you trust either."
    assert hint_for(errors.HistoryFork(f"It is gone. {alarm}")) == BELIEVE
    assert hint_for(errors.HistoryFork("It is not known. Give --state-dir a new one.")) == ""
    assert all(issubclass(kind, LucidError) for kind in HINTS)


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug(fails: Any, capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    fails(ZeroDivisionError("oh"))
    status, _, err = said(capsys, *(["--debug"] if debug else []), "init", BUCKET)
    assert status == 70
    assert "lucid: This is a bug in lucid: ZeroDivisionError: oh" in err
    assert ("Traceback" in err) is debug


def test_interrupted(fails: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fails(KeyboardInterrupt())
    status, _, err = said(capsys, "init", BUCKET)
    assert (status, err.strip()) == (130, "lucid: interrupted")


def test_a_reader_that_has_had_enough(lucid: Lucid) -> None:
    """`lucid --help | true` says nothing about a broken pipe."""
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit "${PIPESTATUS[0]}"', "-", *lucid.command("--help")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import lucid

    assert said(capsys, "--version") == (0, f"lucid {lucid.__version__}\n", "")
    assert said(capsys, "version") == (0, f"lucid {lucid.__version__}\n", "")
    _, out, _ = said(capsys, "version", "--json")
    assert json.loads(out)["lucid"] == lucid.__version__


# --- Making one --------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What filespaces.create was called with."""
    calls: list[dict[str, Any]] = []

    def create(store: str, **named: Any) -> dict[str, Any]:
        calls.append({"store": store, **named})
        return {"filespace": "ab" * 16, "recovery_code": "CODE-CODE", "warnings": ["Beware."]}

    monkeypatch.setattr(filespaces, "create", create)
    return calls


def test_init_says_the_recovery_code_once(
    made: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(secrets.ENVIRONMENT, "secret words")
    status, out, err = said(capsys, "init", "s3://bucket/some/team/")
    assert status == 0
    assert out.count("CODE-CODE") == 1
    assert "secret words" not in out + err
    assert err == "lucid: warning: Beware.\n"
    assert made == [
        {
            "store": "s3://bucket/some/team",
            "name": "team",
            "block_size": 128 * 1024,
            "cipher": None,
            "passphrase": "secret words",
        }
    ]


def test_init_shows_a_store_as_the_shell_wants_it(
    made: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(secrets.ENVIRONMENT, "secret words")
    _, out, _ = said(capsys, "init", "s3://drive?region=eu-1&addressing=path")
    assert "lucid mount 's3://drive?region=eu-1&addressing=path' MOUNTPOINT" in out


def test_the_help_of_a_hub_tells_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "hub", "--help")
    told = [int(number) for number in re.findall(r"\[default: +(\d+)\]", " ".join(out.split()))]
    limits = Limits()
    assert told == [limits.rooms, limits.connections, limits.per_room, limits.per_address]


def test_init_for_programs(
    made: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pass").write_text("from a file\nsecond line\n")
    status, out, _ = said(
        capsys, "init", "s3://bucket", "--name", "Großes Team", "--block-size", "1M",
        "--cipher", "xchacha20-poly1305", "--passphrase-file", str(tmp_path / "pass"), "--json",
    )  # fmt: skip
    assert status == 0
    assert json.loads(out) == {
        "store": "s3://bucket",
        "name": "Großes Team",
        "filespace": "ab" * 16,
        "recovery_code": "CODE-CODE",
        "warnings": ["Beware."],
    }
    assert made[0]["passphrase"] == "from a file"
    assert (made[0]["block_size"], made[0]["cipher"]) == (1 << 20, "xchacha20-poly1305")


def on_terminal(command: list[str], answers: list[str]) -> tuple[int, str]:
    """Runs a command on a terminal of its own and answers its questions; status and screen."""
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    screen = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break  # the last one on the terminal has gone
        if not piece:
            break
        screen += piece
        if screen.endswith(b": ") and answers:
            os.write(master, answers.pop(0).encode() + b"\n")
    os.close(master)
    return process.wait(30), screen.decode()


def test_questions_on_a_terminal(lucid: Lucid, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    command = lucid.command("init", store)
    status, screen = on_terminal(command, ["one", "other", "good words", "good words"])
    assert status == 0, screen
    assert "They differ. Once more." in screen
    assert "Recovery code, shown only now" in screen
    assert "good words" not in screen
    lucid.passphrase = "good words"
    assert lucid.json("fsck", store)["clean"] is True


def test_the_old_passphrase_is_tried_before_the_new_one_is_asked_for(
    lucid: Lucid, team: Team
) -> None:
    lucid.passphrase = "not this one"
    assert lucid.error(11, "passphrase", team.store).startswith("lucid: Wrong passphrase.")
    lucid.passphrase = "correct horse"
    said = lucid.error(2, "passphrase", team.store)
    assert "Set LUCID_NEW_PASSPHRASE, or give --new-passphrase-file." in said
    nowhere = f"file://{team.directory}/nowhere"
    assert "There is no directory" in lucid.error(6, "passphrase", nowhere)


def test_a_passphrase_file_that_cannot_be_read(lucid: Lucid, tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\n")
    said = lucid.error(2, "init", BUCKET, "--passphrase-file", missing)
    assert said == (
        f"lucid: The passphrase file {missing} cannot be read: No such file or directory.\n"
    )
    said = lucid.error(2, "init", BUCKET, "--passphrase-file", binary)
    assert said == f"lucid: The first line of the passphrase file {binary} is not UTF-8 text.\n"


@pytest.mark.parametrize(
    ("secret", "warns"), [("a", True), ("11 letters.", True), ("12 letters..", False)]
)
def test_a_short_passphrase_is_warned_of_and_taken(
    lucid: Lucid, tmp_path: Path, secret: str, warns: bool
) -> None:
    (tmp_path / "store").mkdir()
    store = f"file://{tmp_path}/store"
    lucid.passphrase = secret
    said = lucid.run("init", store).stderr
    if warns:
        assert said.startswith("lucid: warning: The passphrase is shorter than 12 characters")
        assert said.endswith(f"lucid passphrase {store}\n")
        assert said.count("\n") == 1
    else:
        assert said == ""
    lucid.run("fsck", store)


def test_a_short_new_passphrase_is_warned_of(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCID_NEW_PASSPHRASE", "short")
    assert "shorter than 12 characters" in team.lucid.run("passphrase", team.store).stderr


def test_what_is_cheap_is_looked_at_before_a_passphrase_is_asked_for(
    team: Team, tmp_path: Path
) -> None:
    """There is nobody to ask here: where that is told, the question came first."""
    lucid, away = team.lucid, f"file://{tmp_path}/away"
    lucid.passphrase = None
    question = "There is no terminal to ask for the passphrase."
    assert question in lucid.error(2, "init", f"file://{tmp_path}/new")
    assert not (tmp_path / "new").exists()
    assert f"There is no directory {tmp_path}/a" in lucid.error(6, "init", f"file://{tmp_path}/a/b")
    assert "There is a filespace at" in lucid.error(21, "init", team.store)
    (tmp_path / "file").touch()
    assert "not a directory" in lucid.error(6, "init", f"file://{tmp_path}/file")
    for command in (("fsck", away), ("passphrase", away), ("mount", away, team.point)):
        assert f"{tmp_path}/away" in lucid.error(6, *command)
    for command in (("init", "s3://a b"), ("fsck", "s3://a b"), ("mount", "s3://a b", team.point)):
        assert "cannot be the name of a bucket" in lucid.error(2, *command)
    assert question in lucid.error(2, "fsck", team.store)


# --- Small parts -------------------------------------------------------------------------------


def test_sizes_and_counts() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536, 3 << 30, 5 << 50)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "3.0 GiB", "5120.0 TiB",
    ]  # fmt: skip
    assert (count(1, "change"), count(12_345, "change")) == ("1 change", "12,345 changes")


class StillClock:
    """A clock that a test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 0


def test_a_bar_waits_a_second_and_needs_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StillClock()
    with Bar("Uploading", clock) as bar:
        clock.now = 5.0
        bar.left(10, "10 to go")
        assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    clock.now = 0.0
    with Bar("Uploading", clock) as bar:
        bar.left(10, "10 to go")
        assert capsys.readouterr().err == ""
        clock.now = 1.5
        bar.left(5, "5 to go")
        assert "5 to go" in capsys.readouterr().err


def test_little_room_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def free(bytes_: int) -> None:
        usage = shutil.disk_usage("/")._replace(free=bytes_)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)

    config = Config(cache_bytes=20 << 30, staging_bytes=32 << 30)
    free(32 << 30)
    assert little_room("/state", config, 0, 0) == ""
    free(31 << 30)
    told = little_room("/state", config, 0, 0)
    assert told.startswith("Only 31.0 GiB are free on the disk of /state; the cache may take 20.0 ")
    assert "With less than 64.0 MiB free, writing is refused." in told
    assert "\n" not in told
    assert little_room("/state", config, 0, 1 << 30) == "", "what is there already has its room"
    free(10 << 30)
    assert "the cache may take 15.0 GiB more" in little_room("/state", config, 5 << 30, 32 << 30)
    assert little_room("/state", config, 10 << 30, 32 << 30) == ""
