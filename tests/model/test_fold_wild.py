"""Ops that no author makes: random numbers, names and changes. The fold takes them all."""

from __future__ import annotations

import stat

from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.format import ops
from lucid.format.change import COMPRESSED, DATA, HOLE, LOST, Change
from lucid.format.limits import BLOCKS_MAX, INT63_MAX, SIZE_MAX, TIME_MAX, TIME_MIN
from lucid.format.ops import (
    Content,
    Floor,
    Genesis,
    Link,
    Move,
    Op,
    Rename,
    Repack,
    Rmdir,
    SessionOp,
    UnknownOp,
    Unlink,
)
from lucid.meta.fold_segments import admit_segments
from lucid.meta.memory import MemoryState
from lucid.meta.state import STAMP_SHIFT, DentryRow
from tests.meta.authors import Author, Blocks, empty_state, genesis
from tests.meta.invariants import check_state, checked_fold
from tests.meta.replicas import segment_row

CONFLICT = b"a (conflict ann desk 1970-01-01 00.00.00)"

ids = st.sampled_from([1 << 32 | n for n in range(1, 7)] + [2 << 32 | n for n in range(1, 7)])
inodes = st.one_of(ids, st.sampled_from([1, 2, INT63_MAX]))
zero_or_inode = st.one_of(inodes, st.just(0))
names = st.sampled_from([b"a", b"b.txt", b"\xff" * 255, CONFLICT, b".x"])
times = st.one_of(st.sampled_from([0, 5 * 10**9, TIME_MIN, TIME_MAX]))
sizes = st.one_of(st.integers(0, 200), st.sampled_from([SIZE_MAX, SIZE_MAX - 1]))
numbers = st.integers(0, 3)
maybe = st.one_of(st.none(), numbers)
xattrs = st.sampled_from([(), ((b"user.a", b"1"),)])


@st.composite
def changes(draw: st.DrawFn) -> tuple[Change, ...]:
    """Ascending changes as the format lets them through, for no block size in particular."""
    made = []
    at = 0
    for _ in range(draw(st.integers(0, 4))):
        first = at + draw(st.integers(0, 4))
        count = draw(st.integers(1, 5))
        at = first + count
        kind = draw(st.sampled_from([DATA, DATA, HOLE, LOST]))
        if kind != DATA:
            made.append(Change(first, count, kind))
            continue
        flags = draw(st.sampled_from([0, COMPRESSED]))
        lengths = None
        if flags or draw(st.booleans()):
            lengths = tuple(draw(st.lists(st.integers(17, 60), min_size=count, max_size=count)))
        last = draw(st.integers(1, 60))
        valid = draw(st.integers(1, last))
        made.append(Change(first, count, DATA, b"s" * 32, 9, 90, flags, last, valid, lengths))
    if draw(st.integers(0, 9)) == 0:
        made.append(Change(at, BLOCKS_MAX - at, draw(st.sampled_from([HOLE, LOST]))))
    return tuple(made)


@st.composite
def moves(draw: st.DrawFn) -> tuple[Move, ...]:
    """Ascending moves of the one segment that changes name, or of one that nobody knows."""
    made, at = [], 0
    source, into = draw(st.sampled_from([(b"s", b"t"), (b"t", b"s"), (b"t", b"u")]))
    for _ in range(draw(st.integers(1, 3))):
        at += draw(st.integers(0, 9))
        count = draw(st.sampled_from([1, 4, 20]))
        place = (draw(st.integers(0, 20)), draw(st.sampled_from([0, 90, 3000, 8_000_000])))
        made.append(
            Move(source * 32, at, draw(st.sampled_from([0, 90, 91])), count, into * 32, *place)
        )
        at += count
    return tuple(made)


