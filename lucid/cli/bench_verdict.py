"""What `lucid bench` makes of its figures: good or poor, and which part is the limit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = ["COLOURS", "Figure", "Limit", "judge", "limits"]

COLOURS = {"good": "green", "fair": "yellow", "poor": "red"}

MEGA = 1e6
OF_MOUNT = 0.8
"""The mount's own figures hold disk and processor too. Only below this share of what those give
alone is the mount to blame."""
OF_LINE = 1.6
"""Four connections that bring less than this times what one brings: the way there is full."""


class Figure(NamedTuple):
    """One measurement. `value` is bytes or files a second, or seconds; `poor` and `good` are where
    those words begin."""

    part: str
    key: str
    what: str
    unit: str
    value: float
    poor: float
    good: float

    @property
    def verdict(self) -> str:
        # For seconds good is the smaller one.
        sign = 1 if self.good > self.poor else -1
        if sign * self.value >= sign * self.good:
            return "good"
        return "poor" if sign * self.value < sign * self.poor else "fair"

    @property
    def shown(self) -> str:
        return _in(self.unit, self.value)

    @property
    def typical(self) -> str:
        low, high = sorted((self.poor, self.good))
        return f"{_in(self.unit, low).split()[0]} to {_in(self.unit, high)}"


class Limit(NamedTuple):
    """What bounds a job: the slowest part, the rates of all in bytes a second, and the rate that
    the job goes at: what the mount reached where that was measured, else that of the part."""

    job: str
    part: str
    rate: float
    rates: Mapping[str, float]
    why: str = ""


_RATE, _TIME, _FILES = "B/s", "s", "files/s"
_KNOWN: dict[str, dict[str, tuple[str, str, float, float]]] = {
    "crypto": {
        "seal aegis-256": ("sealing, AEGIS-256", _RATE, 300 * MEGA, 600 * MEGA),
        "open aegis-256": ("opening, AEGIS-256", _RATE, 1000 * MEGA, 3000 * MEGA),
        "seal xchacha20-poly1305": ("sealing, XChaCha20", _RATE, 150 * MEGA, 350 * MEGA),
        "open xchacha20-poly1305": ("opening, XChaCha20", _RATE, 300 * MEGA, 800 * MEGA),
    },
    "disk": {
        "write": ("write until it is safe", _RATE, 100 * MEGA, 500 * MEGA),
        "read": ("read", _RATE, 200 * MEGA, 1000 * MEGA),
        "sync": ("a small write until it is safe", _TIME, 0.010, 0.002),
    },
    "network": {"connect": ("open a connection", _TIME, 0.150, 0.030)},
    "store": {
        "answer": ("read a byte", _TIME, 0.100, 0.025),
        "commit": ("make a small object", _TIME, 0.200, 0.050),
        "get one": ("read, one connection", _RATE, 15 * MEGA, 60 * MEGA),
        "get": ("read, four connections", _RATE, 40 * MEGA, 200 * MEGA),
        "put": ("write, four connections", _RATE, 20 * MEGA, 100 * MEGA),
    },
    "mount": {
        "write": ("write to fsync", _RATE, 50 * MEGA, 150 * MEGA),
        "commit": ("write, fsync, until in the store", _RATE, 20 * MEGA, 100 * MEGA),
        "cached": ("read, local cache", _RATE, 250 * MEGA, 600 * MEGA),
        "memory": ("read, memory", _RATE, 1000 * MEGA, 3000 * MEGA),
        "create": ("make small files", _FILES, 200, 600),
        "read small": ("read small files", _FILES, 1000, 3000),
    },
}
"""Part -> figure -> (what it is, unit, poor below, good from): drives on laptops and small servers,
their stores in the next data centre."""


_DIRECTORY: dict[str, tuple[str, str, float, float]] = {
    "answer": ("read a byte", _TIME, 0.010, 0.001),
    "commit": ("make a small object", _TIME, 0.050, 0.010),
    "get one": ("read, one at a time", _RATE, 200 * MEGA, 1000 * MEGA),
    "get": ("read, four at once", _RATE, 200 * MEGA, 1000 * MEGA),
    "put": ("write, four at once", _RATE, 100 * MEGA, 500 * MEGA),
}
"""Of a store that is a directory, on a disk of this machine or a network drive."""


def judge(found: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    """The figures of all parts that were measured, in order."""
    parts = _KNOWN if "network" in found else _KNOWN | {"store": _DIRECTORY}
    return [
        Figure(part, key, what, unit, found[part][key], poor, good)
        for part, known in parts.items()
        for key, (what, unit, poor, good) in known.items()
        if key in found.get(part, {})
    ]


def limits(found: Mapping[str, Mapping[str, float]]) -> list[Limit]:
    """What bounds each job, as far as its parts were measured."""
    return list(_limits(found))


def _limits(found: Mapping[str, Mapping[str, float]]) -> Iterator[Limit]:
    crypto, disk = found["crypto"], found["disk"]
    store, mount = found.get("store"), found.get("mount", {})
    suite = max(("aegis-256", "xchacha20-poly1305"), key=lambda name: crypto[f"open {name}"])
    opening, sealing = crypto[f"open {suite}"], crypto[f"seal {suite}"]
    here = {"disk": disk["read"], "crypto": opening}
    if store is not None:
        first = {"store": store["get"], "crypto": opening} | _mount(mount, "cached", here)
        if mount.get("cached", min(first.values())) < min(first.values()):
            # What comes passes through the cache: no drive reads faster from afar than from here.
            first["disk"] = disk["read"]
        why = _way(store)
        if "network" not in found:
            # What was just written there comes out of memory; a drive's reads do not.
            first["disk"] = disk["read"]
            why = "a directory: its disk, or what it is mounted from"
        bound = _slowest("reading for the first time", first, why_store=why)
        yield bound._replace(rate=min(bound.rate, mount.get("cached", bound.rate)))
    cached = here | _mount(mount, "cached", here)
    yield _slowest("reading from the local cache", cached, mount.get("cached"))
    kept = {"disk": disk["write"], "crypto": sealing}
    yield _slowest("writing to fsync", kept | _mount(mount, "write", kept), mount.get("write"))
    if store is not None:
        sent = kept | {"store": store["put"]}
        parts = sent | _mount(mount, "commit", sent)
        yield _slowest("writing until in the store", parts, mount.get("commit"))


def _mount(mount: Mapping[str, float], key: str, others: Mapping[str, float]) -> dict[str, float]:
    """The mount as a part, when it is slower than what it is made of."""
    rate = mount.get(key)
    if rate is None or rate > OF_MOUNT * min(others.values()):
        return {}
    return {"mount": rate}


def _way(store: Mapping[str, float]) -> str:
    """What a slow read of the store hangs on."""
    if store["get"] < OF_LINE * store["get one"]:
        return "more connections bring no more: its own rate, or the line to it"
    return "one connection alone is slower: the distance to it"


def _slowest(
    job: str, rates: Mapping[str, float], reached: float | None = None, why_store: str = ""
) -> Limit:
    part = min(rates, key=lambda part: rates[part])
    rate = rates[part] if reached is None else reached
    return Limit(job, part, rate, rates, why_store if part == "store" else "")


def _in(unit: str, value: float) -> str:
    """A number and its unit as people read them."""
    if unit == _TIME:
        return f"{value * 1000:,.1f} ms" if value < 0.01 else f"{value * 1000:,.0f} ms"
    if unit == _FILES:
        return f"{value:,.0f} files/s"
    return f"{value / MEGA:,.0f} MB/s" if value >= 10 * MEGA else f"{value / MEGA:.1f} MB/s"
