"""`lucid passphrase`: changes what unlocks a filespace."""

from __future__ import annotations

from pathlib import Path

import click

from lucid.cli import filespaces
from lucid.cli.secrets import file_option, new_passphrase, passphrase, warn_if_short
from lucid.cli.terminal import examples

__all__ = ["command"]

NEW_ENVIRONMENT = "LUCID_NEW_PASSPHRASE"


@click.command(
    "passphrase",
    epilog=examples(
        "lucid passphrase s3://bucket/team",
        "lucid passphrase s3://bucket/team --passphrase-file old --new-passphrase-file new",
    ),
)
@click.argument("store")
@file_option
@click.option(
    "--new-passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Take the new one from FILE, instead of {NEW_ENVIRONMENT} or a question.",
)
def command(store: str, passphrase_file: Path | None, new_passphrase_file: Path | None) -> None:
    """Change the passphrase of the filespace in STORE.

    The recovery code stays as it is, and is taken where the old passphrase is lost. Nothing is
    encrypted anew; drives that are mounted stay mounted.
    """
    store = filespaces.tidy(store)
    filespaces.check_there(store)
    old = passphrase(passphrase_file, question="Passphrase or recovery code")

    given: list[str] = []

    def new() -> str:
        given.append(
            new_passphrase(
                new_passphrase_file, option="--new-passphrase-file", variable=NEW_ENVIRONMENT
            )
        )
        return given[-1]

    filespaces.change_passphrase(store, old=old, new=new)
    for text in given:
        warn_if_short(text, store)
    click.echo("The passphrase is changed. Drives that are mounted stay mounted.")
