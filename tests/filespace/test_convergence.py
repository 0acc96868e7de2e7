"""Two to five clients do what they like, over a store that fails, and then agree; and nothing that
was acknowledged is missing (S-34, S-71, S-72, S-73, S-143, S-173, S-193).

LUCID_EXAMPLES=2000 runs that many schedules of each kind, by seed, and shrinks what fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from lucid.format.ops import Content, Rename, Unlink
from lucid.meta import fold as folding
from lucid.meta.fold import NOTHING
from lucid.meta.fold_content import fold_content
from lucid.meta.fold_moves import fold_rename, fold_unlink
from tests.filespace.convergence import Missing, Parted, Team
from tests.filespace.convergence_steps import KINDS, Step, run, schedule
from tests.filespace.spaces import WAIT_S, Space, parts_of

LONGER = "LUCID_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("LUCID_EXAMPLES", "8"))
STEPS = st.lists(
    st.tuples(st.integers(0, len(KINDS) - 1), *(st.integers(0, 59) for _ in range(3))),
    min_size=3, max_size=40,
)  # fmt: skip


def outcome(
    steps: list[Step],
    clients: int = 2,
    steered: bool = True,
    also: Callable[[Team], None] = lambda team: None,
) -> dict[str, int]:
    """As `run`, in a directory of its own."""
    root = Path(tempfile.mkdtemp())
    try:
        return run(root, steps, clients, steered, also)
    finally:
        shutil.rmtree(root)


A = 2
"""/a among the files that are there in the beginning."""


def step(name: str, who: int = 0, one: int = 0, other: int = 0) -> Step:
    """A step by the name of its kind. Path 0 is /a."""
    return [known for known, _ in KINDS].index(name), who, one, other


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not LONGER,
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if LONGER else [])],
)
@given(STEPS, st.integers(2, 5), st.booleans())
@example([step("cut_off"), step("patch", other=5), step("crash")], 2, True)
def test_clients_converge(steps: list[Step], clients: int, steered: bool) -> None:
    outcome(steps, clients, steered)


@pytest.mark.slow
@pytest.mark.parametrize("steered", [True, False], ids=["steered", "free"])
def test_schedules_by_seed(steered: bool) -> None:
    """And the schedules do what they are for: steps come to something, and conflicts happen."""
    done: Counter[str] = Counter()
    for seed in range(EXAMPLES):
        try:
            done.update(outcome(schedule(seed), 2 + seed % 4, steered))
        except AssertionError:
            print(f"seed {seed}, {2 + seed % 4} clients, steered: {steered}")
            raise
    assert done["conflicts"] > 3
    seldom = {"remove_xattr", "rmdir", "symlink", "mkdir", "set_attributes", "look"}
    assert {name for name, _ in KINDS} - seldom <= set(done)


def test_a_save_upon_what_was_just_heard_is_there_after_a_crash_without_the_store() -> None:
    """S-22, S-46: what it was made upon is there as well. Found by a schedule: a program met a file
    with lost blocks, until the store answered."""
    outcome(
        [
            step("atomic_save", 1, 57, 45), step("append", 1, 48, 59), step("cut_off", 1),
            step("crash", 1), step("patch", 1, 9, 20),
        ]
    )  # fmt: skip


def test_more_ops_held_together_than_an_entry_takes(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-43: found by a schedule. They waited for a segment that nobody finished, for ever."""
    monkeypatch.setattr("lucid.sync.committer.OPS_MAX", 1)
    monkeypatch.setattr("lucid.filespace.files.RELEASE_HOLD_S", WAIT_S)
    fs = space.connect("a")
    fs.mkdir("/d")
    fs.write_bytes("/file", b"old")
    fs.sync(timeout=WAIT_S)
    handle = fs.tree.open(fs.stat("/file").ino, os.O_RDWR)
    fs.tree.write(handle, 0, b"new")
    fs.tree.flush(handle)
    fs.rmdir("/d")
    fs.tree.release(handle)
    fs.sync(timeout=10.0)
    with space.connect("b") as other:
        assert other.listdir("/") == ["file"]
        assert other.read_bytes("/file") == b"new"


# -- what the model is there to see


def both_save(*more: Step) -> list[Step]:
    """Two overwrite /a, and neither has heard of the other."""
    return [step("overwrite", 0), step("overwrite", 1), step("commit", 0), *more]


def without_copies(state: Any, op: Content, author: Any) -> Any:
    """A fold without the rule of conflict copies."""
    base = state.version(op.base)
    row = state.inode(op.ino if base is None else base.ino)
    if row is None or row.version != op.base:
        return NOTHING
    return fold_content(state, op, author)


def whatever_was_seen(fold: Callable[..., Any], **sees: str) -> Callable[..., Any]:
    """A fold that does not ask which version the author saw."""

    def folded(state: Any, op: Any, author: Any) -> Any:
        name = getattr(op, "new_name", None) or op.name
        parent = getattr(op, "new_parent", None) or op.parent
        dentry = state.dentry(parent, name)
        if dentry is not None:
            row = state.inode(dentry.ino)
            op = op._replace(**{sees["ino"]: row.ino, sees["version"]: row.version})
        return fold(state, op, author)

    return folded


def broken(kind: type, rule: Callable[..., Any]) -> Any:
    return mock.patch.dict(folding._RULE_OF, {kind: rule})


def test_all_is_well_with_these_steps() -> None:
    """What follows fails by what is broken there, and by nothing else."""
    assert outcome(both_save())["conflicts"] == 1
    outcome([step("overwrite"), step("unlink", 1, A), step("commit"), step("commit", 1)])
    outcome([step("cut_off"), step("overwrite"), step("crash")])
    outcome([step("overwrite"), step("atomic_save", 1), step("commit"), step("commit", 1)])


def test_one_client_that_folds_another_result_is_seen() -> None:
    own: list[Any] = []

    def folded(state: Any, op: Content, author: Any) -> Any:
        rule = without_copies if state in own else fold_content
        return rule(state, op, author)

    def also(team: Team) -> None:
        own.append(parts_of(team.clients[0].fs).replica._state)

    with broken(Content, folded), pytest.raises(Parted, match="b lacks"):
        outcome(both_save(), also=also)


def test_a_conflict_copy_that_all_drop_is_seen() -> None:
    with broken(Content, without_copies), pytest.raises(Missing, match="No version has"):
        outcome(both_save())


def test_a_file_that_is_removed_unseen_is_seen() -> None:
    rule = whatever_was_seen(fold_unlink, ino="seen_ino", version="seen_version")
    steps = [step("overwrite"), step("unlink", 1, A), step("commit"), step("commit", 1)]
    with broken(Unlink, rule), pytest.raises(Missing, match="No name leads to"):
        outcome(steps)


def test_a_file_that_is_replaced_unseen_is_seen() -> None:
    rule = whatever_was_seen(fold_rename, ino="seen_ino", version="seen_version")
    steps = [step("overwrite"), step("atomic_save", 1), step("commit"), step("commit", 1)]
    with broken(Rename, rule), pytest.raises(Missing, match="No name leads to"):
        outcome(steps)


def test_a_save_that_a_crash_takes_is_seen() -> None:
    forget = mock.patch("lucid.filespace.recovery.Recovery._take_op", lambda *_: None)
    with forget, pytest.raises((Missing, Parted)):
        outcome([step("cut_off"), step("overwrite"), step("crash")])
