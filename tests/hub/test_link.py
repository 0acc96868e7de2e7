"""The device's side of the hub: what it tells, and that no hub can do it harm."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from lucid.errors import ConfigError
from lucid.format.hub import (
    HUB_MESSAGE_MAX,
    KIND_HINT,
    KIND_PRESENCE,
    LOOK,
    WELCOME,
    Challenge,
    Presence,
    Sealed,
    decode_frame,
    encode_frame,
    encode_presence,
)
from lucid.hub.limits import Limits
from lucid.sync import hub_link
from lucid.sync.hub_wire import _why, parse_hub
from lucid.types import SystemEntropy
from tests.hub.hubs import hint, make_member, make_room
from tests.hub.rogue import Machine, let_in, machines, real_hub, rogue

CERTIFICATE = Path(__file__).parents[1] / "contract" / "localhost.pem"
WAIT_S = 15.0


def until(true: Callable[[], object], machine: Machine) -> None:
    """Waits for what the link's thread does by and by."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, f"it does not come to it: {machine.link.problem}"
        time.sleep(0.005)  # the fields of a link are looked at, nothing tells of them


def test_why_there_is_no_connection_is_told_without_numbers() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    assert _why(refused) == "Connection refused"
    assert _why(socket.gaierror(socket.EAI_NONAME, "?")) == "Its address is not found."
    assert _why(OSError("It does not answer.")) == "It does not answer."


def test_a_commit_of_one_makes_the_others_look() -> None:
    with real_hub() as url, machines(url, 3) as (a, b, c):
        for machine in (a, b, c):
            machine.wait_looks(1)  # when it came in
        a.link.won(7, bytes(32))
        b.wait_looks(2)
        c.wait_looks(2)
        assert a.looks == 1
        b.head = c.head = 7
        b.link.won(6, bytes(32))  # nobody need look for what is there
        until(lambda: c.link.hints == 2, c)
        assert c.link._looking.due(7) == float("inf")


def test_another_entry_of_a_number_is_noticed() -> None:
    with real_hub() as url, machines(url, 2) as (a, b):
        until(lambda: a.link.connected and b.link.connected, a)
        b.hashes.update({7: b"7" * 32, 8: b"x" * 32})
        a.link.won(7, b"7" * 32)
        until(lambda: b.link.hints == 1, b)
        b.head = 7
        a.link.won(8, b"8" * 32)  # told before it is folded there
        until(lambda: b.link.hints == 2, b)
        assert not b.forks
        b.head = 8
        until(lambda: b.forks, b)
        a.link.won(9, b"9" * 32)  # not known any more there
        b.head = 9
        until(lambda: b.link.hints == 3, b)
        b.link.close()
        assert b.forks == [8]


def test_through_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    with real_hub(tls=context) as url, machines(url) as (stranger,):
        until(lambda: "certificate is not accepted" in stranger.link.problem, stranger)
        assert not stranger.link.connected
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with real_hub(tls=context) as url, machines(url, 2) as (a, b):
        a.wait_looks(1)
        b.wait_looks(1)
        a.link.won(7, bytes(32))
        b.wait_looks(2)


def test_presence_comes_and_goes() -> None:
    with real_hub() as url, machines(url, 2) as (a, b):
        until(lambda: len(b.devices.there()) == 1, b)
        until(lambda: len(a.devices.there()) == 1, a)
        a.written = ((b"/film.mov", b"/" + b"x" * 1000), 3)
        until(lambda: b.devices.there()[0].presence.paths, b)
        (seen,) = b.devices.there()
        assert seen.presence.paths == (b"/film.mov", b"x" * 256)
        assert (seen.presence.more, seen.presence.label) == (3, b"device")
        assert seen.member == make_member(1).member
        a.link.close()
        until(lambda: not b.devices.there(), b)


def test_a_hub_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_link, "PAUSE_MAX_S", 0.5)
    with real_hub() as url:
        port = int(url.rpartition(":")[2])
        made = machines(url, 2)
        a, b = made.__enter__()
        until(lambda: a.link.connected and b.link.connected, a)
        assert a.link.covers
    try:
        until(lambda: not a.link.connected and not b.link.connected, a)
        assert not a.link.covers
        a.link.won(9, bytes(32))
        with real_hub(port=port):
            until(lambda: a.link.connected and b.link.connected, b)
            until(lambda: b.link.hints == 1 or b.looks >= 3, b)  # what was committed meanwhile
            assert a.link.connections == 2
    finally:
        made.__exit__(None, None, None)


