"""Every number that the format fixes (FORMAT sections 1, 3, 5, 7, 8, 9, 11). Constants only."""

from __future__ import annotations

__all__ = [
    "ARRAY_ITEMS_MAX",
    "AUTHOR_ENTRY_MAX",
    "AUTHOR_OPS_MAX",
    "BLOCKS_MAX",
    "BLOCK_SIZE_DEFAULT",
    "BLOCK_SIZE_MAX",
    "BLOCK_SIZE_MIN",
    "ENTRY_MAX",
    "FORMAT_VERSION",
    "FRAME_MAX",
    "ID_SIZE",
    "INT63_MAX",
    "JOURNAL_ITEMS_MAX",
    "KEY_SIZE",
    "LABEL_MAX",
    "NAME_MAX",
    "SEGMENT_BLOCKS_MAX",
    "SEGMENT_ID_SIZE",
    "SEGMENT_PLAIN_MAX",
    "SEGMENT_STORED_MAX",
    "SESSION_MAX",
    "SIZE_MAX",
    "TARGET_MAX",
    "TIME_MAX",
    "TIME_MIN",
    "UINT32_MAX",
    "XATTRS_TOTAL_MAX",
    "XATTR_VALUE_MAX",
]

FORMAT_VERSION = 1

ID_SIZE = 16
"""Id of a filespace, member or generation."""
SEGMENT_ID_SIZE = 32
KEY_SIZE = 32
"""Generation keys, local keys, and each public key."""

UINT32_MAX = (1 << 32) - 1
INT63_MAX = (1 << 63) - 1
TIME_MIN = -(1 << 63)
TIME_MAX = (1 << 63) - 1
SESSION_MAX = (1 << 31) - 1

ARRAY_ITEMS_MAX = 1 << 16
"""Elements of one array in a shared object: bounds what a parser allocates before it looks."""
JOURNAL_ITEMS_MAX = 1 << 20
"""The same in a journal record, which is our own: an image holds every unpublished change."""

BLOCK_SIZE_MIN = 64 << 10
BLOCK_SIZE_DEFAULT = 128 << 10
BLOCK_SIZE_MAX = 1 << 20
SEGMENT_PLAIN_MAX = 8 << 20
SEGMENT_STORED_MAX = SEGMENT_PLAIN_MAX + (64 << 10)
SEGMENT_BLOCKS_MAX = 1 << 16

SIZE_MAX = 1 << 60
BLOCKS_MAX = SIZE_MAX // BLOCK_SIZE_MIN
"""Blocks of the largest file at the smallest block size."""

NAME_MAX = 255
"""Bytes of a file name or an xattr name."""
TARGET_MAX = 4095
XATTR_VALUE_MAX = 65_536
XATTRS_TOTAL_MAX = 1 << 20
"""Names and values of one file's xattrs in one op: it has to fit into an entry."""
LABEL_MAX = 64
"""Bytes of a member's or device's label: two of them must fit into a conflict name."""

ENTRY_MAX = 16 << 20
"""A larger log entry is void."""
AUTHOR_ENTRY_MAX = 4 << 20
AUTHOR_OPS_MAX = 10_000
FRAME_MAX = 16 << 20
"""Sealed bytes of one journal frame."""
