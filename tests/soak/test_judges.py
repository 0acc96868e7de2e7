"""The judges of the soak: what they let pass, and what they do not."""

from __future__ import annotations

import json
from random import Random

import pytest

from tests.soak.ledger import Ledger, Mismatch
from tests.soak.past import UNREADABLE, Past
from tests.soak.steps import LOGS, SHARED, Step, Tree, after, steps

SHELL: Tree = dict.fromkeys((*SHARED, LOGS))
MAKE = Step("make", "/d0/w0-1", "", 1, 5000)
MORE = Step("append", "/d0/w0-1", "", 2, 700)
MOVE = Step("rename", "/d0/w0-1", "/d1/w0-2")
LOG = "/logs/w0"


def told(*lines: str | Step) -> Ledger:
    """A ledger after these words of the one worker; a step stands for its line `do`."""
    ledger = Ledger(1)
    for line in lines:
        ledger.tellers[0].hear(f"do {json.dumps(line)}" if isinstance(line, Step) else line)
    return ledger


def passes(ledger: Ledger, found: Tree) -> bool:
    try:
        ledger.check(SHELL | found, "here")
    except Mismatch:
        return False
    return True


def test_what_was_acknowledged_must_be_there() -> None:
    made = after({}, MAKE)
    assert passes(told(MAKE, "did"), made)
    assert not passes(told(MAKE, "did"), {})
    assert not passes(told(MAKE, "did"), made | {"/d0/w0-9": b""})
    assert not passes(told(MAKE, "did"), made | {"/d1/other": b""})
    assert not passes(told(MAKE, "did"), made | {"/d0/w0-1 (conflict a b 1)": made[MAKE.path]})


def test_what_was_under_way_has_happened_or_not() -> None:
    made = after({}, MAKE)
    longer = after(made, MORE)
    ledger = told(MAKE, "did", MORE)
    assert passes(ledger, made)
    assert passes(ledger, longer)
    data = longer[MORE.path]
    assert data is not None
    assert not passes(ledger, {MORE.path: data[:-1]})
    assert not passes(ledger, {MORE.path: data[:-1] + bytes([data[-1] ^ 1])})
    moving = told(MAKE, "did", MOVE)
    assert passes(moving, made)
    assert passes(moving, after(made, MOVE))
    assert not passes(moving, made | after(made, MOVE))
    assert not passes(moving, {})


def test_a_file_that_stays_open_holds_what_was_covered() -> None:
    first, second = Step("write", LOG, "", 1, 10), Step("write", LOG, "", 2, 20)
    data = first.data() + second.data()
    ledger = told(first, "did", Step("fsync", LOG), "did", second, "did")
    assert passes(ledger, {LOG: data})
    assert passes(ledger, {LOG: data[:10]})
    assert not passes(ledger, {LOG: data[:9]})
    assert not passes(ledger, {LOG: data[:15]})
    assert not passes(ledger, {})


def after_all(*done: Step) -> Past:
    past = Past({})
    for step in done:
        past.begin(step)
        past.end(step)
    return past


def test_loss_of_power_leaves_a_prefix() -> None:
    made = after({}, MAKE)
    past = after_all(MAKE, MORE, Step("mkdir", "/d0/w0-dir3"))
    assert not past.check({})
    assert not past.check(made)
    assert not past.check(after(made, MORE) | {"/d0/w0-dir3": None})
    assert not past.check({MAKE.path: UNREADABLE})
    assert past.check({MAKE.path: b"other"})
    assert past.check({"/d1/w0-2": made[MAKE.path]})


def test_loss_of_power_keeps_what_was_synced() -> None:
    made = after({}, MAKE)
    past = after_all(MAKE, Step("sync", MAKE.path), MORE, MOVE)
    data = made[MAKE.path]
    assert not past.check(made)
    assert not past.check(after(made, MOVE))
    assert not past.check(after(after(made, MORE), MOVE))
    assert past.check({})
    assert past.check({MAKE.path: UNREADABLE})
    assert past.check({MAKE.path: b""})
    assert past.check({MAKE.path: data, "/d1/w0-2": data})


@pytest.mark.parametrize("seed", range(3))
def test_steps_can_be_done(seed: int) -> None:
    """Each is one that a file system does, on names that are there; the seed makes them again."""
    tree: Tree = {}
    made = []
    for step, _ in zip(steps(Random(seed), 0, 1, {}), range(400), strict=False):
        made.append(step)
        if step.kind not in ("make", "mkdir", "write", "fsync", "reopen"):
            assert step.path in tree
        else:
            assert step.path not in tree
        tree = after(tree, step._replace(size=min(step.size, 10)))
    again = zip(steps(Random(seed), 0, 1, {}), range(400), strict=False)
    assert [step for step, _ in again] == made
    assert {step.kind for step in made} > {"save", "cut", "rename", "rmdir", "sync", "fsync"}