def test_forged_and_altered_messages_are_dropped() -> None:
    known, stranger = make_member(1), make_member(9)
    room, other = make_room(), make_room(b"o" * 32)
    right = room.seal(known, KIND_HINT, hint(50), SystemEntropy)
    wrong = [
        room.seal(stranger, KIND_HINT, hint(99), SystemEntropy),  # by nobody who is known
        other.seal(known, KIND_HINT, hint(99), SystemEntropy),  # of another room
        room.seal(known, 7, hint(99), SystemEntropy)._replace(object_id=bytes(32)),
        right._replace(sealed=right.sealed[:-1] + bytes([right.sealed[-1] ^ 1])),
        Sealed(bytes(32), b"x" * 100),
        room.seal(known, KIND_HINT, b"junk", SystemEntropy),
        WELCOME,
        Challenge(1, bytes(32)),
    ]

    async def script(connection: ServerConnection) -> None:
        await let_in(connection)
        for message in (*map(encode_frame, wrong), b"", b"junk", encode_frame(right)):
            await connection.send(message)
        await connection.wait_closed()

    with rogue(script) as url, machines(url) as (machine,):
        until(lambda: machine.link.hints == 1, machine)
        assert machine.link.refused == len(wrong) + 2
        assert machine.link._hinted == 50
        assert machine.link.connected


