"""The table of docs/SEMANTICS.md section 10: content."""

from __future__ import annotations

import stat

import pytest

from lucid.format.change import DATA, HOLE, LOST, Change
from lucid.format.ops import ROOT_INO, Content, Stage
from lucid.meta.fold import NOTHING, Status
from tests.meta.authors import EPOCH_NS, GEOMETRY, LostBlock, changes_of
from tests.meta.desk import Desk, removed_directory
from tests.meta.invariants import check_state, checked_fold

OLD = b"what ann wrote, in more than one block: this is the tail"
NEW = b"what ann wrote, and then wrote again: another tail, longer than it was"
ODD = b"what bea wrote at the same time: hers"


@pytest.fixture
def desk() -> Desk:
    return Desk()


def shared_file(desk: Desk, content: bytes = OLD) -> int:
    """A file that both authors have seen; its inode, and the id of its version."""
    op = desk.ann.create(ROOT_INO, b"f.txt", content)
    checked_fold(desk.state, desk.ann, op)
    return op.op_id


def test_content_on_the_newest_version(desk: Desk) -> None:
    """S-141: it is the newest version now; the older one is still there."""
    ino = shared_file(desk)
    op = desk.bea.content(desk.state, ROOT_INO, b"f.txt", NEW, keep=16)
    effect = checked_fold(desk.state, desk.bea, op)
    assert effect == (Status.APPLIED, (ino,), (), ino)
    assert desk.tree() == {"f.txt": NEW}
    row = desk.row(ino)
    assert (row.version, row.size, row.mtime_ns, row.ctime_ns) == (
        op.op_id, len(NEW), op.mtime_ns, op.ctime_ns,
    )  # fmt: skip
    assert desk.blocks.read(desk.state, ino, ino) == OLD
    assert [version.id for version in desk.state.versions(ino)] == [ino, op.op_id]


def test_content_follows_the_inode_not_the_name(desk: Desk) -> None:
    """S-142: the file was renamed, and its old name leads elsewhere: the file has the content."""
    shared_file(desk)
    op = desk.bea.content(desk.state, ROOT_INO, b"f.txt", NEW)
    checked_fold(
        desk.state, desk.ann, desk.ann.rename(desk.state, ROOT_INO, b"f.txt", ROOT_INO, b"g.txt")
    )
    checked_fold(desk.state, desk.ann, desk.ann.create(ROOT_INO, b"f.txt", b"other"))
    assert checked_fold(desk.state, desk.bea, op).status is Status.APPLIED
    assert desk.tree() == {"g.txt": NEW, "f.txt": b"other"}


def test_content_on_an_older_version(desk: Desk) -> None:
    """S-143: a conflict copy beside the file, with all that its author saw, mode, owner, xattrs."""
    ino = shared_file(desk)
    checked_fold(desk.state, desk.ann, desk.ann.setattr(ino, mode=0o2750, uid=5, gid=6))
    checked_fold(desk.state, desk.ann, desk.ann.setxattr(ino, b"user.a", b"1"))
    op = desk.bea.content(desk.state, ROOT_INO, b"f.txt", OLD[:16] + ODD, keep=16)
    checked_fold(desk.state, desk.ann, desk.ann.content(desk.state, ROOT_INO, b"f.txt", NEW))
    effect = checked_fold(desk.state, desk.bea, op)
    beside = b"f (conflict bea desk 2026-11-22 10.15.01).txt"
    assert effect == (Status.CONFLICT, (op.op_id,), ((ROOT_INO, beside),), op.op_id)
    assert desk.tree() == {"f.txt": NEW, beside.decode(): OLD[:16] + ODD}
    copy = desk.row(op.op_id)
    assert (copy.mode, copy.uid, copy.gid) == (stat.S_IFREG | 0o2750, 5, 6)
    assert desk.state.xattrs(op.op_id) == [(b"user.a", b"1")]
    version = desk.state.version(op.op_id)
    assert version is not None and version.base == ino


def test_later_saves_follow_the_copy(desk: Desk) -> None:
    """S-144: one conflict copy, however often its author saved before it knew."""
    shared_file(desk)
    ino, base = desk.bea.content(desk.state, ROOT_INO, b"f.txt", ODD)[2:4]
    saves = []
    for text in (b"one", b"two", b"three"):
        saves.append(desk.bea.content_on(ino, base, ROOT_INO, b"f.txt", ODD + text))
        base = saves[-1].op_id
    checked_fold(desk.state, desk.ann, desk.ann.content(desk.state, ROOT_INO, b"f.txt", NEW))
    landed = [checked_fold(desk.state, desk.bea, save).landed_ino for save in saves]
    assert landed == [saves[0].op_id] * 3
    beside = "f (conflict bea desk 2026-11-22 10.15.02).txt"
    assert desk.tree() == {"f.txt": NEW, beside: ODD + b"three"}
    assert desk.blocks.read(desk.state, landed[0], saves[1].op_id) == ODD + b"two"


