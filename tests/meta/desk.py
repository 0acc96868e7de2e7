"""One filespace and two authors who write in it: where the tests of the fold's table begin."""

from __future__ import annotations

from lucid.format.ops import ROOT_INO
from lucid.meta.fold import Status
from lucid.meta.state import InodeRow
from tests.meta.authors import EPOCH_NS, Author, Blocks, empty_state, tree
from tests.meta.invariants import check_state, checked_fold


class Desk:
    """One filespace and two authors, Ann and Bea, who is later in the log."""

    def __init__(self, rules: int = 1) -> None:
        self.blocks = Blocks()
        self.state = empty_state(rules)
        self.ann = Author(1, b"ann", self.blocks)
        self.bea = Author(2, b"bea", self.blocks)

    def tree(self) -> dict[str, bytes]:
        check_state(self.state)
        return tree(self.state, self.blocks)

    def row(self, ino: int) -> InodeRow:
        row = self.state.inode(ino)
        assert row is not None
        return row


def removed_directory(desk: Desk, *path: bytes) -> int:
    """Ann makes and removes directories, one in the other; the number of the innermost."""
    parents = [ROOT_INO]
    for name in path:
        made = desk.ann.mkdir(parents[-1], name)
        checked_fold(desk.state, desk.ann, made)
        parents.append(made.op_id)
    for parent, name in reversed(list(zip(parents, path, strict=False))):
        removal = desk.ann.rmdir(desk.state, parent, name)
        assert checked_fold(desk.state, desk.ann, removal).status is Status.APPLIED
    desk.ann.counter, desk.ann.time_ns = 1000, EPOCH_NS
    return parents[-1]
