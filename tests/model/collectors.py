"""Writers, a store that forgets nothing it was not told to, and collectors: gc without its bytes.

A `World` has one log, one store and one clock. Devices seal segments at some head, upload them
much later, are away for weeks, and commit upon the log as it is then; collectors set floors and
delete in small steps, with anything in between; they repack, too, and readers that are behind by
less than the retention look for what they know. Everything is chosen by integers. `Rule` says which
parts of the rule hold: the model must find the loss where one is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from lucid.config import RETENTION_S
from lucid.filespace.collection import Collection
from lucid.filespace.leftovers import Leftovers
from lucid.format.change import SegmentRow
from lucid.format.names import segment_key
from lucid.format.ops import (
    ROOT_INO,
    RULES,
    Content,
    Create,
    Drop,
    Floor,
    Move,
    Op,
    Repack,
    Stage,
    segments_of,
)
from lucid.meta.fold import NOTHING, fold
from lucid.meta.fold_segments import VALUE_FLOOR, admit_segments, may_enter
from lucid.meta.memory import MemoryState
from lucid.meta.state import STAMP_SHIFT
from lucid.store.memory import MemoryStore
from tests.meta.authors import Author, Blocks, empty_state
from tests.meta.repacks import lying_in, moves_of, runs_in
from tests.meta.replicas import segment_row

HOUR_NS = 3600 * 10**9
NAMES = (b"a", b"b", b"c")


class Lost(AssertionError):
    """Something that is named is not in the store, or a change came to nothing."""


class Rule(NamedTuple):
    """The parts of the rule. All must hold."""

    old_ones_stay_out: bool = True
    """A segment from below the floor that has no row does not get one."""
    rows_count: bool = True
    """What has a row stays, though nothing may name it now."""
    age_counts: bool = True
    """What is younger than the floor's entry stays."""
    floor_first: bool = True
    """The state that says what may go is of the floor's entry or later."""
    authors_prepare_again: bool = True
    """Authors seal again what cannot be named any more."""
    repacked_stay: bool = True
    """The row of a segment that was repacked stays until a floor above that."""
    by_the_head: bool = True
    """A new segment says the head of before it was stored, and not one that is higher."""


WHOLE = Rule()


class Clock:
    """Of store and machines. It moves when told to."""

    def __init__(self) -> None:
        self.now_ns = 1000 * 24 * HOUR_NS

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9


class Entry(NamedTuple):
    author: Author
    ops: tuple[Op, ...]
    rows: tuple[SegmentRow, ...]
    time_ns: int


