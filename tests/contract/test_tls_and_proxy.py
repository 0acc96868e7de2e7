"""TLS and proxies: the same store behind a certificate, through a proxy, through a tunnel."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.errors import StoreUnavailable
from lucid.store.s3 import S3Store
from lucid.store.s3_url import S3Location
from lucid.store.timeouts import Timeouts
from tests.contract.scripted_server import BUCKET, ScriptedServer

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Self-signed, for localhost, 127.0.0.1 and store.test, until 2126."""
BODY = bytes(range(256)) * 2048
TIMEOUTS = Timeouts(connect_s=2.0, read_s=0.5)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.fixture
def secure_server() -> Iterator[ScriptedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    running = ScriptedServer(context)
    yield running
    running.close()


def open_at(endpoint: str) -> S3Store:
    url = f"s3://{BUCKET}?endpoint={endpoint}&addressing=path"
    return S3Store(S3Location.parse(url), timeouts=TIMEOUTS)


def use(store: S3Store, server: ScriptedServer) -> None:
    """Put, read, and read on after faults."""
    store.put_if_absent("data/1", BODY)
    assert store.get("data/1") == BODY
    buffer, told = bytearray(len(BODY) - 5), list[int]()
    assert store.get_into("data/1", 5, buffer, told.append) == len(buffer)
    assert buffer == BODY[5:]
    assert told[-1] == len(buffer)
    for step in ("truncated", "cut", "hang", "reset"):
        server.script(step, step)
        with pytest.raises(StoreUnavailable):
            store.get("data/1", 0, len(BODY))
            store.get("data/1", 0, len(BODY))
        server._steps.clear()
        assert store.get("data/1", 7, 9) == BODY[7:16]


def test_https(secure_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CERTIFICATE))
    store = open_at(secure_server.endpoint.replace("http:", "https:"))
    use(store, secure_server)
    store.close()


def test_kept_tls_connections_are_used_again(
    secure_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CERTIFICATE))
    secure_server.objects["data/1"] = BODY
    store = open_at(secure_server.endpoint.replace("http:", "https:"))
    store.warm()
    for _ in range(3):
        store.get("data/1", 0, 1000)
    assert {request.connection for request in secure_server.requests} == {0}
    secure_server.script("close after")
    for _ in range(3):
        store.get("data/1", 0, 1000)
    store.close()


def test_a_certificate_nobody_trusts(secure_server: ScriptedServer) -> None:
    store = open_at(secure_server.endpoint.replace("http:", "https:"))
    with pytest.raises(StoreUnavailable, match="AWS_CA_BUNDLE"):
        store.get("data/1")
    with pytest.raises(StoreUnavailable, match="AWS_CA_BUNDLE"):
        store.stat("data/1")
    store.close()


def test_through_a_proxy(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.endpoint.replace("://", "://user:pass@"))
    store = open_at("http://store.test:8333")
    use(store, server)
    assert all(request.target.startswith("http://store.test:8333/") for request in server.requests)
    assert server.requests[0].headers["host"] == "store.test:8333"
    assert server.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
    store.close()


def test_through_a_tunnel(secure_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", secure_server.endpoint.replace("://", "://user:pass@"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CERTIFICATE))
    secure_server.is_proxy = True
    store = open_at("https://store.test")
    use(store, secure_server)
    connect, put = secure_server.requests[:2]
    assert (connect.method, connect.target) == ("CONNECT", "store.test:443")
    assert connect.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
    assert put.headers["host"] == "store.test"
    assert "proxy-authorization" not in put.headers
    store.close()


def test_a_proxy_that_refuses(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", server.endpoint)
    store = open_at("https://store.test")
    server.script("407")
    with pytest.raises(StoreUnavailable, match="proxy refused the connection with status 407"):
        store.get("data/1")
    store.close()
