"""Who needs which record, while the journal moves them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from lucid.format.journal import Patch, Record
from lucid.local.book import JournalBook
from lucid.local.disk import RealDisk
from lucid.local.frames import Position
from tests.local.journals import open_journal

WAIT_S = 10.0
COUNT, SIZE = 60, 4000


def test_a_patch_that_is_cut_while_it_moves_stays_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note of the cut is not taken back by a move that began before it."""
    journal = open_journal(RealDisk(), tmp_path)
    book = JournalBook(journal)
    kept = book.append(Patch(1, 0, 0, b"k" * SIZE))
    for number in range(COUNT):
        book.release([book.append(Patch(2 + number, 0, 0, bytes(SIZE)))])
    cutter = threading.Thread(target=lambda: book.shorten(kept, 10))
    real = journal.compact

    def compact(upto: int, live: Iterable[Position | Record]) -> list[Position]:
        cutter.start()
        return real(upto, live)

    monkeypatch.setattr(journal, "compact", compact)
    assert book.empty_if_worth()
    cutter.join(WAIT_S)
    assert kept.length == 10
    monkeypatch.setattr(journal, "compact", real)
    for number in range(COUNT):
        book.release([book.append(Patch(100 + number, 0, 0, bytes(SIZE)))])
    assert book.empty_if_worth()
    moved = book.read(kept)
    assert isinstance(moved, Patch)
    assert moved.data == b"k" * 10
    journal.close()
