"""Posting changes to a webhook: signed, in order, and again until they are taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import click

from lucid.errors import UsageError
from lucid.types import Clock, SystemClock

__all__ = ["SECRET_ENVIRONMENT", "Poster", "signature"]

SECRET_ENVIRONMENT = "LUCID_WEBHOOK_SECRET"
TIMEOUT_S = 10.0
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0, 60.0)
"""Between tries; after the last one the changes are told to be lost."""
AGAIN = (408, 425, 429)
"""With these answers, and all from 500 on, it is worth to try again."""


def signature(secret: str, time: int, body: bytes) -> str:
    """HMAC-SHA256 over the time, a full stop and the body, in hex."""
    signed = f"{time}.".encode() + body
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


class _Here(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: a redirected post would arrive as a GET, without what it says."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Poster:
    """Posts to one address. One thread; `pause` waits, and returns True to give up."""

    def __init__(
        self,
        url: str,
        secret: str,
        clock: Clock | None = None,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        """Raises UsageError for an address that is none."""
        if not url.startswith(("https://", "http://")):
            raise UsageError(f"'{url}' is no webhook; write https://host/path.")
        self._url, self._secret = url, secret
        self._clock = clock or SystemClock()
        self._pause = pause or threading.Event().wait
        self._opener = urllib.request.build_opener(_Here)

    def post(self, changes: list[dict[str, Any]]) -> None:
        """Returns when they are taken, or when it is hopeless, which is told on stderr."""
        body = json.dumps({"changes": changes}).encode()
        why = ""
        for pause_s in (*PAUSES_S, None):
            why, again = self._try(body, changes[0]["sequence"])
            if not why:
                return
            if not again or pause_s is None or self._pause(pause_s):
                break
        what = "1 change was" if len(changes) == 1 else f"{len(changes)} changes were"
        click.echo(f"lucid: {what} not taken by the webhook: {why}", err=True)

    def _try(self, body: bytes, delivery: int) -> tuple[str, bool]:
        """(why it failed, whether to try again); ("", False) when it was taken."""
        now = self._clock.time_ns() // 10**9
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "lucid",
            "X-Lucid-Delivery": str(delivery),
            "X-Lucid-Time": str(now),
        }
        if self._secret:
            headers["X-Lucid-Signature"] = f"sha256={signature(self._secret, now, body)}"
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                answer.read(1024)
                return "", False
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answers {error.code}", error.code >= 500 or error.code in AGAIN
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error)), not isinstance(error, ValueError)
