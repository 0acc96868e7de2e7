"""`lucid cache`: what the local cache of a drive holds, and emptying it."""

from __future__ import annotations

from pathlib import Path

import click

from lucid.cli.terminal import examples, show_json, size
from lucid.mount import mountpoint, registry
from lucid.mount.control import ask

__all__ = ["command"]


@click.command("cache", epilog=examples("lucid cache ~/team", "lucid cache ~/team --clear"))
@click.argument("mountpoint_", metavar="MOUNTPOINT")
@click.option("--clear", is_flag=True, help="Drop what can be fetched again.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(mountpoint_: str, clear: bool, as_json: bool) -> None:
    """Show or empty the local cache of a mounted drive.

    What is not uploaded yet is no part of the cache and stays.
    """
    record = registry.at(mountpoint.absolute(mountpoint_))
    cache = ask(Path(record.state_directory), "cache", clear=clear)
    if as_json:
        show_json(cache)
        return
    if clear:
        click.echo(f"{size(cache['freed'])} freed.")
    click.echo(
        f"{size(cache['bytes'])} of {size(cache['limit'])} used, "
        f"{cache['hits']:,} reads from the cache, {cache['misses']:,} from the store."
    )
