"""A member's own keys: to sign entries, and to open boxes that others made for the member.

Ed25519 and X25519 by libsodium. Any thread may use keys until their owner closes them.
"""

from __future__ import annotations

from hashlib import blake2b
from types import TracebackType

from nacl import bindings
from nacl.exceptions import CryptoError

from lucid.errors import CorruptObject, KeyringError
from lucid.format.limits import ID_SIZE, KEY_SIZE
from lucid.types import Entropy

__all__ = ["MemberKeys", "box_for", "verify"]

_SIGNATURE_SIZE = 64


class MemberKeys:
    """The secret keys of one member, and their public halves.

    Owned by whoever unlocked them; `close` wipes the secrets as far as Python lets us (copies that
    libsodium's binding made are beyond reach).
    """

    def __init__(self, member: bytes, sign_seed: bytes, box_secret: bytes) -> None:
        if (len(member), len(sign_seed), len(box_secret)) != (ID_SIZE, KEY_SIZE, KEY_SIZE):
            raise KeyringError("The keys of a member have another length.")
        self.member = member
        self._sign_seed = bytearray(sign_seed)
        self._box_secret = bytearray(box_secret)
        public, secret = bindings.crypto_sign_seed_keypair(sign_seed)
        self.sign_key: bytes = public
        self.box_key: bytes = bindings.crypto_scalarmult_base(box_secret)
        self._sign_secret = bytearray(secret)
        self._closed = False

    @classmethod
    def create(cls, entropy: Entropy) -> MemberKeys:
        """A new member: id, signing seed and box secret, in this order."""
        return cls(entropy(ID_SIZE), entropy(KEY_SIZE), entropy(KEY_SIZE))

    def sign(self, data: bytes) -> bytes:
        """Ed25519, 64 bytes."""
        self._check_open()
        signed: bytes = bindings.crypto_sign(data, bytes(self._sign_secret))
        return signed[:_SIGNATURE_SIZE]

    def unbox(self, box: bytes) -> bytes:
        """What `box_for` put into a box for this member. Raises CorruptObject."""
        self._check_open()
        try:
            opened: bytes = bindings.crypto_box_seal_open(
                box, self.box_key, bytes(self._box_secret)
            )
        except (CryptoError, ValueError, TypeError) as error:
            raise CorruptObject("A box for this member does not open with its key.") from error
        return opened

    def secrets(self) -> tuple[bytes, bytes]:
        """(signing seed, box secret), for a key slot only."""
        self._check_open()
        return bytes(self._sign_seed), bytes(self._box_secret)

    def close(self) -> None:
        """Wipes the secrets. May be called again."""
        self._closed = True
        for secret in (self._sign_seed, self._box_secret, self._sign_secret):
            secret[:] = bytes(len(secret))

    def __enter__(self) -> MemberKeys:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MemberKeys({self.member.hex()})"

    def _check_open(self) -> None:
        if self._closed:
            raise KeyringError("The member's keys are closed.")


def verify(sign_key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the holder of `sign_key` signed `data`."""
    if len(sign_key) != KEY_SIZE or len(signature) != _SIGNATURE_SIZE:
        return False
    try:
        bindings.crypto_sign_open(signature + data, sign_key)
    except CryptoError:
        return False
    return True


def box_for(box_key: bytes, data: bytes, entropy: Entropy) -> bytes:
    """A libsodium sealed box: only the holder of `box_key`'s secret opens it.

    The same bytes as crypto_box_seal, but with an ephemeral secret from `entropy`.
    """
    secret = entropy(KEY_SIZE)
    public: bytes = bindings.crypto_scalarmult_base(secret)
    nonce = blake2b(public + box_key, digest_size=24).digest()
    try:
        box: bytes = bindings.crypto_box(data, nonce, box_key, secret)
    except CryptoError as error:
        raise CorruptObject("A box key is not a key.") from error
    return public + box
