"""Large filespaces, without a mount: logs made by hand in a directory store, and what it takes to
read them.

`replica`: the tables of a device that is new, or lost them, from entry 1 and from a checkpoint.
`gc`: a filespace in which everything was removed long ago, collected dry and in earnest.
"""

from __future__ import annotations

import os
import resource
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lucid import init
from lucid.filespace.collecting import collect
from lucid.filespace.due_checkpoint import write_due
from lucid.filespace.visiting import Visit
from lucid.format.change import DATA, Change, SegmentRow
from lucid.format.entry import EntryRef
from lucid.format.names import segment_key
from lucid.format.ops import Create, Mkdir, Op, Unlink, make_op_id
from lucid.meta.authoring import take_session
from lucid.meta.log import LogWriter, Won, follow
from lucid.types import SystemClock, SystemEntropy

__all__ = ["fill_store", "gc_figures", "replica_figures"]

SECRET = "bench bench bench"
FILE_BYTES = 10_000
IN_DIRECTORY = 1000
OPS_AN_ENTRY = 5000
EVERY = 64
"""Distance of checkpoints, so that the log of few and large entries has one."""
LONG_AGO_S = 60 * 86_400


class Author:
    """Writes entries into a filespace's log, one after the other."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._replica = visit.replica("author")
        reader = visit.reader(self._replica)
        keys = visit.unlocked.keys
        self._writer = LogWriter(visit.store, visit.ring, keys, self._replica, visit.entropy)
        self.session = take_session(
            reader, self._writer, self._replica, keys.member, b"bench", visit.clock, visit.entropy
        ).number
        self._counter = 0
        self.generation = visit.unlocked.superblock.generation

    def id(self) -> int:
        self._counter += 1
        return make_op_id(self.session, self._counter)

    def commit(
        self,
        ops: Sequence[Op],
        segments: Sequence[SegmentRow] = (),
        said: EntryRef | None = None,
    ) -> None:
        """`said`: what this session found of the state at a checkpoint's entry."""
        prepared = self._writer.build(self.session, ops, segments, said)
        if not isinstance(self._writer.put(prepared), Won):
            raise RuntimeError("somebody else writes here")
        self._replica.commit_entry(prepared.sequence, prepared.hash, prepared.body)
        self._replica.take_events()


def _mkdir(author: Author, parent: int, name: bytes) -> Mkdir:
    return Mkdir(author.id(), 1, parent, name, stat.S_IFDIR | 0o755, 0, 0, ())


def _create(author: Author, parent: int, name: bytes, segment: bytes, at: int) -> Create:
    tag = 32
    change = Change(0, 1, DATA, segment, at, at * (FILE_BYTES + tag), 0, FILE_BYTES, FILE_BYTES)
    return Create(
        author.id(), 1, parent, name, stat.S_IFREG | 0o644, 0, 0, 1, 1, (), FILE_BYTES, (change,)
    )


def _segment(author: Author) -> SegmentRow:
    return SegmentRow(os.urandom(32), 8 << 20, 4096, os.urandom(32), author.generation, 1)


@contextmanager
def _visit(top: Path) -> Iterator[tuple[str, Visit]]:
    url = f"file://{top / 'store'}"
    init(url, passphrase=SECRET)
    visit = Visit(url, SECRET, store=None, clock=SystemClock(), entropy=SystemEntropy, every=EVERY)
    with closing(visit):
        yield url, visit