def test_content_of_a_removed_file(desk: Desk) -> None:
    """S-145: the file comes back under the name it was opened by."""
    ino = shared_file(desk)
    op = desk.bea.content(desk.state, ROOT_INO, b"f.txt", NEW)
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"f.txt"))
    effect = checked_fold(desk.state, desk.bea, op)
    assert effect == (Status.REVIVED, (ino,), ((ROOT_INO, b"f.txt"),), ino)
    assert desk.tree() == {"f.txt": NEW}


def test_content_of_a_removed_file_whose_name_is_taken(desk: Desk) -> None:
    """S-145: then it comes back under a conflict name: so a save by rename loses no open edit."""
    ino = shared_file(desk)
    op = desk.bea.content(desk.state, ROOT_INO, b"f.txt", ODD)
    checked_fold(desk.state, desk.ann, desk.ann.create(ROOT_INO, b"f.tmp", NEW))
    checked_fold(
        desk.state, desk.ann, desk.ann.rename(desk.state, ROOT_INO, b"f.tmp", ROOT_INO, b"f.txt")
    )
    effect = checked_fold(desk.state, desk.bea, op)
    assert (effect.status, effect.landed_ino) == (Status.CONFLICT, ino)
    assert desk.tree() == {"f.txt": NEW, "f (conflict bea desk 2026-11-22 10.15.01).txt": ODD}


def test_content_on_an_older_version_of_a_removed_file(desk: Desk) -> None:
    """S-146: a conflict copy; what was removed stays so."""
    shared_file(desk)
    op = desk.bea.content(desk.state, ROOT_INO, b"f.txt", ODD)
    checked_fold(desk.state, desk.ann, desk.ann.content(desk.state, ROOT_INO, b"f.txt", NEW))
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"f.txt"))
    assert checked_fold(desk.state, desk.bea, op).status is Status.CONFLICT
    assert desk.tree() == {"f (conflict bea desk 2026-11-22 10.15.01).txt": ODD}


def test_content_on_a_version_that_nobody_knows(desk: Desk) -> None:
    """S-147: what it keeps of it is lost, and says so; what it brings is there."""
    ino = shared_file(desk)
    op = desk.bea.content_on(ino, 77, ROOT_INO, b"f.txt", bytes(16) + ODD, keep=16)
    effect = checked_fold(desk.state, desk.bea, op._replace(keep=40))
    assert effect.status is Status.CONFLICT
    extents = desk.state.extents(effect.landed_ino, 0, 9)
    assert [(run.first, run.count, run.kind) for run in extents] == [(0, 1, LOST), (1, 3, DATA)]
    with pytest.raises(LostBlock):
        desk.blocks.read(desk.state, effect.landed_ino)
    whole = desk.bea.content_on(5 << 32 | 5, 78, ROOT_INO, b"g.txt", ODD)
    landed = checked_fold(desk.state, desk.bea, whole).landed_ino
    assert desk.blocks.read(desk.state, landed) == ODD
    assert desk.row(landed).mode == stat.S_IFREG | 0o600


def test_content_without_a_base(desk: Desk) -> None:
    """S-148: of a file that has content, of what is no file, of what nobody knows: a copy."""
    ino = shared_file(desk)
    folder = desk.ann.mkdir(ROOT_INO, b"d")
    link = desk.ann.symlink(ROOT_INO, b"s")
    for made in (folder, link):
        checked_fold(desk.state, desk.ann, made)
    for target in (ino, folder.op_id, link.op_id, ROOT_INO, 5 << 32 | 5):
        op = desk.bea.content_on(target, 0, ROOT_INO, b"f.txt", ODD)
        effect = checked_fold(desk.state, desk.bea, op)
        assert (effect.status, effect.landed_ino) == (Status.CONFLICT, op.op_id)
        assert desk.blocks.read(desk.state, op.op_id) == ODD
    assert desk.tree()["f.txt"] == OLD
    assert desk.row(op.op_id).version == op.op_id


def test_content_opened_by_no_name(desk: Desk) -> None:
    """S-149: then the file's last name counts, and else `recovered`."""
    shared_file(desk)
    op = desk.bea.content(desk.state, ROOT_INO, b"f.txt", ODD)
    checked_fold(desk.state, desk.ann, desk.ann.content(desk.state, ROOT_INO, b"f.txt", NEW))
    checked_fold(desk.state, desk.bea, op._replace(parent=0, name=b""))
    nameless = desk.bea.content_on(5 << 32 | 5, 0, 0, b"", b"x")
    checked_fold(desk.state, desk.bea, nameless)
    assert set(desk.tree()) == {
        "f.txt",
        "f (conflict bea desk 2026-11-22 10.15.01).txt",
        "recovered (conflict bea desk 2026-11-22 10.15.02)",
    }


