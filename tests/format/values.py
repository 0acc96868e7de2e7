"""Values of the format for tests: hypothesis strategies, and one plain example of each kind."""

from __future__ import annotations

import stat

from hypothesis import strategies as st

from lucid.format import limits
from lucid.format.change import Change, SegmentRow
from lucid.format.entry import EntryBody, EntryRef
from lucid.format.hashes import ZERO_HASH
from lucid.format.journal import (
    Begin,
    Failed,
    Image,
    ImageRecord,
    Limit,
    Mark,
    Note,
    OpRecord,
    Patch,
    Record,
    SegmentRecord,
    SessionRecord,
    Settled,
)
from lucid.format.ops import (
    DATA,
    HOLE,
    LEASE_EXCLUSIVE,
    LEASE_NONE,
    LEASE_SHARED,
    LOST,
    RULES,
    RULES_FIRST,
    Clone,
    Content,
    Create,
    Drop,
    Floor,
    Genesis,
    GenesisGeneration,
    GenesisMember,
    GenesisRoot,
    Give,
    Link,
    Mkdir,
    Mknod,
    Move,
    Op,
    Rename,
    Repack,
    Rmdir,
    Rules,
    SessionOp,
    Setattr,
    Setxattr,
    Stage,
    Symlink,
    Take,
    Takeover,
    Unlink,
    make_op_id,
)

TIME_NS = 1_763_805_600_000_000_000
SESSION = 3
REGULAR = stat.S_IFREG | 0o644
DIRECTORY = stat.S_IFDIR | 0o755


def op_id(counter: int) -> int:
    return make_op_id(SESSION, counter)


def segment_row(number: int = 1) -> SegmentRow:
    """A full segment; `number` sets it apart from others."""
    return SegmentRow(
        bytes([number]) * 32, limits.SEGMENT_STORED_MAX, 4096, b"f" * 32, b"g" * 16, 40 + number
    )


