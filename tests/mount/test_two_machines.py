"""Two mounts of one filespace: what the kernel of one shows of what the other does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lucid.types import SystemClock
from tests.mount.machines import Machines

pytestmark = [pytest.mark.mount, pytest.mark.slow]

HEARD_S = 30.0
LOOK_S = 0.02


@pytest.fixture
def both(machines: Machines) -> tuple[Path, Path]:
    """One drive on two machines."""
    return machines.mount(), machines.mount_beside()


def seen(holds: Callable[[], bool]) -> None:
    """Waits until the other machine has heard."""
    end = SystemClock().monotonic() + HEARD_S
    pause = threading.Event()
    while not holds():
        assert SystemClock().monotonic() < end, "the other machine does not hear of it"
        pause.wait(LOOK_S)


def test_names_come_and_go(both: tuple[Path, Path]) -> None:
    """S-31, S-37, S-38: also a name that the other had just looked for in vain."""
    here, there = both
    assert not (there / "f").exists()
    (here / "f").write_text("content")
    seen((there / "f").exists)
    assert (there / "f").read_text() == "content"
    (here / "d").mkdir()
    (here / "f").rename(here / "d" / "g")
    seen(lambda: not (there / "f").exists())
    assert (there / "d" / "g").read_text() == "content"
    (here / "d" / "g").chmod(0o640)
    seen(lambda: (there / "d" / "g").stat().st_mode & 0o777 == 0o640)
    (here / "d" / "g").unlink()
    (here / "d").rmdir()
    seen(lambda: os.listdir(there) == [])


def test_the_same_size_and_an_open_file(both: tuple[Path, Path]) -> None:
    """S-36, S-37: pages that the kernel keeps do not hide a new version."""
    here, there = both
    (here / "f").write_bytes(b"old!" * 50_000)
    seen((there / "f").exists)
    with (there / "f").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 200_000, 0) == b"old!" * 50_000
        with (here / "f").open("r+b") as changed:
            changed.write(b"new!" * 50_000)
        seen(lambda: os.pread(file.fileno(), 200_000, 0) == b"new!" * 50_000)
    assert (there / "f").read_bytes() == b"new!" * 50_000


def test_a_file_is_whole_or_the_old_one(both: tuple[Path, Path]) -> None:
    """S-32, S-33, S-34: a file that is being rewritten shows nothing of it before it is closed."""
    here, there = both
    (here / "f").write_text("the old one")
    seen((there / "f").exists)
    with (here / "f").open("w") as file:
        file.write("half of ")
        file.flush()
        (here / "later").write_text("a change after it")
        seen((there / "later").exists)
        assert (there / "f").read_text() == "the old one"
        file.write("the new one")
    seen(lambda: (there / "f").read_text() == "half of the new one")


def test_a_rename_over_is_never_seen_half_done(both: tuple[Path, Path]) -> None:
    """S-2: one machine replaces a file again and again, the other always finds one of them."""
    here, there = both
    (here / "f").write_text("0")
    seen((there / "f").exists)
    last = 0
    for number in range(1, 31):
        (here / "new").write_text(str(number))
        (here / "new").rename(here / "f")
        found = int((there / "f").read_text())
        assert last <= found <= number
        last = found
    seen(lambda: (there / "f").read_text() == "30")


def test_a_file_that_another_removed_stays_readable(both: tuple[Path, Path]) -> None:
    """S-7"""
    here, there = both
    content = os.urandom(300_000)
    (here / "f").write_bytes(content)
    seen((there / "f").exists)
    with (there / "f").open("rb") as file:
        (here / "f").unlink()
        seen(lambda: not (there / "f").exists())
        assert file.read() == content


def test_an_append_goes_to_the_end_that_is_known(both: tuple[Path, Path]) -> None:
    """S-9: a log that two machines append to in turn loses nothing."""
    here, there = both
    (here / "log").write_text("")
    seen((there / "log").exists)
    wanted = ""
    for number in range(6):
        writer, reader = (here, there) if number % 2 else (there, here)
        line = f"line {number}\n"
        with (writer / "log").open("a") as log:
            log.write(line)
        wanted += line
        seen(lambda reader=reader, wanted=wanted: (reader / "log").read_text() == wanted)  # type: ignore[misc]


def test_two_saves_at_once_keep_both(both: tuple[Path, Path]) -> None:
    """The loser lies beside the winner, and both machines come to see the same."""
    here, there = both
    (here / "f").write_text("base")
    seen((there / "f").exists)
    barrier = threading.Barrier(2)

    def save(drive: Path, text: str) -> None:
        barrier.wait(10)
        with (drive / "f").open("r+") as file:
            file.write(text)

    writers = [
        threading.Thread(target=save, args=(drive, text), name="test-writer")
        for drive, text in ((here, "mine"), (there, "your"))
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)

    def contents(drive: Path) -> dict[str, str]:
        return {path.name: path.read_text() for path in drive.iterdir()}

    seen(lambda: len(contents(here)) == 2 and contents(here) == contents(there))
    assert sorted(contents(here).values()) == ["mine", "your"]
    assert any("(conflict " in name for name in contents(here))
