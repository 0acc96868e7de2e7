"""A new file's rows are put in one step: what that leaves behind is what it is row by row."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.format.ops import ROOT_INO, Op, Rmdir
from lucid.meta.replica import Replica
from lucid.meta.replica_state import ReplicaState
from lucid.meta.state import DentryRow, InodeRow, VersionRow
from tests.meta.authors import Author, Blocks
from tests.meta.replicas import Log, apply, author_of, catch_up, open_replica


def row_by_row(state: ReplicaState, version: VersionRow, row: InodeRow, dentry: DentryRow) -> None:
    state.add_version(version)
    state.put_inode(row)
    state.put_dentry(dentry)


def left_behind(replica: Replica) -> list[Any]:
    """Of each pending op: its keys, its images and itself; and the state with all of them."""
    found: list[Any] = []
    for position, op in replica._pending.applied.items():
        undo = replica._tables.undo.get(position)
        images = sorted(msgpack.unpackb(undo.images, use_list=False), key=repr)
        found.append(
            op._replace(
                writes=tuple(sorted(op.writes)),
                reads=tuple(sorted(op.reads)),
                stamped=tuple(sorted(op.stamped)),
            )
        )
        found.append((undo._replace(images=b""), images))
    return [*found, replica.dump()]


def folded(ops: list[Op], log: Log, heard: list[Op]) -> list[Any]:
    """What a replica holds with `ops` pending, and then with `heard` committed below them."""
    with TemporaryDirectory() as directory:
        replica = open_replica(Path(directory))
        catch_up(replica, log)
        effects = [apply(replica, position, op) for position, op in enumerate(ops, 1)]
        before = left_behind(replica)
        sequence = len(log.entries) + 1
        theirs = Log(2)
        theirs.append(2, heard)
        replica.commit_entry(sequence, theirs.hash(sequence), theirs.entries[-1])
        after = left_behind(replica)
        replica.close()
    return [effects, before, after]


NAMES = st.sampled_from([b"a", b"b", b"c"])


@settings(max_examples=20, deadline=None)
@given(
    made=st.lists(st.tuples(st.integers(0, 2), NAMES, st.binary(max_size=3)), min_size=1),
    taken=st.lists(NAMES, min_size=1, max_size=3, unique=True),
    removes=st.booleans(),
)
def test_a_new_file_in_one_step_leaves_behind_what_it_does_row_by_row(
    made: list[tuple[int, bytes, bytes]], taken: list[bytes], removes: bool
) -> None:
    log = Log(2)
    blocks = Blocks()
    me, other = Author(1, b"ann", blocks), Author(2, b"ann", blocks)
    me.who, other.who = author_of(1), author_of(2)
    first, second = me.mkdir(ROOT_INO, b"first"), me.mkdir(ROOT_INO, b"second")
    ops: list[Op] = [first, second]
    if removes:
        # What is made in it brings it back.
        ops.append(Rmdir(*me.head(), ROOT_INO, b"second", second.op_id))
    parents = (ROOT_INO, first.op_id, second.op_id)
    ops += [me.create(parents[index], name, data) for index, name, data in made]
    heard: list[Op] = [other.create(ROOT_INO, name, b"theirs") for name in taken]
    at_once = folded(ops, log, heard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplicaState, "new_file", row_by_row)
        assert folded(ops, log, heard) == at_once
