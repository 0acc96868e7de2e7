"""Whole filespaces at a hub: at a right one changes come at once; a hostile one changes nothing."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, broadcast

from lucid.errors import HistoryFork, LucidError
from lucid.filespace import Filespace
from lucid.format.hub import LOOK, encode_frame
from tests.filespace.spaces import WAIT_S, Space, new_bucket
from tests.hub.rogue import Script, let_in, real_hub, rogue


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    made = Space(tmp_path)
    yield made
    made.close()


def until(true: Callable[[], object], within_s: float = 15.0) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, "it does not become so in time"
        time.sleep(0.002)  # nothing tells a program of a change that another machine made
    return time.monotonic() - began


def is_connected(fs: Filespace) -> bool:
    hub = fs.status().hub
    return bool(hub and hub["connected"])


def hostile(chance: random.Random) -> Script:
    """Repeats, alters, drops, re-orders and invents what passes through it."""
    there: set[ServerConnection] = set()
    kept: list[bytes] = []

    async def script(connection: ServerConnection) -> None:
        await let_in(connection)
        there.add(connection)
        try:
            async for message in connection:
                assert isinstance(message, bytes)
                kept.append(message)
                bent = bytearray(message)
                bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
                told = [bytes(bent), encode_frame(LOOK), *chance.choices(kept, k=6)]
                if chance.random() < 0.3:
                    told.append(message)
                if chance.random() < 0.05:
                    told += [encode_frame(LOOK)] * 1000
                chance.shuffle(told)
                for each in told:
                    broadcast(there, each)
        finally:
            there.discard(connection)

    return script


def tree(fs: Filespace) -> dict[str, bytes]:
    return {name: fs.read_bytes(f"/{name}") for name in fs.listdir("/")}


def test_a_change_is_visible_long_before_anybody_would_look(space: Space) -> None:
    with real_hub() as url:
        rarely = {"hub": url, "poll_fast_s": 3600.0, "poll_idle_s": 3600.0}
        a, b = space.connect("a", **rarely), space.connect("b", **rarely)
        until(lambda: is_connected(a) and is_connected(b))
        for number in range(10):
            here, there = (a, b) if number % 2 else (b, a)
            here.write_bytes(f"/f{number}", bytes([number]) * 5000)
            here.sync(timeout=WAIT_S)
            assert until(lambda there=there, n=number: there.exists(f"/f{n}")) < 5.0  # type: ignore[misc]
        assert tree(a) == tree(b)
        until(lambda: len(a.status().devices) == 1)
        (device,) = a.status().devices
        assert device["member"] == b.status().member


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hostile_hub_makes_nothing_wrong_visible(space: Space, seed: int) -> None:
    with rogue(hostile(random.Random(seed))) as url:
        a, b = space.connect("a", hub=url), space.connect("b", hub=url)
        until(lambda: is_connected(a) and is_connected(b))
        wanted = {}
        for number in range(40):
            fs = (a, b)[number % 2]
            wanted[f"f{number}"] = bytes([number]) * (number * 100)
            fs.write_bytes(f"/f{number}", wanted[f"f{number}"])
            if number % 5 == 0:
                fs.sync(timeout=WAIT_S)
        for fs in (a, b):
            fs.sync(timeout=WAIT_S)
        for fs in (a, b):
            assert fs.refresh(WAIT_S)
            assert tree(fs) == wanted
            status = fs.status()
            assert (status.problem, status.void_entries, status.failed) == ("", 0, ())
            hub = status.hub
            assert hub is not None and (hub["refused"] or "floods" in hub["problem"])
            assert len(status.devices) <= 1


def test_two_histories_are_noticed_by_those_who_meet_at_a_hub(space: Space) -> None:
    """The store shows each of two devices a log of its own, and they never read the other's."""
    with space.connect("maker") as maker:
        maker.write_bytes("/common", b"x")
    parted = new_bucket()
    parted.objects, parted.keys = dict(space.bucket.objects), list(space.bucket.keys)
    other = Space(space.root / "other", parted)
    try:
        with real_hub() as url:
            a, b = space.connect("a", hub=url), other.connect("b", hub=url)
            until(lambda: is_connected(a) and is_connected(b))
            for fs in (a, b):
                fs.write_bytes("/mine", b"y")
            until(lambda: "two histories" in a.status().problem + b.status().problem)
            for fs in (a, b):
                fs.write_bytes("/more", b"z") if not fs.status().problem else None
            until(lambda: "two histories" in b.status().problem)
            until(lambda: "two histories" in a.status().problem)
            with pytest.raises(HistoryFork):
                b.write_bytes("/late", b"z")
            assert b.read_bytes("/common") == b"x"
    finally:
        other.close()


