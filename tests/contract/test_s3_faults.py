"""Every class of failure between us and an S3, on real sockets, against a server that fails so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lucid.errors import (
    LucidError,
    ObjectExists,
    ObjectMissing,
    SlowDown,
    Stopped,
    StoreConflict,
    StoreDenied,
    StoreError,
    StoreUnavailable,
    StoreUnfit,
)
from lucid.store import ObjectStore
from lucid.store.retry import RetryPolicy, RetryStore
from lucid.store.s3 import S3Store
from lucid.store.s3_url import S3Location
from lucid.store.timeouts import Timeouts
from lucid.types import SystemClock
from tests.contract.scripted_server import BUCKET, ScriptedServer

BODY = bytes(range(256)) * 2048
"""Half a MiB: more than a socket buffer holds on its way."""
SECRET = "very-secret-key"


@pytest.fixture
def s3(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A bare store over the server that fails; its time-outs are short."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    location = S3Location.parse(f"s3://{BUCKET}?endpoint={server.endpoint}&addressing=path")
    store = S3Store(location, timeouts=Timeouts(connect_s=2.0, read_s=0.4))
    yield store
    store.close()


@pytest.fixture
def patient(s3: S3Store) -> ObjectStore:
    """The same store with retries that do not pause."""
    return RetryStore(s3, RetryPolicy(attempts=4, wait=lambda _seconds: False))


def methods(server: ScriptedServer) -> list[str]:
    return [request.method for request in server.requests]


def test_the_put_is_conditional_signed_and_one_round_trip(
    s3: S3Store, server: ScriptedServer
) -> None:
    s3.put_if_absent("log/1", b"entry")
    (request,) = server.requests
    assert request.headers["if-none-match"] == "*"
    assert "expect" not in request.headers
    assert "X-Amz-SignedHeaders=host%3Bif-none-match" in request.target
    assert request.headers["content-length"] == "5"
    assert server.objects == {"log/1": b"entry"}


@pytest.mark.parametrize("step", ["stored 503", "stored cut"])
def test_a_put_that_was_stored_has_won_whatever_the_answer(
    s3: S3Store, server: ScriptedServer, step: str
) -> None:
    server.script(step)
    s3.put_if_absent("log/1", b"entry")
    assert methods(server) == ["PUT", "GET"]


def test_a_412_for_our_own_bytes_has_won(s3: S3Store, server: ScriptedServer) -> None:
    server.objects["log/1"] = b"entry"
    s3.put_if_absent("log/1", b"entry")
    assert methods(server) == ["PUT", "GET"]


def test_a_412_for_other_bytes_has_lost(s3: S3Store, server: ScriptedServer) -> None:
    for other in (b"entrY", b"entry and more", b"ent", b""):
        server.objects["log/1"] = other
        with pytest.raises(ObjectExists):
            s3.put_if_absent("log/1", [b"en", b"try"])


def test_stored_then_503_then_somebody_elses_bytes(s3: S3Store, server: ScriptedServer) -> None:
    server.objects["log/1"] = b"theirs"
    server.script("503")
    with pytest.raises(ObjectExists):
        s3.put_if_absent("log/1", b"ours")


@pytest.mark.parametrize("step", ["503", "cut", "500", "rubbish"])
def test_a_put_that_was_not_stored_may_be_tried_again(
    s3: S3Store, server: ScriptedServer, step: str
) -> None:
    server.script(step)
    with pytest.raises(StoreUnavailable) as caught:
        s3.put_if_absent("log/1", b"entry")
    assert caught.value.retryable
    assert methods(server) == ["PUT", "GET"]
    s3.put_if_absent("log/1", b"entry")
    assert server.objects == {"log/1": b"entry"}


def test_the_read_back_fails_too(s3: S3Store, server: ScriptedServer) -> None:
    server.script("stored 503", "503")
    with pytest.raises(StoreUnavailable, match="not known yet"):
        s3.put_if_absent("log/1", b"entry")


def test_a_hung_put_times_out_and_is_read_back(s3: S3Store, server: ScriptedServer) -> None:
    server.script("hang")
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        s3.put_if_absent("log/1", b"entry")
    assert 0.3 < time.monotonic() - begun < 5
    assert methods(server) == ["PUT", "GET"]


def test_409_is_a_conflict(s3: S3Store, server: ScriptedServer) -> None:
    server.script("409")
    with pytest.raises(StoreConflict) as caught:
        s3.put_if_absent("log/1", b"entry")
    assert caught.value.retryable
    assert methods(server) == ["PUT"]


def test_503_is_slow_down(s3: S3Store, server: ScriptedServer) -> None:
    server.objects["log/1"] = b"entry"
    server.script("503")
    with pytest.raises(SlowDown):
        s3.get("log/1")
    assert s3.get("log/1") == b"entry"


def test_a_large_put_that_is_refused_before_it_is_read(s3: S3Store, server: ScriptedServer) -> None:
    body = bytes(16 << 20)
    server.script("early 503")
    with pytest.raises(StoreUnavailable):
        s3.put_if_absent("data/1", body)
    s3.put_if_absent("data/1", body)
    assert server.objects == {"data/1": body}


@pytest.mark.parametrize("step", ["truncated", "reset", "short", "cut", "hang", "other range"])
def test_a_body_that_does_not_come_whole_is_no_body(
    s3: S3Store, server: ScriptedServer, step: str
) -> None:
    server.objects["data/1"] = BODY
    told: list[int] = []
    buffer = bytearray(len(BODY) - 1)
    server.script(step)
    with pytest.raises(StoreUnavailable):
        s3.get_into("data/1", 1, buffer, told.append)
    if told:
        assert buffer[: told[-1]] == BODY[1 : 1 + told[-1]]
    server.script(step)
    with pytest.raises(StoreUnavailable):
        s3.get("data/1", 1)
    assert s3.get_into("data/1", 1, buffer) == len(buffer)
    assert buffer == BODY[1:]


@pytest.mark.parametrize("step", ["truncated", "reset", "cut"])
def test_a_whole_object_that_does_not_come_whole(
    s3: S3Store, server: ScriptedServer, step: str
) -> None:
    server.objects["data/1"] = BODY
    server.script(step)
    with pytest.raises(StoreUnavailable):
        s3.get("data/1")
    assert s3.get("data/1") == BODY


@pytest.mark.parametrize("step", ["chunked", "no length", "continue", "close after"])
def test_other_ways_to_frame_a_body(s3: S3Store, server: ScriptedServer, step: str) -> None:
    server.objects["data/1"] = BODY
    buffer = bytearray(len(BODY) - 7)
    for _ in range(2):
        server.script(step)
        assert s3.get_into("data/1", 7, buffer) == len(buffer)
        assert buffer == BODY[7:]
        server.script(step)
        assert s3.get("data/1") == BODY
        server.script(step)
        assert s3.get("data/1", 5, 10) == BODY[5:15]


def test_a_store_that_ignores_ranges(s3: S3Store, server: ScriptedServer) -> None:
    server.objects["data/1"] = BODY
    server.script("whole")
    assert s3.get("data/1", 0, 10) == BODY[:10]
    server.script("whole")
    with pytest.raises(StoreUnfit, match="ranged"):
        s3.get("data/1", 10, 10)
    assert s3.get("data/1", 10, 10) == BODY[10:20]


def test_connections_are_kept_and_replaced(s3: S3Store, server: ScriptedServer) -> None:
    server.objects["data/1"] = BODY
    for _ in range(3):
        s3.get("data/1", 0, 100)
    assert {request.connection for request in server.requests} == {0}
    server.script("close after")
    s3.get("data/1")
    s3.get("data/1")
    assert server.requests[-1].connection == 1


def test_a_kept_connection_that_ends_under_a_request(s3: S3Store, server: ScriptedServer) -> None:
    server.objects["data/1"] = BODY
    s3.get("data/1", 0, 1)
    server.script("cut")
    assert s3.get("data/1", 0, 1) == BODY[:1]
    assert [request.connection for request in server.requests] == [0, 0, 1]


def test_an_abandoned_body_does_not_reach_the_next_reader(
    s3: S3Store, server: ScriptedServer
) -> None:
    server.objects["data/1"] = BODY
    server.objects["data/2"] = b"other"

    def enough(_count: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        s3.get_into("data/1", 0, bytearray(len(BODY)), enough)
    assert s3.get("data/2") == b"other"


def test_warm_opens_one_connection(s3: S3Store, server: ScriptedServer) -> None:
    server.objects["data/1"] = BODY
    s3.warm()
    s3.warm()
    s3.get("data/1", 0, 1)
    assert [request.connection for request in server.requests] == [0]


def test_403_is_signed_again_once(s3: S3Store, server: ScriptedServer) -> None:
    server.objects["log/1"] = b"entry"
    server.script("403")
    assert s3.get("log/1") == b"entry"
    server.script("expired")
    assert s3.get("log/1") == b"entry"
    server.script("403")
    s3.put_if_absent("log/2", b"entry")
    server.script("403", "403")
    with pytest.raises(StoreDenied, match="secret key") as caught:
        s3.get("log/1")
    assert not caught.value.retryable
    assert len(server.requests) == 8


def test_signed_targets_are_kept_until_the_credentials_change(
    s3: S3Store, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.objects["log/1"] = b"entry"
    s3.get("log/1")
    s3.get("log/1", 1, 2)
    assert server.requests[0].target == server.requests[1].target
    credentials = s3._signer._credentials
    monkeypatch.setattr(credentials, "secret_key", "another")
    s3.get("log/1")
    assert server.requests[2].target != server.requests[0].target


class Later(SystemClock):
    """A clock that can be set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


