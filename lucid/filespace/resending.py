"""What the store has lost and this device's cache still has, sent again. Part of a repair.

A store may say that it keeps a segment and lose it. The device that wrote or read it lately has the
very same bytes; a signed entry tells which they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from lucid.crypto.footer import check_footer, open_footer
from lucid.engine.sodium import digest16
from lucid.errors import DataError, ObjectExists, StoreUnavailable, UnknownKey
from lucid.filespace.filespace import Filespace
from lucid.format.change import SegmentRow
from lucid.format.names import DATA_PREFIX, parse_segment_key, segment_key

if TYPE_CHECKING:
    from lucid.filespace.opening import Opened

__all__ = ["resend"]

log = logging.getLogger(__name__)


def resend(fs: Filespace, report: Callable[[str, int, int | None], None]) -> int:
    """Put every cached segment that the log names and the store lacks; returns how many.

    Raises what the store raises; what was put until then stays.
    """
    opened = fs.tree._opened
    parts = opened.parts
    there = set()
    for count, info in enumerate(parts.store.list(DATA_PREFIX), 1):
        report("segments", count, None)
        there.add(parse_segment_key(info.key))
    if not fs.refresh():
        raise StoreUnavailable("The log could not be read to its end. Try again later.")
    sent = 0
    for segment in parts.cache.segments():
        row = None if segment in there else parts.replica.segment(segment)
        data = None if row is None else parts.cache.whole(segment, row.stored_len)
        if row is None or data is None or not _is_sound(opened, row, data):
            continue
        try:
            parts.store.put_if_absent(segment_key(segment), data)
            sent += 1
        except ObjectExists:
            log.warning("Somebody has put segment %s meanwhile.", segment.hex()[:16])
    return sent


def _is_sound(opened: Opened, row: SegmentRow, data: bytes) -> bool:
    """Whether these are the bytes that the log names, to the last one."""
    try:
        tail = data[len(data) - row.footer_len :]
        check_footer(row, tail)
        at = 0
        for block in open_footer(opened.ring, row.id, tail):
            end = at + block.plain_len + opened.parts.geometry.tag
            if digest16(data[at:end]) != block.digest:
                return False
            at = end
    except (DataError, UnknownKey):
        return False
    return at + row.footer_len == len(data)
