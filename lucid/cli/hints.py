"""What to do next after an error, where the error's own sentence cannot know. Pure."""

from __future__ import annotations

import re

from lucid import errors
from lucid.errors import LucidError

__all__ = ["HINTS", "WRONG_CODE", "hint_for"]

HINTS: dict[type[LucidError], str] = {
    errors.StoreDenied: "Check the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE, or ~/.aws. They must allow to read, write and list.",
    errors.BucketMissing: "Make the bucket or directory first, or mount its disk. lucid init makes "
    "the last part of a directory; buckets it does not make.",
    errors.StoreUnavailable: "Check the network, and AWS_ENDPOINT_URL for a store that is not AWS.",
    errors.StoreUnfit: "Two machines could overwrite each other's work on such a store. "
    "Take another store, or a newer version of it.",
    errors.DataError: "See what else is wrong: lucid fsck STORE",
    errors.HistoryFork: "Somebody may have put an older copy of the store in place. "
    "Do not write to it; compare with: lucid fsck STORE",
    errors.UnsupportedFormat: "Install a newer version of lucid.",
    errors.WrongPassphrase: "Try it again, or give the recovery code in its place.",
    errors.StateInUse: "See who: lucid status. One process at a time may use a state directory.",
    errors.DiskFull: "Make room on the disk of the state directory, or take another: --state-dir.",
    errors.FilespaceMissing: "To make one: lucid init STORE",
    errors.NotMounted: "See what is mounted: lucid status",
    errors.InternalError: "Please report it with the output of: lucid --debug ...",
}
WRONG_CODE = "Compare it with what lucid init showed, or give the passphrase in its place."
BELIEVE = "When you have, and trust the store: lucid fsck STORE --repair --believe-store"
_SECOND_SENTENCE = re.compile(r"[.] [A-Z]")


def hint_for(error: LucidError) -> str:
    """The hint of the error's class or of the nearest class above it that has one; else empty.

    An error that tells itself what to do, in a second sentence or with a command, gets none.
    """
    if isinstance(error, errors.HistoryFork) and "before you trust" in str(error):
        return BELIEVE
    told = "lucid " in str(error) or _SECOND_SENTENCE.search(str(error))
    if told and not isinstance(error, errors.InternalError):
        return ""
    if isinstance(error, errors.WrongPassphrase) and "recovery code" in str(error):
        return WRONG_CODE
    for kind in type(error).__mro__:
        if kind in HINTS:
            return HINTS[kind]
    return ""
