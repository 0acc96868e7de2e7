"""Changes that floors pass while they wait, versions that floors end under them (S-306, S-307)."""

from __future__ import annotations

import errno
from bisect import insort
from random import Random

import pytest

from lucid.errors import BelowFloor, CorruptBlock
from lucid.filespace import Filespace, fsck
from lucid.format.ops import Floor
from lucid.meta.log import LogWriter, Lost, Prepared, Won
from lucid.store.faulty import Fault
from lucid.store.memory import MemoryStore
from tests.filespace.checkpoints import (
    connect,
    head,
    hear,
    rows,
)
from tests.filespace.floors import (
    LONG,
    change_all,
    collect,
    furnish,
    go_on,
    show_floor,
    upload_all,
    when,
)
from tests.filespace.spaces import (
    BLOCK,
    PASSPHRASE,
    WAIT_S,
    Space,
    parts_of,
    some_bytes,
    write_at,
)
from tests.filespace.test_collecting import age, gc, rewrite
from tests.filespace.test_two_machines import tree_of


@pytest.mark.parametrize("cached", [True, False])
def test_a_change_of_a_version_that_the_floor_ended(space: Space, cached: bool) -> None:
    """S-306: it is completed with what this device still has of that version; else what is nowhere
    any more is an error, and what was written here is kept."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    space.plans["a"].die()
    write_at(one, "/kept", 10, b"published here")
    if cached:
        draft = one.open("/dir/inner", "r+b", 0)
        draft.seek(BLOCK + 7)
        draft.write(b"only flushed")
        draft.fsync()
    expected = {"kept": one.read_bytes("/kept"), "inner": one.read_bytes("/dir/inner")}
    known = head(one)
    space.crash(one)
    for path in ("/kept", "/dir/inner"):
        admin.write_bytes(path, some_bytes(99, 17))
    for path in ("/renamed", "/removed"):
        admin.remove(path)  # They lay in the same segment.
    floor = go_on(space, admin, known)
    collect(space, admin, floor)
    if not cached:
        for file in (space.state("a") / "cache").glob("*/*"):
            file.unlink()
    one = connect(space)
    one.sync(timeout=WAIT_S)
    hear(admin)
    assert admin.read_bytes("/kept") == admin.read_bytes("/dir/inner") == some_bytes(99, 17)
    copies = [f"/{name}" for name in admin.listdir("/") if "conflict" in name]
    copies += [f"/dir/{name}" for name in admin.listdir("/dir") if "conflict" in name]
    if cached:
        assert sorted(admin.read_bytes(copy) for copy in copies) == sorted(expected.values())
        assert not one.status().problem
    else:
        (copy,) = copies
        with admin.open(copy, "rb", 0) as file:
            assert file.read(BLOCK) == expected["kept"][:BLOCK], "what was written here is kept"
            with pytest.raises(CorruptBlock) as caught:
                file.read(1)
        assert caught.value.errno == errno.EIO
        assert "2 blocks of changes that were not sent yet are gone" in one.status().problem
    assert rows(one) == rows(admin)


def test_a_file_that_is_written_while_a_floor_passes(space: Space) -> None:
    """S-307: it is flushed, uploaded, and closed after a floor that its first bytes lie below."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    file = one.open("/written for days", "wb", 0)
    file.write(LONG)
    file.fsync()
    parts = parts_of(one)
    (draft,) = parts.table.all()
    parts.staged.finish_for(draft.segments())
    when(one, lambda _: parts.staged.are_uploaded(draft.segments()))
    floor = go_on(space, admin, head(one))
    collect(space, admin, floor)
    hear(one)
    assert parts.replica.floor() == floor
    file.write(b"more")
    file.close()
    one.sync(timeout=WAIT_S)
    hear(admin)
    for fs in (one, admin, connect(space, "c")):
        assert fs.read_bytes("/written for days") == LONG + b"more"
        assert not fs.status().problem