REGULAR, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
any_op: st.SearchStrategy[Op] = st.one_of(
    st.builds(
        ops.Create, ids, times, inodes, names, st.just(REGULAR), numbers, numbers, times, times,
        xattrs, sizes, changes(),
    ),
    st.builds(ops.Mkdir, ids, times, inodes, names, st.just(DIRECTORY), numbers, numbers, xattrs),
    st.builds(ops.Symlink, ids, times, inodes, names, st.just(b"t"), numbers, numbers),
    st.builds(
        ops.Mknod, ids, times, inodes, names, st.just(stat.S_IFIFO), numbers, numbers, numbers
    ),
    st.builds(
        ops.Content, ids, times, inodes, zero_or_inode, zero_or_inode, names, sizes, sizes,
        times, times, changes(),
    ),
    st.builds(ops.Stage, ids, times, ids, changes()),
    st.builds(ops.Drop, ids, times, ids),
    st.builds(ops.Link, ids, times, inodes, inodes, names),
    st.builds(ops.Unlink, ids, times, inodes, names, zero_or_inode, zero_or_inode),
    st.builds(ops.Rmdir, ids, times, inodes, names, zero_or_inode),
    st.builds(
        ops.Rename, ids, times, inodes, names, inodes, inodes, names, zero_or_inode,
        zero_or_inode,
    ),
    st.builds(ops.Setattr, ids, times, inodes, maybe, maybe, maybe, maybe, maybe),
    st.builds(ops.Setxattr, ids, times, inodes, names, st.sampled_from([None, b"", b"1"])),
    st.builds(
        ops.Clone, ids, times, inodes, ids, zero_or_inode, zero_or_inode, inodes, names, times
    ),
    st.builds(ops.Rules, ids, times, st.integers(1, 2)),
    st.builds(ops.Floor, ids, times, st.sampled_from([1, 3, 10, 40, INT63_MAX])),
    st.builds(Repack, ids, times, moves()),
    st.builds(ops.Take, ids, times, inodes, st.sampled_from([1, 2])),
    st.builds(ops.Give, ids, times, inodes, st.sampled_from([0, 1])),
    st.builds(ops.Takeover, ids, times, inodes, st.integers(1, 3), st.sampled_from([1, INT63_MAX])),
    st.just(ops.SessionOp(0, 0, b"t" * 16, b"desk")),
    st.just(ops.UnknownOp(99)),
    st.just(genesis()),
)  # fmt: skip


ON_INODES = (ops.Clone, ops.Take, ops.Give, ops.Takeover)


def aimed(state: MemoryState, op: Op, choice: int) -> Op:
    """The op, aimed at a name that is there, as if its author had just seen it."""
    dentries = [DentryRow(*row) for row in state.dump()["dentry"]]
    if not dentries or not isinstance(op, (Unlink, Rmdir, Rename, Content, Link, *ON_INODES)):
        return op
    dentry = dentries[choice % len(dentries)]
    row = state.inode(dentry.ino)
    assert row is not None
    if isinstance(op, Unlink):
        return op._replace(
            parent=dentry.parent, name=dentry.name, seen_ino=row.ino, seen_version=row.version
        )
    if isinstance(op, Rmdir):
        return op._replace(parent=dentry.parent, name=dentry.name, seen_ino=row.ino)
    if isinstance(op, ops.Clone):
        return op._replace(ino=row.ino, base=row.version, version=row.version or op.version)
    if isinstance(op, Content):
        return op._replace(ino=row.ino, base=row.version)
    if isinstance(op, (Link, ops.Take, ops.Give, ops.Takeover)):
        return op._replace(ino=row.ino)
    op = op._replace(parent=dentry.parent, name=dentry.name, ino=row.ino)
    over = dentries[choice // 7 % len(dentries)]
    target = state.inode(over.ino)
    assert target is not None
    if choice % 3:
        op = op._replace(
            new_parent=over.parent, new_name=over.name, seen_ino=target.ino,
            seen_version=target.version,
        )  # fmt: skip
    return op


step = st.tuples(st.booleans(), any_op, st.one_of(st.none(), st.integers(0, 99)), st.integers(0, 5))


@settings(max_examples=250)
@given(st.integers(1, 4), st.lists(step, max_size=40))
def test_any_ops_in_any_order(rules: int, steps: list[tuple[bool, Op, int | None, int]]) -> None:
    """S-70, S-72: nothing raises, the state is sound after each op, and two folds are equal.

    Each op is an entry, so that floors find something to end."""
    blocks = Blocks()
    ann, bea = Author(1, b"ann", blocks), Author(2, b"bea", blocks)
    state, again = empty_state(rules), empty_state(rules)
    folded: list[tuple[Author, Op]] = []
    for number, (first, op, aim, reuse) in enumerate(steps, 2):
        state.stamp = number << STAMP_SHIFT
        _admit(state, number)
        author = ann if first else bea
        if aim is not None:
            op = aimed(state, op, aim)
        if reuse and not isinstance(op, (Genesis, SessionOp, UnknownOp)):
            op = op._replace(op_id=author.head()[0])
        if isinstance(op, Floor):
            author.fold(state, op)
        else:
            checked_fold(state, author, op)
        check_state(state)
        folded.append((author, op))
    for number, (author, op) in enumerate(folded, 2):
        again.stamp = number << STAMP_SHIFT
        _admit(again, number)
        author.fold(again, op)
        _readable(again)
    assert state.dump() == again.dump()


def _admit(state: MemoryState, number: int) -> None:
    """Each entry brings the segments that ops name, sealed a while before."""
    admit_segments(state, [segment_row(one * 32, number - 2) for one in (b"s", b"t")])


def _readable(state: MemoryState) -> None:
    """The map of every version can be told."""
    for fields in state.dump()["version"]:
        state.extents_at(fields[1], fields[0])