def test_repeated_hints_start_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint whose entry the store does not show is looked for six times; its copies add none."""
    monkeypatch.setattr("lucid.sync.looking.AGAIN_S", (0.01,) * 5)
    message = encode_frame(make_room().seal(make_member(1), KIND_HINT, hint(50), SystemEntropy))

    async def script(connection: ServerConnection) -> None:
        await let_in(connection)
        for _ in range(200):
            await connection.send(message)
        await connection.wait_closed()

    with rogue(script) as url, machines(url) as (machine,):
        until(lambda: machine.link.hints == 200, machine)
        machine.wait_looks(7)
        machine.link.close()
        # When the first ones are over, a copy may begin a second round, and no more.
        assert machine.looks <= 1 + 2 * 6


def test_a_hub_that_cries_wolf_costs_two_looks_a_second() -> None:
    async def script(connection: ServerConnection) -> None:
        await let_in(connection)
        while True:
            await connection.send(encode_frame(LOOK))
            await asyncio.sleep(0.02)

    with rogue(script) as url, machines(url) as (machine,):
        machine.wait_looks(2)
        began = time.monotonic()
        machine.wait_looks(6)
        assert time.monotonic() - began > 1.5
        assert machine.link.connected


def test_what_is_kept_of_messages_is_bounded() -> None:
    room, member = make_room(), make_member(1)

    def message(number: int) -> bytes:
        if number % 2:
            return encode_frame(room.seal(member, KIND_HINT, hint(10**6 - number), SystemEntropy))
        presence = Presence(
            time.time_ns(), number.to_bytes(16, "big"), 1, 0, b"x", 0, 0, (b"/" + b"p" * 200,), 0
        )
        return encode_frame(
            room.seal(member, KIND_PRESENCE, encode_presence(presence), SystemEntropy)
        )

    async def script(connection: ServerConnection) -> None:
        await let_in(connection)
        for number in range(450):  # within what is no flood yet
            await connection.send(message(number))
        await connection.wait_closed()

    with rogue(script) as url, machines(url) as (machine,):
        until(lambda: machine.link.hints == 225, machine)
        assert len(machine.link._to_compare) <= hub_link.COMPARE_MAX
        assert len(machine.devices.there()) <= 256
        # One look for the first hint and a few for the same again, not one for each message.
        assert machine.looks <= 20


def test_a_flood_is_left() -> None:
    sent = threading.Event()

    async def script(connection: ServerConnection) -> None:
        await let_in(connection)
        for _ in range(100_000):
            await connection.send(encode_frame(LOOK))
        sent.set()

    with rogue(script) as url, machines(url) as (machine,):
        until(lambda: "floods" in machine.link.problem, machine)
        assert machine.looks <= 10
        assert not sent.is_set()


@pytest.mark.parametrize(
    "message", [b"x" * (HUB_MESSAGE_MAX + 1), "text"], ids=["too long", "text"]
)
def test_what_is_in_no_form_ends_the_connection(message: bytes | str) -> None:
    async def script(connection: ServerConnection) -> None:
        await let_in(connection)
        await connection.send(message)
        await connection.wait_closed()

    with rogue(script) as url, machines(url) as (machine,):
        until(lambda: machine.link.problem, machine)
        until(lambda: not machine.link.connected, machine)


@pytest.mark.parametrize(
    "first", [b"junk", encode_frame(WELCOME), encode_frame(Challenge(2, bytes(32)))]
)
def test_a_hub_that_begins_wrongly(first: bytes) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(first)
        await connection.wait_closed()

    with rogue(script) as url, machines(url) as (machine,):
        until(lambda: machine.link.problem, machine)
        assert machine.looks == 0


def test_a_hub_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_link, "OPEN_S", 0.2)
    monkeypatch.setattr(hub_link, "QUIET_S", 0.2)

    async def never(connection: ServerConnection) -> None:
        await connection.wait_closed()

    with rogue(never) as url, machines(url) as (machine,):
        until(lambda: "does not let" in machine.link.problem, machine)

    async def then_nothing(connection: ServerConnection) -> None:
        await let_in(connection)
        connection.transport.pause_reading()  # it does not even answer pings
        await asyncio.sleep(1.5)
        connection.transport.abort()

    with rogue(then_nothing) as url, machines(url) as (machine,):
        until(lambda: "silent" in machine.link.problem, machine)


def test_a_quiet_hub_that_answers_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_link, "QUIET_S", 0.2)
    monkeypatch.setattr(hub_link, "TICK_S", 0.05)
    with real_hub() as url, machines(url) as (machine,):
        machine.wait_looks(1)
        heard = machine.link._heard
        until(lambda: machine.link._heard > heard + 0.5, machine)
        assert machine.link.connections == 1


def test_no_hub_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with machines(f"ws://127.0.0.1:{port}") as (machine,):
            began = time.monotonic()
            machine.link.close()  # while the handshake hangs
            assert time.monotonic() - began < 2.0
    with machines(f"ws://127.0.0.1:{port}") as (machine,):
        until(lambda: "refused" in machine.link.problem, machine)
        assert not machine.link.covers
        machine.link.won(5, bytes(32))


def test_what_is_no_hub() -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        with machines(f"ws://127.0.0.1:{server.getsockname()[1]}") as (machine,):
            until(lambda: "no hub" in machine.link.problem, machine)
        thread.join()
    for wrong in ("http://host", "host", "ws://", "ws:/host"):
        with pytest.raises(ConfigError):
            parse_hub(wrong)


def test_entries_that_nobody_told_make_polling_quick_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_link, "UNTOLD_S", 0.05)
    monkeypatch.setattr(hub_link, "TICK_S", 0.02)
    with real_hub() as url, machines(url, 2) as (a, b):
        until(lambda: a.link.connected and b.link.connected, a)
        b.link.won(5, bytes(32))
        until(lambda: a.link.hints, a)
        until(lambda: time.monotonic() - a.link._since > 0.1, a)
        a.link.folded(5)
        until(lambda: a.link._hinted == 5, a)
        assert a.link.covers
        a.link.folded(6)
        until(lambda: not a.link.covers, a)
        assert b.link.covers


def test_hints_of_a_busy_device_stay_within_what_a_hub_allows() -> None:
    with real_hub(Limits(messages_per_s=30, messages_burst=40)) as url, machines(url, 2) as (a, b):
        until(lambda: a.link.connected and b.link.connected, a)
        end = time.monotonic() + 1.5
        number = 2
        while time.monotonic() < end:
            number += 1
            a.link.won(number, bytes(32))
        until(lambda: b.link._hinted == number, b)
        assert a.link.connections == 1
        assert b.link.hints < 60


def test_the_frames_of_a_device_are_as_the_page_has_them() -> None:
    """Nothing but sealed frames after the answer, and padded ones."""
    seen: list[bytes] = []

    async def script(connection: ServerConnection) -> None:
        await let_in(connection)
        async for message in connection:
            assert isinstance(message, bytes)
            seen.append(message)

    with rogue(script) as url, machines(url) as (machine,):
        machine.written = ((b"/secret/name",), 0)
        until(lambda: seen, machine)
        machine.link.won(12, bytes(32))
        until(lambda: len(seen) >= 2, machine)
    frames = [decode_frame(message) for message in seen]
    assert all(isinstance(frame, Sealed) for frame in frames)
    assert len({frame.object_id for frame in frames if isinstance(frame, Sealed)}) == len(frames)
    assert not any(b"secret" in message for message in seen)