@pytest.mark.parametrize("style", ["s3", "minio"])
def test_a_webhook_of_the_store_tells_of_who_is_at_no_hub(space: Space, style: str) -> None:
    record: dict[str, Any] = {"eventName": "ObjectCreated:Put"}
    with real_hub() as url:
        rarely = {"hub": url, "poll_fast_s": 3600.0, "poll_idle_s": 3600.0}
        writer, reader = space.connect("a"), space.connect("b", **rarely)
        until(lambda: is_connected(reader))
        hub = reader.status().hub
        assert hub is not None
        head = writer.status().head
        for number in range(3):
            writer.write_bytes(f"/f{number}", b"x")
            writer.sync(timeout=WAIT_S)
            assert not reader.exists(f"/f{number}")
            key = f"team/log/{head + number + 1:016x}"
            record["s3"] = {"bucket": {"name": "b"}, "object": {"key": key}}
            message: dict[str, Any] = {"Records": [record]}
            if style == "minio":
                message |= {"EventName": "s3:ObjectCreated:Put", "Key": f"b/{key}"}
            place = url.replace("ws://", "http://") + f"/webhook/{hub['room']}"
            with urllib.request.urlopen(place, json.dumps(message).encode(), timeout=10):
                until(lambda n=number: reader.exists(f"/f{n}"))  # type: ignore[misc]


def test_wait_ends_when_the_filespace_is_closed(space: Space) -> None:
    fs = space.connect("a")
    token = fs.sync(timeout=WAIT_S)
    assert fs.wait(token, 0.0) >= 1
    begin, middle, end = token.split("-")
    said: list[BaseException] = []

    def wait() -> None:
        try:
            fs.wait(f"{begin}-{int(middle) + 5}-{end}", WAIT_S)
        except LucidError as error:
            said.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: fs.tree.others.feed._news._waiters)  # type: ignore[attr-defined]
    fs.close()
    thread.join(10.0)
    assert not thread.is_alive()
    assert [type(error).__name__ for error in said] == ["Stopped"]


