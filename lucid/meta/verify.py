"""Which entries of the log count: the void rules, against the state before the entry.

An entry that breaks one is void for everyone: it keeps its number and hash and changes nothing.
What cannot be judged here (a missing key, rules that this version does not know) stops the reader
instead. Pure apart from the questions to the view; the thread that reads the log calls it, with no
lock held.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lucid.crypto.entry import VoidEntry, open_entry
from lucid.crypto.keyring import KeyRing
from lucid.errors import HistoryFork, InternalError, UnsupportedFormat
from lucid.format.entry import NO_ENTRY, EntryBody, EntryRef
from lucid.format.hashes import ZERO_HASH
from lucid.format.ops import (
    ROLE_ADMIN,
    ROLE_WRITER,
    RULES,
    RULES_FIRST,
    Floor,
    Genesis,
    Op,
    Repack,
    Rules,
    UnknownOp,
    rules_of,
)
from lucid.format.superblock import Superblock
from lucid.meta.fold_rules import VALUE_RULES
from lucid.meta.state import GenerationRow, MemberRow, SessionRow

__all__ = ["Accepted", "Origin", "View", "Void", "check_rules", "verify_entry"]


class Origin(NamedTuple):
    """What the superblock says, which entry 1 has to agree with."""

    superblock: Superblock
    superblock_hash: bytes


class View(Protocol):
    """The state at the head, as the rules ask for it. `Replica` is one."""

    def head(self) -> EntryRef: ...
    def membership(self) -> EntryRef: ...
    def generation(self) -> GenerationRow | None: ...
    def member(self, member: bytes) -> MemberRow | None: ...
    def session(self, number: int) -> SessionRow | None: ...
    def value(self, name: str) -> bytes | None: ...


class Accepted(NamedTuple):
    """An entry that counts."""

    sequence: int
    hash: bytes
    body: EntryBody


class Void(NamedTuple):
    """An entry that changes nothing.

    `fork`: a member signed it upon another history than ours, so two histories exist. `member` and
    `session` are what it says of its author, where its signature is right.
    """

    sequence: int
    hash: bytes
    reason: str
    fork: bool = False
    member: bytes = b""
    session: int = 0


def check_rules(view: View) -> int:
    """The fold rules in force. Raises UnsupportedFormat if this version does not know them."""
    value = view.value(VALUE_RULES)
    rules = RULES_FIRST if value is None else int(value)
    if not RULES_FIRST <= rules <= RULES:
        raise UnsupportedFormat(
            f"The filespace is under rules {rules}; this version of lucid knows rules"
            f" {RULES_FIRST} to {RULES}. Install a newer one."
        )
    return rules


def verify_entry(
    view: View, ring: KeyRing, origin: Origin, sequence: int, data: bytes
) -> Accepted | Void:
    """Judge the stored bytes of the entry after the head.

    Read it from the store again before believing that it is void. Raises UnknownKey without the
    key of the generation, UnsupportedFormat under rules that are not known here, HistoryFork if
    entry 1 belongs to another superblock.
    """
    head = view.head()
    if sequence != head.sequence + 1:
        raise InternalError(f"Entry {sequence} cannot be judged at head {head.sequence}.")
    rules = check_rules(view)
    if sequence == 1:
        return _verify_first(ring, origin, data)
    generation = view.generation()
    if generation is None:
        raise InternalError("The state has no generation.")

    def sign_key_of(member: bytes) -> bytes | None:
        row = view.member(member)
        return None if row is None else row.sign_key

    opened = open_entry(data, sequence, ring, generation.id, sign_key_of)
    if isinstance(opened, VoidEntry):
        return Void(sequence, opened.hash, opened.detail)
    body = opened.body
    fork = body.previous != head.hash
    reason = (
        "It follows another entry than the one before it." if fork else _fault(view, body, rules)
    )
    if reason:
        return Void(sequence, opened.hash, reason, fork, body.member, body.session)
    return Accepted(sequence, opened.hash, body)


def _verify_first(ring: KeyRing, origin: Origin, data: bytes) -> Accepted:
    """Entry 1 is never void: without it there is no filespace."""
    superblock = origin.superblock

    def sign_key_of(member: bytes) -> bytes | None:
        return superblock.founder_sign_key if member == superblock.founder else None

    opened = open_entry(data, 1, ring, superblock.generation, sign_key_of)
    if isinstance(opened, VoidEntry):
        raise HistoryFork(
            f"The first entry of the log is not its founder's: {opened.detail} The store was"
            " altered; do not use it before you know by whom."
        )
    body = opened.body
    op = body.ops[0]
    if not isinstance(op, Genesis) or not _is_of(op, origin) or not _is_first(body):
        raise HistoryFork(
            "The first entry of the log belongs to another superblock: the store shows objects"
            " that do not belong together."
        )
    return Accepted(1, opened.hash, body)


def _is_of(op: Genesis, origin: Origin) -> bool:
    superblock = origin.superblock
    return (op.superblock_hash, op.founder.member, op.founder.sign_key, op.founder.box_key) == (
        origin.superblock_hash,
        superblock.founder,
        superblock.founder_sign_key,
        superblock.founder_box_key,
    ) and tuple(op.generation) == (superblock.generation, superblock.generation_key_hash)


def _is_first(body: EntryBody) -> bool:
    links = (body.session, body.previous, body.session_previous, body.membership)
    return links == (0, ZERO_HASH, ZERO_HASH, NO_ENTRY)


def _fault(view: View, body: EntryBody, rules: int) -> str:
    """Why the entry is void; empty if it is not. Its form was checked with its bytes."""
    if body.membership != view.membership():
        return "It names another membership entry than the last one."
    if body.session:
        session = view.session(body.session)
        if session is None or session.member != body.member:
            return "Its session is not one of its member's."
        if session.last_hash != body.session_previous:
            return "It does not follow its session's last entry."
    member = view.member(body.member)
    role = 0 if member is None else member.role
    for op in body.ops:
        if isinstance(op, UnknownOp):
            return f"It holds an op of kind {op.kind}, which the rules in force do not know."
        if rules_of(op) > rules:
            return f"It holds a {type(op).__name__.lower()}, which rules {rules} do not know."
        if isinstance(op, Rules) and len(body.ops) > 1:
            return "It changes the rules, and holds another op beside that."
        if not _may(role, op):
            return "Its member's role does not allow what it does."
    return ""


def _may(role: int, op: Op) -> bool:
    """Whether a member of this role may write this op. Genesis is entry 1, and judged there."""
    if isinstance(op, (Rules, Floor, Repack)):
        return role == ROLE_ADMIN
    return role in (ROLE_WRITER, ROLE_ADMIN) and not isinstance(op, Genesis)
