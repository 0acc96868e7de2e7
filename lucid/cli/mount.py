"""`lucid mount`: asks for the passphrase, goes to the background, and serves the drive there."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lucid.cli import filespaces
from lucid.cli.logs import Log
from lucid.cli.predecessor import refuse_if_mounted, telling_where, wait_for_predecessor
from lucid.cli.secrets import file_option, passphrase
from lucid.cli.terminal import examples, size
from lucid.config import DURABILITIES, LOCK_POLICIES, Config, MiB, parse_retention, parse_size
from lucid.errors import LucidError, UsageError
from lucid.local.staging import DISK_FREE_MIN
from lucid.mount import mountpoint, registry
from lucid.mount.control import ask
from lucid.mount.daemon import in_background
from lucid.mount.options import MountOptions

if TYPE_CHECKING:
    from lucid.filespace.surface import Surface

__all__ = ["command"]

STATE_WAIT_S = 2.0
"""How long the daemon waits for one that is about to let go of the state directory."""
CACHE_LEAST = 64 * MiB
"""Eight segments: what the fetches that are under way at once fill."""


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
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Journal, unsent changes, cache and replica, all ciphertext.  "
    "[default: ~/.local/state/lucid/ID, where ID is the filespace's]",
)
@click.option(
    "--cache-size",
    default="20G",
    show_default=True,
    metavar="SIZE",
    help="What the cache may take on the local disk: 512M, 20G, 1T. At least 64M, or 0 to keep "
    "nothing once it is read.",
)
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default="local",
    show_default=True,
    help="What fsync waits for: the local disk, or the store.",
)
@click.option(
    "--hub",
    envvar="LUCID_HUB",
    default="",
    metavar="URL",
    help="Hear of changes at once through a hub: wss://host, or ws://host:port. See: lucid hub",
)
@click.option(
    "--retention",
    default="7d",
    show_default=True,
    metavar="TIME",
    help="How long removed files and older versions can be brought back: 48h, 7d, 8w, at least "
    "2d. Then their bytes leave the store, about once a day. never: they stay.",
)
@click.option(
    "--lock-policy",
    type=click.Choice(LOCK_POLICIES),
    default="advisory",
    show_default=True,
    help="Whether flock and fcntl locks hold across machines. on-open: a file that is open for "
    "writing is locked too, for programs that never lock. none: on this machine only.",
)
@click.option("--read-only", is_flag=True, help="Change nothing, and write nothing to the store.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground, and log to stderr.")
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTIONS",
    help="Separated by commas. ro: as --read-only. owners: show stored owners, not yours. "
    "allow_other: let other users in. nonempty: mount over files, and hide them.",
)
@file_option
@click.option(
    "--log-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to log.  [default: lucid.log in the state directory; stderr with --foreground]",
)
@click.pass_obj
def command(
    obj: dict[str, bool],
    store: str,
    mountpoint_: str,
    state_dir: Path | None,
    cache_size: str,
    durability: str,
    hub: str,
    retention: str,
    lock_policy: str,
    read_only: bool,
    foreground: bool,
    options: tuple[str, ...],
    passphrase_file: Path | None,
    log_file: Path | None,
) -> int:
    """Mount STORE at MOUNTPOINT and return when the drive is usable.

    STORE is s3://bucket/prefix or file:///directory, MOUNTPOINT an empty directory. Asks for the
    passphrase, or takes LUCID_PASSPHRASE.
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
            hub=hub,
            retention_s=None if retention == "never" else parse_retention(retention),
            lock_policy=lock_policy,
            cache_bytes=_cache_bytes(cache_size),
            state_wait_s=STATE_WAIT_S,
        ),
        foreground,
        log_file and log_file.absolute(),
        obj["debug"],
    )
    mountpoint.require_fuse()
    mountpoint.check(plan.point, nonempty=parsed.nonempty)
    filespaces.check_there(plan.store, plan.config)
    refuse_if_mounted(plan.store, plan.config.state_dir)
    wait_for_predecessor(plan.store, plan.config.state_dir)
    secret = passphrase(passphrase_file)
    with telling_where():
        if foreground:
            return _serve(plan, secret, lambda: None)
        in_background(lambda ready: _serve(plan, secret, ready))
    _tell_if_offline(plan)
    _warn_of_little_room(plan)
    return 0


def _cache_bytes(text: str) -> int:
    """Raises UsageError for a cache that is too small to be of use."""
    size = parse_size(text)
    if 0 < size < CACHE_LEAST:
        raise UsageError(
            f"A cache of {text} is too small. Give --cache-size at least 64M, or 0 to keep nothing."
        )
    return size


def _warn_of_little_room(plan: _Plan) -> None:
    """In one line, when the disk of the state directory cannot hold what it may have to."""
    record = registry.find(plan.point)
    with suppress(LucidError, OSError):  # it is mounted: what cannot be asked now is no failure
        if record is not None:
            status = ask(Path(record.state_directory), "status")
            held = int(status["cache_bytes"]), int(status["staged_bytes"])
            if text := little_room(str(status["state_directory"]), plan.config, *held):
                click.echo(f"lucid: warning: {text}", err=True)


def little_room(place: str, config: Config, cached: int, staged: int) -> str:
    """What to say when less is free than cache or unsent changes may take beyond these; or ""."""
    free = shutil.disk_usage(place).free
    cache, staging = config.cache_bytes - cached, config.staging_bytes - staged
    if free >= max(cache, staging):
        return ""
    return (
        f"Only {size(free)} are free on the disk of {place}; the cache may take {size(cache)} more "
        f"and unsent changes {size(staging)}. With less than {size(DISK_FREE_MIN)} free, writing "
        "is refused. Choose another --state-dir, or make room."
    )


def _tell_if_offline(plan: _Plan) -> None:
    """In one line, when the store did not answer and the drive shows what this device knows."""
    record = registry.find(plan.point)
    with suppress(LucidError):  # it is mounted: what cannot be asked now is no failure
        if record is not None:
            status = ask(Path(record.state_directory), "status")
            if not status["online"]:
                click.echo(
                    f"lucid: mounted offline, with what this device knows; {plan.point} goes "
                    f"online when the store is back. {status['problem']}".rstrip(),
                    err=True,
                )


def _serve(plan: _Plan, secret: str, ready: Callable[[], None]) -> int:
    """In the daemon, or in the foreground. llfuse and the filespace are loaded here, not before."""
    from lucid.mount.serve import serve

    log = Log(debug=plan.debug, foreground=plan.foreground, file=plan.log_file)

    def open_surface() -> Surface:
        surface = filespaces.open_surface(plan.store, secret, plan.config)
        status = surface.status()
        log.into(Path(status.state_directory))
        held = status.cache_bytes, status.staged_bytes
        if text := little_room(status.state_directory, plan.config, *held):
            logging.getLogger(__name__).warning("%s", text)
        return surface

    return serve(open_surface, plan.point, plan.options, store=plan.store, on_ready=ready)