@pytest.mark.parametrize("end", ["committed", "killed"])
def test_changes_that_wait_while_a_floor_passes(space: Space, end: str) -> None:
    """S-307: all is there at every moment, and is committed by new segments."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    parts = parts_of(one)
    hold = parts.order.hold(None)
    change_all(one)
    over = one.open("/long", "r+b", 0)
    over.seek(5)
    over.write(b"a draft over a pending version")
    over.fsync()
    expected = tree_of(one)
    upload_all(one)
    old = set(parts.order.waiting_segments(1000))
    floor = go_on(space, admin, head(one))
    collect(space, admin, floor)
    assert one.refresh(WAIT_S)
    assert parts.replica.floor() == floor
    assert not old & set(parts.order.waiting_segments(1000))
    assert expected.items() <= tree_of(one).items()
    if end == "killed":
        space.crash(one)
        one = connect(space)
    else:
        parts.order.release_hold(hold, placed=False)
        over.close()
    assert expected.items() <= tree_of(one).items()
    one.sync(timeout=WAIT_S)
    hear(admin)
    for fs in (one, admin, connect(space, "c")):
        assert expected.items() <= tree_of(fs).items()
        assert not fs.status().problem
    hear(one)
    hear(admin)
    assert rows(one) == rows(admin)


def test_a_collector_that_another_one_overtook_deletes_nothing(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-605: stopped for days before it commits its floor, it wins a number that was deleted."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2)
        age(space, 8)
        rewrite(space, fs, "/plan", 3)
    real = LogWriter.put
    kept: set[str] = set()

    def put(writer: LogWriter, prepared: Prepared) -> Won | Lost:
        if isinstance(prepared.body.ops[0], Floor):
            behind = prepared.sequence + 5
            space.bucket.objects[f"log/{behind:016x}"] = (b"of the other", 0)
            insort(space.bucket.keys, f"log/{behind:016x}")
            show_floor(space, behind)
            kept.update(key for key in space.bucket.keys if key.startswith("data/"))
        return real(writer, prepared)

    monkeypatch.setattr(LogWriter, "put", put)
    with pytest.raises(BelowFloor, match="Run it again"):
        gc(space, delete=True)
    assert kept and kept <= set(space.bucket.keys)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_away_again_and_again(space: Space, seed: int) -> None:
    """S-301: one floor after another passes what waits, is uploaded, or is in doubt."""
    chance = Random(seed)
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    for round_ in range(3):
        plan = space.plans["a"]
        how = chance.choice(["cut off", "not committed", "in doubt"])
        if how == "cut off":
            plan.die()
        else:
            answers = [Fault.LOSE_ANSWER] if how == "in doubt" else []
            plan.script("put", [*answers, *[Fault.REFUSE] * 10_000], prefix="log/")
        for step in range(chance.randrange(2, 6)):
            change_one(one, chance, f"{round_}-{step}")
        expected = mine(one)
        if how == "not committed" and chance.random() < 0.7:
            upload_all(one)
        known = head(one)
        if chance.random() < 0.5:
            space.crash(one)
        else:
            one.close(wait=False)
        collect(space, admin, go_on(space, admin, known))
        one = connect(space)
        assert mine(one) == expected, (how, round_)
        if chance.random() < 0.5:
            one.sync(timeout=WAIT_S)
            hear(admin)
            assert mine(admin) == expected, (how, round_)
    one.sync(timeout=WAIT_S)
    hear(admin)
    for fs in (admin, connect(space, "c")):
        assert mine(fs) == expected
    hear(one)
    hear(admin)
    assert rows(one) == rows(admin)
    store = MemoryStore(space.bucket, name="team")
    assert fsck.check("memory://team", PASSPHRASE, read_data=True, store=store).clean


def mine(fs: Filespace) -> dict[str, bytes | str]:
    """What only the device that is away changes."""
    return {path: data for path, data in tree_of(fs).items() if "mine" in path}


def change_one(fs: Filespace, chance: Random, name: str) -> None:
    """Some change of what nobody else touches."""
    files = list(mine(fs))
    kind = chance.choice(["create", "append", "middle", "rename", "remove"]) if files else "create"
    path = chance.choice(files) if files else ""
    if kind == "create":
        fs.write_bytes(f"/mine {name}", chance.randbytes(chance.choice([10, BLOCK, 3 * BLOCK + 9])))
    elif kind == "append":
        with fs.open(path, "ab", 0) as file:
            file.write(chance.randbytes(chance.choice([5, 2 * BLOCK])))
    elif kind == "middle":
        write_at(fs, path, 3, chance.randbytes(4))
    elif kind == "rename":
        fs.rename(path, f"/dir/mine too {name}")
    else:
        fs.remove(path)


@pytest.mark.parametrize("how", ["online", "away"])
@pytest.mark.parametrize("edited", [False, True])
def test_a_restore_of_what_a_floor_ends_meanwhile(space: Space, how: str, edited: bool) -> None:
    """S-98: told, not passed over; what was written over it is kept."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    one.write_bytes("/kept", b"newer")
    one.remove("/removed")
    one.sync(timeout=WAIT_S)
    hear(admin)
    known = head(one)
    hold = None
    if how == "online":
        hold = parts_of(one).order.hold(None)
    else:
        space.plans["a"].die()
    first = one.versions("/kept")[0].number
    one.restore("/kept", first)
    one.restore("/kept", first, to="/as new")
    one.restore("/removed", deleted=True)
    assert one.read_bytes("/kept") == one.read_bytes("/as new")
    if edited:
        write_at(one, "/kept", 10, b"written over it")
    expected = one.read_bytes("/kept")
    if how == "away":
        space.crash(one)
    collect(space, admin, go_on(space, admin, known))
    if hold is not None:
        assert one.refresh(WAIT_S)
        parts_of(one).order.release_hold(hold, placed=False)
    else:
        one = connect(space)
    one.sync(timeout=WAIT_S)
    hear(admin)
    assert rows(one) == rows(admin)
    assert admin.read_bytes("/kept") == b"newer"
    assert not {"as new", "removed"} & set(admin.listdir("/"))
    copies = [name for name in admin.listdir("/") if name.startswith("kept (conflict")]
    assert len(copies) == edited
    for copy in copies:
        with admin.open(f"/{copy}", "rb", 0) as file:
            assert file.read(BLOCK) == expected[:BLOCK]
    told = " ".join(one.status().failed)
    for name in ("kept", "as new", "removed"):
        assert f"{name}, which was restored or linked here, is as it was before" in told
    assert not admin.status().failed
