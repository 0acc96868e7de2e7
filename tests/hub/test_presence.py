"""Which presences are believed: a hub may delay, repeat and re-order them. With a clock of ours."""

from __future__ import annotations

from lucid.format.hub import Presence
from lucid.sync.presence import DEVICES_MAX, FRESH_S, GONE_S, Devices

MEMBER, OTHER = b"m" * 16, b"o" * 16
NOW_NS = 1_800_000_000 * 10**9


class Hands:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return NOW_NS + int((self.now - 1000.0) * 1e9)


def devices(clock: Hands) -> Devices:
    return Devices(b"s" * 16, {3: MEMBER}.get, clock)


def presence(clock: Hands, number: int = 1, **fields: object) -> Presence:
    made = Presence(clock.time_ns(), b"d" * 16, number, 3, b"laptop", 0, 0, (), 0)
    return made._replace(**fields)  # type: ignore[arg-type]


def test_each_counts_once_and_in_its_order() -> None:
    clock = Hands()
    seen = devices(clock)
    old, new = presence(clock, 1, paths=(b"/old",)), presence(clock, 2, paths=(b"/new",))
    assert seen.heard(MEMBER, new)
    assert not seen.heard(MEMBER, old)
    assert not seen.heard(MEMBER, new)
    (there,) = seen.there()
    assert there.presence.paths == (b"/new",)


def test_a_device_is_gone_after_a_while_and_no_copy_brings_it_back() -> None:
    clock = Hands()
    seen = devices(clock)
    said = presence(clock, 5)
    assert seen.heard(MEMBER, said)
    clock.now += GONE_S + 1
    assert not seen.there()
    assert not seen.heard(MEMBER, said)
    clock.now += 3 * FRESH_S  # forgotten by now, and too old
    assert not seen.there()
    assert not seen.heard(MEMBER, said)
    assert seen.heard(MEMBER, presence(clock, 6))
    assert len(seen.there()) == 1


def test_who_leaves_is_gone_at_once() -> None:
    clock = Hands()
    seen = devices(clock)
    assert seen.heard(MEMBER, presence(clock, 1))
    assert seen.heard(MEMBER, presence(clock, 3, leaves=1))
    assert not seen.there()
    assert not seen.heard(MEMBER, presence(clock, 2))


def test_what_cannot_be_is_not_believed() -> None:
    clock = Hands()
    seen = devices(clock)
    assert not seen.heard(MEMBER, presence(clock, device=b"s" * 16)), "it is this device"
    assert not seen.heard(OTHER, presence(clock)), "the session is another member's"
    for late in (-FRESH_S - 1, FRESH_S + 1):
        time_ns = clock.time_ns() + int(late * 1e9)
        assert not seen.heard(MEMBER, presence(clock, time_ns=time_ns))
    assert seen.heard(OTHER, presence(clock, session=0)), "a read-only drive has no session"
    assert seen.heard(MEMBER, presence(clock, session=4)), "its entry may not be folded yet"


def test_there_is_a_bound() -> None:
    clock = Hands()
    seen = devices(clock)
    for number in range(3 * DEVICES_MAX):
        assert seen.heard(MEMBER, presence(clock, device=number.to_bytes(16, "big")))
    assert len(seen.there()) == DEVICES_MAX
