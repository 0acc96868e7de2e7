"""Names of objects in the store and of files in the state directory (FORMAT sections 2 and 10).

Every key is made and parsed here. A parser answers None for a name that is not of its kind:
foreign objects under a prefix are no error. Pure; any thread.
"""

from __future__ import annotations

import re

from lucid.errors import FormatError
from lucid.format.limits import ID_SIZE, SEGMENT_ID_SIZE

__all__ = [
    "CHECKPOINT_PREFIX",
    "DATA_PREFIX",
    "FLOOR_PREFIX",
    "GENERATION_PREFIX",
    "LOG_PREFIX",
    "MANIFEST_PART",
    "MEMBER_PREFIX",
    "PROBE_PREFIX",
    "SUPERBLOCK_KEY",
    "cache_name",
    "checkpoint_key",
    "floor_key",
    "generation_key",
    "journal_name",
    "log_key",
    "member_key",
    "member_prefix",
    "parse_checkpoint_key",
    "parse_floor_key",
    "parse_generation_key",
    "parse_journal_name",
    "parse_log_key",
    "parse_member_key",
    "parse_segment_key",
    "parse_staging_name",
    "probe_key",
    "segment_key",
    "staging_name",
]

SUPERBLOCK_KEY = "superblock"
MEMBER_PREFIX = "members/"
GENERATION_PREFIX = "keys/"
LOG_PREFIX = "log/"
DATA_PREFIX = "data/"
CHECKPOINT_PREFIX = "checkpoint/"
FLOOR_PREFIX = "floor/"
PROBE_PREFIX = "probe/"
MANIFEST_PART = "manifest"
"""Under this name a checkpoint has its list of chunks."""

_NUMBER_MAX = (1 << 63) - 1
_NUMBER = re.compile(r"[0-9a-f]{16}\Z")
_LOG = re.compile(r"log/([0-9a-f]{16})\Z")
_CHECKPOINT = re.compile(r"checkpoint/([0-9a-f]{16})/([0-9a-z][0-9a-z-]{0,63})\Z")
_FLOOR = re.compile(r"floor/([0-9a-f]{16})\Z")
_MEMBER = re.compile(r"members/([0-9a-f]{32})/([0-9a-f]{16})\Z")
_GENERATION = re.compile(r"keys/([0-9a-f]{32})/([0-9a-f]{32})\Z")
_SEGMENT = re.compile(r"data/([0-9a-f]{2})/(\1[0-9a-f]{62})\Z")
_STAGING = re.compile(r"[0-9a-f]{64}\Z")
_PART = re.compile(r"[0-9a-z][0-9a-z-]{0,63}\Z")


def member_prefix(member: bytes) -> str:
    """Where all records of one member lie."""
    return f"{MEMBER_PREFIX}{_hex(member, ID_SIZE)}/"


def member_key(member: bytes, number: int) -> str:
    """The member's record `number`, from 1; the highest counts."""
    return f"{member_prefix(member)}{_number(number)}"


def parse_member_key(key: str) -> tuple[bytes, int] | None:
    """(member, number) of a member record's key."""
    match = _MEMBER.match(key)
    number = _parsed(match[2]) if match else None
    return None if match is None or number is None else (bytes.fromhex(match[1]), number)


def generation_key(generation: bytes, member: bytes) -> str:
    """The box with this generation's key for this member."""
    return f"{GENERATION_PREFIX}{_hex(generation, ID_SIZE)}/{_hex(member, ID_SIZE)}"


def parse_generation_key(key: str) -> tuple[bytes, bytes] | None:
    """(generation, member) of a box's key."""
    match = _GENERATION.match(key)
    return None if match is None else (bytes.fromhex(match[1]), bytes.fromhex(match[2]))


def log_key(sequence: int) -> str:
    """Entry `sequence`, from 1."""
    return f"{LOG_PREFIX}{_number(sequence)}"


def parse_log_key(key: str) -> int | None:
    """The sequence of an entry's key."""
    match = _LOG.match(key)
    return _parsed(match[1]) if match else None


def segment_key(segment: bytes) -> str:
    """The segment with this id."""
    digits = _hex(segment, SEGMENT_ID_SIZE)
    return f"{DATA_PREFIX}{digits[:2]}/{digits}"


def parse_segment_key(key: str) -> bytes | None:
    """The id in a segment's key."""
    match = _SEGMENT.match(key)
    return bytes.fromhex(match[2]) if match else None


def checkpoint_key(sequence: int, part: str) -> str:
    """One object of the checkpoint at `sequence`."""
    if not _PART.match(part):
        raise FormatError(f"No part of a checkpoint can have the name {part}.")
    return f"{CHECKPOINT_PREFIX}{_number(sequence)}/{part}"


def parse_checkpoint_key(key: str) -> tuple[int, str] | None:
    """(sequence, part) of an object of a checkpoint."""
    match = _CHECKPOINT.match(key)
    sequence = _parsed(match[1]) if match else None
    return None if match is None or sequence is None else (sequence, match[2])


def floor_key(sequence: int) -> str:
    """The floor at `sequence`."""
    return f"{FLOOR_PREFIX}{_number(sequence)}"


def parse_floor_key(key: str) -> int | None:
    """The sequence of a floor's key."""
    match = _FLOOR.match(key)
    return _parsed(match[1]) if match else None


def probe_key(run: bytes, part: str) -> str:
    """A short-lived object of one run of the store probe; `run` is 16 random bytes."""
    if not _PART.match(part):
        raise FormatError(f"No object of the probe can have the name {part}.")
    return f"{PROBE_PREFIX}{_hex(run, ID_SIZE)}/{part}"


def journal_name(number: int) -> str:
    """A journal file below `journal/`, from 1."""
    return _number(number)


def parse_journal_name(name: str) -> int | None:
    """The number of a journal file."""
    return _parsed(name) if _NUMBER.match(name) else None


def staging_name(segment: bytes) -> str:
    """A segment's file below `staging/`."""
    return _hex(segment, SEGMENT_ID_SIZE)


def parse_staging_name(name: str) -> bytes | None:
    """The segment of a staging file."""
    return bytes.fromhex(name) if _STAGING.match(name) else None


def cache_name(segment: bytes) -> str:
    """A segment's file below `cache/`."""
    digits = _hex(segment, SEGMENT_ID_SIZE)
    return f"{digits[:2]}/{digits}"


def _hex(value: bytes, size: int) -> str:
    if len(value) != size:
        raise FormatError(f"An id in a name has {size} bytes, not {len(value)}.")
    return value.hex()


def _number(value: int) -> str:
    if not 1 <= value <= _NUMBER_MAX:
        raise FormatError(f"No object has the number {value}.")
    return f"{value:016x}"


def _parsed(digits: str) -> int | None:
    value = int(digits, 16)
    return value if 1 <= value <= _NUMBER_MAX else None
