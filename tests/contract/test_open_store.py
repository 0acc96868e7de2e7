"""Opening: which URL is which store, and what is said where there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lucid.errors import (
    BucketMissing,
    ConfigError,
    ObjectExists,
    StoreDenied,
    StoreUnavailable,
    StoreUnfit,
)
from lucid.store import open_store
from lucid.store.origin import origin_of
from lucid.store.probe import probe
from lucid.store.s3_errors import classify
from lucid.store.s3_lifecycle import harm_of
from lucid.store.s3_list import list_query, read_page
from lucid.store.s3_url import S3Location
from lucid.store.stack import StoreOptions, Timeouts
from tests.contract.stores import bare_of
from tests.seaweed import S3Server


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x", "file://host/x", "file:x", "s3://", "s3://a", "s3://bucket/a b", "s3://b-/../c",
     "s3://bucket/.hidden", "s3://bucket?secret=1", "s3://bucket?region=", "s3://bucket/a//b",
     "s3://bucket?addressing=odd", "s3://bucket?endpoint=ftp://x", "s3://key:hush@bucket/x",
     "gs://key:hush@bucket", "s3://bucket?endpoint=http://key:hush@host"],
)  # fmt: skip
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "hush" not in str(caught.value)


def test_s3_urls() -> None:
    plain = S3Location.parse("s3://bucket")
    assert (plain.bucket, plain.prefix, plain.url) == ("bucket", "", "s3://bucket")
    assert plain.name_of("log/1") == "log/1"
    full = S3Location.parse(
        "s3://bucket/team/drive/?endpoint=http://localhost:8333&region=eu-west-1"
        "&profile=work&addressing=virtual"
    )
    assert full == S3Location(
        "bucket", "team/drive", "http://localhost:8333", "eu-west-1", "work", "virtual"
    )
    assert full.url == "s3://bucket/team/drive"
    assert full.name_of("log/1") == "team/drive/log/1"
    assert full.key_of("team/drive/log/1") == "log/1"


def test_a_directory(tmp_path: Path) -> None:
    place = tmp_path / "with space"
    place.mkdir()
    store = open_store(place.as_uri())
    store.put_if_absent("log/1", b"x")
    assert (place / "log" / "1").read_bytes() == b"x"
    assert store.url == place.as_uri()
    store.close()


def test_no_directory(tmp_path: Path) -> None:
    url = (tmp_path / "none").as_uri()
    with pytest.raises(BucketMissing, match="none"):
        open_store(url)
    store = open_store(url, check=False)
    with pytest.raises(BucketMissing):
        store.get("log/1")
    (tmp_path / "none").mkdir()
    store.put_if_absent("log/1", b"x")
    store.close()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials that nobody knows."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    return monkeypatch


@pytest.fixture
def weed(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The real server, in the environment."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


def test_no_bucket(weed: S3Server) -> None:
    with pytest.raises(BucketMissing, match="s3://no-such-bucket/x"):
        open_store("s3://no-such-bucket/x?addressing=path")


def test_wrong_credentials(weed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = weed.make_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreDenied, match="secret key"):
        open_store(f"s3://{bucket}?addressing=path")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    with pytest.raises(StoreDenied, match="access key"):
        open_store(f"s3://{bucket}?addressing=path")
    store = open_store(f"s3://{bucket}?addressing=path", check=False)
    for ask in (
        lambda: store.get("a"),
        lambda: store.put_if_absent("a", b"x"),
        lambda: store.stat("a"),
        lambda: list(store.list("")),
        lambda: store.delete(["a"]),
    ):
        with pytest.raises(StoreDenied):
            ask()
    store.close()


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreDenied, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket?endpoint=http://127.0.0.1:9&region=x")


def test_an_unknown_profile(aws: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nobody"):
        open_store("s3://bucket?endpoint=http://127.0.0.1:9&profile=nobody")


def test_nobody_there(aws: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9.*Check the network"):
        open_store("s3://bucket?endpoint=http://127.0.0.1:9&region=x&addressing=path")


def test_endpoint_by_variable_and_region_by_default(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:7777")
    store: Any = bare_of(open_store("s3://bucket/x?addressing=path", check=False))
    assert store._signer.target("GET", "log/1").startswith("/bucket/x/log/1?X-Amz-Algorithm=")
    assert store._signer.origin.port == 7777
    store.close()


def test_virtual_addressing(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    store: Any = bare_of(open_store("s3://some-bucket/x?addressing=virtual", check=False))
    assert store._signer.origin.host == "some-bucket.s3.eu-west-1.amazonaws.com"
    assert store._signer.origin.secure
    assert store._signer.origin.port == 443
    assert store._signer.target("GET", "log/1").startswith("/x/log/1?")
    assert "eu-west-1" in store._signer.target("GET", "log/1")
    assert store._signer.target("LIST", list_query("x/", "", 5)).startswith("/?")
    store.close()


def test_session_tokens_are_signed_in(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_SESSION_TOKEN", "for-an-hour")
    store: Any = bare_of(open_store("s3://some-bucket?region=eu-west-1", check=False))
    assert "X-Amz-Security-Token=for-an-hour" in store._signer.target("GET", "log/1")
    store.close()


def test_a_certificate_bundle_that_is_none(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aws.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=r"none\.pem"):
        open_store("s3://some-bucket?region=eu-west-1", check=False)


def test_the_probe_on_a_real_s3_and_a_lifecycle_rule(weed: S3Server) -> None:
    bucket = weed.make_bucket()
    store = open_store(f"s3://{bucket}/drive?addressing=path")
    assert probe(store, os.urandom, writers=2) == ()
    client = weed.client()
    rule = {
        "ID": "tidy",
        "Status": "Enabled",
        "Filter": {"Prefix": "drive/"},
        "Expiration": {"Days": 30},
    }
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    client.close()
    (warning,) = store.lifecycle_warnings()
    assert "deletes objects of" in warning
    assert f"s3://{bucket}/drive" in warning
    store.close()


def test_two_prefixes_are_two_stores(weed: S3Server) -> None:
    bucket = weed.make_bucket()
    options = StoreOptions(timeouts=Timeouts(2.0, 5.0), requests=4, reserved=1)
    stores = [
        open_store(f"s3://{bucket}/{prefix}?addressing=path", options=options)
        for prefix in ("team", "team-2")
    ]
    for number, store in enumerate(stores):
        store.put_if_absent("log/1", b"store %d" % number)
    for number, store in enumerate(stores):
        assert [info.key for info in store.list("")] == ["log/1"]
        assert store.get("log/1") == b"store %d" % number
        with pytest.raises(ObjectExists):
            store.put_if_absent("log/1", b"other")
        store.close()


@pytest.mark.parametrize(
    ("rule", "harm"),
    [
        ({"Expiration": {"Days": 1}, "Filter": {"Prefix": ""}}, "deletes"),
        ({"Expiration": {"Date": "x"}, "Prefix": "team/drive/data/"}, "deletes"),
        ({"Expiration": {"Days": 1}, "Filter": {"And": {"Prefix": "team/"}}}, "deletes"),
        ({"Expiration": {"Days": 1}, "Filter": {"Prefix": "other/"}}, ""),
        ({"Expiration": {"Days": 1}, "Filter": {}, "Status": "Disabled"}, ""),
        ({"Expiration": {"ExpiredObjectDeleteMarker": True}, "Filter": {}}, ""),
        ({"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}, "Filter": {}}, ""),
        ({"Transitions": [{"StorageClass": "GLACIER"}], "Filter": {}}, "archives"),
        ({"Transitions": [{"StorageClass": "STANDARD_IA"}], "Filter": {}}, ""),
    ],
)
def test_lifecycle_rules(rule: dict[str, Any], harm: str) -> None:
    assert harm_of({"Status": "Enabled", **rule}, "team/drive/") == harm


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (301, "PermanentRedirect", StoreUnfit),
        (400, "AuthorizationHeaderMalformed", StoreUnfit),
        (400, "ExpiredToken", StoreDenied),
        (400, "RequestTimeout", StoreUnavailable),
        (403, "", StoreDenied),
        (403, "RequestTimeTooSkewed", StoreDenied),
        (404, "NoSuchBucket", BucketMissing),
        (405, "MethodNotAllowed", StoreUnfit),
        (500, "InternalError", StoreUnavailable),
        (501, "NotImplemented", StoreUnfit),
        (507, "", StoreUnavailable),
    ],
)
def test_answers_and_their_meaning(status: int, code: str, expected: type[Exception]) -> None:
    error = classify(status, code, url="s3://bucket/x", key="log/1", region="eu-west-1")
    assert type(error) is expected
    assert "s3://bucket/x" in str(error)


def test_pages_of_lists() -> None:
    assert list_query("a/b/", "a/b/c", 7) == (
        "encoding-type=url&list-type=2&max-keys=7&prefix=a%2Fb%2F&start-after=a%2Fb%2Fc"
    )
    page = b"""<?xml version="1.0"?>
    <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
    <Contents><Key>a%2Fb</Key><LastModified>2026-11-22T10:15:00.250Z</LastModified>
    <Size>7</Size></Contents><IsTruncated>true</IsTruncated></ListBucketResult>"""
    assert read_page(page) == ([("a/b", 7, 1795342500250000000)], True)
    assert read_page(page.replace(b".250", b""))[0] == [("a/b", 7, 1795342500000000000)]
    assert read_page(page.replace(b".250", b".123456789123"))[0][0][2] == 1795342500123456789
    for bad in (b"", b"<html>Log in</html>", page[:-30], page.replace(b">7<", b">x<")):
        with pytest.raises(StoreUnavailable):
            read_page(bad)


def test_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:p%40ss@proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    through = origin_of("s3.example", None, True)
    assert through.proxy is not None
    assert (through.proxy.host, through.proxy.port) == ("proxy", 3128)
    assert through.proxy_authorization == "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n"
    assert "dXNl" not in repr(through)
    assert origin_of("inside.example", None, True).proxy is None
    assert origin_of("s3.example", 8333, False).proxy is None
    monkeypatch.setenv("https_proxy", "socks5://proxy")
    with pytest.raises(ConfigError, match="proxy"):
        origin_of("s3.example", None, True)
