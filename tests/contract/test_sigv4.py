"""Signed targets are those that botocore would make, byte for byte."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.store.origin import origin_of
from lucid.store.s3_list import list_query
from lucid.store.sigv4 import Scope, Signer

WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=40)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)).map(
    lambda one: one.replace(microsecond=0, tzinfo=timezone.utc)
)


def botocores(
    verb: str,
    url: str,
    credentials: ReadOnlyCredentials,
    scope: Scope,
    now: datetime,
    headers: dict[str, str],
) -> str:
    request = AWSRequest(method=verb, url=url, headers=headers)
    with patch.object(botocore.auth, "get_current_datetime", lambda: now):
        S3SigV4QueryAuth(credentials, scope.service, scope.region, 3600).add_auth(request)
    parts = urlsplit(url)
    return str(request.url)[len(f"{parts.scheme}://{parts.netloc}") :]


@given(
    key=WORDS, secret=WORDS, token=st.none() | WORDS, path=WORDS, now=TIMES,
    region=st.sampled_from(["us-east-1", "eu-central-1", "auto"]),
    place=st.sampled_from(
        ["http://127.0.0.1:8333", "https://s3.example.com", "https://b.example.com:9000"]
    ),
    verb=st.sampled_from(["GET", "PUT", "LIST"]),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_they_are_botocores(
    key: str, secret: str, token: str | None, path: str, now: datetime, region: str, place: str,
    verb: str,
) -> None:  # fmt: skip
    credentials = ReadOnlyCredentials(key, secret, token)
    parts = urlsplit(place)
    assert parts.hostname is not None
    origin = origin_of(parts.hostname, parts.port, parts.scheme == "https")
    scope = Scope(origin.authority, region, "s3")
    where = "/bucket/" + quote(path, safe="/-_.~")
    query = list_query(path, path, 7) if verb == "LIST" else ""
    headers = {"if-none-match": "*"} if verb == "PUT" else {}
    verb = "GET" if verb == "LIST" else verb
    url = place + where + (f"?{query}" if query else "")
    signer = Signer(scope)
    for moment in (now, now + timedelta(seconds=1), now + timedelta(days=1)):
        ours = signer.target(verb, where, query, credentials, moment, seconds=3600, headers=headers)
        assert ours == botocores(verb, url, credentials, scope, moment, headers)


def test_new_credentials_get_a_key_of_their_own() -> None:
    signer = Signer(Scope("h", "r", "s3"))
    now = datetime(2026, 1, 2, tzinfo=timezone.utc)
    first, second = (
        signer.target(
            "GET", "/b/k", "", ReadOnlyCredentials("a", secret, None), now, seconds=60, headers={}
        )
        for secret in ("one", "two")
    )
    assert first != second


@pytest.mark.parametrize("name", ["a-b", "a", "a.b"])
def test_names_that_begin_alike_are_sorted_as_names(name: str) -> None:
    credentials = ReadOnlyCredentials("a", "b", None)
    now = datetime(2026, 1, 2, tzinfo=timezone.utc)
    query = f"a=1&{name}x=2&a-=3"
    ours = Signer(Scope("h", "r", "s3")).target(
        "GET", "/b", query, credentials, now, seconds=3600, headers={}
    )
    assert ours == botocores(
        "GET", f"http://h/b?{query}", credentials, Scope("h", "r", "s3"), now, {}
    )
