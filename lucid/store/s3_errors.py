"""What an answer of S3 means: the one table from status and code to the error tree. Pure."""

from __future__ import annotations

import re

from lucid.errors import (
    BucketMissing,
    ObjectExists,
    ObjectMissing,
    SlowDown,
    StoreConflict,
    StoreDenied,
    StoreError,
    StoreUnavailable,
    StoreUnfit,
)

__all__ = ["classify", "code_of", "is_stale_signature"]

_CODE = re.compile(r"<Code>\s*([A-Za-z0-9._-]{1,80})\s*</Code>")
_SLOW = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"})
_TRANSIENT = frozenset({"RequestTimeout", "InternalError", "ServiceUnavailable", "BadDigest"})
_STALE = frozenset({"ExpiredToken", "RequestExpired", "TokenRefreshRequired"})
_KEYS = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile."
_DENIED = {
    "InvalidAccessKeyId": f"does not know the access key. {_KEYS}",
    "SignatureDoesNotMatch": f"refuses the secret key. {_KEYS}",
    "RequestTimeTooSkewed": "says that the clock of this machine is wrong. Set it and try again.",
    "ExpiredToken": "says that the session credentials have expired. Log in again.",
    "AccessDenied": "does not allow this with these credentials. They must be able to list, "
    "read, write and delete there.",
}


def code_of(text: str) -> str:
    """The error code in the XML of an answer, or nothing."""
    found = _CODE.search(text)
    return found.group(1) if found else ""


def is_stale_signature(status: int, code: str) -> bool:
    """Whether signing again, with credentials looked up again, can help."""
    return status == 403 or (status == 400 and code in _STALE)


def classify(status: int, code: str, *, url: str, key: str, region: str = "") -> StoreError:
    """The error for an answer that is no success. `region` is what the store says the bucket's is.

    What may pass by itself is shown to people, as `lucid status` does, and names no object.
    404 without a code is a missing object: that is all a HEAD can say.
    """
    what = f"status {status} {code}".rstrip()
    if code == "NoSuchBucket":
        return BucketMissing(f"There is no bucket for {url}. Make it first, or check its name.")
    if status == 404:
        return ObjectMissing(f"{key} is not in {url}.")
    if status == 412:
        return ObjectExists(f"{key} is in {url} already.")
    if status == 409:
        return StoreConflict(f"{url} was busy with another write of this object.")
    if status == 403 or code in _DENIED or code in _STALE:
        sentence = _DENIED.get(code, f"refused access ({code or status}). {_KEYS}")
        return StoreDenied(f"{url} {sentence}")
    if status in (429, 503) or code in _SLOW:
        return SlowDown(f"{url} asks for fewer requests ({code or status}).")
    if status == 501 or code in ("NotImplemented", "InvalidArgument"):
        return StoreUnfit(
            f"{url} does not know a request that a filespace needs ({code or status}). "
            "Take another store, or a newer version of it."
        )
    if status in (301, 307, 308) or code == "AuthorizationHeaderMalformed":
        where = f"region {region}" if region else "another region"
        return StoreUnfit(
            f"The bucket of {url} is in {where}. Set AWS_DEFAULT_REGION, or ?region= in the URL."
        )
    if status == 408 or status >= 500 or code in _TRANSIENT:
        return StoreUnavailable(f"{url} failed with {what}. Try again later.")
    return StoreUnfit(
        f"{url} answers with {what}, which no store should. Check the endpoint and its proxies."
    )
