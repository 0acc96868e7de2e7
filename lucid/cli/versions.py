"""`lucid versions`: what a file was, and what was removed from a directory."""

from __future__ import annotations

from pathlib import Path

import click

from lucid.cli.drive_paths import DrivePath, ask_drive, find
from lucid.cli.terminal import count, examples, local_time, printable, show_json, size, table
from lucid.errors import NotDirectory, NotFound, UsageError
from lucid.mount.wire import Message

__all__ = ["command"]

STYLES = {"pending": "yellow", "lost": "red"}
STORED = {"whole": "whole", "pending": "not uploaded yet", "lost": "bytes are lost"}


@click.command(
    "versions",
    epilog=examples(
        "lucid versions ~/team/report.odt",
        "lucid versions ~/team/report.odt --check --json",
        "lucid versions ~/team/docs --deleted",
    ),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--deleted", is_flag=True, help="Show what was removed from the directory PATH.")
@click.option("--check", is_flag=True, help="Ask the store whether it has all bytes.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(path: Path, deleted: bool, check: bool, as_json: bool) -> None:
    """Show every version of the file at PATH, or what was removed from a directory.

    PATH lies on a mounted drive. The file may have been removed meanwhile. Files that were replaced
    by a new one of the same name, as many programs save, are shown with it.
    """
    if deleted:
        _show_removed(path, check, as_json)
        return
    place = find(path)
    found = ask_drive(place, "Asking the store", "versions", check=check)["versions"]
    if as_json:
        show_json(found)
        return
    table(("version", "modified", "size", "written by", "in the store", ""), _lines(found))


def _lines(found: list[Message]) -> list[tuple[tuple[str, ...], str]]:
    lines: list[tuple[tuple[str, ...], str]] = []
    for version in found:
        note = "an earlier file" if version["earlier"] else ""
        style = STYLES.get(version["stored"], "dim" if version["earlier"] else "")
        if version["current"]:
            note, style = "current", style or "green"
        cells = (
            version["number"],
            local_time(version["mtime_ns"]),
            size(version["size"]),
            _who(version),
            STORED[version["stored"]],
            note,
        )
        lines.append((cells, style))
    return lines


def _show_removed(path: Path, check: bool, as_json: bool) -> None:
    if check:
        raise UsageError("The versions of one file can be checked: leave out --check or --deleted.")
    place = find(path, follow=True)
    found = _removed(place)
    if found is None or (not found and Path(place.outer).is_file()):
        raise NotDirectory(
            f"{place.outer} is no directory, and was none. Of a file: lucid versions {path}"
        )
    if as_json:
        show_json(found)
        return
    if not found:
        click.echo(f"Nothing is known to have been removed from {place.outer}.")
        return
    lines = [
        (
            (
                printable(one["name"]),
                local_time(one["removed_ns"]),
                size(one["size"]) if one["kind"] == "file" else one["kind"],
                _who(one),
                one["version"],
            ),
            "",
        )
        for one in found
    ]
    table(("name", "removed", "size", "by", "last version"), lines)
    click.echo(f"{count(len(found), 'name')}. To bring one back: lucid restore --deleted PATH")


def _removed(place: DrivePath) -> list[Message] | None:
    """What was removed from a directory; None if there never was one."""
    try:
        found: list[Message] = ask_drive(place, "Asking the drive", "removed")["removed"]
    except (NotFound, NotDirectory):
        return None
    return found


def _who(found: Message) -> str:
    return f"{found['member']} on {found['device']}" if found["member"] else "unknown"
