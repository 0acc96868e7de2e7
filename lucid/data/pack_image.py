"""A whole segment that is made in memory, from blocks that are there: for who has no staging area.

Used by one thread. What is staged for upload by a mounted drive is `segments`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lucid.crypto.footer import seal_footer
from lucid.data.segments import KeySource
from lucid.engine.bulk import BATCH_BLOCKS_MAX, seal_blocks
from lucid.format.change import SegmentRow
from lucid.format.limits import SEGMENT_BLOCKS_MAX, SEGMENT_PLAIN_MAX, SEGMENT_STORED_MAX
from lucid.format.segment import FooterRow, footer_bound
from lucid.types import Entropy

__all__ = ["PackImage", "PlainBlock"]


class PlainBlock(NamedTuple):
    """What is sealed, and which block of which inode it is."""

    ino: int
    block: int
    plain: bytes


class PackImage:
    """Blocks are added, then it is finished once."""

    def __init__(
        self, keys: KeySource, filespace: bytes, generation: bytes, entropy: Entropy
    ) -> None:
        self.segment = entropy(32)
        self._filespace = filespace
        self._generation = generation
        self._context = keys.context(generation)
        self._key = keys.key(self.segment, generation)
        self._rows: list[FooterRow] = []
        self._plain = 0
        self._data = bytearray()

    def __len__(self) -> int:
        """How many blocks it has."""
        return len(self._rows)

    def has_room(self, blocks: Sequence[PlainBlock]) -> bool:
        """Whether these fit, with their rows in the footer."""
        many = len(self._rows) + len(blocks)
        plain = sum(len(block.plain) for block in blocks)
        tag = self._context.tag_bytes
        stored = len(self._data) + plain + len(blocks) * tag + footer_bound(many, tag)
        return (
            many <= SEGMENT_BLOCKS_MAX
            and self._plain + plain <= SEGMENT_PLAIN_MAX
            and stored <= SEGMENT_STORED_MAX
        )

    def add(self, blocks: Sequence[PlainBlock]) -> tuple[int, int]:
        """Seal these one after another; (ordinal, offset) of the first. REQUIRES: they fit."""
        place = len(self._rows), len(self._data)
        for start in range(0, len(blocks), BATCH_BLOCKS_MAX):
            some = blocks[start : start + BATCH_BLOCKS_MAX]
            plains = [block.plain for block in some]
            out = bytearray(sum(map(len, plains)) + len(some) * self._context.tag_bytes)
            _, digests = seal_blocks(
                self._context, self.segment, self._key, len(self._rows), 0, plains, out
            )
            self._data += out
            self._plain += sum(map(len, plains))
            for block, digest in zip(some, digests, strict=True):
                row = FooterRow(block.ino, block.block, len(block.plain), 0, digest)
                self._rows.append(row)
        return place

    def finish(self, head: int) -> tuple[SegmentRow, bytes]:
        """Its row, sealed at this head of its author, and all its bytes."""
        tail, footer_hash = seal_footer(
            self._key, self._context.suite, self._filespace, self._generation, self.segment,
            self._rows,
        )  # fmt: skip
        self._data += tail
        row = SegmentRow(
            self.segment, len(self._data), len(tail), footer_hash, self._generation, head
        )
        return row, bytes(self._data)
