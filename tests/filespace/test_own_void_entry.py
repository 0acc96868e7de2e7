"""An own entry that is void for everyone, and the largest file."""

from __future__ import annotations

import errno
import os

import pytest

from lucid.crypto.entry import seal_entry
from lucid.errors import FileTooLarge, StateForeign
from lucid.format.entry import EntryBody
from lucid.format.names import log_key
from lucid.format.ops import Mkdir, make_op_id
from lucid.types import SystemEntropy
from tests.filespace.spaces import WAIT_S, Space

SIZE_MAX = 1 << 60


def test_an_author_whose_own_entry_is_void_stops_writing(space: Space) -> None:
    """S-55: it says so, and what it holds is kept."""
    fs = space.connect("one")
    fs.write_bytes("/before", b"before")
    fs.sync(WAIT_S)
    opened = fs.tree._opened
    replica = opened.parts.replica
    session = replica.session(opened.session)
    generation = replica.generation()
    assert session is not None and generation is not None
    op = Mkdir(make_op_id(session.number, 1 << 30), 0, 1, b"x", 0o040755, 0, 0, ())
    body = EntryBody(
        opened.unlocked.keys.member, session.number, replica.head().hash,
        bytes(32), replica.membership(), None, (), (op,),
    )  # fmt: skip
    sequence = replica.head().sequence + 1
    data = seal_entry(
        opened.ring, opened.unlocked.keys, generation.id, sequence, body, SystemEntropy
    )
    opened.parts.store.put_if_absent(log_key(sequence), data)
    opened.committer.poke()
    with opened.parts.order.news:
        assert opened.parts.order.news.wait_for(lambda: opened.parts.order.stopped, WAIT_S)
    with pytest.raises(StateForeign, match="void"):
        fs.write_bytes("/after", b"after")
    assert "void" in fs.status().problem
    assert fs.read_bytes("/before") == b"before"
    assert fs.listdir("/") == ["before"]


def test_a_file_has_at_most_an_exbibyte(space: Space) -> None:
    """S-11: one byte more is EFBIG, and the file is as before."""
    fs = space.connect("one")
    fs.write_bytes("/sparse", b"head")
    fs.truncate("/sparse", SIZE_MAX)
    assert fs.stat("/sparse").size == SIZE_MAX
    with pytest.raises(FileTooLarge) as caught:
        fs.truncate("/sparse", SIZE_MAX + 1)
    assert caught.value.errno == errno.EFBIG
    with fs.open("/sparse", "r+b", 0) as file:
        file.seek(SIZE_MAX - 4)
        assert file.write(b"tail") == 4
        with pytest.raises(FileTooLarge):
            file.write(b"!")
        file.seek(-8, os.SEEK_END)
        assert file.read(8) == bytes(4) + b"tail"
    fs.sync(WAIT_S)
    assert fs.stat("/sparse").size == SIZE_MAX
