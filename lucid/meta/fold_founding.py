"""Rules of genesis and session: who is in the filespace. Part of the fold: total and pure."""

from __future__ import annotations

import stat

from lucid.format.hashes import HASH_SIZE
from lucid.format.limits import SESSION_MAX
from lucid.format.ops import ROOT_INO, Genesis, SessionOp
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_rules import VALUE_RULES
from lucid.meta.state import GenerationRow, InodeRow, MemberRow, SessionRow, State

__all__ = ["VALUE_NAME", "VALUE_SUPERBLOCK", "fold_genesis", "fold_session"]

VALUE_NAME = "name"
"""Value of the state: the filespace's name, UTF-8."""
VALUE_SUPERBLOCK = "superblock"
"""Value of the state: the superblock hash."""


def fold_genesis(state: State, op: Genesis, author: Author) -> Effect:
    if state.inode(ROOT_INO) is not None:
        return NOTHING
    state.put_value(VALUE_RULES, b"%d" % op.rules)
    state.put_value(VALUE_NAME, op.name)
    state.put_value(VALUE_SUPERBLOCK, op.superblock_hash)
    founder = op.founder
    state.put_member(
        MemberRow(founder.member, founder.label, founder.sign_key, founder.box_key, founder.role)
    )
    state.put_generation(GenerationRow(op.generation.id, 1, op.generation.key_hash))
    time_ns = op.time_ns
    mode = stat.S_IFDIR | stat.S_IMODE(op.root.mode)
    state.put_inode(
        InodeRow(
            ROOT_INO, mode, op.root.uid, op.root.gid, 0, 1, 0, 0, time_ns, time_ns, time_ns,
            0, b"", ROOT_INO, b"", time_ns,
        )
    )  # fmt: skip
    state.count(1, 0)
    return Effect(Status.APPLIED, (ROOT_INO,), (), ROOT_INO)


def fold_session(state: State, op: SessionOp, author: Author) -> Effect:
    """The next number is this device's. Two asks with one token are two sessions."""
    number = state.next_session()
    if number > SESSION_MAX:
        return NOTHING
    state.put_session(SessionRow(number, author.member, op.token, op.label, 0, bytes(HASH_SIZE)))
    return Effect(Status.APPLIED, (), (), 0)
