"""`lucid mount`: asks for the passphrase, goes to the background, and serves the drive there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lucid.cli import filespaces
from lucid.cli.logs import Log
from lucid.cli.secrets import file_option, passphrase
from lucid.cli.terminal import Bar, examples
from lucid.cli.uploads import LOOK_S, show_progress
from lucid.config import DURABILITIES, Config, parse_size
from lucid.errors import NotMounted
from lucid.mount import mountpoint, registry
from lucid.mount.control import ask
from lucid.mount.daemon import in_background
from lucid.mount.options import MountOptions

if TYPE_CHECKING:
    from lucid.filespace.surface import Surface

__all__ = ["command"]

STATE_WAIT_S = 2.0
"""How long the daemon waits for one that is about to let go of the state directory."""


@dataclass(frozen=True)
class _Plan:
    """What was asked for, checked."""

    store: str
    point: Path
    options: MountOptions
    config: Config
    foreground: bool
    log_file: Path | None
    debug: bool


@click.command(
    "mount",
    epilog=examples(
        "lucid mount s3://bucket/team ~/team",
        "lucid mount file:///srv/store /mnt --foreground -o owners,allow_other",
    ),
)
@click.argument("store")
@click.argument("mountpoint_", metavar="MOUNTPOINT")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Journal, cache and replica.")
@click.option(
    "--cache-size", default="20G", show_default=True, metavar="SIZE", help="512M, 20G, 1T."
)
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default="local",
    show_default=True,
    help="What fsync waits for: the local disk, or the store.",
)
@click.option("--read-only", is_flag=True, help="Change nothing.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground and log to stderr.")
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTIONS",
    help="owners: show stored owners. allow_other: let other users in. nonempty: hide files there.",
)
@file_option
@click.option(
    "--log-file", type=click.Path(path_type=Path), help="Default: in the state directory."
)
@click.pass_obj
def command(
    obj: dict[str, bool],
    store: str,
    mountpoint_: str,
    state_dir: Path | None,
    cache_size: str,
    durability: str,
    read_only: bool,
    foreground: bool,
    options: tuple[str, ...],
    passphrase_file: Path | None,
    log_file: Path | None,
) -> int:
    """Mount STORE at MOUNTPOINT and return when the drive is usable.

    Asks for the passphrase, or takes LUCID_PASSPHRASE.
    """
    parsed = MountOptions.parse(options, read_only=read_only)
    plan = _Plan(
        filespaces.tidy(store),
        mountpoint.absolute(mountpoint_),
        parsed,
        Config(
            state_dir=state_dir and state_dir.absolute(),
            read_only=parsed.read_only,
            durability=durability,
            cache_bytes=parse_size(cache_size),
            state_wait_s=STATE_WAIT_S,
            log_level="debug" if obj["debug"] else "info",
        ),
        foreground,
        log_file and log_file.absolute(),
        obj["debug"],
    )
    mountpoint.require_fuse()
    mountpoint.check(plan.point, nonempty=parsed.nonempty)
    secret = passphrase(passphrase_file)
    _wait_for_the_last_one(plan)
    if foreground:
        return _serve(plan, secret, lambda: None)
    in_background(lambda ready: _serve(plan, secret, ready))
    return 0


def _wait_for_the_last_one(plan: _Plan) -> None:
    """A daemon that a plain umount left uploading holds the state directory until it is done."""
    place = plan.config.state_dir
    for record in registry.records():
        directory = Path(record.state_directory)
        elsewhere = place is not None and place.resolve() != directory.resolve()
        # A moment after the umount the record may still say that the drive is mounted.
        unmounted = record.phase == "closing" or mountpoint.find(Path(record.point)) is None
        if record.store != plan.store or elsewhere or not unmounted:
            continue
        click.echo(f"Process {record.pid} still uploads from the last mount.", err=True)
        with Bar("Uploading") as bar:
            while not registry.wait_for_end(record, LOOK_S):
                with suppress(NotMounted):  # it has just let go; then it ends
                    show_progress(bar, ask(directory, "progress"))


def _serve(plan: _Plan, secret: str, ready: Callable[[], None]) -> int:
    """In the daemon, or in the foreground. llfuse and the filespace are loaded here, not before."""
    from lucid.mount.serve import serve

    log = Log(debug=plan.debug, foreground=plan.foreground, file=plan.log_file)

    def open_surface() -> Surface:
        surface = filespaces.open_surface(plan.store, secret, plan.config)
        log.into(Path(surface.status().state_directory))
        return surface

    return serve(open_surface, plan.point, plan.options, store=plan.store, on_ready=ready)
