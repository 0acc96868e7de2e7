"""Who holds the state directory that a mount wants: a drive that is mounted, or the daemon of the
last mount, which is waited for until it has uploaded what was left. For `lucid mount`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from lucid.cli.terminal import Bar
from lucid.cli.uploads import LOOK_S, show_progress
from lucid.errors import NotMounted, StateInUse
from lucid.local.statedir import default_place
from lucid.mount import mountpoint, registry
from lucid.mount.control import Call
from lucid.types import Clock, SystemClock

__all__ = ["refuse_if_mounted", "telling_where", "wait_for_predecessor"]

LONGEST_S = 60.0
"""How long a mount waits; what takes longer is better left to the next mount, or waited for
knowingly."""
ANSWER_S = 2.0
"""A daemon that does not tell how far it is may hang; it is not waited for longer."""


def refuse_if_mounted(store: str, state_dir: Path | None) -> None:
    """Raises StateInUse if a mounted drive has the state directory that a mount of `store` takes.

    Only what the registry tells is looked at; opening takes the lock, whoever has it.
    """
    for record in registry.records():
        directory = Path(record.state_directory)
        if state_dir is not None:
            is_same = state_dir.resolve() == directory.resolve()
        else:
            is_same = record.store == store and directory.parent == default_place(bytes(16)).parent
        if is_same and not _is_unmounted(record):
            raise _in_use(record)


@contextmanager
def telling_where() -> Iterator[None]:
    """Around the start of a daemon: a StateInUse says too where the other drive is mounted."""
    try:
        yield
    except StateInUse as error:
        for record in registry.records():
            if f"by process {record.pid}." in str(error):
                raise _in_use(record) from None
        raise


def _in_use(record: registry.Record) -> StateInUse:
    return StateInUse(
        f"The state directory {record.state_directory} is used by process {record.pid}. "
        f"It has {record.store} mounted at {record.point}. Unmount that one first "
        f"(lucid umount {record.point}), or choose another directory with --state-dir."
    )


def _is_unmounted(record: registry.Record) -> bool:
    # A moment after the umount the record may still say that the drive is mounted.
    return record.phase == "closing" or mountpoint.find(Path(record.point)) is None


def wait_for_predecessor(store: str, state_dir: Path | None, clock: Clock | None = None) -> None:
    """Returns when no unmounted drive of this store and state directory is left.

    Says whom it waits for, how long at most, and how not to. Raises StateInUse after LONGEST_S.
    """
    for record in registry.records():
        directory = Path(record.state_directory)
        elsewhere = state_dir is not None and state_dir.resolve() != directory.resolve()
        if record.store == store and not elsewhere and _is_unmounted(record):
            _wait_for(record, clock or SystemClock())


def _wait_for(record: registry.Record, clock: Clock) -> None:
    at_once = f"lucid umount --no-wait {record.point}"
    click.echo(
        f"Process {record.pid} still uploads from the last mount. This waits up to "
        f"{LONGEST_S:.0f} s for it; to mount at once: {at_once}",
        err=True,
    )
    until = clock.monotonic() + LONGEST_S
    with Bar("Uploading", clock) as bar:
        while not registry.wait_for_end(record, LOOK_S):
            if clock.monotonic() >= until:
                raise StateInUse(
                    f"Process {record.pid} still uploads from the last mount. Mount again later, "
                    f"or leave to the next mount what it has not sent: {at_once}"
                )
            # NotMounted: it has just let go; then it ends.
            with suppress(NotMounted), Call(Path(record.state_directory), "progress") as call:
                message = call.next(ANSWER_S)
                if message is not None and "result" in message:
                    show_progress(bar, message["result"])