def test_who_falls_behind_is_told(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucid.sync.feed.OPS_MAX", 10)
    fs = space.connect("a")
    others = fs.tree.others
    _, start, missed = others.changes(0, 0.0)
    assert not missed
    for number in range(20):
        fs.write_bytes(f"/f{number}", b"x")
        fs.sync(timeout=WAIT_S)
    until(lambda: others.feed.head == fs.status().head)
    found, after, missed = others.changes(start, 5.0)
    assert missed
    assert found[-1].path == b"/f19"
    assert len(found) < 20
    assert others.changes(after, 0.0) == ([], after, False)


def test_what_is_told_of_changes(space: Space) -> None:
    a, b = space.connect("a"), space.connect("b")
    others = b.tree.others
    _, start, _ = others.changes(0, 0.0)
    a.mkdir("/d")
    a.write_bytes("/d/one", b"1")
    a.sync(timeout=WAIT_S)
    a.write_bytes("/d/one", b"22")
    a.rename("/d/one", "/d/two")
    a.link("/d/two", "/three")
    a.chmod("/three", 0o600)
    a.sync(timeout=WAIT_S)
    assert b.refresh(WAIT_S)
    a.remove("/three")
    a.remove("/d/two")
    a.rmdir("/d")
    a.sync(timeout=WAIT_S)
    assert b.refresh(WAIT_S)
    found, after = [], start
    while not found or found[-1].path != b"/d":
        more, after, missed = others.changes(after, 10.0)
        assert more and not missed
        found += more
    kinds = [change.kind for change in found]
    assert kinds.count("remove") == 3 and kinds[-3:] == ["remove"] * 3
    assert [change.path for change in found[-3:]] == [b"/three", b"/d/two", b"/d"]
    assert {"create", "write", "rename", "link", "attributes"} <= set(kinds)
    assert [each.to for each in found if each.kind == "rename"] == [b"/d/two"]
    assert {each.member for each in found} == {a.status().member}
    assert [each.sequence for each in found] == sorted(each.sequence for each in found)


def test_each_change_is_told_where_it_was_made(space: Space) -> None:
    """Not where the file lies by now: it was renamed, and with a directory above it, since."""
    a, b = space.connect("a"), space.connect("b", poll_idle_s=3600.0, poll_fast_s=3600.0)
    a.mkdir("/w")
    a.sync(timeout=WAIT_S)
    assert b.refresh(WAIT_S)
    starts = [fs.tree.others.changes(0, 0.0)[1] for fs in (a, b)]
    a.write_bytes("/w/a", b"1")
    a.sync(timeout=WAIT_S)
    a.rename("/w/a", "/w/b")
    a.write_bytes("/w/b", b"22")
    a.chmod("/w/b", 0o600)
    a.rename("/w", "/v")
    a.write_bytes("/v/b", b"333")
    a.rename("/v/b", "/c")
    a.sync(timeout=WAIT_S)
    assert b.refresh(WAIT_S)
    want = [
        ("create", b"/w/a", b""), ("rename", b"/w/a", b"/w/b"), ("write", b"/w/b", b""),
        ("attributes", b"/w/b", b""), ("rename", b"/w", b"/v"), ("write", b"/v/b", b""),
        ("rename", b"/v/b", b"/c"),
    ]  # fmt: skip
    found, _, _ = b.tree.others.changes(starts[1], 10.0)
    assert [(each.kind, each.path, each.to) for each in found] == want
    found, _, _ = a.tree.others.changes(starts[0], 10.0)
    assert [(each.kind, each.path, each.to) for each in found] == want


def test_a_conflict_is_told_as_one(space: Space) -> None:
    a, b = space.connect("a"), space.connect("b", poll_idle_s=3600.0, poll_fast_s=3600.0)
    _, start, _ = b.tree.others.changes(0, 0.0)
    a.write_bytes("/same.txt", b"a")
    b.write_bytes("/same.txt", b"b")
    a.sync(timeout=WAIT_S)
    b.sync(timeout=WAIT_S)
    assert a.refresh(WAIT_S) and b.refresh(WAIT_S)
    found, after = [], start
    while len(found) < 2:
        more, after, _ = b.tree.others.changes(after, 10.0)
        assert more
        found += more
    assert [change.kind for change in found] == ["create", "conflict"]
    assert found[1].path.startswith(b"/same (conflict ")


def test_a_hub_that_swallows_everything_delays_and_hides_nothing(space: Space) -> None:
    """S-39: it lets all in and passes nothing on; drives go on by polling, by themselves."""

    async def swallow(connection: ServerConnection) -> None:
        await let_in(connection)
        async for _ in connection:
            pass

    with rogue(swallow) as url:
        told = {"hub": url, "poll_told_s": 0.5}
        a, b = space.connect("a", **told), space.connect("b", **told)
        until(lambda: is_connected(a) and is_connected(b))
        for number in range(6):
            here, there = (a, b) if number % 2 else (b, a)
            here.write_bytes(f"/f{number}", bytes([number]) * 5000)
            until(lambda there=there, n=number: there.exists(f"/f{n}"), WAIT_S)  # type: ignore[misc]
        assert tree(a) == tree(b)
        assert a.status().devices == b.status().devices == ()


def test_a_hub_that_mixes_up_rooms_tells_nothing(space: Space) -> None:
    """What devices of another filespace say is refused, and nothing of it is believed."""
    there: set[ServerConnection] = set()

    async def mix(connection: ServerConnection) -> None:
        await let_in(connection)
        there.add(connection)
        try:
            async for message in connection:
                broadcast(there - {connection}, message)
        finally:
            there.discard(connection)

    other = Space(space.root / "other", new_bucket(128 * 1024))
    try:
        with rogue(mix) as url:
            a, b = space.connect("a", hub=url), space.connect("b", hub=url)
            strange = other.connect("c", hub=url)
            until(lambda: all(map(is_connected, (a, b, strange))))
            for number in range(5):
                strange.write_bytes(f"/s{number}", b"strange")
                strange.sync(timeout=WAIT_S)
                a.write_bytes(f"/f{number}", b"ours")
                a.sync(timeout=WAIT_S)
            until(lambda: tree(b) == {f"f{number}": b"ours" for number in range(5)})
            until(lambda: all((fs.status().hub or {})["refused"] for fs in (a, b, strange)))
            assert tree(strange) == {f"s{number}": b"strange" for number in range(5)}
            for fs in (a, b, strange):
                assert fs.status().problem == ""
            # Presence is said now and then, not kept for who comes later.
            until(lambda: {len(fs.status().devices) for fs in (a, b)} == {1}, 30.0)
            assert strange.status().devices == ()
    finally:
        other.close()
