"""What is true of every state that a log can lead to, and of every step to it."""

from __future__ import annotations

import stat
from typing import Any

from lucid.format.change import HOLE
from lucid.format.ops import LEASE_EXCLUSIVE, LEASE_SHARED, ROOT_INO, Op, Rename, Unlink
from lucid.format.runs import run_bytes
from lucid.meta.fold import Effect, Status
from lucid.meta.fold_lease import granted_rows
from lucid.meta.fold_rules import VALUE_SINCE, rules_in_force
from lucid.meta.lease_rows import LEASE_PREFIX, lease_name
from lucid.meta.memory import MemoryState
from lucid.meta.state import InodeRow
from tests.meta.authors import GEOMETRY, Author

BLOCKS = 1 << 60


def check_state(state: MemoryState) -> None:
    """The tree is rooted and acyclic, links and totals are counted right, maps are sound."""
    inodes = {row[0]: InodeRow(*row) for row in state.dump()["inode"]}
    reached = _check_tree(state, inodes)
    data_bytes = 0
    rules = rules_in_force(state) if state.get_value(VALUE_SINCE) is None else 0
    for row in inodes.values():
        names = state.names(row.ino)
        if row.ino != ROOT_INO:
            assert row.nlink == len(names)
            assert (row.ino in reached) == bool(row.nlink)
            if names:
                last = state.dentry(row.last_parent, row.last_name)
                assert last is not None and last.ino == row.ino
        if stat.S_ISDIR(row.mode):
            assert row.nlink <= 1
        _check_map(state, row)
        removed = state.removed(row.ino)
        if row.nlink or rules == 1:
            assert removed is None
        elif rules:
            assert removed is not None and removed.ino == row.ino
        data_bytes += row.data_bytes if row.nlink else 0
    assert state.data_bytes == data_bytes
    assert state.inodes == sum(1 for row in inodes.values() if row.nlink)
    _check_leases(state, inodes)


def _check_leases(state: MemoryState, inodes: dict[int, InodeRow]) -> None:
    """Each line is of an inode that is there; its head has the lease; no row says another's."""
    names = {name for name, _ in state.dump()["value"] if name.startswith(LEASE_PREFIX)}
    assert names <= {lease_name(ino) for ino in inodes}
    for name in names:
        line = state.lease(int(name.removeprefix(LEASE_PREFIX), 16))
        rows = [(row.session, row.mode) for row in line]
        assert rows and len(rows) == len(set(rows))
        for session, mode in rows:
            assert mode in (LEASE_SHARED, LEASE_EXCLUSIVE)
            if (session, LEASE_SHARED) in rows[rows.index((session, mode)) + 1 :]:
                assert mode == LEASE_SHARED
        granted = list(granted_rows(line))
        assert granted[0] == line[0]
        alone = {row.session for row in granted if row.mode == LEASE_EXCLUSIVE}
        assert not alone or {row.session for row in granted} == alone
        assert len(alone) <= 1


def _check_tree(state: MemoryState, inodes: dict[int, InodeRow]) -> set[int]:
    reached = {ROOT_INO}
    todo = [ROOT_INO]
    for directory in todo:
        below = 0
        for dentry in state.children(directory):
            row = inodes[dentry.ino]
            if stat.S_ISDIR(row.mode):
                assert row.ino not in reached, "a directory has two names"
                assert (row.last_parent, row.last_name) == (directory, dentry.name)
                todo.append(row.ino)
                below += 1
            reached.add(row.ino)
        assert state.subdirectories(directory) == below
    dentries = state.dump()["dentry"]
    assert {parent for parent, *_ in dentries} <= set(todo), "a name in what cannot be reached"
    return reached


def _check_map(state: MemoryState, row: InodeRow) -> None:
    extents = state.extents(row.ino, 0, BLOCKS)
    end = 0
    for extent in extents:
        assert extent.first >= end
        assert extent.count > 0
        assert extent.kind != HOLE
        end = extent.first + extent.count
    assert end <= -(-row.size // GEOMETRY.block_size)
    assert row.data_bytes == sum(run_bytes(extent, GEOMETRY) for extent in extents)
    if row.version:
        assert list(extents) == list(state.extents_at(row.ino, row.version))


def checked_fold(state: MemoryState, author: Author, op: Op) -> Effect:
    """Folds an op and checks that its effect tells all of what it did, and that it took no more
    away than its author had seen."""
    before = state.dump()
    effect = author.fold(state, op)
    after = state.dump()
    if effect.status is Status.NOTHING:
        assert before == after
        return effect
    changed = _differing(before["dentry"], after["dentry"])
    assert {(row[0], row[1]) for row in changed} <= set(effect.names)
    touched = {row[0] for row in _differing(before["inode"], after["inode"])}
    assert touched <= set(effect.inodes)
    assert {row[0] for row in _differing(before["xattr"], after["xattr"])} <= set(effect.inodes)
    touched_directories = _differing(before["directory"], after["directory"])
    assert {row[0] for row in touched_directories} <= {parent for parent, _ in effect.names}
    _check_what_went(before, state, op)
    return effect


def _check_what_went(before: dict[str, list[tuple[Any, ...]]], state: MemoryState, op: Op) -> None:
    """An inode loses its last name only to who saw its newest content."""
    for old in (InodeRow(*row) for row in before["inode"]):
        new = state.inode(old.ino)
        assert new is not None, "an inode vanished"
        if old.nlink and not new.nlink and stat.S_ISREG(old.mode):
            assert isinstance(op, (Unlink, Rename))
            assert op.seen_version == new.version


def _differing(before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    return set(before) ^ set(after)
