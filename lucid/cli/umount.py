"""`lucid umount`: takes a drive away when its uploads are done, and a killed daemon's mount."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from lucid.cli.terminal import Bar, examples
from lucid.cli.uploads import Standstill, follow_call, what_is_left
from lucid.errors import NotMounted, StoreUnavailable
from lucid.mount import mountpoint, registry
from lucid.mount.control import Call
from lucid.mount.wire import Message

__all__ = ["command"]


@click.command("umount", epilog=examples("lucid umount ~/team", "lucid umount --no-wait ~/team"))
@click.argument("mountpoint_", metavar="MOUNTPOINT")
@click.option("--no-wait", is_flag=True, help="Leave what is not uploaded to the next mount.")
def command(mountpoint_: str, no_wait: bool) -> None:
    """Unmount a drive, and wait until all changes are in the store."""
    point = mountpoint.absolute(mountpoint_)
    os.chdir("/")  # called from within the drive, this process would itself keep it busy
    record = registry.find(point)
    if record is None:
        _without_daemon(point)
        return
    try:
        left = _stop(record, wait=not no_wait)
    except KeyboardInterrupt:
        click.echo(f"The upload goes on in process {record.pid}; see: lucid status", err=True)
        raise
    _tell(point, left, no_wait)


def _stop(record: registry.Record, *, wait: bool) -> Message:
    directory = Path(record.state_directory)
    standstill = Standstill(
        "Ctrl-C gives up waiting, and the upload goes on; to leave the rest to the next mount: "
        f"lucid umount --no-wait {record.point}"
    )
    with Bar("Uploading") as bar, Call(directory, "stop", wait=wait) as call:
        return follow_call(bar, directory, call, standstill)


def _tell(point: Path, left: Message, no_wait: bool) -> None:
    what = what_is_left(left)
    if not what:
        return
    text = f"{point} is unmounted, but not all is in the store: {what}"
    problem = f" ({str(left['problem']).rstrip('.')})" if left["problem"] else ""
    if no_wait:
        click.echo(f"{text}. It goes up after the next mount.", err=True)
    else:
        raise StoreUnavailable(f"{text}{problem}. It goes up after the next mount.")


def _without_daemon(point: Path) -> None:
    """Nobody of ours serves this place: a killed daemon's dead mount, or another user's drive."""
    mounted = mountpoint.find(point)
    if mounted is None:
        raise NotMounted(f"No drive is mounted at {point}.")
    if not mounted.is_ours:
        raise NotMounted(f"What is mounted at {point} is no drive of lucid ({mounted.kind}).")
    dead = _is_dead(point)
    mountpoint.unmount(point, lazy=dead)
    if dead:
        click.echo(
            f"The process behind {point} had been killed; the mount is cleared away. "
            "What it had not uploaded goes up after the next mount.",
            err=True,
        )
    else:
        click.echo("Unmounted. Its process, which cannot be watched from here, uploads the rest.")


def _is_dead(point: Path) -> bool:
    try:
        os.statvfs(point)  # never answered by the kernel itself
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False