def test_content_opened_in_a_directory_that_was_removed(desk: Desk) -> None:
    """S-150: the directory comes back, for the file and for a copy alike."""
    folder = desk.ann.mkdir(ROOT_INO, b"d")
    file = desk.ann.create(folder.op_id, b"f", OLD)
    for made in (folder, file):
        checked_fold(desk.state, desk.ann, made)
    op = desk.bea.content(desk.state, folder.op_id, b"f", ODD)
    odd = desk.bea.content_on(file.op_id, 0, folder.op_id, b"f", NEW)
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, folder.op_id, b"f"))
    checked_fold(desk.state, desk.ann, desk.ann.rmdir(desk.state, ROOT_INO, b"d"))
    effect = checked_fold(desk.state, desk.bea, op)
    assert (effect.status, effect.landed_ino) == (Status.REVIVED, file.op_id)
    assert desk.tree() == {"d": b"/", "d/f": ODD}
    gone = removed_directory(desk, b"e")
    checked_fold(desk.state, desk.bea, odd._replace(parent=gone))
    assert desk.tree()["e/f (conflict bea desk 2026-11-22 10.15.02)"] == NEW


# How a map is made


def edit(desk: Desk, ino: int, keep: int, size: int, *changes: Change) -> Content:
    """Content on the newest version of `ino`, folded."""
    ids = desk.ann.head()
    row = desk.row(ino)
    op = Content(*ids, ino, row.version, ROOT_INO, b"f.txt", keep, size, ids[1], ids[1], changes)
    assert checked_fold(desk.state, desk.ann, op).landed_ino == ino
    check_state(desk.state)
    return op


def test_a_map_is_cut_laid_over_and_grown(desk: Desk) -> None:
    """S-141: base cut to keep, changes over it, zeros up to size; each version stays."""
    content = bytes(range(1, 161))
    ino = shared_file(desk, content)
    seen = {ino: content}
    for keep, size, dirty in (
        (160, 160, {3}),
        (100, 100, set()),
        (100, 130, set()),
        (130, 170, {6, 7, 10}),
        (5, 200, {12}),
        (0, 40, {1}),
        (40, 40, {0, 1, 2}),
        (0, 0, set()),
        (0, 33, {0, 1, 2}),
    ):
        edited = bytearray(content[: min(keep, size)].ljust(size, b"\0"))
        for block in dirty:
            for at in range(block * 16, min(size, block * 16 + 16)):
                edited[at] = (at * 7 + size + keep) % 255 + 1
        content = bytes(edited)
        op = edit(desk, ino, keep, size, *changes_of(desk.blocks, content, dirty))
        assert desk.blocks.read(desk.state, ino) == content
        seen[op.op_id] = content
    for version, old in seen.items():
        assert desk.blocks.read(desk.state, ino, version) == old


def test_a_block_is_split_only_at_its_edges(desk: Desk) -> None:
    """S-252: three changes inside one extent end it once, and leave what is between them."""
    content = bytes(range(1, 161))
    ino = shared_file(desk, content)
    edited = bytearray(content)
    for block in (2, 4, 9):
        edited[block * 16 : block * 16 + 16] = b"x" * 16
    op = edit(desk, ino, 160, 160, *changes_of(desk.blocks, bytes(edited), {2, 4, 9}))
    assert desk.blocks.read(desk.state, ino) == edited
    ended = [row for row in desk.state.dump()["extent"] if row[3] == op.op_id]
    assert len(ended) == 1
    assert len(desk.state.extents(ino, 0, 99)) == 6


def test_holes_are_not_stored(desk: Desk) -> None:
    """S-253: a hole takes what is under it away, and has no row of its own."""
    ino = shared_file(desk, bytes(range(1, 161)))
    edit(desk, ino, 160, 160, Change(2, 3, HOLE), Change(8, 9, HOLE))
    extents = desk.state.extents(ino, 0, 99)
    assert [(run.first, run.count) for run in extents] == [(0, 2), (5, 3)]
    assert desk.row(ino).data_bytes == 5 * 16
    assert desk.blocks.read(desk.state, ino)[32:80] == bytes(48)
    edit(desk, ino, 0, 64, Change(0, 4, HOLE))
    assert desk.state.extents(ino, 0, 99) == []
    assert desk.state.dump()["totals"] == [(2, 0)]