def test_signed_targets_are_not_used_to_their_end(
    s3: S3Store, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.objects["log/1"] = b"entry"
    clock = Later()
    signed: list[str] = []
    sign = s3._signer._sign
    monkeypatch.setattr(s3._signer, "_clock", clock)
    monkeypatch.setattr(s3._signer, "_sign", lambda *args: signed.append("one") or sign(*args))
    for ahead_s in (0.0, 2900.0, 3100.0):
        clock.ahead_s = ahead_s
        s3.get("log/1")
    assert len(signed) == 2


def test_a_body_that_drips_is_cut_off(
    s3: S3Store, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.objects["data/1"] = BODY
    clock = Later()
    monkeypatch.setattr(s3._pool, "clock", clock)

    def drip(_count: int) -> None:
        clock.ahead_s += 1000

    with pytest.raises(StoreUnavailable, match="slow"):
        s3.get_into("data/1", 0, bytearray(len(BODY)), drip)


def test_close_ends_a_call_that_waits(s3: S3Store, server: ScriptedServer) -> None:
    slow = S3Store(s3._location, timeouts=Timeouts(read_s=60.0))
    server.objects["data/1"] = BODY
    server.script("hang")
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            slow.get("data/1")
        except LucidError as error:
            outcome.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.requests and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    slow.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in outcome] == [Stopped]


def test_nobody_listens(server: ScriptedServer, s3: S3Store) -> None:
    location = S3Location.parse(f"s3://{BUCKET}?endpoint=http://127.0.0.1:9&addressing=path")
    store = S3Store(location, timeouts=Timeouts(connect_s=1.0, read_s=1.0))
    asks: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.put_if_absent("a", b"x"),
        lambda: store.stat("a"),
        lambda: list(store.list("")),
        lambda: store.delete(["a"]),
        lambda: store.delete(["a", "b"]),
        store.date_ns,
        store.check,
    ]
    for ask in asks:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9"):
            ask()
    store.warm()
    store.close()


