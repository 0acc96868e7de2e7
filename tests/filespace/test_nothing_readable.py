"""Nobody without the keys reads a name, a target, an attribute or a byte: not in the store, not in
the state directory, not in the logs."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from lucid.config import Config
from lucid.filespace import connect, init
from tests.filespace.spaces import BLOCK, PASSPHRASE, QUICK, STRETCH, WAIT_S, Space

MARK = "xyzzymark"


def files_with(root: Path, mark: bytes) -> list[str]:
    """Files below `root` that hold the mark, or have it in their names."""
    return [
        str(path)
        for path in root.rglob("*")
        if mark in os.fsencode(path.name) or (path.is_file() and mark in path.read_bytes())
    ]


@pytest.mark.parametrize("cipher", ["aegis-256", "xchacha20-poly1305"])
def test_no_marker_is_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cipher: str, space: Space
) -> None:
    caplog.set_level(logging.DEBUG)
    store, state = tmp_path / "store", tmp_path / "state"
    url = f"file://{store}"
    init(url, passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH, cipher=cipher, name=MARK,
         member=f"member-{MARK}")  # fmt: skip
    fs = connect(url, passphrase=PASSPHRASE, config=Config(state_dir=state, **QUICK))
    content = f"{MARK} in the content ".encode()
    fs.mkdir(f"/dir-{MARK}")
    fs.write_bytes(f"/dir-{MARK}/file-{MARK}", content * 20_000)
    fs.symlink(f"target-{MARK}", f"/link-{MARK}")
    fs.tree.set_xattr(fs.stat(f"/dir-{MARK}").ino, f"user.{MARK}".encode(), content)
    fs.sync(timeout=WAIT_S)
    with fs.open(f"/dir-{MARK}/file-{MARK}", "r+b", 0) as file:
        file.seek(100)
        file.write(content)
        file.fsync()
        again = tmp_path / "while-open"
        shutil.copytree(state, again)
    fs.read_bytes(f"/dir-{MARK}/file-{MARK}")
    handle, _ = fs.tree.create(1, f"unpublished-{MARK}".encode(), 0o644, 0, 0, os.O_RDWR)
    fs.tree.write(handle, 5, content)
    fs.tree.flush(handle)
    fs.close(wait=False)
    for mark in (MARK.encode(), PASSPHRASE.encode(), MARK.encode("utf-16-le")):
        assert files_with(tmp_path, mark) == []
    assert MARK not in caplog.text
    assert PASSPHRASE not in caplog.text


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"..xyzzymark..")
    (tmp_path / "xyzzymark").touch()
    assert len(files_with(tmp_path, MARK.encode())) == 2
