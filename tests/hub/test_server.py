"""The hub's server: who may enter, what it relays, its limits, and how it goes away."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from lucid.crypto.room import Room
from lucid.errors import CorruptObject
from lucid.format.hub import (
    HUB_MESSAGE_MAX,
    KIND_HINT,
    Answer,
    Challenge,
    Look,
    Sealed,
    encode_frame,
)
from lucid.hub.limits import Limits
from lucid.hub.webhook import subscription_of
from tests.hub.hubs import (
    ask,
    client,
    device,
    ends,
    enter,
    hear,
    hint,
    hub,
    make_member,
    make_room,
    numbers,
    post,
    run,
    say,
)

ENTRY = "team/log/0000000000000007"
S3 = {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": ENTRY}}}]}
MINIO = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": f"bucket/{ENTRY}",
    "Records": [
        {
            "eventName": "s3:ObjectCreated:Put",
            "s3": {"bucket": {"name": "bucket"}, "object": {"key": ENTRY.replace("/", "%2F")}},
        }
    ],
}
SNS = {"Type": "Notification", "Message": json.dumps(S3)}
EVENT_BRIDGE = {"detail-type": "Object Created", "detail": {"object": {"key": ENTRY}}}


def sealed(room: Room, sequence: int = 1) -> Sealed:
    return room.seal(make_member(), KIND_HINT, hint(sequence), numbers(sequence))


def test_what_one_says_all_others_hear() -> None:
    async def test() -> None:
        room = make_room()
        async with (
            hub() as (_, address),
            device(address, room) as a,
            device(address, room) as b,
            device(address, room) as c,
            device(address, make_room(b"o" * 32)) as other,
        ):
            said = [sealed(room, number) for number in range(1, 20)]
            for each in said:
                await say(a, each)
            assert [await hear(b) for _ in said] == said
            assert [await hear(c) for _ in said] == said
            await say(c, said[0])
            # The first thing that the speaker hears is what another said; the other room, nothing.
            assert await hear(a) == said[0]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(other.recv(), 0.05)

    run(test)


def test_the_hub_learns_nothing_from_what_it_relays() -> None:
    room, stranger = make_room(), make_room(b"o" * 32)
    member = make_member()
    message = room.seal(member, KIND_HINT, hint(1234), numbers(1))
    assert room.open(message, lambda _: member.sign_key).payload == hint(1234)
    whole = encode_frame(message)
    assert member.member not in whole and (1234).to_bytes(2, "big") not in whole
    with pytest.raises(CorruptObject):
        stranger.open(message, lambda _: member.sign_key)
    with pytest.raises(CorruptObject, match="signed by no member"):
        room.open(message, lambda _: make_member(2).sign_key)
    with pytest.raises(CorruptObject, match="signed by no member"):
        room.open(message, lambda _: None)
    for place in range(0, len(message.sealed), 7):
        bent = bytearray(message.sealed)
        bent[place] ^= 1
        with pytest.raises(CorruptObject):
            room.open(message._replace(sealed=bytes(bent)), lambda _: member.sign_key)


def test_who_has_not_the_room_key_does_not_enter() -> None:
    async def test() -> None:
        room, other = make_room(), make_room(b"o" * 32)
        async with hub() as (made, address):
            async with client(address) as first:
                challenge = await hear(first)
                assert isinstance(challenge, Challenge)
                right = room.answer(challenge.nonce)
            wrong = [
                encode_frame(right),  # of another connection: another nonce
                encode_frame(Answer(room.name, bytes(64))),
                encode_frame(Answer(room.name, other.answer(bytes(32)).signature)),
                encode_frame(sealed(room)),
                b"", b"\x80", b"x" * 100,
            ]  # fmt: skip
            for answer in wrong:
                async with client(address) as connection:
                    await hear(connection)
                    await connection.send(answer)
                    assert await ends(connection) == 1008
            async with client(address) as connection:
                await hear(connection)
                await connection.send("text")
                assert await ends(connection) == 1008
            assert len(made.rooms) == 0

    run(test)


def test_only_the_rooms_that_are_allowed() -> None:
    async def test() -> None:
        room, other = make_room(), make_room(b"o" * 32)
        async with hub(rooms_allowed=frozenset([room.name])) as (_, address):
            async with device(address, room):
                pass
            async with client(address) as connection:
                challenge = await hear(connection)
                assert isinstance(challenge, Challenge)
                await connection.send(encode_frame(other.answer(challenge.nonce)))
                assert await ends(connection) == 1008

    run(test)


def test_who_says_nothing_is_cut_off() -> None:
    async def test() -> None:
        async with (
            hub(Limits(enter_s=0.1)) as (_, address),
            client(address) as connection,
        ):
            await hear(connection)
            assert await ends(connection) == 1008
            # Half a head, and nothing after it.
            status, _ = await ask(address, b"GET / HTTP/1.1\r\nHost:")
            assert status == 0

    run(test)


def test_rooms_and_members_have_a_limit() -> None:
    async def test() -> None:
        async with hub(Limits(rooms=1, per_room=2)) as (made, address):
            room = make_room()
            async with device(address, room), device(address, room):
                for key in (b"k" * 32, b"o" * 32):
                    async with client(address) as connection:
                        challenge = await hear(connection)
                        assert isinstance(challenge, Challenge)
                        await connection.send(encode_frame(make_room(key).answer(challenge.nonce)))
                        assert await ends(connection) == 1013
            while len(made.rooms):
                await asyncio.sleep(0.01)
            async with device(address, make_room(b"o" * 32)):
                assert len(made.rooms) == 1

    run(test)


@pytest.mark.parametrize("limits", [Limits(per_address=1), Limits(connections=1)])
def test_connections_have_a_limit(limits: Limits) -> None:
    async def test() -> None:
        room = make_room()
        async with hub(limits) as (_, address):
            async with device(address, room):
                with pytest.raises((OSError, InvalidMessage)):
                    async with device(address, room):
                        pass
            for _ in range(100):
                if await status_of(address, "/health") == 200:
                    break
                await asyncio.sleep(0.02)
            async with device(address, room):
                pass

    run(test)


async def status_of(address: str, path: str) -> int:
    try:
        return (await ask(address, f"GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n".encode()))[0]
    except OSError:
        return 0


def test_a_flood_is_cut_off_and_others_are_not() -> None:
    async def test() -> None:
        room = make_room()
        async with (
            hub(Limits(messages_per_s=5, messages_burst=20)) as (_, address),
            device(address, room) as quiet,
        ):
            async with device(address, room) as loud:
                with pytest.raises(ConnectionClosed):
                    for _ in range(10_000):
                        await say(loud, sealed(room))
                        await asyncio.sleep(0)
                assert await ends(loud) == 1008
            heard = 0
            with pytest.raises(asyncio.TimeoutError):
                while True:
                    await asyncio.wait_for(quiet.recv(), 0.2)
                    heard += 1
            assert 0 < heard <= 25
            async with device(address, room) as another:
                await say(another, sealed(room))
                assert isinstance(await hear(quiet), Sealed)

    run(test)


def test_messages_have_a_limit_and_a_form() -> None:
    async def test() -> None:
        room = make_room()
        for wrong, code in (
            (bytes(HUB_MESSAGE_MAX + 1), 1009),
            (b"junk", 1008),
            (encode_frame(Look()), 1008),
            (encode_frame(Challenge(1, bytes(32))), 1008),
        ):
            async with hub() as (_, address), device(address, room) as connection:
                await connection.send(wrong)
                assert await ends(connection) == code

    run(test)


def test_who_reads_slowly_is_cut_off() -> None:
    async def test() -> None:
        room = make_room()
        limits = Limits(backlog_bytes=64 << 10, messages_per_s=1e9, messages_burst=1e9)
        async with hub(limits) as (made, address):
            host, _, port = address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
            writer.write(
                b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            head = await reader.readexactly(2)
            frame = await reader.readexactly(head[1])
            nonce = frame[-32:]
            answer = encode_frame(room.answer(nonce))
            # Masked with zeros, as a client's frame has to be masked.
            writer.write(bytes([0x82, 0x80 | len(answer)]) + bytes(4) + answer)
            async with device(address, room) as loud:
                big = Sealed(bytes(32), bytes(16_000))
                for _ in range(2000):
                    await say(loud, big)
                    if "reads too slowly" in made.metrics.text().decode():
                        break
                    await asyncio.sleep(0)
                else:
                    raise AssertionError("the slow reader was not cut off")
            writer.close()

    run(test)


def test_a_quiet_client_is_asked_and_then_forgotten() -> None:
    async def test() -> None:
        room = make_room()
        async with (
            hub(Limits(quiet_s=0.3)) as (made, address),
            device(address, room) as answers,
        ):
            await asyncio.sleep(1.0)
            assert len(made.rooms) == 1  # it answers pings by itself
            answers.transport.pause_reading()  # from here on it does not
            while len(made.rooms):
                await asyncio.sleep(0.01)
            answers.transport.abort()

    run(test)


def test_a_restart_is_told() -> None:
    async def test() -> None:
        async with hub() as (made, address), device(address, make_room()) as connection:
            await made.close()
            assert await ends(connection) == 1012

    run(test)


def test_no_page_of_a_browser() -> None:
    async def test() -> None:
        async with hub() as (_, address):
            with pytest.raises(InvalidStatus):
                async with client(address, origin="https://example.org"):
                    pass

    run(test)


@pytest.mark.parametrize("body", [S3, MINIO, SNS, EVENT_BRIDGE], ids=["s3", "minio", "sns", "eb"])
def test_a_webhook_makes_a_room_look(body: object) -> None:
    async def test() -> None:
        room = make_room()
        async with hub() as (_, address), device(address, room) as a, device(address, room) as b:
            request = post(f"/webhook/{room.name.hex()}", json.dumps(body).encode())
            assert await ask(address, request) == (204, b"")
            assert await hear(a) == Look()
            assert await hear(b) == Look()

    run(test)


def test_a_webhook_of_something_else_says_nothing() -> None:
    async def test() -> None:
        room = make_room()
        bodies = [
            {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "data/x"}}}]},
            {"Records": [{"eventName": "ObjectRemoved:Delete", "s3": {"object": {"key": ENTRY}}}]},
            {"Records": [{"eventName": "ObjectCreated:Put", "s3": 7}, None]},
            {"Records": {"a": 1}}, {"detail-type": "Object Created", "detail": []}, {},
        ]  # fmt: skip
        path = f"/webhook/{room.name.hex()}"
        async with hub() as (_, address), device(address, room) as a:
            for body in bodies:
                assert await ask(address, post(path, json.dumps(body).encode())) == (204, b"")
            for wrong in (b"", b"{", b"[]", b"[" * 100_000):
                assert (await ask(address, post(path, wrong)))[0] == 400
            assert (await ask(address, post("/webhook/zz", b"{}")))[0] == 400
            assert (await ask(address, post("/else", b"{}")))[0] == 404
            huge = f"POST {path} HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".encode()
            assert (await ask(address, huge))[0] == 413
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(a.recv(), 0.05)

    run(test)


def test_a_subscription_is_shown_to_who_runs_the_hub(caplog: pytest.LogCaptureFixture) -> None:
    right = {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.example.org/?a=b"}
    assert subscription_of(json.dumps(right).encode()) == right["SubscribeURL"]
    for wrong in ("http://x", "https://x\nforged line", "https://" + "x" * 5000, 7):
        assert subscription_of(json.dumps(right | {"SubscribeURL": wrong}).encode()) == ""
    assert subscription_of(json.dumps(S3).encode()) == ""

    async def test() -> None:
        async with hub() as (_, address):
            path = f"/webhook/{make_room().name.hex()}"
            assert (await ask(address, post(path, json.dumps(right).encode())))[0] == 204

    run(test)
    assert "open https://sns.example.org/?a=b" in caplog.text


def test_webhooks_with_a_token() -> None:
    async def test() -> None:
        room = make_room()
        path, body = f"/webhook/{room.name.hex()}", json.dumps(S3).encode()
        async with hub(webhook_token="open sesame") as (_, address), device(address, room) as a:
            assert (await ask(address, post(path, body)))[0] == 401
            assert (await ask(address, post(path, body, "Authorization: Bearer no")))[0] == 401
            right = "Authorization: Bearer open sesame"
            assert (await ask(address, post(path, body, right)))[0] == 204
            assert await hear(a) == Look()
            assert (await ask(address, post(f"{path}?token=open+sesame", body)))[0] == 204

    run(test)


def test_many_webhooks_are_told_once() -> None:
    async def test() -> None:
        room = make_room()
        path, body = f"/webhook/{room.name.hex()}", json.dumps(S3).encode()
        async with hub(Limits(looks_per_s=2)) as (_, address), device(address, room) as a:
            for _ in range(30):
                await ask(address, post(path, body))
            heard = 0
            with pytest.raises(asyncio.TimeoutError):
                while True:
                    assert await asyncio.wait_for(a.recv(), 0.8) == encode_frame(Look())
                    heard += 1
            assert 1 <= heard <= 6

    run(test)


def test_health_and_metrics() -> None:
    async def test() -> None:
        room = make_room()
        async with hub() as (_, address), device(address, room) as a, device(address, room) as b:
            await say(a, sealed(room))
            await hear(b)
            assert await ask(address, b"GET /health HTTP/1.1\r\n\r\n") == (200, b"ok\n")
            status, text = await ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")
            assert status == 200
            assert b"lucid_hub_rooms 1.0" in text
            assert b"lucid_hub_entered_total 2.0" in text
            assert b"lucid_hub_relayed_total 1.0" in text
            assert room.name.hex().encode() not in text
            for junk in (b"\r\n\r\n", b"GET / HTTP/1.1 x y\r\n\r\n", b"\xff\xfe\r\n\r\n"):
                assert (await ask(address, junk))[0] == 400
            assert (await ask(address, b"G" * 100_000 + b"\r\n\r\n"))[0] in (0, 400)

    run(test)


def test_entering_twice_is_not_in_the_format() -> None:
    async def test() -> None:
        room = make_room()
        async with hub() as (_, address), device(address, room) as connection:
            await connection.send(encode_frame(room.answer(bytes(32))))
            assert await ends(connection) == 1008
            async with client(address) as again:
                await enter(again, room)

    run(test)
