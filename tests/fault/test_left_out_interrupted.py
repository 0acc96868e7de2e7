"""A start after loss of power that dies too, at any record that it writes: the next one decides the
same."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from lucid.errors import LocalError
from lucid.filespace import Filespace
from lucid.local.book import JournalBook
from lucid.store.faulty import Fault, FaultPlan
from tests.fault.chance_program import Program
from tests.fault.losing import Losing, shown
from tests.fault.test_left_out_by_chance import check
from tests.fault.test_left_out_names import NEW, save_lost
from tests.filespace.spaces import WAIT_S, Space


class Cut(LocalError):
    """The process dies here."""


def dies_after(count: int, patch: pytest.MonkeyPatch) -> None:
    left = [count]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **more: Any) -> Any:
            if not left[0]:
                raise Cut("The process dies.")
            left[0] -= 1
            return real(*args, **more)

        return made

    for name in ("append", "append_many", "note", "forget", "rewrite"):
        patch.setattr(JournalBook, name, dying(getattr(JournalBook, name)))


def start_cut_short(machine: Losing, after: int) -> Filespace | None:
    """A start that writes `after` records, or None: all that it had to."""
    plan = FaultPlan()
    plan.script("put", [Fault.REFUSE] * 1000)
    with pytest.MonkeyPatch.context() as patch:
        dies_after(after, patch)
        try:
            return machine.space.connect("a", plan=plan)
        except Cut:
            return None


def power_goes(machine: Losing) -> None:
    machine.space.crash(machine.fs, "a")
    for path in machine.lost:
        path.unlink(missing_ok=True)


def after_two_crashes(machine: Losing, after: int) -> dict[str, bytes]:
    power_goes(machine)
    fs = start_cut_short(machine, after)
    if fs is not None:
        machine.space.crash(fs, "a")
    machine.fs = machine.space.connect("a")
    machine.fs.sync(timeout=WAIT_S)
    return shown(machine)


@pytest.fixture
def machine(space: Space) -> Losing:
    return Losing(space)


@pytest.mark.parametrize("after", range(10))
def test_renamed_on_and_on(machine: Losing, after: int) -> None:
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/backup")
    machine.fs.rename("/backup", "/archive")
    machine.fs.rename("/archive", "/last")
    machine.fs.remove("/last")
    assert list(after_two_crashes(machine, after)) == ["other"]


@pytest.mark.parametrize("after", range(8))
def test_over_another_name_of_the_same_file(machine: Losing, after: int) -> None:
    machine.fs.link("/file", "/linked")
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/linked")
    machine.fs.rename("/linked", "/last")
    machine.fs.remove("/last")
    assert list(after_two_crashes(machine, after)) == ["other"]


@pytest.mark.parametrize("after", range(8))
def test_a_name_that_is_used_anew(machine: Losing, after: int) -> None:
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/backup")
    machine.fs.write_bytes("/file", NEW)
    machine.fs.rename("/file", "/backup")
    found = after_two_crashes(machine, after)
    assert sorted(found) == ["backup", "other"]
    assert found["backup"] == NEW


@pytest.mark.parametrize("seed", range(100, 150))
def test_what_is_lost_never_was(space: Space, seed: int) -> None:
    chance, machine = Random(seed), Losing(space)
    program = Program(machine, seed)
    for _ in range(4 + seed % 16):
        program.step()
    left = program.left()
    power_goes(machine)
    for _ in range(1 + seed % 3):
        fs = start_cut_short(machine, chance.randrange(20))
        if fs is not None:
            check(fs, left, program.done)
            space.crash(fs, "a")
    machine.fs = space.connect("a")
    machine.fs.sync(timeout=WAIT_S)
    check(machine.fs, left, program.done)
