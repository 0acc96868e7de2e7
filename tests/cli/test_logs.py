"""The log of a mount: bounded, in its place, and not the same line over and over."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.cli.logs import FILE_BYTES_MAX, HELD_MAX, Log
from lucid.errors import LocalError, StoreUnavailable

log = logging.getLogger("lucid.tests")


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        target = getattr(handler, "target", None)  # close() forgets it
        root.removeHandler(handler)
        handler.close()
        if target is not None:
            target.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_are_held_until_there_is_a_place(tmp_path: Path) -> None:
    made = Log(debug=False, foreground=False, file=None)
    for number in range(HELD_MAX + 100):
        log.info("line %d", number)
    made.into(tmp_path)
    log.info("and then")
    lines = (tmp_path / "lucid.log").read_text().splitlines()
    assert len(lines) == HELD_MAX + 1
    assert lines[0].endswith("INFO lucid.tests: line 0")
    assert lines[-1].endswith("and then")


@pytest.mark.parametrize("where", ["in the state directory", "a file of one's own"])
def test_a_log_is_its_owners_alone(tmp_path: Path, where: str) -> None:
    """Also the one that is put aside when it is full."""
    before = os.umask(0o022)
    try:
        own = tmp_path / "lucid.log"
        if where == "in the state directory":
            Log(debug=False, foreground=False, file=None).into(tmp_path)
        else:
            Log(debug=False, foreground=False, file=own)
        for number in range(FILE_BYTES_MAX // 4000 + 10):
            log.info("%d %s", number, "x" * 4000)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"lucid.log": 0o600, "lucid.log.1": 0o600}


def test_a_line_that_repeats(tmp_path: Path) -> None:
    Log(debug=False, foreground=False, file=tmp_path / "log")
    for _ in range(1000):
        log.warning("%s answers EIO: %s", "read", StoreUnavailable)
    log.warning("another")
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 2
    assert lines[1].endswith(": another (the line before came 999 times more)")


def test_debug_lines_only_when_asked_for(tmp_path: Path) -> None:
    for debug in (False, True):
        Log(debug=debug, foreground=False, file=tmp_path / f"{debug}")
        log.debug("detail")
        logging.getLogger("botocore").info("a signed URL")
        assert ("detail" in (tmp_path / f"{debug}").read_text()) is debug
        assert "URL" not in (tmp_path / f"{debug}").read_text()


def test_a_place_that_cannot_be() -> None:
    with pytest.raises(LocalError, match="cannot be written"):
        Log(debug=False, foreground=False, file=Path("/proc/none/log"))
