"""The leases of an open filespace: what they stand on here, and what handles for writing ask of
them by the policy of locks."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lucid.errors import LockHeld, StoreUnavailable
from lucid.filespace.changes import path_of
from lucid.filespace.parts import Parts
from lucid.format.check import shown
from lucid.format.ops import RULES_FIRST
from lucid.meta.fold_rules import VALUE_RULES
from lucid.sync.lease_state import NOWHERE, LeaseGround
from lucid.sync.lease_terms import LeaseMode
from lucid.sync.leases import LeaseKeeper

if TYPE_CHECKING:
    from lucid.data.draft import Draft
    from lucid.filespace.files import Handle
    from lucid.filespace.opening import Opened

__all__ = ["OpenLeases", "make_keeper"]

log = logging.getLogger(__name__)

NUDGE_S = 3.0
"""How long content waits for who has the lease of its file."""
OPEN_WAIT_S = 15.0
"""More than the keeper of leases ever takes to answer who does not want to wait."""


def make_keeper(opened: Opened) -> LeaseKeeper:
    """Needs the committer, which does not run yet."""
    parts, committer = opened.parts, opened.committer
    replica, order = parts.replica, parts.order

    def is_over(draft: Draft) -> bool:
        return not draft.unpublished or draft.gone or draft.unlinked or bool(draft.failure)

    def publish(ino: int) -> None:
        draft = parts.table.get(ino)
        if draft is not None and not is_over(draft):
            opened.files.publish_quietly(draft)

    def publish_open(ino: int) -> Callable[[], bool]:
        # A lock of one file may guard others. But not what others see only when it is whole.
        waiting = [
            draft
            for draft in parts.table.all()
            if draft.ino == ino or not (draft.private or draft.truncated)
        ]

        def is_placed() -> bool:
            for draft in waiting:
                if not is_over(draft):
                    opened.files.publish_quietly(draft)
            waiting[:] = [draft for draft in waiting if not is_over(draft)]
            return not waiting

        return is_placed

    def position(ino: int) -> int:
        with order.lock:
            draft = parts.table.get(ino)
            if draft is not None and draft.private:
                return NOWHERE if draft.unlinked or draft.failure else -1
            if replica.inode(ino) is None:
                return NOWHERE
            return order.op_ids().get(ino, 0)

    return LeaseKeeper(
        LeaseGround(
            session=0 if parts.read_only else opened.session,
            clock=parts.clock,
            rules=lambda: int(replica.value(VALUE_RULES) or RULES_FIRST),
            line=replica.lease,
            lines=replica.leases,
            session_row=replica.session,
            next_op_id=parts.next_op_id,
            submit=committer.alone.submit,
            look=committer.poke,
            sent_at=lambda: committer.sent_at,
            is_online=lambda: committer.online,
            is_stopped=lambda: order.stopped is not None,
            publish=publish,
            publish_open=publish_open,
            position=position,
            last=lambda: order.last,
        )
    )


class OpenLeases:
    """What files that are opened for writing ask of the leases. Any thread. Guarded by _lock:
    _pinned, and what handles say of their leases."""

    def __init__(self, parts: Parts, keeper: LeaseKeeper, policy: str) -> None:
        self._parts = parts
        self._keeper = keeper
        self._is_on_open = policy == "on-open"
        self._lock = threading.Lock()
        self._pinned: dict[int, set[Handle]] = {}
        self._waited = 0
        """The newest op that has waited for a lease: none does so twice. Guarded by the order lock.
        """
        keeper.on_unpinned = self._lost

    def opened(self, handle: Handle) -> None:
        """A public file is opened for writing. Under the policy on-open it is locked with that.

        Raises LockHeld if another machine has it, StoreUnavailable if that cannot be known.
        """
        if not self._is_on_open:
            if self._keeper.is_kept_elsewhere(handle.ino):
                self._keeper.nudge(handle.ino, lambda error: None)
            return
        answered = threading.Event()
        errors: list[int] = []

        def done(error: int) -> None:
            errors.append(error)
            answered.set()

        wish = self._keeper.pin(handle.ino, done)
        if wish is not None and not answered.wait(OPEN_WAIT_S):
            wish.withdraw()
            errors.append(errno.ENOLCK)
        if any(errors):
            self._keeper.unpin(handle.ino)
            self._refuse(handle.ino, errors[0])
        with self._lock:
            handle.pinned = handle.ino
            self._pinned.setdefault(handle.ino, set()).add(handle)

    def _lost(self, ino: int) -> None:
        """What was open under the lease fails from now on, until it is closed."""
        with self._lock:
            for handle in self._pinned.get(ino, ()):
                handle.is_lost = True

    def _refuse(self, ino: int, error: int) -> None:
        path = shown(path_of(self._parts, ino) or b"a file")
        holder = self._keeper.holder(ino, LeaseMode.EXCLUSIVE)
        if error != errno.EAGAIN or holder is None:
            raise StoreUnavailable(f"{path} was not opened: the store does not say who has it.")
        log.warning("%s was not opened for writing: %s has it.", path, holder.device)
        raise LockHeld(f"{path} is locked by {holder.device}.")

    def closed(self, handle: Handle) -> None:
        """It is closed, and what was written is published or will be."""
        if not handle.pinned:
            return
        with self._lock:
            handles = self._pinned[handle.pinned]
            handles.discard(handle)
            if not handles:
                del self._pinned[handle.pinned]
        self._keeper.unpin(handle.pinned)
        handle.pinned = 0

    def placed(self, ino: int) -> None:
        """Content of an inode was accepted as the last op of the order. If another machine has its
        lease, that op, and what follows it, waits for a moment: whoever only keeps the lease gives
        it back, and then nothing lies beside. REQUIRES: order lock held."""
        if self._keeper.is_kept_elsewhere(ino):
            self._wait_from(self._parts.order.last, ino)

    def heard(self, ino: int) -> None:
        """Another machine has asked for the lease of an inode. What was accepted here before that
        was known waits just so. Called by the sync thread, so nothing is on its way just now."""
        order = self._parts.order
        if self._keeper.is_kept_elsewhere(ino):
            with order.lock:
                position = order.content_of(ino)
                if position > self._waited:
                    self._wait_from(position, ino)

    def _wait_from(self, position: int, ino: int) -> None:
        """The op there, and what follows it, waits until the lease is here, or cannot be had."""
        order = self._parts.order
        self._waited = max(self._waited, position)
        hold = order.hold(NUDGE_S)
        hold.start = position

        def done(error: int) -> None:
            order.release_hold(hold, placed=False)

        if self._keeper.nudge(ino, done) is None:
            done(0)