ROWS = (segment_row(1), segment_row(2))
CHANGES = (
    Change(0, 2, DATA, ROWS[0].id, 5, 1000, 0, 7000, 6000),
    Change(2, 10, HOLE),
    Change(12, 1, LOST),
    Change(20, 3, DATA, ROWS[1].id, 0, 0, 0, 100, 100, (131_104, 131_104, 132)),
)
GENESIS = Genesis(
    1,
    TIME_NS,
    b"s" * 32,
    1,
    b"Team drive",
    GenesisMember(b"m" * 16, b"anna", b"k" * 32, b"b" * 32, 3),
    GenesisGeneration(b"g" * 16, b"h" * 32),
    GenesisRoot(DIRECTORY, 1000, 1000),
)
SESSION_OP = SessionOp(0, TIME_NS, b"t" * 16, "Büro".encode())
PLAIN_OPS: tuple[Op, ...] = (
    Create(
        op_id(1), TIME_NS, 1, b"report.txt", REGULAR, 1000, 1000, TIME_NS, TIME_NS,
        ((b"user.a", b""), (b"user.b", b"\x00\xff")), 2_752_612, CHANGES,
    ),
    Mkdir(op_id(2), TIME_NS, 1, b"docs", DIRECTORY, 0, 0, ()),
    Symlink(op_id(3), TIME_NS, op_id(2), b"link", b"../else where", 1000, 1000),
    Mknod(op_id(4), TIME_NS, 1, b"pipe", stat.S_IFIFO | 0o600, 0, 1000, 1000),
    Content(
        op_id(5), TIME_NS, op_id(1), op_id(1), 1, b"report.txt", 4096, 8192, TIME_NS, TIME_NS,
        CHANGES[:1],
    ),
    Content(op_id(6), TIME_NS, op_id(1), op_id(5), 0, b"", 0, 0, TIME_NS, TIME_NS, ()),
    Stage(op_id(7), TIME_NS, op_id(8), CHANGES[3:]),
    Drop(op_id(9), TIME_NS, op_id(8)),
    Link(op_id(10), TIME_NS, op_id(1), op_id(2), b"\xff\xfe not utf-8"),
    Unlink(op_id(11), TIME_NS, 1, b"report.txt", op_id(1), op_id(6)),
    Rmdir(op_id(12), TIME_NS, 1, b"docs", op_id(2)),
    Rename(op_id(13), TIME_NS, 1, b"pipe", op_id(4), op_id(2), b"queue", 0, 0),
    Setattr(op_id(14), TIME_NS, op_id(1), 0o600, None, 5, None, -1),
    Setxattr(op_id(15), TIME_NS, op_id(1), b"user.c", b"value"),
    Setxattr(op_id(16), TIME_NS, op_id(1), b"user.c", None),
)  # fmt: skip
OPS_OF_RULES_2: tuple[Op, ...] = (
    Rules(op_id(17), TIME_NS, 2),
    Floor(op_id(18), TIME_NS, 40_960),
    Clone(op_id(19), TIME_NS, op_id(1), op_id(5), op_id(1), op_id(6), 1, b"report.txt", TIME_NS),
    Clone(op_id(20), TIME_NS, op_id(1), op_id(5), 0, 0, op_id(2), b"old report.txt", -1),
)
REPACK = Repack(
    op_id(21), TIME_NS,
    (
        Move(b"\x07" * 32, 0, 0, 3, ROWS[0].id, 0, 0),
        Move(b"\x07" * 32, 9, 70_000, 1, ROWS[0].id, 3, 40_000),
        Move(b"\x08" * 32, 65_535, 8_000_000, 1, ROWS[1].id, 200, 90_000),
    ),
)  # fmt: skip
OPS_OF_RULES_4: tuple[Op, ...] = (
    Take(op_id(22), TIME_NS, op_id(1), LEASE_SHARED),
    Take(op_id(23), TIME_NS, op_id(1), LEASE_EXCLUSIVE),
    Give(op_id(24), TIME_NS, op_id(1), LEASE_NONE),
    Give(op_id(25), TIME_NS, op_id(1), LEASE_SHARED),
    Takeover(op_id(26), TIME_NS, op_id(1), SESSION + 1, 40_960),
)
EVERY_OP: tuple[Op, ...] = (
    GENESIS, SESSION_OP, *PLAIN_OPS, *OPS_OF_RULES_2, REPACK, *OPS_OF_RULES_4,
)  # fmt: skip
BODY = EntryBody(
    b"m" * 16, SESSION, b"p" * 32, b"q" * 32, EntryRef(1, b"e" * 32), None, ROWS, PLAIN_OPS
)
IMAGE = Image(
    True, False, 1, b"draft", 0, 0, 2_752_612, REGULAR, 1000, 1000, TIME_NS, TIME_NS, TIME_NS,
    ((b"user.a", b"1"),), CHANGES, (ROWS[0], SegmentRow(ROWS[1].id, 300_000, 0, b"", b"g" * 16, 7)),
)  # fmt: skip
MARK = Mark(4, 60_000)
EVERY_RECORD: tuple[Record, ...] = (
    Begin(5, 4, MARK),
    SessionRecord(SESSION, b"t" * 16, MARK),
    Limit(65_537, MARK),
    OpRecord(12, ROWS, PLAIN_OPS[0], MARK),
    OpRecord(13, (), PLAIN_OPS[11], MARK),
    ImageRecord(op_id(1), IMAGE, MARK),
    ImageRecord(op_id(1), None, MARK),
    Patch(op_id(1), 7, 4096, b"bytes", MARK),
    Note(90, b"e" * 32, 12, MARK),
    Settled(12, MARK),
    SegmentRecord(ROWS[0], MARK),
    Failed(13, b"A base block is damaged.", MARK),
)

# Strategies. Numbers lean to the edges, since that is where encodings change their length.
positive = st.integers(1, limits.INT63_MAX) | st.sampled_from((127, 128, 255, 256, 65_535, 65_536))
natural = st.just(0) | positive
times = st.integers(limits.TIME_MIN, limits.TIME_MAX)
u32 = st.integers(0, limits.UINT32_MAX)
sizes = st.integers(0, limits.SIZE_MAX)
ids = st.binary(min_size=16, max_size=16)
keys = st.binary(min_size=32, max_size=32)
names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
xattr_names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)
xattrs = st.dictionaries(xattr_names, st.binary(max_size=40), max_size=3).map(
    lambda pairs: tuple(sorted(pairs.items()))
)
labels = (
    st.text(
        st.characters(min_codepoint=32, blacklist_categories=("Cs", "Cc")), min_size=1, max_size=16
    )
    .filter(lambda text: "/" not in text)
    .map(lambda text: text.encode())
)
op_ids = positive