@dataclass
class World:
    """See the module. `state` is that of the whole log."""

    rule: Rule
    clock: Clock = field(default_factory=Clock)
    log: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)
        self.blocks = Blocks()
        self.state = empty_state(RULES)
        self.heads: dict[bytes, int] = {}
        self.deleted = 0
        self.repacked = 0

    def append(self, author: Author, ops: Iterable[Op]) -> None:
        """The next entry."""
        ops = tuple(ops)
        ids = dict.fromkeys(segment for op in ops for segment in segments_of(op))
        rows = tuple(segment_row(one, self.heads[one]) for one in ids)
        self.log.append(Entry(author, ops, rows, self.clock.now_ns))
        for op, counts in zip(ops, self.take_in(self.state, len(self.log)), strict=True):
            if isinstance(op, (Create, Content)) and not counts:
                raise Lost("A file came to nothing: its author did not prepare it again.")
        self.check()

    def take_in(self, state: MemoryState, number: int) -> list[bool]:
        """Folds entry `number`, from 1; which of its ops came to something."""
        entry = self.log[number - 1]
        if self.rule.old_ones_stay_out:
            admit_segments(state, entry.rows)
        else:
            for row in entry.rows:
                state.add_segment(row)
        done = []
        for index, op in enumerate(entry.ops):
            state.stamp = number << STAMP_SHIFT | index
            done.append(fold(state, op, entry.author.who) is not NOTHING)
            if isinstance(op, Repack) and not self.rule.repacked_stay:
                self._forget_repack(state, op)
        return done

    def _forget_repack(self, state: MemoryState, op: Repack) -> None:
        """As if the rows of old segments said their authors' heads for ever."""
        for move in op.moves:
            row = state.segment(move.source)
            if row is not None:
                state._segments[row.id] = row._replace(head=self.heads[row.id])

    def readers_find(self) -> None:
        """Who is behind by just less than the retention finds every file that it knows."""
        if self.rule._replace(repacked_stay=True, by_the_head=True) != WHOLE:
            return  # Then more than that is lost.
        until = self.clock.now_ns - RETENTION_S * 10**9
        state = empty_state(RULES)
        for number, entry in enumerate(self.log, 1):
            if entry.time_ns > until:
                break
            self.take_in(state, number)
        dump, there = state.dump(), set(self.store.bucket.keys)
        named = {row[0] for row in dump["inode"] if row[5]}
        newest = [row for row in dump["extent"] if row[0] in named and not row[3]]
        for run in runs_in({"extent": newest, "staged": []}):
            if run.segment and segment_key(run.segment) not in there:
                raise Lost("A reader that is behind misses a segment.")

    def check(self) -> None:
        """Whatever has a row, and so whatever is named or may still be, is in the store."""
        dump = self.state.dump()
        rows = {row[0] for row in dump["segment"]}
        named = {row[4][3] for row in dump["extent"]} | {row[2][3] for row in dump["staged"]}
        if not named - {b""} <= rows:
            raise Lost("A file names a segment that has no row.")
        there = set(self.store.bucket.keys)
        if not all(segment_key(row) in there for row in rows):
            raise Lost("A segment that may be named is not in the store.")


