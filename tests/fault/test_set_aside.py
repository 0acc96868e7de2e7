"""A file that cannot be published by a fault of its own is set aside, and the others go on
(S-47)."""

from __future__ import annotations

import os

import pytest

from lucid.errors import DataError
from lucid.store.memory import MemoryStore
from tests.filespace.spaces import BLOCK, WAIT_S, Space, some_bytes, write_at


def lose_segments(space: Space) -> None:
    """All data is gone from the store."""
    keys = [key for key in space.bucket.keys if key.startswith("data/")]
    MemoryStore(space.bucket).delete(keys)


def test_a_base_that_is_gone_sets_one_file_aside(space: Space) -> None:
    with space.connect("maker") as maker:
        maker.write_bytes("/file", some_bytes(1, 3 * BLOCK))
        maker.write_bytes("/other", b"other")
    lose_segments(space)
    fs = space.connect("a")
    ino = fs.stat("/file").ino
    write_at(fs, "/file", 10, b"on a base that is gone")
    fs.write_bytes("/fine", b"published")
    while fs.tree.get_xattr(ino, b"user.lucid.state") != b"failed":
        fs.refresh(1.0)
    with pytest.raises(DataError, match="All but 1"):
        fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert other.read_bytes("/fine") == b"published"
    handle = fs.tree.open(ino, os.O_RDWR)
    with pytest.raises(DataError):
        fs.tree.write(handle, 0, b"more")
    with pytest.raises(DataError):
        fs.tree.read(handle, 0, 10)
    fs.tree.release(handle)
    assert fs.status().failed
    fs.close()
    again = space.connect("a")
    while not again.status().failed:
        again.refresh(1.0)
    assert again.tree.get_xattr(ino, b"user.lucid.state") == b"failed", "its bytes are kept"
    assert again.read_bytes("/fine") == b"published"
    again.close()
