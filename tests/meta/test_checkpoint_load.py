"""Chunks on their way into a database: what is taken, and what is refused in each table."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest

from lucid.errors import FormatError
from lucid.format.canonical import pack
from lucid.format.checkpoint import TABLE_FIELDS, TABLE_KEYS, decode_rows, row_key
from lucid.meta import schema
from lucid.meta.checkpoint_load import StateLoader
from lucid.meta.checkpoint_rows import Snapshot
from tests.meta.replicas import KEY, Log, catch_up, open_replica
from tests.meta.states import loaded, replica_rows

Row = tuple[Any, ...]
SEGMENT, HASH, ID = b"s" * 32, b"h" * 32, b"i" * 16
LENGTHS = b"\5\0\0\0\7\0\0\0"
BIG = (1 << 63) - 1

STATE: list[Row] = [
    (1, 4097, HASH, 1, HASH, 0, 2, 10),
    (2, b"name", b"team"),
    (2, "\N{SNOWMAN}".encode(), b""),
    (3, ID, b"me", HASH, HASH, 1),
    (4, ID, 1, HASH),
    (5, 1, ID, ID, b"desk", 4097, HASH),
    (5, 200, ID, ID, b"", 0, bytes(32)),
    (6, 4096, HASH),
    (7, SEGMENT, 70_000, 100, HASH, ID, 5),
    (8, 1, 0o40755, 0, 0, 0, 1, 0, 0, -1, -(1 << 40), BIG, 0, b"", 0, b"", 0),
    (8, 2, 0o100644, 0, 0, 0, 1, 10, 2, 1, 2, 3, 10, b"", 1, b"file", 0),
    (9, 1, 5, 0),
    (10, 1, b"file", 2, 2),
    (10, 1, b"file 2", 3, 2),
    (11, 2, b"user.x", b"v" * 300),
    (12, 2, 2, 1 << 14, 0, 10, 3),
    (13, 2, 0, 0, 2, 1, 1, SEGMENT, 0, 0, 0, 10, 10, b""),
    (13, 2, 0, 1, 2, 1, 2, b"", 0, 0, 0, 10, 10, LENGTHS),
    (14, 9, 0, 0, 1, 1, SEGMENT, 1, 80, 0, 10, 10, b""),
    (14, 9, 1, 1, 2, 1, SEGMENT, 2, 80, 0, 10, 10, LENGTHS),
    (15, 7, 6, 5, 4),
]
SAMPLES = {row[0]: row for row in STATE}


def packed(rows: list[Row]) -> bytes:
    return b"".join(map(msgpack.packb, rows))


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[StateLoader]:
    loader = StateLoader(tmp_path / "replica", KEY)
    yield loader
    loader.discard()
    assert not list(tmp_path.iterdir())


def load_all(loader: StateLoader, rows: list[Row]) -> None:
    for row in rows:
        loader.add(packed([row]), pack(list(row_key(row))))


def test_every_table_has_a_sample() -> None:
    assert set(SAMPLES) == set(TABLE_FIELDS)
    assert decode_rows(packed(STATE)) == STATE


@pytest.mark.parametrize("size", [1, 3, len(STATE)])
def test_what_was_loaded_is_read_again(loader: StateLoader, tmp_path: Path, size: int) -> None:
    for start in range(0, len(STATE), size):
        loader.add(packed(STATE[start : start + size]))
    assert loader.finish() == (4097, HASH)
    with closing(Snapshot.open(tmp_path / "replica", KEY)) as snapshot:
        assert [row for rows in snapshot.batches() for row in rows] == STATE


def test_a_loaded_database_is_made_like_one_that_was_folded(tmp_path: Path) -> None:
    log = Log(2)
    (tmp_path / "folded").mkdir()
    folded = open_replica(tmp_path / "folded")
    catch_up(folded, log)
    other = loaded(folded, tmp_path / "loaded")
    assert replica_rows(other) == replica_rows(folded)
    folded.close()
    other.close()
    made = []
    for name in ("folded", "loaded"):
        with closing(schema.connect(tmp_path / name / "replica", KEY)) as connection:
            made.append(
                [
                    connection.execute(sql).fetchall()
                    for sql in (
                        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2, 3",
                        "PRAGMA integrity_check",
                        "PRAGMA user_version",
                        "PRAGMA journal_mode",
                    )
                ]
            )
    assert made[0] == made[1]
    assert made[0][1] == [("ok",)]


LONGER: dict[str, Callable[[bytes], bytes]] = {
    "a number in a longer form": lambda data: data[:1] + b"\xcc" + data[1:],
    "a longer array": lambda data: b"\xdc\x00" + bytes((data[0] & 15,)) + data[1:],
    "cut short": lambda data: data[:-1],
    "a byte behind it": lambda data: data + b"\x01",
    "no row": lambda data: b"",
}


def wrong(row: Row, place: int) -> list[Row]:
    """Rows with one field that no such row has."""
    if isinstance(row[place], bytes):
        fields: list[Any] = [5, None, "text", [row[place]]]
    else:
        fields = [b"x", 1 << 63, None, 1.0, True]
    return [(*row[:place], field, *row[place + 1 :]) for field in fields]


@pytest.mark.parametrize("number", TABLE_FIELDS)
def test_a_damaged_row_of_each_table_is_refused(tmp_path: Path, number: int) -> None:
    row = SAMPLES[number]
    damaged = [packed([one]) for place in range(1, len(row)) for one in wrong(row, place)]
    damaged += [packed([row[:-1]]), packed([(*row, 1)]), packed([(*row, b"")])]
    damaged += [packed([row, row])]
    if row[1] != SAMPLES[5][1]:
        damaged += [change(packed([row])) for change in LONGER.values() if len(row) <= 15]
    for data in damaged:
        with pytest.raises(FormatError):
            decode_rows(data)
        loader = StateLoader(tmp_path / "replica", KEY)
        with pytest.raises(FormatError):
            loader.add(data)
        loader.discard()


@pytest.mark.parametrize("seed", range(8))
def test_altered_bytes_are_judged_as_the_format_says(tmp_path: Path, seed: int) -> None:
    """The quick parser and the plain one agree on what rows are."""
    rng = random.Random(seed)
    loader, fed = StateLoader(tmp_path / "replica", KEY), 0
    for _ in range(40):
        # No segment can be missing here: only the form is asked.
        rows = [row for row in STATE if row[0] not in (2, 13, 14)]
        data = bytearray(packed(rng.sample(rows, 1) if rng.random() < 0.7 else rows))
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(data))
            data[at] = rng.choice((rng.randrange(256), data[at] ^ 1 << rng.randrange(8)))
        try:
            decode_rows(bytes(data))
        except FormatError:
            with pytest.raises(FormatError):
                loader.add(bytes(data))
        else:
            loader.add(bytes(data))
            fed += 1
        loader.discard()
        loader = StateLoader(tmp_path / "replica", KEY)
    loader.discard()
    assert fed, "nothing that is right was looked at"


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"x" * 256])
def test_a_name_that_no_file_can_have_is_refused(loader: StateLoader, name: bytes) -> None:
    with pytest.raises(FormatError, match="name"):
        loader.add(packed([(10, 1, name, 2, 2)]))


@pytest.mark.parametrize("number", [-(1 << 63), -(1 << 31) - 1, -(1 << 31), -32769, -32768, -129,
                                    -128, -33, -32, -1, 0, 127, 128, 255, 256, 65535, 65536,
                                    (1 << 32) - 1, 1 << 32, BIG])  # fmt: skip
def test_numbers_of_every_length(loader: StateLoader, tmp_path: Path, number: int) -> None:
    rows = [STATE[0], (9, 1, number, 0)]
    load_all(loader, rows)
    loader.finish()
    with closing(schema.connect(tmp_path / "replica", KEY)) as connection:
        assert connection.execute("SELECT touched_ns FROM directory").fetchall() == [(number,)]


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65_535, 65_536, 1 << 20])
def test_bytes_of_every_length(loader: StateLoader, tmp_path: Path, length: int) -> None:
    load_all(loader, [STATE[0], (11, 1, b"user.x", b"v" * length)])
    loader.finish()
    with closing(schema.connect(tmp_path / "replica", KEY)) as connection:
        assert connection.execute("SELECT value FROM xattr").fetchall() == [(b"v" * length,)]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([(13, 2, 0, 0, 2, 1, 1, b"t" * 32, 0, 0, 0, 10, 10, b"")], "names a segment"),
        ([(13, 2, 0, 0, 2, 1, 1, b"t", 0, 0, 0, 10, 10, b"")], "names a segment"),
        ([(14, 9, 0, 0, 1, 1, SEGMENT, 1, 80, 0, 10, 10, b"abc")], "not whole numbers"),
        ([(16, 1, 1)], "a table that no state has"),
        ([(102, b"name", b"value")], "a table that no state has"),
        ([(114, 9, 0, b"changes")], "a table that no state has"),
        ([(2, b"\xff", b"value")], "not UTF-8"),
        ([(12, 2, 2, 1, 0, 1, 1), (11, 2, b"user.x", b"")], "not in order"),
        ([(10, 1, b"b", 2, 2), (10, 1, b"a", 3, 2)], "not in order"),
        ([(10, 1, b"ab", 2, 2), (10, 1, b"a", 3, 2)], "not in order"),
        ([(8, *SAMPLES[8][1:]), (8, 1, *SAMPLES[8][2:])], "not in order"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_rows_that_do_not_fit_each_other(
    loader: StateLoader, rows: list[Row], why: str, apart: bool
) -> None:
    with pytest.raises(FormatError, match=why):
        for part in [[row] for row in rows] if apart else [rows]:
            loader.add(packed(part))


def test_a_chunk_begins_with_the_key_that_its_manifest_says(loader: StateLoader) -> None:
    loader.add(packed(STATE[:2]), pack([1]))
    with pytest.raises(FormatError, match="another key"):
        loader.add(packed(STATE[2:4]), pack(list(row_key(STATE[3]))))


def test_without_its_place_it_is_no_state(loader: StateLoader) -> None:
    load_all(loader, STATE[1:])
    with pytest.raises(FormatError, match="where it stands"):
        loader.finish()


@pytest.mark.parametrize("rows", [1, len(STATE) // 2, len(STATE)])
def test_half_of_a_load_is_never_taken_for_a_replica(tmp_path: Path, rows: int) -> None:
    """A crash in its midst, also if what was there then were put in the replica's place."""
    loader = StateLoader(tmp_path / "loading", KEY)
    load_all(loader, STATE[:rows])
    shutil.copy(tmp_path / "loading", tmp_path / "replica")
    loader._load.run("COMMIT")
    shutil.copy(tmp_path / "loading", tmp_path / "later")
    loader.discard()
    for name in ("replica", "later"):
        connection, reason = schema.open_database(tmp_path / name, KEY)
        with closing(connection):
            assert reason
            assert connection.execute("SELECT count(*) FROM inode").fetchall() == [(0,)]


def test_keys_are_what_rows_are_sorted_by() -> None:
    assert all(keys >= 1 for keys in TABLE_KEYS.values())
    assert [row_key(row) for row in STATE] == sorted(row_key(row) for row in STATE)
