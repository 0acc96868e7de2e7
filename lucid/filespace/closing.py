"""Closing a filespace: publish, upload, commit, then end every room."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lucid.errors import LucidError
from lucid.filespace.report import progress_of
from lucid.filespace.surface import Progress

if TYPE_CHECKING:
    from lucid.filespace.opening import Opened

__all__ = ["close_filespace"]

log = logging.getLogger(__name__)

STEP_S = 0.1


def close_filespace(
    opened: Opened,
    wait: bool,
    timeout: float | None,
    report: Callable[[Progress], None] | None,
) -> Progress:
    """Make everything durable here; with `wait` also bring it into the store. Returns what
    remains."""
    parts = opened.parts
    if opened.daily is not None:
        opened.daily.stop()
    try:
        if not parts.read_only:
            _save(opened)
            if wait:
                _drain(opened, timeout, report)
                opened.leases.give_all()
        final = progress_of(opened)
    finally:
        # Nobody waits for the store any more: what hangs on it ends now, and with it the threads.
        parts.store.close()
        opened.closing.close()
    return final


def _save(opened: Opened) -> None:
    """Nothing is only in memory: publish what can be, save the rest, sync the disk."""
    parts = opened.parts
    for draft in parts.table.all():
        if draft.unlinked or draft.failure:
            continue
        try:
            parts.drafting.save(draft, released=True)
            if draft.unpublished:
                parts.publisher.publish(draft)
        except LucidError as error:
            opened.problems.append(str(error))
    for sync in (parts.staging.sync, parts.book.sync):
        try:
            sync()
        except LucidError as error:
            # The store may still take what this disk does not.
            log.error("%s", error)
            opened.problems.append(str(error))


def _drain(
    opened: Opened, timeout: float | None, report: Callable[[Progress], None] | None
) -> None:
    """Wait until nothing is pending, the time is over, or writing has stopped."""
    parts = opened.parts
    deadline = None if timeout is None else parts.clock.monotonic() + timeout
    pause = threading.Event()
    while parts.order.stopped is None:
        progress = progress_of(opened)
        if report is not None:
            report(progress)
        waiting = [
            draft
            for draft in parts.table.all()
            if draft.unpublished and not draft.unlinked and not draft.failure
        ]
        if not parts.order.pending and not waiting:
            return
        if deadline is not None and parts.clock.monotonic() >= deadline:
            return
        opened.committer.poke()
        pause.wait(STEP_S)
