"""`lucid watch`: tells who changes what, as it happens; to a terminal, a program, or a webhook."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from lucid.cli import drive_paths
from lucid.cli.drive_paths import DrivePath
from lucid.cli.posting import SECRET_ENVIRONMENT, Poster
from lucid.cli.terminal import examples, local_time, printable
from lucid.errors import TimedOut
from lucid.mount.control import Call
from lucid.mount.wire import Message

__all__ = ["command"]

ANSWER_S = 60.0
"""An answer comes after 20 s at the latest."""
POSTED_AT_ONCE = 100

Tell = Callable[[list[dict[str, Any]]], None]


@click.command(
    "watch",
    epilog=examples(
        "lucid watch ~/team",
        "lucid watch ~/team/reports --json | jq -r .path",
        "lucid watch ~/team --exec 'notify-send \"$LUCID_MEMBER: $LUCID_KIND $LUCID_PATH\"'",
        "lucid watch ~/team --webhook https://example.org/changed",
    ),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object a line.")
@click.option(
    "--exec",
    "program",
    metavar="COMMAND",
    help="Run this for each change, with the JSON on stdin and LUCID_KIND, LUCID_PATH, LUCID_TO, "
    "LUCID_MEMBER, LUCID_DEVICE, LUCID_TIME and LUCID_FILE.",
)
@click.option(
    "--webhook",
    "url",
    metavar="URL",
    help="Post changes there as JSON, again and again until they are taken. Signed, where "
    f"{SECRET_ENVIRONMENT} is set.",
)
def command(path: Path, as_json: bool, program: str | None, url: str | None) -> None:
    """Tell who changes what at or below PATH on a mounted drive, until Ctrl-C.

    A change is told when it is visible here: of other machines, and of this one once it is in the
    store.
    """
    place = drive_paths.find(path, follow=True)
    tellers: list[Tell] = [_show_json if as_json else _show]
    if program is not None:
        tellers.append(lambda changes: _run(program, changes))
    if url is not None:
        tellers.append(Poster(url, os.environ.get(SECRET_ENVIRONMENT, "")).post)
    after = int(_ask(place, 0, 0.0)["after"])
    yet = "" if os.path.lexists(place.outer) else " (nothing is there yet)"
    click.echo(f"lucid: watching {place.outer}{yet}", err=True)
    while True:
        answer = _ask(place, after)
        after = int(answer["after"])
        if answer["missed"]:
            click.echo("lucid: some changes came too fast and are not told", err=True)
        changes = [_change(place, each) for each in answer["changes"]]
        for start in range(0, len(changes), POSTED_AT_ONCE):
            for tell in tellers:
                tell(changes[start : start + POSTED_AT_ONCE])


def _ask(place: DrivePath, after: int, wait_s: float | None = None) -> Message:
    """Changes after an entry. Raises NotMounted when the drive is gone, TimedOut when it hangs."""
    fields: dict[str, object] = {"after": after, "path": place.inner}
    if wait_s is not None:
        fields["wait_s"] = wait_s
    with Call(Path(place.record.state_directory), "changes", **fields) as call:
        answer = call.next(ANSWER_S)
    if answer is None:
        raise TimedOut("The daemon of this drive does not answer.")
    result: Message = answer["result"]
    return result


def _change(place: DrivePath, told: Message) -> dict[str, Any]:
    """As people and programs get it. Paths are those on the drive, `file` is here."""
    seconds, rest = divmod(int(told["time_ns"]), 10**9)
    when = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    change = {
        "time": f"{when}.{rest // 10**6:03d}Z",
        "time_ns": told["time_ns"],
        "sequence": told["sequence"],
        "kind": told["kind"],
        "path": told["path"],
        "member": told["member"],
        "device": told["device"],
        "file": place.outer_of(told["to"] or told["path"]),
    }
    return change | ({"to": told["to"]} if told["to"] else {})


def _show(changes: list[dict[str, Any]]) -> None:
    for change in changes:
        where = change["path"] + (f" -> {change['to']}" if "to" in change else "")
        when, who = local_time(change["time_ns"]), f"{change['member']} on {change['device']}"
        click.echo(f"{when}  {printable(who)}  {change['kind']:<10}  {printable(where)}")


def _show_json(changes: list[dict[str, Any]]) -> None:
    for change in changes:
        click.echo(json.dumps(change))


def _run(program: str, changes: list[dict[str, Any]]) -> None:
    """One after the other; a program that fails is told, and the next change goes on."""
    for change in changes:
        fields = ("kind", "path", "to", "member", "device", "time", "file")
        given = {f"LUCID_{name.upper()}": str(change.get(name, "")) for name in fields}
        done = subprocess.run(
            ["/bin/sh", "-c", program],
            input=json.dumps(change) + "\n",
            text=True,
            env=os.environ | given,
            check=False,
        )
        if done.returncode:
            click.echo(f"lucid: the command ended with {done.returncode}", err=True)
