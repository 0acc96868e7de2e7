"""`lucid fsck`: looks through everything in a store and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lucid.cli import filespaces
from lucid.cli.secrets import file_option, passphrase
from lucid.cli.terminal import Bar, count, examples, show_json, size
from lucid.errors import DataError

if TYPE_CHECKING:
    from lucid.filespace.fsck import FsckReport

__all__ = ["command"]


@click.command(
    "fsck",
    epilog=examples("lucid fsck s3://bucket/team", "lucid fsck s3://bucket/team --read-data"),
)
@click.argument("store")
@click.option("--read-data", is_flag=True, help="Fetch and open every block too. Takes long.")
@file_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(store: str, read_data: bool, passphrase_file: Path | None, as_json: bool) -> int:
    """Check a filespace in its store: the whole log, and every object that it names.

    Changes nothing, and may run while the filespace is in use. Exits with 8 when something is
    wrong.
    """
    store = filespaces.tidy(store)
    filespaces.check_there(store)
    secret = passphrase(passphrase_file)
    with Bar("Checking") as bar:

        def report(stage: str, done: int, total: int | None) -> None:
            bar.show(done, total or 0, f"{stage} {done:,}" + (f" of {total:,}" if total else ""))

        found = filespaces.check(store, secret, read_data=read_data, report=report)
    if as_json:
        show_json(found.as_json())
    else:
        _show(found)
    return 0 if found.clean else DataError.exit_code


def _show(found: FsckReport) -> None:
    click.echo(
        f"{found.name or found.filespace}: log entries {found.entries:,}, "
        f"inodes {found.inodes:,}, segments {found.segments:,} ({size(found.segment_bytes)})"
    )
    if found.blocks_read:
        click.echo(f"{count(found.blocks_read, 'block')} fetched and opened")
    if found.void_entries:
        click.echo(f"{found.void_entries:,} of the entries are void: they change nothing")
    if found.orphans:
        click.echo(
            f"{count(found.orphans, 'object')} ({size(found.orphan_bytes)}) that no entry names: "
            "uploads that are under way, or were given up"
        )
    for warning in found.warnings:
        click.secho(f"warning: {warning}", fg="yellow")
    for problem in found.problems:
        click.secho(f"wrong: {problem}", fg="red")
    click.echo("Everything is as it should be." if found.clean else _verdict(len(found.problems)))


def _verdict(problems: int) -> str:
    return f"{count(problems, 'problem')}. What is named above cannot be read from this store."
