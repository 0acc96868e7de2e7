"""The superblock: what a filespace is, signed by its founder (FORMAT section 4).

Bytes and limits only; the signature is made and checked in `lucid.crypto`. Pure; any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format.canonical import pack, unpack
from lucid.format.check import (
    check_bytes,
    check_fields,
    check_id,
    check_int,
    check_version,
    shown,
)
from lucid.format.hashes import HASH_SIZE
from lucid.format.limits import (
    BLOCK_SIZE_MAX,
    BLOCK_SIZE_MIN,
    FORMAT_VERSION,
    KEY_SIZE,
    NAME_MAX,
    SEGMENT_PLAIN_MAX,
    TIME_MAX,
    TIME_MIN,
)

__all__ = [
    "SUITES",
    "SUITE_AEGIS256",
    "SUITE_XCHACHA20",
    "SignedSuperblock",
    "Superblock",
    "decode_superblock",
    "encode_superblock",
    "superblock_signed_bytes",
]

MAGIC = b"LUCIDSB1"
_SIGNATURE_SIZE = 64
_SIGNED_LABEL = b"lucid superblock v1\0"
_OBJECT_MAX = 1 << 16
_KNOWN_FEATURES: frozenset[bytes] = frozenset()

# Suites. Stored for ever: do not renumber.
SUITE_AEGIS256 = 1
SUITE_XCHACHA20 = 2
SUITES = {SUITE_AEGIS256: "aegis-256", SUITE_XCHACHA20: "xchacha20-poly1305"}
"""Suite -> the name that `--cipher` takes."""


class Superblock(NamedTuple):
    """What is fixed for the life of a filespace."""

    filespace: bytes
    suite: int
    block_size: int
    segment_bytes_max: int
    features: tuple[bytes, ...]
    created_ns: int
    founder: bytes
    founder_sign_key: bytes
    founder_box_key: bytes
    generation: bytes
    generation_key_hash: bytes


class SignedSuperblock(NamedTuple):
    """A superblock, the founder's signature and the bytes that it is over."""

    superblock: Superblock
    signature: bytes
    signed: bytes


def superblock_signed_bytes(superblock: Superblock) -> bytes:
    """What the founder signs. Raises FormatError, UnsupportedFormat."""
    return _SIGNED_LABEL + MAGIC + _encode_body(superblock)


def encode_superblock(superblock: Superblock, signature: bytes) -> bytes:
    """The whole object. Raises FormatError, UnsupportedFormat."""
    check_bytes(signature, _SIGNATURE_SIZE, "The signature of the superblock")
    return MAGIC + _encode_body(superblock) + signature


def decode_superblock(data: bytes) -> SignedSuperblock:
    """The parts of the object. The signature is not checked here.

    Raises FormatError; UnsupportedFormat for a format, suite or feature that is not known.
    """
    if not data.startswith(MAGIC):
        if data[:7] == MAGIC[:7]:
            raise UnsupportedFormat(
                f"The superblock is of kind {shown(data[:8])}; this version of lucid knows "
                f"{MAGIC.decode()}."
                " Install a newer one."
            )
        raise FormatError("The superblock does not begin as one.")
    if not len(MAGIC) + _SIGNATURE_SIZE < len(data) <= _OBJECT_MAX:
        raise FormatError("The superblock is cut short or too long.")
    body, signature = data[len(MAGIC) : -_SIGNATURE_SIZE], data[-_SIGNATURE_SIZE:]
    return SignedSuperblock(_decode_body(body), signature, _SIGNED_LABEL + MAGIC + body)


def _encode_body(superblock: Superblock) -> bytes:
    _check(superblock)
    return pack([FORMAT_VERSION, *superblock])


def _decode_body(body: bytes) -> Superblock:
    value = unpack(body)
    if type(value) is not list or not value:
        raise FormatError("The superblock is not an array.")
    # A later format may have other fields: name the format before the fields are counted.
    check_version(value[0], "The superblock")
    fields = check_fields(value, 12, "The superblock")[1:]
    if type(fields[4]) is not list:
        raise FormatError("The features of the superblock are not an array.")
    fields[4] = tuple(fields[4])
    superblock = Superblock._make(fields)
    _check(superblock)
    return superblock


def _check(superblock: Superblock) -> None:
    check_id(superblock.filespace, "The filespace id")
    check_int(superblock.suite, 0, 0xFFFF, "The suite")
    if superblock.suite not in SUITES:
        raise UnsupportedFormat(
            f"The filespace is sealed with suite {superblock.suite}, which this version of lucid"
            " does not know. Install a newer one."
        )
    size = check_int(superblock.block_size, BLOCK_SIZE_MIN, BLOCK_SIZE_MAX, "The block size")
    if size & (size - 1):
        raise FormatError(f"The block size is not a power of two: {size}.")
    most = superblock.segment_bytes_max
    check_int(most, SEGMENT_PLAIN_MAX, SEGMENT_PLAIN_MAX, "The size of a segment")
    _check_features(superblock.features)
    check_int(superblock.created_ns, TIME_MIN, TIME_MAX, "The time of the superblock")
    check_id(superblock.founder, "The founder's id")
    check_bytes(superblock.founder_sign_key, KEY_SIZE, "The founder's signing key")
    check_bytes(superblock.founder_box_key, KEY_SIZE, "The founder's box key")
    check_id(superblock.generation, "The first generation")
    check_bytes(superblock.generation_key_hash, HASH_SIZE, "The hash of the first key")


def _check_features(features: tuple[bytes, ...]) -> None:
    if any(type(name) is not bytes or not 0 < len(name) <= NAME_MAX for name in features):
        raise FormatError("A feature of the superblock is not a name.")
    if list(features) != sorted(set(features)):
        raise FormatError("The features of the superblock do not ascend.")
    unknown = sorted(set(features) - _KNOWN_FEATURES)
    if unknown:
        names = ", ".join(name.decode("utf-8", "replace") for name in unknown)
        raise UnsupportedFormat(
            f"The filespace needs what this version of lucid does not have: {names}."
            " Install a newer one."
        )