def test_lost_blocks_stay_lost(desk: Desk) -> None:
    """S-254: until something is laid over them; a cut block of them is lost as a whole."""
    content = bytes(range(1, 161))
    ino = shared_file(desk, content)
    edit(desk, ino, 160, 160, Change(3, 4, LOST))
    edit(desk, ino, 70, 70)
    extents = desk.state.extents(ino, 0, 99)
    assert [(run.first, run.count, run.kind) for run in extents] == [(0, 3, DATA), (3, 2, LOST)]
    with pytest.raises(LostBlock):
        desk.blocks.read(desk.state, ino)
    edit(desk, ino, 70, 70, *changes_of(desk.blocks, content[:70], {3, 4}))
    assert desk.blocks.read(desk.state, ino) == content[:70]


@pytest.mark.parametrize("compressed", [False, True])
def test_blocks_of_other_lengths_are_cut_right(desk: Desk, compressed: bool) -> None:
    """S-252: runs with lengths (short blocks, compressed ones) are split by their lengths."""
    content = b"".join(bytes([n + 1] * (n % 16 + 1)).ljust(16, b"\0") for n in range(10))
    ino = shared_file(desk, b"x")
    changes = changes_of(desk.blocks, content, set(range(10)), trim=True, compressed=compressed)
    assert len(changes) == 1 and changes[0].lengths is not None
    edit(desk, ino, 0, 160, *changes)
    assert desk.blocks.read(desk.state, ino) == content
    edited = bytearray(content)
    edited[64:80] = b"y" * 16
    edit(desk, ino, 160, 160, *changes_of(desk.blocks, bytes(edited), {4}))
    assert desk.blocks.read(desk.state, ino) == edited
    edit(desk, ino, 105, 160)
    assert desk.blocks.read(desk.state, ino) == bytes(edited[:105]).ljust(160, b"\0")


def test_appending_costs_two_rows_whatever_the_file_has(desk: Desk) -> None:
    """S-255: an append reads a range of the map and adds a row; the rest is not looked at."""
    content = bytearray(bytes(range(1, 161)) * 20)
    ino = shared_file(desk, bytes(content))
    for _ in range(30):
        content += b"z" * 10
        last = len(content) // 16
        dirty = {last - 1, last} if len(content) % 16 < 10 else {last}
        before = len(desk.state.dump()["extent"])
        edit(
            desk, ino, len(content) - 10, len(content),
            *changes_of(desk.blocks, bytes(content), dirty),
        )  # fmt: skip
        assert len(desk.state.dump()["extent"]) - before <= 2
    assert desk.blocks.read(desk.state, ino) == content


def test_staged_parts_of_content(desk: Desk) -> None:
    """S-161: a large change list comes in parts, and is cut to the op's size."""
    content = bytes(range(1, 161))
    ino = shared_file(desk, content)
    edited = bytes(reversed(content))
    op = desk.ann.content(desk.state, ROOT_INO, b"f.txt", edited[:90], keep=96)
    for part in ({0, 2, 4, 6, 8}, {1, 3, 9}, {5}):
        staged = Stage(
            desk.ann.head()[0], EPOCH_NS, op.op_id, changes_of(desk.blocks, edited, part)
        )
        checked_fold(desk.state, desk.ann, staged)
    checked_fold(desk.state, desk.ann, op)
    assert desk.tree() == {"f.txt": edited[:90]}
    assert desk.blocks.read(desk.state, ino, ino) == content
    assert desk.state.staged(op.op_id) == ()


def test_staged_parts_follow_into_a_copy(desk: Desk) -> None:
    """S-161: also where the content lands in a conflict copy."""
    shared_file(desk)
    op = desk.bea.content(desk.state, ROOT_INO, b"f.txt", b"")._replace(size=len(ODD))
    part = changes_of(desk.blocks, ODD, {0, 1, 2})
    checked_fold(desk.state, desk.bea, Stage(desk.bea.head()[0], EPOCH_NS, op.op_id, part))
    checked_fold(desk.state, desk.ann, desk.ann.content(desk.state, ROOT_INO, b"f.txt", NEW))
    landed = checked_fold(desk.state, desk.bea, op).landed_ino
    assert landed == op.op_id and desk.blocks.read(desk.state, landed) == ODD


def test_an_id_that_made_an_inode_makes_no_copy(desk: Desk) -> None:
    """S-151: nothing, also where only the copy would take the number."""
    shared_file(desk)
    folder = desk.bea.mkdir(ROOT_INO, b"d")
    checked_fold(desk.state, desk.bea, folder)
    op = desk.bea.content_on(5, 0, ROOT_INO, b"f.txt", ODD)._replace(op_id=folder.op_id)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING


def test_the_geometry_is_that_of_the_tests() -> None:
    assert (GEOMETRY.block_size, GEOMETRY.stored_block) == (16, 20)
