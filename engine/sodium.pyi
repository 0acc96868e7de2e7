"""Sealing and opening through the libsodium inside PyNaCl, and BLAKE2b.  Any thread may call."""

from typing import Final, final

from typing_extensions import Buffer, Self

SUITE_AEGIS256: Final[int]
SUITE_XCHACHA20: Final[int]
FORMAT_VERSION: Final[int]
AD_BYTES: Final[int]
KEY_BYTES: Final[int]
OBJECT_ID_BYTES: Final[int]

@final
class AdContext:
    """Everything of the associated data that many blocks share.  Immutable."""

    def __new__(
        cls,
        suite: int,
        label: Buffer,
        filespace_id: Buffer,
        generation_id: Buffer,
        format: int = 1,
    ) -> Self: ...
    @property
    def suite(self) -> int: ...
    @property
    def label(self) -> bytes: ...
    @property
    def filespace_id(self) -> bytes: ...
    @property
    def generation_id(self) -> bytes: ...
    @property
    def format(self) -> int: ...
    @property
    def tag_bytes(self) -> int: ...
    @property
    def nonce_bytes(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def tag_bytes(suite: int) -> int:
    """Bytes that sealing adds: 32 for AEGIS-256, 16 for XChaCha20-Poly1305."""

def build_ad(
    ctx: AdContext, object_id: Buffer, ordinal: int, flags: int, plaintext_length: int
) -> bytes:
    """The 88 bytes of associated data, as the kernels build them (for vectors and tests)."""

def seal(
    ctx: AdContext, object_id: Buffer, key: Buffer, ordinal: int, flags: int, plaintext: Buffer
) -> bytes:
    """Seal one plaintext; the answer is plaintext plus tag, `tag_bytes` longer."""

def open_(
    ctx: AdContext, object_id: Buffer, key: Buffer, ordinal: int, flags: int, sealed: Buffer
) -> bytes:
    """Open what `seal` made under the same fields.  Raises CorruptBlock."""

def digest16(data: Buffer) -> bytes:
    """BLAKE2b with 16 bytes of output."""

def digest32(data: Buffer) -> bytes:
    """BLAKE2b with 32 bytes of output."""