class Device:
    """One machine: what it knows of the log, and what it has not committed."""

    def __init__(self, world: World, session: int) -> None:
        self.world = world
        self.author = Author(session, b"m%d" % session, world.blocks)
        self.state = empty_state(RULES)
        self.head = 0
        self.pending: list[Op] = []
        self.uploaded: set[bytes] = set()

    def step(self, action: int, one: int, two: int) -> None:
        actions = (
            self._create, self._create, self._save, self._save, self._stage, self._pack,
            self._unlink, self._restore, self._undelete, self._drop, self._upload, self._upload,
            self._hear, self._commit, self._commit,
        )  # fmt: skip
        actions[action % len(actions)](one, two)

    # -- making ops, all by what this machine knows

    def _seal(self, op: Op) -> Op:
        for segment in segments_of(op):
            self.world.heads.setdefault(segment, self.head)
        return op

    def _accept(self, op: Op) -> None:
        self.pending.append(self._seal(op))

    def _create(self, one: int, two: int) -> None:
        self._accept(self.author.create(ROOT_INO, NAMES[one % 3], b"x" * (1 + two % 40)))

    def _save(self, one: int, two: int) -> None:
        if self.state.dentry(ROOT_INO, NAMES[one % 3]):
            content, keep = b"y" * (20 + two % 40), 16 * (two % 2)
            self._accept(self.author.content(self.state, ROOT_INO, NAMES[one % 3], content, keep))

    def _stage(self, one: int, two: int) -> None:
        made = self.author.create(ROOT_INO, NAMES[one % 3], b"z" * 30)
        self._accept(Stage(*self.author.head(), made.op_id, made.changes))
        if two % 3:
            self.pending.append(made._replace(changes=()))

    def _drop(self, one: int, _two: int) -> None:
        """What was staged, here or in the log, is given up."""
        staged = sorted({row[0] for row in self.state.dump()["staged"]})
        mine = [target for target in staged if target >> 32 == self.author.who.session]
        if mine:
            target = mine[one % len(mine)]
            self.pending = [op for op in self.pending if op[0] != target]
            self.pending.append(Drop(*self.author.head(), target))

    def _pack(self, one: int, two: int) -> None:
        """Another file whose blocks lie in a segment that a staged or pending op names, too."""
        known = [change for row in self.state.dump()["staged"] for change in [row[2]]]
        changes = [op.changes for op in self.pending if isinstance(op, (Create, Stage))]
        found = [one for one in changes if len(one) == 1]
        made = self.author.create(ROOT_INO, NAMES[two % 3])
        mine = [change for change in known if change[3] in self.uploaded]
        if mine:
            change = type(self.world.blocks.put(0, [b"n"]))._make(mine[one % len(mine)])
            self._accept(made._replace(size=30, changes=(change,)))
        elif found:
            self._accept(made._replace(size=30, changes=found[one % len(found)]))

    def _unlink(self, one: int, _two: int) -> None:
        if self.state.dentry(ROOT_INO, NAMES[one % 3]):
            self._accept(self.author.unlink(self.state, ROOT_INO, NAMES[one % 3]))

    def _restore(self, one: int, two: int) -> None:
        rows, name = self.state.dump()["version"], NAMES[two % 3]
        there = self.state.dentry(ROOT_INO, name)
        if rows:
            source = rows[one % len(rows)]
            target = self.state.inode(there.ino) if there else None
            ino, base = (target.ino, target.version) if target else (0, 0)
            self._accept(self.author.clone(source[1], source[0], ino, base, ROOT_INO, name))

    def _undelete(self, one: int, two: int) -> None:
        gone = self.state.nameless()
        if gone:
            self._accept(self.author.link(gone[one % len(gone)], ROOT_INO, NAMES[two % 3]))

    # -- store and log

    def _upload(self, one: int, two: int) -> None:
        waiting = [
            segment
            for op in self.pending[: 1 + two % 4]
            for segment in segments_of(op)
            if segment not in self.uploaded
        ]
        for segment in waiting[: 1 + one % 3]:
            self.world.store.put_if_absent(segment_key(segment), b"sealed")
            self.uploaded.add(segment)

    def _hear(self, one: int, _two: int) -> None:
        self._follow(1 + one % 5)

    def _follow(self, limit: int) -> None:
        end = min(len(self.world.log), self.head + limit)
        for number in range(self.head + 1, end + 1):
            self.world.take_in(self.state, number)
        self.head = end

    def _commit(self, one: int, _two: int) -> None:
        """What is ready of the first few, upon the whole log as it is now."""
        self._follow(len(self.world.log))
        if self.world.rule.authors_prepare_again:
            self._prepare_again()
        ready = 0
        for op in self.pending[: 1 + one % 3]:
            if not self.uploaded.issuperset(segments_of(op)):
                break
            ready += 1
        if ready:
            self.world.append(self.author, self.pending[:ready])
            del self.pending[:ready]
            self._follow(1)

    def _prepare_again(self) -> None:
        """Segments that cannot be named any more are sealed anew, at this head."""
        for at, op in enumerate(self.pending):
            if isinstance(op, (Create, Content, Stage)):
                changes = tuple(
                    change._replace(segment=self._anew(change.segment)) for change in op.changes
                )
                self.pending[at] = op._replace(changes=changes)

    def _anew(self, segment: bytes) -> bytes:
        world = self.world
        if not segment or self.state.segment(segment) is not None:
            return segment
        if may_enter(self.state, world.heads[segment]):
            return segment
        blocks = world.blocks.segments
        fresh = b"%032d" % len(blocks)
        blocks[fresh] = blocks[segment]
        world.heads[fresh] = self.head
        return fresh