def test_no_error_tells_a_signed_target(s3: S3Store, server: ScriptedServer) -> None:
    texts: list[str] = []
    for step in ("503", "403", "cut", "truncated", "rubbish", "hang", "409", "404", "301", "501"):
        server.objects["data/1"] = BODY
        server.script(step, step)
        try:
            s3.get("data/1", 1, len(BODY) - 1)
        except StoreError as error:
            cause: BaseException | None = error
            while cause is not None:
                texts.append(f"{cause} {cause!r}")
                cause = cause.__cause__
    assert len(texts) >= 10
    for text in texts:
        assert "X-Amz" not in text
        assert SECRET not in text
    assert SECRET not in repr(vars(s3))


def test_retries_get_there(patient: ObjectStore, server: ScriptedServer) -> None:
    server.objects["data/1"] = BODY
    server.script("503", "truncated", "cut")
    assert patient.get("data/1") == BODY
    server.script("truncated", "reset", "503")
    buffer, told = bytearray(len(BODY)), []
    assert patient.get_into("data/1", 0, buffer, told.append) == len(BODY)
    assert buffer == BODY
    assert told == sorted(set(told))
    server.script("409", "503")
    patient.put_if_absent("log/1", b"entry")
    server.script("stored 503", "503")
    patient.put_if_absent("log/2", b"entry")
    assert server.objects["log/2"] == b"entry"


def test_a_retried_read_asks_only_for_the_rest(
    patient: ObjectStore, server: ScriptedServer
) -> None:
    server.objects["data/1"] = BODY
    server.script("truncated")
    assert patient.get_into("data/1", 0, bytearray(len(BODY))) == len(BODY)
    first, second = (request.headers["range"] for request in server.requests)
    assert first == f"bytes=0-{len(BODY) - 1}"
    begin = int(second.removeprefix("bytes=").partition("-")[0])
    assert begin >= len(BODY) // 4


def test_retries_end(patient: ObjectStore, server: ScriptedServer) -> None:
    server.script(*["503"] * 20)
    with pytest.raises(SlowDown):
        patient.get("data/1")
    assert len(server.requests) == 4
    with pytest.raises(SlowDown):
        patient.put_if_absent("data/1", b"x")


def test_missing_is_not_retried(patient: ObjectStore, server: ScriptedServer) -> None:
    with pytest.raises(ObjectMissing):
        patient.get("data/none")
    assert len(server.requests) == 1