@st.composite
def segment_rows(draw: st.DrawFn, unfinished: bool = False) -> SegmentRow:
    footer_len = draw(st.integers(0 if unfinished else 1, 4096))
    return SegmentRow(
        draw(keys),
        draw(st.integers(300_000, limits.SEGMENT_STORED_MAX)),
        footer_len,
        draw(keys) if footer_len else b"",
        draw(ids),
        draw(natural),
    )


@st.composite
def move_lists(draw: st.DrawFn, rows: tuple[SegmentRow, ...]) -> tuple[Move, ...]:
    """Ascending moves from other segments into `rows`, of which there must be some."""
    moves = []
    sources = draw(st.lists(keys, min_size=1, max_size=3, unique=True))
    into = {row.id for row in rows}
    for source in sorted(one for one in sources if one not in into) or [b"\xff" * 32]:
        at = 0
        for _ in range(draw(st.integers(1, 3))):
            at += draw(st.integers(0, 1000))
            count = draw(st.integers(1, 300))
            moves.append(
                Move(
                    source, at, draw(st.integers(0, limits.SEGMENT_STORED_MAX - 1)), count,
                    draw(st.sampled_from(rows)).id, draw(st.integers(0, 60_000)),
                    draw(st.integers(0, limits.SEGMENT_STORED_MAX - 1)),
                )
            )  # fmt: skip
            at += count
    return tuple(moves)


@st.composite
def change_lists(draw: st.DrawFn, rows: tuple[SegmentRow, ...]) -> tuple[Change, ...]:
    """Ascending changes whose blocks lie in one of `rows`."""
    changes = []
    first = draw(st.integers(0, 1 << 30))
    for _ in range(draw(st.integers(0, 3))):
        count = draw(st.integers(1, 6))
        kind = draw(st.sampled_from((DATA, HOLE, LOST))) if rows else HOLE
        if kind != DATA:
            changes.append(Change(first, count, kind))
        else:
            last_len = draw(st.integers(1, 100_000))
            lengths = draw(st.none() | st.tuples(*[st.integers(33, 10_000)] * count))
            flags = draw(st.integers(0, 1)) if lengths else 0
            changes.append(
                Change(
                    first, count, DATA, draw(st.sampled_from(rows)).id,
                    draw(st.integers(0, 65_000)), draw(st.integers(0, 100_000)), flags,
                    last_len, draw(st.integers(1, last_len)), lengths,
                )
            )  # fmt: skip
        first += count + draw(st.integers(0, 5))
    return tuple(changes)


