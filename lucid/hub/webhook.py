"""What stores post when a bucket changes: does it tell of a new entry of a log? Pure.

Their styles: the records of S3 and Ceph, the same with MinIO's own fields around, and either one
packed as text into a notification of SNS; and EventBridge's events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from lucid.errors import FormatError

__all__ = ["entries_in", "subscription_of"]

RECORDS_MAX = 10_000
ADDRESS_MAX = 2048
_ENTRY = re.compile(r"(?:^|/)log/[0-9a-f]{16}$")


def entries_in(body: bytes) -> int:
    """How many new log entries a notification tells of. Raises FormatError for other bytes."""
    keys = list(_created(_object(body), depth=0))
    return sum(1 for key in keys[:RECORDS_MAX] if _ENTRY.search(key))


def subscription_of(body: bytes) -> str:
    """The address with which an owner of the topic confirms that SNS may post here; or ""."""
    message = _object(body)
    address = str(message.get("SubscribeURL", ""))
    is_one = message.get("Type") == "SubscriptionConfirmation"
    # It goes into a log: one line, of a length that an address has.
    fits = address.startswith("https://") and address.isprintable() and len(address) <= ADDRESS_MAX
    return address if is_one and fits else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise FormatError("A notification of a store is one JSON object.")
    return message


def _created(message: dict[str, Any], depth: int) -> Iterator[str]:
    """Keys of the objects that were made."""
    if message.get("Type") == "Notification" and depth == 0:
        yield from _created(_object(str(message.get("Message", "")).encode()), depth + 1)
    elif message.get("detail-type") == "Object Created":
        yield str(_field(message, "detail", "object", "key"))
    else:
        records = message.get("Records")
        for record in records if isinstance(records, list) else ():
            if isinstance(record, dict) and "ObjectCreated:" in str(record.get("eventName")):
                # Keys are encoded as in a form: a blank is a plus.
                yield unquote_plus(str(_field(record, "s3", "object", "key")))


def _field(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
