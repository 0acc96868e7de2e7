"""Bringing back: an older version as the newest one, or as a new file; and what was removed.

Everything becomes ops like any others, so that edits of other machines meet it by the rules of the
fold. What changes holds the order lock from its check to its op.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from lucid.errors import DataError, Exists, NotFound, NotPermitted, TimedOut
from lucid.filespace.numbers import number_of
from lucid.filespace.parts import Parts, check_name
from lucid.filespace.surface import Invalidation, Restored
from lucid.filespace.versions import Versions, removal_order
from lucid.format.ops import ROLE_ADMIN, Clone, Link, Mkdir, Op, Rules, session_of
from lucid.meta.fold_effect import Effect, Status
from lucid.meta.fold_rules import VALUE_RULES
from lucid.meta.replica_older import Nameless
from lucid.meta.state import ROOT_INO, InodeRow

__all__ = ["Place", "Restoring"]

Place = tuple[int, bytes]
"""A directory and a name in it."""

TRIES = 5
"""Publishes before a restore, while somebody goes on writing the file."""
TOGETHER_NS = 3600 * 1_000_000_000
"""What a device removed from a directory so long before the directory itself went with it."""
RULES_OF_CLONE = 2


class Restoring(Versions):
    """Makes the ops. Any thread; owns nothing."""

    def __init__(self, parts: Parts, member: bytes, commit_alone: Callable[[Op], None]) -> None:
        """commit_alone: returns when an op has an entry of its own in the log."""
        super().__init__(parts)
        self._member = member
        self._commit_alone = commit_alone

    def restore(self, place: Place, version: int, to: Place | None = None) -> Restored:
        """`version` of the file that has, or had last, this name becomes its newest one; with `to`
        a new file there.

        Raises NotFound if the version is not one of that file, Exists if `to` is taken,
        NotPermitted or StoreUnavailable if rules 2 must come into force first and cannot.
        """
        parts = self._parts
        parts.check_writable()
        for place_ in (place, to or place):
            check_name(place_[1])
        self._bring_rules()
        for _ in range(TRIES):
            if to is None:
                self._publish(place)
            with parts.order.lock:
                source, current = self._source(place, version), self.current(*place)
                if to is None and not self._is_settled(place, current):
                    continue
                if to is None and current is not None:
                    effect = self._in_place(place, source, version, current)
                else:
                    effect = self._beside(place if to is None else to, source, version)
                restored = self._result(effect, place)
            self._tell(effect)
            return restored
        raise TimedOut("The file is written faster than it can be published; try again.")

    def undelete(
        self, place: Place, version: int | None = None, to: Place | None = None
    ) -> Restored:
        """What had this name last, and was removed, has it again, or that of `to`.

        With `version` the removed file that has this version, with it as the newest one. Raises
        NotFound, Exists.
        """
        parts = self._parts
        parts.check_writable()
        check_name((to or place)[1])
        found = self._find_removed(place, version)
        if stat.S_ISDIR(found.row.mode):
            return self._undelete_directory(found, to or place, moved=to is not None)
        if version is not None and version != found.row.version:
            self._bring_rules()
        with parts.order.lock:
            effect = self._link(found.row, to or place)
            if version is not None and version != found.row.version:
                now = self._parts.inode(found.row.ino)
                self._in_place(effect.names[-1], found.row.ino, version, now)
            restored = self._result(effect, place)
        self._tell(effect)
        return restored

    # -- rules

    def _bring_rules(self) -> None:
        """Rules 2 are in force when this returns. Raises NotPermitted, StoreUnavailable."""
        parts = self._parts
        if self._rules() >= RULES_OF_CLONE:
            return
        member = parts.replica.member(self._member)
        if member is None or member.role != ROLE_ADMIN:
            raise NotPermitted(
                "This filespace is under rules 1, which cannot restore. An admin changes them by"
                " restoring something first."
            )
        op = Rules(parts.next_op_id(), parts.clock.time_ns(), RULES_OF_CLONE)
        self._commit_alone(op)

    def _rules(self) -> int:
        return int(self._parts.replica.value(VALUE_RULES) or b"1")

    # -- files

    def _publish(self, place: Place) -> None:
        """What was written here and has no version yet gets one: nothing is lost by a restore."""
        parts = self._parts
        draft = parts.table.named(*place)
        current = None if draft is not None else self.current(*place)
        if current is not None:
            draft = parts.table.get(current.ino)
        if draft is None:
            return
        if draft.failure:
            raise DataError(draft.failure)
        if draft.unpublished and not draft.unlinked:
            parts.publisher.publish_now(draft, parts.config.write_wait_s)

    def _is_settled(self, place: Place, current: InodeRow | None) -> bool:
        """Whether nothing unpublished is there. REQUIRES: order lock held."""
        parts = self._parts
        if parts.table.named(*place) is not None:
            return False
        draft = None if current is None else parts.table.get(current.ino)
        if draft is None:
            return True
        with draft.lock:
            if draft.unpublished:
                return False
            # It lies over the version that is the newest one no longer.
            parts.publisher.drop(draft)
            return True

    def _source(self, place: Place, version: int) -> int:
        """The inode that holds the version. Raises NotFound."""
        row = self._parts.replica.version(version)
        files = {one.row.ino for one in self.earlier_files(*place)}
        current = self.current(*place)
        if current is not None:
            files.add(current.ino)
        if row is None or row.ino not in files:
            if not files:
                raise NotFound
            raise NotFound(f"It has no version {number_of(version)}. See: lucid versions PATH.")
        return row.ino

    def _in_place(self, place: Place, source: int, version: int, current: InodeRow) -> Effect:
        parts = self._parts
        now = parts.clock.time_ns()
        return self._place(
            Clone(
                parts.next_op_id(), now, source, version, current.ino, current.version, *place, now
            )
        )

    def _beside(self, place: Place, source: int, version: int) -> Effect:
        parts = self._parts
        self._check_free(place)
        row = parts.replica.version(version)
        assert row is not None
        return self._place(
            Clone(
                parts.next_op_id(), parts.clock.time_ns(), source, version, 0, 0, *place,
                row.mtime_ns,
            )
        )  # fmt: skip

    def _check_free(self, place: Place) -> None:
        parts = self._parts
        if parts.table.named(*place) or parts.replica.lookup(*place):
            raise Exists("That name is taken. Give another one: --to PATH.")

    def _link(self, row: InodeRow, place: Place) -> Effect:
        """REQUIRES: order lock held."""
        parts = self._parts
        self._check_free(place)
        effect = self._place(Link(parts.next_op_id(), parts.clock.time_ns(), row.ino, *place))
        draft = parts.table.get(row.ino)
        if draft is not None:
            with draft.lock:
                # Whoever still writes it writes a file of the tree again.
                draft.unlinked = False
        return effect

    def _place(self, op: Op) -> Effect:
        effect = self._parts.place(op)
        if effect.status is Status.NOTHING:
            raise NotFound("It is gone: a floor has ended it.")
        return effect

    # -- what was removed

    def _find_removed(self, place: Place, version: int | None) -> Nameless:
        found = self._parts.replica.nameless_in(*place)
        if not found:
            raise NotFound("Nothing of this name was removed there.")
        if version is None:
            return max(found, key=removal_order)
        row = self._parts.replica.version(version)
        for one in found:
            if row is not None and row.ino == one.row.ino:
                return one
        raise NotFound(
            f"No removed file of this name has version {number_of(version)}. See: lucid versions"
            " PATH."
        )

    def _undelete_directory(self, found: Nameless, place: Place, moved: bool) -> Restored:
        """A directory and what went with it.

        The fold brings a directory back as soon as something is put into it; an empty one, or one
        that is to have another name, is made anew.
        """
        parts = self._parts
        told: list[Effect] = []
        with parts.order.lock:
            self._check_free(place)
            files = self._fill(found, place, told, anew=moved)
            if not told or parts.replica.lookup(*place) is None:
                raise NotFound("It is gone: a floor has ended it.")
            dentry = parts.replica.lookup(*place)
            assert dentry is not None
            restored = Restored(self._path(*place), dentry.ino, "", files)
        for effect in told:
            self._tell(effect)
        return restored

    def _fill(self, found: Nameless, place: Place, told: list[Effect], anew: bool) -> int:
        """Brings back a removed directory at `place`; how many things came back in it."""
        parts = self._parts
        inside = [one for one in parts.replica.nameless_in(found.row.ino) if _went_with(found, one)]
        newest: dict[bytes, Nameless] = {}
        for one in sorted(inside, key=removal_order):
            newest[one.row.last_name] = one
        ino, count = found.row.ino, 0
        if anew or not newest:
            row = found.row
            made = Mkdir(
                parts.next_op_id(), parts.clock.time_ns(), *place, row.mode, row.uid, row.gid,
                tuple(parts.replica.xattrs(row.ino)),
            )  # fmt: skip
            told.append(self._place(made))
            ino = made.op_id
        for name, one in newest.items():
            if stat.S_ISDIR(one.row.mode):
                count += 1 + self._fill(one, (ino, name), told, anew=anew)
            else:
                told.append(self._link(one.row, (ino, name)))
                count += 1
        return count

    # -- telling

    def _result(self, effect: Effect, place: Place) -> Restored:
        """REQUIRES: order lock held."""
        row = self._parts.inode(effect.landed_ino)
        parent, name = effect.names[-1] if effect.names else place
        number = number_of(row.version) if row.version else ""
        return Restored(self._path(parent, name), row.ino, number, 1)

    def _path(self, parent: int, name: bytes) -> bytes:
        parts = [name]
        at = parent
        while at != ROOT_INO:
            row = self._parts.inode(at)
            parts.append(row.last_name)
            at = row.last_parent
        return b"/" + b"/".join(reversed(parts))

    def _tell(self, effect: Effect) -> None:
        """The kernel did not ask for this, so it must be told. No lock may be held."""
        self._parts.tell(
            [
                *(Invalidation(ino, None) for ino in effect.inodes),
                *(Invalidation(parent, name) for parent, name in effect.names),
                *(Invalidation(parent, None) for parent in {at for at, _ in effect.names}),
            ]
        )


def _went_with(directory: Nameless, one: Nameless) -> bool:
    """Whether the same device removed both, the directory within the hour."""
    if directory.removal is None or one.removal is None:
        # Rules 1 did not remember: what went at about the same time.
        return abs(directory.row.ctime_ns - one.row.ctime_ns) <= TOGETHER_NS
    same = session_of(directory.removal.op_id) == session_of(one.removal.op_id)
    return same and directory.removal.time_ns - one.removal.time_ns <= TOGETHER_NS
