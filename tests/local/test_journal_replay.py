"""Replay of what a crash or a bad disk left: torn tails, damage, and which is which."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lucid.errors import (
    CorruptObject,
    InternalError,
    LocalError,
    StateDamaged,
    UnsupportedFormat,
)
from lucid.format.journal import Mark, decode_file_header
from lucid.local.disk import RealDisk
from lucid.local.files import file_path
from lucid.local.frames import Position
from lucid.local.journal import Journal
from lucid.local.replay import Replay
from tests.local.forgetful import ForgetfulDisk
from tests.local.journals import open_journal, patch, read_back
from tests.local.keys import XCHACHA, journal_keys


def write_some(disk: RealDisk, root: Path, count: int = 6, synced: int = 3) -> list[Position]:
    """Records 0 to count-1 in file 1; all but the first `synced` were never known durable."""
    journal = open_journal(disk, root)
    positions = [journal.append(patch(n)) for n in range(synced)]
    journal.sync()
    positions += [journal.append(patch(n)) for n in range(synced, count)]
    journal._files.close()
    journal._file.close(trim=False)
    return positions


def overwrite(root: Path, number: int, offset: int, data: bytes) -> None:
    with file_path(root, number).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def cut(root: Path, number: int, size: int) -> None:
    with file_path(root, number).open("r+b") as file:
        file.truncate(size)


def test_no_journal_is_an_empty_one(disk: RealDisk, root: Path) -> None:
    found, report = read_back(disk, root)
    assert found == [] and report.end is None and report.files == {} and report.void == ()


def test_the_report_waits_for_the_end(disk: RealDisk, root: Path) -> None:
    write_some(disk, root)
    replay = Replay(disk, root, journal_keys())
    with pytest.raises(InternalError):
        _ = replay.report
    next(iter(replay))
    with pytest.raises(InternalError):
        _ = replay.report
    assert replay.finish().records == 6
    assert list(replay) == []


@pytest.mark.parametrize("zeros_follow", [False, True])
def test_a_tail_torn_at_any_byte_is_cut(disk: RealDisk, root: Path, zeros_follow: bool) -> None:
    positions = write_some(disk, root)
    last = positions[-1]
    whole = file_path(root, 1).read_bytes()
    for kept in range(last.length):
        end = last.offset + kept
        rest = bytes(64) if zeros_follow else b""
        file_path(root, 1).write_bytes(whole[:end] + rest)
        found, report = read_back(disk, root)
        assert found == [0, 1, 2, 3, 4]
        assert report.damage is None
        assert report.torn_bytes <= kept
        assert report.end == Mark(1, last.offset)
    journal = open_journal(disk, root)
    journal.append(patch(6))
    journal.close()
    assert file_path(root, 1).stat().st_size == last.offset
    found, report = read_back(disk, root)
    assert found == [0, 1, 2, 3, 4, 6] and report.torn_bytes == 0


def test_each_bit_of_a_record_counts(disk: RealDisk, root: Path) -> None:
    positions = write_some(disk, root)
    fifth = positions[4]
    whole = file_path(root, 1).read_bytes()
    for offset in range(fifth.offset, fifth.offset + fifth.length):
        overwrite(root, 1, offset, bytes([whole[offset] ^ 0x10]))
        found, report = read_back(disk, root)
        assert found == [0, 1, 2, 3], "what follows a bad record is not replayed"
        assert report.damage is None, "it was never known durable"
        assert report.torn_bytes >= fifth.length - 4
        overwrite(root, 1, offset, whole[offset : offset + 1])
    assert read_back(disk, root)[0] == [0, 1, 2, 3, 4, 5]


def test_a_bad_record_below_the_mark_is_damage(disk: RealDisk, root: Path) -> None:
    positions = write_some(disk, root, count=6, synced=3)
    second = positions[1]
    whole = file_path(root, 1).read_bytes()
    for offset in range(second.offset, second.offset + second.length):
        overwrite(root, 1, offset, bytes([whole[offset] ^ 0x40]))
        replay = Replay(disk, root, journal_keys())
        assert len(list(replay)) == 1
        damage = replay.report.damage
        assert damage is not None
        assert (damage.file, damage.offset) == (1, second.offset)
        assert damage.later_records == 4
        with pytest.raises(StateDamaged, match="read-only"):
            Journal(disk, root, journal_keys(), bytes, replay)
        overwrite(root, 1, offset, whole[offset : offset + 1])


@pytest.mark.parametrize("size", [512, 4096])
def test_a_lost_sector_below_the_mark_is_damage(disk: RealDisk, root: Path, size: int) -> None:
    journal = open_journal(disk, root)
    positions = [journal.append(patch(n, 100)) for n in range(100)]
    journal.sync()
    journal.append_many([patch(100), patch(101)])
    journal.close()
    overwrite(root, 1, 4096, bytes(size))
    whole = [n for n, p in enumerate(positions) if p.end[1] <= 4096]
    found, report = read_back(disk, root)
    assert found == whole
    assert report.damage is not None
    lost = [p for p in positions if p.end[1] > 4096 and p.offset < 4096 + size]
    assert report.damage.later_records == 102 - len(found) - len(lost)
    assert report.damage.lost_bytes >= size


def test_random_bytes_below_the_mark_are_damage(disk: RealDisk, root: Path) -> None:
    journal = open_journal(disk, root)
    positions = [journal.append(patch(n, 1000)) for n in range(40)]
    journal.sync()
    journal.append(patch(40))
    journal.close()
    noise = bytes((n * 73 + n // 7) % 256 for n in range(9000))
    overwrite(root, 1, positions[5].offset, noise)
    found, report = read_back(disk, root)
    assert found == [0, 1, 2, 3, 4]
    assert report.damage is not None and report.damage.later_records > 20


def test_damage_at_the_very_end_of_an_older_file_is_seen(disk: RealDisk, root: Path) -> None:
    positions = write_some(disk, root)
    open_journal(disk, root).close()
    cut(root, 1, positions[-1].offset)
    found, report = read_back(disk, root)
    assert found == [0, 1, 2, 3, 4]
    assert report.damage is not None and report.damage.offset == positions[-1].offset


def test_records_behind_the_end_of_an_older_file_do_not_count(disk: RealDisk, root: Path) -> None:
    """A tail was cut, and loss of power brought it back: the next file knows where it ended."""
    positions = write_some(disk, root)
    whole = file_path(root, 1).read_bytes()
    overwrite(root, 1, positions[4].offset + 10, b"\0\0\0")
    with open_journal(disk, root) as journal:
        journal.append(patch(7))
    file_path(root, 1).write_bytes(whole)
    found, report = read_back(disk, root)
    assert found == [0, 1, 2, 3, 7]
    assert report.damage is None


def test_a_missing_file_is_damage_and_what_is_before_it_replays(disk: RealDisk, root: Path) -> None:
    for n in range(4):
        with open_journal(disk, root) as journal:
            journal.append_many([patch(n), patch(10 + n)])
    file_path(root, 3).unlink()
    found, report = read_back(disk, root)
    assert found == [0, 10, 1, 11]
    assert report.damage is not None
    assert report.damage.file == 3 and report.damage.later_records == 2


def test_a_file_that_was_being_made_is_not_damage(disk: RealDisk, root: Path) -> None:
    write_some(disk, root)
    for content in (b"", b"LUCIDJN1", bytes(4096), b"\x17" * 100):
        file_path(root, 2).write_bytes(content)
        found, report = read_back(disk, root)
        assert found == [0, 1, 2, 3, 4, 5]
        assert report.damage is None and report.void == (f"{2:016x}",)
    with open_journal(disk, root) as journal:
        assert journal.append(patch(6)).file == 2
    assert read_back(disk, root)[0] == [0, 1, 2, 3, 4, 5, 6]


def test_a_file_in_use_whose_beginning_is_gone_is_damage(disk: RealDisk, root: Path) -> None:
    write_some(disk, root)
    with open_journal(disk, root) as journal:
        journal.append_many([patch(n) for n in range(6, 12)])
    overwrite(root, 2, 50, b"????")
    found, report = read_back(disk, root)
    assert found == [0, 1, 2, 3, 4, 5]
    assert report.damage is not None and report.damage.file == 2


def test_files_before_the_first_live_one_are_void(disk: RealDisk, root: Path) -> None:
    write_some(disk, root)
    old = file_path(root, 1).read_bytes()
    journal = open_journal(disk, root)
    journal.compact(1, [])
    journal.close()
    file_path(root, 1).write_bytes(old)
    found, report = read_back(disk, root)
    assert found == [] and report.void == (f"{1:016x}",)
    open_journal(disk, root).close()
    assert not file_path(root, 1).exists()


def test_a_half_made_replacement_is_removed(disk: RealDisk, root: Path) -> None:
    write_some(disk, root)
    half = root / f"{2:016x}.new"
    half.write_bytes(file_path(root, 1).read_bytes())
    (root / "a note of the user.txt").write_text("kept")
    found, report = read_back(disk, root)
    assert found == [0, 1, 2, 3, 4, 5] and report.void == (half.name,)
    open_journal(disk, root).close()
    assert not half.exists() and (root / "a note of the user.txt").exists()


def test_the_wrong_key_opens_nothing(disk: RealDisk, root: Path) -> None:
    write_some(disk, root)
    replay = Replay(disk, root, journal_keys(seed=b"another"))
    assert list(replay) == []
    assert replay.report.damage is not None


def test_another_suite_is_refused_by_name(disk: RealDisk, root: Path) -> None:
    write_some(disk, root)
    with pytest.raises(UnsupportedFormat, match="suite"):
        Replay(disk, root, journal_keys(XCHACHA)).finish()


def test_xchacha_replays_too(disk: RealDisk, root: Path) -> None:
    keys = journal_keys(XCHACHA)
    replay = Replay(disk, root, keys)
    replay.finish()
    with Journal(disk, root, keys, lambda n: b"\x05" * n, replay, file_bytes=4096) as journal:
        journal.append(patch(1))
    replay = Replay(disk, root, keys)
    assert [record[0] for _, record in replay] == [1]


def test_every_file_has_another_object_id(disk: RealDisk, root: Path) -> None:
    for n in range(5):
        with open_journal(disk, root) as journal:
            journal.append(patch(n))
    ids = {decode_file_header(path.read_bytes()).object_id for path in root.iterdir()}
    assert len(ids) == 5


def test_a_sector_that_cannot_be_read_is_damage_not_a_tail(
    forgetful: ForgetfulDisk, root: Path
) -> None:
    journal = open_journal(forgetful, root)
    journal.append_many([patch(n, 200_000) for n in range(20)])
    journal.close()
    forgetful.fail("pread", errno.EIO, first=5, count=1)
    replay = Replay(forgetful, root, journal_keys())
    found = list(replay)
    assert len(found) < 20
    assert replay.report.damage is not None
    forgetful.heal()
    assert len(read_back(forgetful, root)[0]) == 20


def test_another_error_of_the_disk_is_told(forgetful: ForgetfulDisk, root: Path) -> None:
    write_some(forgetful, root)
    forgetful.fail("open", errno.EACCES)
    with pytest.raises(LocalError, match="owner"):
        Replay(forgetful, root, journal_keys()).finish()


def test_a_position_that_leads_elsewhere_is_refused(disk: RealDisk, root: Path) -> None:
    with open_journal(disk, root) as journal:
        first, second = journal.append_many([patch(1), patch(2)])
        for wrong in (
            first._replace(ordinal=second.ordinal),
            first._replace(offset=first.offset + 1),
            first._replace(length=first.length + 1),
            second._replace(ordinal=1),
        ):
            with pytest.raises(CorruptObject):
                journal.read(wrong)
        with pytest.raises(LocalError):
            journal.read(first._replace(file=9))


def test_a_record_cannot_move_to_another_place_of_the_file(disk: RealDisk, root: Path) -> None:
    positions = write_some(disk, root)
    whole = file_path(root, 1).read_bytes()
    first, second = positions[3], positions[4]
    assert first.length == second.length
    one = whole[first.offset : first.offset + first.length]
    two = whole[second.offset : second.offset + second.length]
    overwrite(root, 1, first.offset, two + one)
    assert read_back(disk, root)[0] == [0, 1, 2]