def _fill(author: Author, files: int) -> None:
    """`files` small files, a thousand a directory, 800 a segment."""
    made, parent, segment = 0, 1, _segment(author)
    while made < files:
        ops: list[Op] = []
        rows = {segment.id: segment}
        for _ in range(min(OPS_AN_ENTRY, files - made)):
            if made % IN_DIRECTORY == 0:
                folder = _mkdir(author, 1, b"d%d" % (made // IN_DIRECTORY))
                parent = folder.op_id
                ops.append(folder)
            if made % 800 == 0:
                segment = _segment(author)
                rows[segment.id] = segment
            ops.append(_create(author, parent, b"file-%d" % made, segment.id, made % 800))
            made += 1
        author.commit(ops, tuple(rows.values()))


def fill_store(url: str, secret: str, files: int) -> None:
    """So many files into an empty filespace that is nowhere mounted, and a checkpoint where one is
    due. Their bytes are nowhere."""
    visit = Visit(url, secret, store=None, clock=SystemClock(), entropy=SystemEntropy, every=EVERY)
    with closing(visit):
        author = Author(visit)
        _fill(author, files)
        folded = visit.replica("folded")
        follow(visit.reader(folded), folded)
        head = folded.head()
        folded.close()
        said = write_due(visit, head.sequence, author.session, lambda *_: None)
        author.commit([_mkdir(author, 1, b"last")], said=said)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def replica_figures(top: Path, files: int) -> dict[str, float]:
    """Seconds until the tables of a new device are whole. Writing the checkpoint begins with the
    log too."""
    with _visit(top) as (_, visit):
        author = Author(visit)
        _fill(author, files)
        folded = visit.replica("folded")
        log_s, log_cpu = _timed(lambda: follow(visit.reader(folded), folded))
        head = folded.head()
        folded.close()
        began = time.perf_counter()
        said = write_due(visit, head.sequence, author.session, lambda *_: None)
        made_s = time.perf_counter() - began
        author.commit([_mkdir(author, 1, b"last")], said=said)
        begun_s, begun_cpu = _timed(lambda: visit.begin("begun"))
        begun = visit.replica("begun")
        rest_s, rest_cpu = _timed(lambda: follow(visit.reader(begun), begun))
        if begun.head().sequence != head.sequence + 1 or begun.totals().inodes < files:
            raise RuntimeError("the two ways do not end at the same place")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "files": float(files),
        "from entry 1 s": log_s,
        "from entry 1 cpu s": log_cpu,
        "fold it and write a checkpoint s": made_s,
        "from the checkpoint s": begun_s + rest_s,
        "from the checkpoint cpu s": begun_cpu + rest_cpu,
        "peak MiB": peak,
    }


def _age(top: Path, seconds: int) -> None:
    """The store is from long ago, each segment from a day before the entries that name it."""
    then = time.time() - seconds
    for folder, _, names in os.walk(top):
        stored = then - 86_400 * ("data" in Path(folder).relative_to(top).parts)
        for name in names:
            os.utime(Path(folder) / name, (stored, stored))


def gc_figures(top: Path, segments: int) -> dict[str, float]:
    """Seconds to collect so many segments, none of which anything needs any more."""
    with _visit(top) as (url, visit):
        author = Author(visit)
        for start in range(0, segments, OPS_AN_ENTRY):
            count = min(OPS_AN_ENTRY, segments - start)
            rows = [_segment(author) for _ in range(count)]
            for row in rows:
                visit.store.put_if_absent(segment_key(row.id), b"bytes")
            names = [b"file-%d" % at for at in range(start, start + count)]
            creates = [
                _create(author, 1, name, row.id, 0) for name, row in zip(names, rows, strict=True)
            ]
            author.commit(creates, rows)
            author.commit(
                [Unlink(author.id(), 2, 1, one.name, one.op_id, one.op_id) for one in creates]
            )
        # A floor ends what was gone before its own entry.
        author.commit([_mkdir(author, 1, b"last")])
    _age(top / "store", LONG_AGO_S)
    dry_s, _ = _timed(lambda: collect(url, SECRET))
    wet_s, wet_cpu = _timed(lambda: collect(url, SECRET, delete=True))
    left = sum(len(names) for _, _, names in os.walk(top / "store/data"))
    return {
        "segments": float(segments),
        "dry s": dry_s,
        "with --delete s": wet_s,
        "with --delete cpu s": wet_cpu,
        "segments left": float(left),
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
