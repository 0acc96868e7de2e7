"""`lucid restore`: an older version, or what was removed, comes back."""

from __future__ import annotations

from pathlib import Path

import click

from lucid.cli.drive_paths import DrivePath, ask_drive, find, hand_over
from lucid.cli.terminal import count, examples, printable, show_json
from lucid.errors import UsageError

__all__ = ["command"]


@click.command(
    "restore",
    epilog=examples(
        "lucid restore ~/team/report.odt --version 2-15",
        "lucid restore ~/team/report.odt --version 2-15 --to ~/team/old-report.odt",
        "lucid restore --deleted ~/team/docs",
    ),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--version", "version", metavar="VERSION", help="One that `lucid versions` shows.")
@click.option("--to", "to", metavar="PATH", type=click.Path(path_type=Path), help="Put it there.")
@click.option("--deleted", is_flag=True, help="Bring back what was removed at PATH.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(path: Path, version: str | None, to: Path | None, deleted: bool, as_json: bool) -> None:
    """Bring back an older version of the file at PATH, or what was removed there.

    The version becomes the newest one, so what is there now is not lost: it is an older version
    then. With --to, PATH stays as it is. A removed directory comes back with what the same device
    removed from it in the hour before.
    """
    if version is None and not deleted:
        raise UsageError(f"Say which version: lucid restore {path} --version VERSION.")
    place = find(path)
    target = None if to is None else _target(place, to)
    if not deleted and target is None:
        hand_over(place)
    restored = ask_drive(
        place, "Restoring", "restore", version=version, deleted=deleted,
        to=None if target is None else target.inner,
    )  # fmt: skip
    restored["path"] = place.outer_of(restored["path"])
    if as_json:
        show_json(restored)
        return
    if restored["version"]:
        told = f", version {restored['version']}"
    else:
        told = f" with {count(restored['files'], 'name')} in it" if restored["files"] else ""
    click.echo(f"Restored: {printable(restored['path'])}{told}")


def _target(place: DrivePath, to: Path) -> DrivePath:
    """Where it goes: into a directory, as cp does it, or to a name that is free."""
    if to.is_dir():
        to = to / Path(place.inner).name
    target = find(to)
    if target.record != place.record:
        raise UsageError(f"{to} is not on the drive of {place.outer}. Copy it there afterwards.")
    return target
