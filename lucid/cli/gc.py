"""`lucid gc`: shows what a store holds that nobody needs any more, and frees it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lucid.cli import filespaces
from lucid.cli.secrets import file_option, passphrase
from lucid.cli.terminal import Bar, count, examples, show_json, size
from lucid.config import parse_retention, parse_size

if TYPE_CHECKING:
    from lucid.filespace.collection import Collection, Figure

__all__ = ["command"]


@click.command(
    "gc",
    epilog=examples(
        "lucid gc s3://bucket/team",
        "lucid gc s3://bucket/team --delete",
        "lucid gc s3://bucket/team --delete --retention 30d --json",
    ),
)
@click.argument("store")
@click.option("--delete", is_flag=True, help="Free what is shown. Without it nothing changes.")
@click.option(
    "--retention", metavar="TIME", default="7d", show_default=True,
    help="Keep what was replaced or removed in the last TIME: 48h, 30d, 8w. At least 2d.",
)  # fmt: skip
@click.option(
    "--repack-below", metavar="PART", type=click.FloatRange(0, 1), default=0.5, show_default=True,
    help="Write segments anew of which less than PART is alive. 0: none.",
)  # fmt: skip
@click.option(
    "--repack-max", metavar="SIZE", default="10G", show_default=True,
    help="Write at most SIZE of live data anew at a time.",
)  # fmt: skip
@file_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(
    store: str,
    delete: bool,
    retention: str,
    repack_below: float,
    repack_max: str,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Free what the filespace in STORE does not need any more.

    Older versions and removed files are kept for the retention; then they, the log entries and the
    checkpoints below them can go. Files that are there lose nothing. Drives may be mounted and
    written meanwhile. What was freed cannot be restored. What is alive in segments that are mostly
    dead is written anew, and these go with a later run, after the retention.
    """
    store = filespaces.tidy(store)
    seconds = parse_retention(retention)
    most = parse_size(repack_max)
    filespaces.check_there(store)
    secret = passphrase(passphrase_file)
    with Bar("Collecting" if delete else "Looking") as bar:

        def report(stage: str, done: int, total: int | None) -> None:
            bar.show(done, total or 0, f"{stage} {done:,}" + (f" of {total:,}" if total else ""))

        found = filespaces.collect(
            store, secret, delete=delete, retention_s=seconds, repack_below=repack_below,
            repack_max=most, report=report,
        )  # fmt: skip
    if as_json:
        show_json(found.as_json())
    else:
        _show(found, store)


def _show(found: Collection, store: str) -> None:
    done = found.deleted
    click.echo(f"{found.name or found.filespace}: log entries up to {found.head:,}")
    if not found.freed_objects:
        click.echo("Nothing can be freed.")
    else:
        click.echo(f"{'Freed' if done else 'Can be freed'}: {size(found.freed_bytes)}")
        _line("segments", found.segments)
        _line("log entries", found.log)
        _line("parts of checkpoints", found.checkpoints)
    kept = found.kept_segments
    click.echo(f"Kept: {count(kept.count, 'segment')}, {size(kept.bytes)}")
    click.echo(f"  files as they are     {size(found.current_bytes)} ({found.live_ratio:.0%})")
    click.echo(f"  versions and removed  {size(found.retained_bytes)}")
    if found.young_segments.count:
        young = found.young_segments
        click.echo(
            f"  not named, too young  {size(young.bytes)} in {count(young.count, 'segment')}"
        )
    if found.repacked.count:
        sparse = found.repacked
        click.echo(
            f"{'Written' if done else 'Would be written'} anew: what is alive in"
            f" {count(sparse.count, 'mostly dead segment')}. {size(sparse.bytes)} can be freed for"
            " that, after the retention."
        )
    if found.floor:
        click.echo(
            f"The floor {'is' if done else 'would be'} at entry {found.floor:,}; the log "
            f"{'begins' if done else 'would begin'} at entry {found.first_entry:,}."
        )
    for note in found.notes:
        click.echo(note)
    for warning in found.warnings:
        click.secho(f"warning: {warning}", fg="yellow")
    if (found.freed_objects or found.repacked.count) and not done:
        click.echo(f"Nothing was deleted. To free it: lucid gc {store} --delete")


def _line(what: str, figure: Figure) -> None:
    if figure.count:
        click.echo(f"  {what:<21} {size(figure.bytes)} in {figure.count:,}")
