"""`lucid wait`: returns when a drive shows what another machine had at a moment."""

from __future__ import annotations

from pathlib import Path

import click

from lucid.cli.terminal import examples, show_json
from lucid.errors import NotMounted, TimedOut
from lucid.format.token import parse_token
from lucid.mount import registry
from lucid.mount.control import Call, ask
from lucid.types import SystemClock

__all__ = ["command"]

TURN_S = 15.0
"""The drive is asked anew after so long."""
SLACK_S = 10.0


@click.command(
    "wait",
    epilog=examples(
        "lucid wait 1a2b3c4d-1234-0123456789abcdef",
        "ssh other lucid wait $(lucid sync ~/team --json | jq -r .token) && ssh other make",
    ),
)
@click.argument("token")
@click.argument(
    "mountpoint_", metavar="[MOUNTPOINT]", required=False, type=click.Path(path_type=Path)
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait; then the exit code is 24.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(token: str, mountpoint_: Path | None, timeout_s: float, as_json: bool) -> None:
    """Return when a drive shows everything that TOKEN stands for.

    TOKEN is what `lucid sync` printed on another machine. Without MOUNTPOINT every drive of that
    filespace on this machine is waited for.
    """
    filespace = parse_token(token).filespace
    clock = SystemClock()
    end = clock.monotonic() + timeout_s
    drives = _drives(filespace, mountpoint_)
    heads = {}
    for record in drives:
        heads[record.point] = _wait(record, token, end, clock)
    if as_json:
        show_json({"token": token, "drives": heads})
    else:
        for point in heads:
            click.echo(f"Visible: {point}")


def _drives(filespace: str, point: Path | None) -> list[registry.Record]:
    """Which drives to wait for. Raises NotMounted."""
    if point is not None:
        return [registry.containing(point.resolve())]
    found = [
        record
        for record in registry.records()
        if record.phase == "mounted"
        and str(ask(Path(record.state_directory), "status")["filespace"]).startswith(filespace)
    ]
    if not found:
        raise NotMounted("No drive of the filespace that the token is of is mounted here.")
    return found


def _wait(record: registry.Record, token: str, end: float, clock: SystemClock) -> int:
    while True:
        left = end - clock.monotonic()
        asked_s = max(0.0, min(left, TURN_S))
        try:
            with Call(Path(record.state_directory), "wait", token=token, timeout_s=asked_s) as call:
                answer = call.next(asked_s + SLACK_S)
        except TimedOut:
            if clock.monotonic() >= end:
                raise
            continue
        if answer is None:
            raise TimedOut("The daemon of this drive does not answer.")
        return int(answer["result"]["head"])
