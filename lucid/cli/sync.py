"""`lucid sync`: returns when what is under a path is committed in the store."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click

from lucid.cli.terminal import Bar, examples, show_json
from lucid.cli.uploads import Standstill, follow_call
from lucid.errors import NotFound
from lucid.mount import registry
from lucid.mount.control import Call

__all__ = ["command"]

GIVE_UP = "Ctrl-C gives up waiting, and the upload goes on."


@click.command("sync", epilog=examples("lucid sync ~/team/report.pdf && echo everybody can see it"))
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(path: Path, as_json: bool) -> None:
    """Return when everything at PATH is in the store and visible on other machines.

    For a file that is its content and name; for a directory, all changes of the drive.
    """
    resolved = path.resolve()
    record = registry.containing(resolved)
    ino = _file_number(resolved)
    directory = Path(record.state_directory)
    with Bar("Uploading") as bar, Call(directory, "sync", ino=ino) as call:
        result = follow_call(bar, directory, call, Standstill(GIVE_UP))
    if as_json:
        show_json(result)
    else:
        click.echo(f"In the store: {result['token']}")


def _file_number(path: Path) -> int | None:
    """The inode of a regular file, whose mapped pages the kernel has handed over; else None.

    Raises NotFound.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        return None  # not readable for us: then all changes of the drive
    except OSError as error:
        raise NotFound(f"{path} cannot be opened: {error.strerror}.", str(path)) from None
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return status.st_ino