def ops(rows: tuple[SegmentRow, ...]) -> st.SearchStrategy[Op]:
    """Any op whose segments are in `rows`."""
    some = change_lists(rows)
    regular = st.integers(0, 0o7777).map(lambda bits: stat.S_IFREG | bits)
    directory = st.integers(0, 0o7777).map(lambda bits: stat.S_IFDIR | bits)
    node = st.sampled_from((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
    opened_by = st.tuples(st.just(0), st.just(b"")) | st.tuples(positive, names)
    head = (op_ids, times)
    return st.one_of(
        st.builds(
            Genesis, st.just(1), times, keys, st.integers(RULES_FIRST, RULES), labels,
            st.builds(GenesisMember, ids, labels, keys, keys, st.just(3)),
            st.builds(GenesisGeneration, ids, keys),
            st.builds(GenesisRoot, directory, u32, u32),
        ),
        st.builds(SessionOp, st.just(0), times, ids, labels),
        st.builds(
            Create, *head, positive, names, regular, u32, u32, times, times, xattrs, sizes, some
        ),
        st.builds(Mkdir, *head, positive, names, directory, u32, u32, xattrs),
        st.builds(
            Symlink, *head, positive, names,
            st.binary(min_size=1, max_size=300).filter(lambda t: b"\0" not in t), u32, u32,
        ),
        st.builds(Mknod, *head, positive, names, node, u32, u32, u32),
        opened_by.flatmap(
            lambda by: st.builds(
                Content, *head, positive, natural, st.just(by[0]), st.just(by[1]), sizes, sizes,
                times, times, some,
            )
        ),
        st.builds(Stage, *head, positive, some),
        st.builds(Drop, *head, positive),
        st.builds(Link, *head, positive, positive, names),
        st.builds(Unlink, *head, positive, names, natural, natural),
        st.builds(Rmdir, *head, positive, names, natural),
        st.builds(
            Rename, *head, positive, names, positive, positive, names, natural, natural
        ),
        st.builds(
            Setattr, *head, positive, st.none() | st.integers(0, 0o177777), st.none() | u32,
            st.none() | u32, st.none() | times, st.none() | times,
        ),
        st.builds(Setxattr, *head, positive, xattr_names, st.none() | st.binary(max_size=300)),
        st.builds(Rules, *head, st.integers(1, limits.UINT32_MAX)),
        st.builds(Floor, *head, positive),
        opened_by.flatmap(
            lambda by: st.builds(
                Clone, *head, positive, positive, positive, natural, st.just(by[0]),
                st.just(by[1]), times,
            )
        ),
        st.builds(
            Clone, *head, positive, positive, st.just(0), st.just(0), positive, names, times
        ),
        st.builds(Take, *head, positive, st.sampled_from((LEASE_SHARED, LEASE_EXCLUSIVE))),
        st.builds(Give, *head, positive, st.sampled_from((LEASE_NONE, LEASE_SHARED))),
        st.builds(Takeover, *head, positive, st.integers(1, limits.UINT32_MAX), positive),
        *([st.builds(Repack, *head, move_lists(rows))] if rows else []),
    )  # fmt: skip


def tables(unfinished: bool = False) -> st.SearchStrategy[tuple[SegmentRow, ...]]:
    """Segment tables."""
    return st.lists(segment_rows(unfinished), max_size=3, unique_by=lambda row: row.id).map(tuple)


@st.composite
def bodies(draw: st.DrawFn) -> EntryBody:
    """Bodies in the format; not all of them follow the rules of one entry."""
    rows = draw(tables())
    refs = st.builds(EntryRef, natural, keys)
    return EntryBody(
        draw(ids),
        draw(st.integers(0, limits.SESSION_MAX)),
        draw(keys),
        draw(keys | st.just(ZERO_HASH)),
        draw(refs),
        draw(st.none() | refs),
        rows,
        tuple(draw(st.lists(ops(rows), max_size=4))),
    )


@st.composite
def images(draw: st.DrawFn) -> Image:
    rows = draw(tables(unfinished=True))
    parent, name = draw(st.tuples(st.just(0), st.just(b"")) | st.tuples(positive, names))
    return Image(
        draw(st.booleans()), draw(st.booleans()), parent, name, draw(natural), draw(sizes),
        draw(sizes), draw(st.integers(0, 0o177777)), draw(u32), draw(u32), draw(times),
        draw(times), draw(times), draw(xattrs), draw(change_lists(rows)), rows,
    )  # fmt: skip


@st.composite
def op_records(draw: st.DrawFn) -> OpRecord:
    rows = draw(tables(unfinished=True))
    return OpRecord(draw(natural), rows, draw(ops(rows)))


def records() -> st.SearchStrategy[Record]:
    """Any journal record."""
    begin = st.tuples(natural, natural).map(lambda pair: Begin(max(pair), min(pair)))
    return st.builds(
        lambda record, mark: record._replace(mark=mark),
        st.one_of(
            begin,
            st.builds(SessionRecord, natural, ids),
            st.builds(Limit, natural),
            op_records(),
            st.builds(ImageRecord, natural, st.none() | images()),
            st.builds(
                Patch, natural, st.integers(0, limits.BLOCKS_MAX), st.integers(0, 60_000),
                st.binary(min_size=1, max_size=300),
            ),
            st.builds(Note, natural, keys, natural),
            st.builds(Settled, natural),
            st.builds(SegmentRecord, segment_rows()),
            st.builds(Failed, natural, st.binary(max_size=200)),
        ),
        st.builds(Mark, natural, natural),
    )  # fmt: skip
