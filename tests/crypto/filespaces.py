"""One small filespace for the tests of keys; made once, since Argon2id is slow on purpose."""

from __future__ import annotations

from functools import cache

from lucid.crypto.founding import Founding, Plan, found
from lucid.crypto.passphrase import Stretch
from tests.crypto.reference import fixed_entropy
from tests.format.values import TIME_NS

QUICK = Stretch(1, 64 << 20)
"""The least work that is allowed."""
PASSPHRASE = "correct horse battery staple"


@cache
def filespace(seed: bytes = b"one", suite: int = 1) -> Founding:
    """A new filespace; another seed makes another."""
    plan = Plan(b"Team", b"anna", PASSPHRASE, suite=suite, stretch=QUICK)
    return found(plan, fixed_entropy(seed), TIME_NS)


def object_of(founding: Founding, prefix: str) -> bytes:
    """The one object of a founding whose key begins so."""
    (data,) = (data for key, data in founding.objects if key.startswith(prefix))
    return data
