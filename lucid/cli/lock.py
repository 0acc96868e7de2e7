"""`lucid lock`: who has locked what."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lucid.cli.drive_paths import ask_drive, find
from lucid.cli.terminal import count, examples, local_time, printable, show_json, table
from lucid.errors import NotFound
from lucid.mount.wire import Message

__all__ = ["command"]

TO_THE_END = (1 << 63) - 1


@click.group("lock", epilog=examples("lucid lock ls ~/team", "lucid lock ls ~/team/plan --json"))
def command() -> None:
    """Show who has locked what on a drive."""


@command.command(
    "ls",
    short_help="Show what is locked at PATH or below it.",
    epilog=examples("lucid lock ls ~/team", "lucid lock ls ~/team/plan --json"),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def listing(path: Path, as_json: bool) -> None:
    """Show what is locked at PATH or below it: which machine has each lock, and since when.

    A machine keeps the lock of a file for a while after its programs gave it up, so that they can
    have it again without asking; it goes as soon as another machine wants it. Programs of this
    machine are shown one by one.
    """
    place = find(path, follow=True)
    found = ask_drive(place, "Asking the drive", "locks")
    if not (found["leases"] or found["here"] or os.path.lexists(place.outer)):
        raise NotFound(f"There is no {place.outer}.")
    if as_json:
        show_json(found)
        return
    leases = _strongest(found["leases"])
    lines = [*map(_lease, leases), *map(_lock, found["here"])]
    if not lines:
        click.echo(f"Nothing is locked in {path}.")
        return
    table(("path", "mode", "", "by", "since"), lines)
    held = sum(lease["state"] == "held" for lease in leases)
    waiting = len(leases) - held
    click.echo(
        f"Machines have {count(held, 'lock')}" + (f", and {waiting} wait." if waiting else ".")
    )


def _strongest(leases: list[Message]) -> list[Message]:
    """Without the shared ones of a machine that has the same file exclusively too."""
    alone = {_holder(lease) for lease in leases if lease["mode"] == "exclusive"}
    return [one for one in leases if one["mode"] == "exclusive" or _holder(one) not in alone]


def _holder(lease: Message) -> tuple[object, ...]:
    return lease["inode"], lease["session"], lease["state"]


def _lease(lease: Message) -> tuple[tuple[str, ...], str]:
    who = f"{lease['member']} on {lease['device']}"
    if lease["here"]:
        who += " (this machine)"
    cells = (
        _path(lease), lease["mode"], lease["state"], who, local_time(lease["since_ns"]),
    )  # fmt: skip
    return cells, "yellow" if lease["state"] == "waiting" else ""


def _lock(lock: Message) -> tuple[tuple[str, ...], str]:
    part = ""
    if lock["start"] or lock["end"] != TO_THE_END:
        end = "end" if lock["end"] == TO_THE_END else lock["end"]
        part = f" of bytes {lock['start']} to {end}"
    who = f"{lock['kind']}{part} by process {lock['pid']}{_program(lock['pid'])}"
    cells = (_path(lock), lock["mode"], lock["state"], who, local_time(lock["since_ns"]))
    return cells, "dim"


def _path(row: Message) -> str:
    return printable(row["path"]) if row["path"] else f"inode {row['inode']}"


def _program(pid: int) -> str:
    """Its name, where it still runs."""
    try:
        return f", {printable(os.fsdecode(Path(f'/proc/{pid}/comm').read_bytes().strip()))}"
    except OSError:
        return ""