class Collector:
    """One run after the other, each in many steps."""

    def __init__(self, world: World, session: int) -> None:
        self.world = world
        self.author = Author(session, b"admin", world.blocks)
        self.floor = 0
        self.keys: list[str] = []
        self._stage = 0
        self._moves: tuple[Move, ...] = ()

    def step(self, action: int, one: int) -> None:
        if action % 5 == 0 and not self._moves:
            self._seal(one)
        elif action % 5 == 1 and self._moves:
            self._repack()
        elif self.keys:
            self._delete(1 + one % 3)
        elif self._stage == 0:
            self._set_floor()
        else:
            self._look()

    def _set_floor(self) -> None:
        world = self.world
        until = world.clock.now_ns - RETENTION_S * 10**9
        old = [at for at, entry in enumerate(world.log, 1) if entry.time_ns < until]
        self.floor = max(old, default=0)
        if not self.floor:
            return
        if not world.rule.floor_first:
            self._look()  # By a state in which restores before the floor are not known yet.
        floor = world.state.get_value(VALUE_FLOOR)
        if self.floor > int(floor or b"0"):
            world.append(self.author, [Floor(*self.author.head(), self.floor)])
        self._stage = 1

    def _seal(self, one: int) -> None:
        """What is alive in some old segments lies in a new one, and that is in the store."""
        world = self.world
        floor = int(world.state.get_value(VALUE_FLOOR) or b"0")
        lying = lying_in(runs_in(world.state.dump()))
        rows = (world.state.segment(segment) for segment in sorted(lying))
        old = [row.id for row in rows if row is not None and row.head < floor]
        self._moves = moves_of(world.blocks, lying, old[one % 3 :: 1 + one % 2])
        if self._moves:
            fresh = self._moves[0].segment
            world.heads[fresh] = len(world.log) if world.rule.by_the_head else 1 << 40
            world.store.put_if_absent(segment_key(fresh), b"sealed")

    def _repack(self) -> None:
        """The log says so, maybe long after that."""
        world, moves = self.world, self._moves
        self._moves = ()
        left = tuple(move for move in moves if world.state.segment(move.source) is not None)
        fresh = moves[0].segment
        stands = world.state.segment(fresh) or may_enter(world.state, world.heads[fresh])
        if left and stands:
            world.append(self.author, [Repack(*self.author.head(), left)])
            world.repacked += 1

    def _look(self) -> None:
        world = self.world
        self._stage = 0
        before_ns = world.log[self.floor - 1].time_ns - HOUR_NS
        named = self._named()
        leftovers = Leftovers(world.store, Collection(""), lambda stage, done, total: None)
        leftovers.find_segments(named, before_ns if world.rule.age_counts else 1 << 62)
        self.keys += leftovers.segments

    def _named(self) -> set[bytes]:
        dump = self.world.state.dump()
        if not self.world.rule.floor_first:
            newest = {row[4][3] for row in dump["extent"] if row[3] == 0}
            return newest | {row[2][3] for row in dump["staged"]}
        if not self.world.rule.rows_count:
            named = {row[4][3] for row in dump["extent"]}
            return named | {row[2][3] for row in dump["staged"]}
        return {row[0] for row in dump["segment"]}

    def _delete(self, count: int) -> None:
        gone, self.keys = self.keys[:count], self.keys[count:]
        self.world.store.delete(gone)
        self.world.deleted += len(gone)
        self.world.check()
        self.world.readers_find()


def run(steps: Iterable[tuple[int, int, int, int]], rule: Rule = WHOLE) -> World:
    """A schedule: (who, action, first choice, second choice) of each step. Raises Lost."""
    world = World(rule)
    devices = [Device(world, session) for session in (1, 2, 3)]
    collectors = [Collector(world, session) for session in (4, 5)]
    for who, action, one, two in steps:
        actor = who % 8
        if actor < 5:
            # The third is away most of the time.
            device = devices[(0, 0, 1, 1, 2)[actor]]
            device.step(action, one, two)
        elif actor < 7:
            collectors[actor - 5].step(action, one)
        else:
            world.clock.now_ns += (1, 5, 30, 100, 200)[action % 5] * HOUR_NS
    return world
