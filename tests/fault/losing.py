"""A machine that is cut off, and that loses what it has sealed when it dies.

Bytes that were sealed before `lose` are gone after the crash, as if no sync had covered them.
"""

from __future__ import annotations

from pathlib import Path

from lucid.filespace import Filespace
from lucid.store.faulty import Fault, FaultPlan
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of, some_bytes

OLD = some_bytes(1, 2 * BLOCK)
OTHER = some_bytes(2, BLOCK + 5)


class Losing:
    """See the module. `cut_off` says when the store is there no more, at once unless told."""

    def __init__(self, space: Space, *, cut_off: bool = True) -> None:
        self.space = space
        self.fs = space.connect("a")
        self.fs.write_bytes("/file", OLD)
        self.fs.write_bytes("/other", OTHER)
        self.fs.sync(timeout=WAIT_S)
        if cut_off:
            self.cut_off()
        self.lost: list[Path] = []

    def cut_off(self) -> None:
        self.space.plans["a"].die()

    def lose(self, finished: bool) -> None:
        """What was sealed up to now will be gone. `finished`: after its segments were finished, and
        noted so, which no sync need have covered either."""
        staging = self.space.state("a") / "staging"
        parts = parts_of(self.fs)
        if finished:
            pending = [set(placed.segments) for placed in parts.order.all()]
            pending += [draft.segments() for draft in parts.table.all()]
            parts.staged.finish_for(set().union(*pending))
        with parts.order.lock:
            self.lost += [path for path in staging.iterdir() if path not in self.lost]

    def crash(self, times: int = 1) -> Filespace:
        """Die, lose, and start again. `times`: those before the last end by another crash, and the
        store takes nothing until then."""
        for left in reversed(range(times)):
            self.space.crash(self.fs, "a")
            for path in self.lost:
                path.unlink(missing_ok=True)
            plan = FaultPlan()
            if left:
                plan.script("put", [Fault.REFUSE] * 1000)
            self.fs = self.space.connect("a", plan=plan)
        self.fs.sync(timeout=WAIT_S)
        return self.fs


def shown(machine: Losing) -> dict[str, bytes]:
    """What a machine sees that has only the store, which is what this one shows."""
    with machine.space.connect("b") as other:
        found = {name: other.read_bytes(f"/{name}") for name in other.listdir("/")}
    assert sorted(machine.fs.listdir("/")) == sorted(found)
    assert {name: machine.fs.read_bytes(f"/{name}") for name in found} == found
    return found
