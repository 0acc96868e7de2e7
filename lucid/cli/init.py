"""`lucid init`: makes a filespace, and shows the recovery code the only time there is."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from urllib.parse import unquote, urlsplit

import click

from lucid.cli import filespaces
from lucid.cli.secrets import file_option, new_passphrase, warn_if_short
from lucid.cli.terminal import examples, show_json

__all__ = ["command"]

ADVICE = """\
Write it down and keep it where the passphrase is not: it opens the filespace when the passphrase is
lost. It is not stored anywhere and cannot be shown again. Who has lost both has lost the data."""


@click.command(
    "init",
    epilog=examples(
        "lucid init s3://bucket/team", "lucid init file:///srv/store --name Team --block-size 512K"
    ),
)
@click.argument("store")
@click.option("--name", help="What people call it. Default: the last part of STORE.")
@click.option(
    "--block-size",
    default="128K",
    show_default=True,
    metavar="SIZE",
    help="64K, 128K, 256K, 512K or 1M; can never be changed. Larger ones suit large files that are "
    "read in order.",
)
@click.option(
    "--cipher",
    type=click.Choice(filespaces.CIPHERS),
    help="Default: aegis-256, or xchacha20-poly1305 where the processor has no AES.",
)
@file_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, the recovery code included.")
def command(
    store: str,
    name: str | None,
    block_size: str,
    cipher: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a new filespace in STORE: s3://bucket/prefix or file:///directory.

    The bucket must exist; of a directory the last part is made. What is there must be empty. Asks
    for a passphrase, or takes LUCID_PASSPHRASE.
    """
    store = filespaces.tidy(store)
    name = name or _last_part(store)
    size = filespaces.block_size(block_size)
    filespaces.check_free(store)
    missing = filespaces.missing_directory(store)
    secret = new_passphrase(passphrase_file)
    made = filespaces.create(
        store,
        name=name,
        block_size=size,
        cipher=cipher,
        passphrase=secret,
    )
    if missing is not None:
        click.echo(f"lucid: made the directory {missing}", err=True)
    for warning in made["warnings"]:
        click.echo(f"lucid: warning: {warning}", err=True)
    warn_if_short(secret, store)
    if as_json:
        show_json({"store": store, "name": name, **made})
        return
    click.echo(f"Made the filespace {name} in {store}\n")
    click.echo("Recovery code, shown only now:\n")
    click.echo(f"    {made['recovery_code']}\n")
    click.echo(ADVICE)
    click.echo(f"\nMount it with: lucid mount {quote(store)} MOUNTPOINT")


def _last_part(store: str) -> str:
    parts = urlsplit(store)
    return unquote(parts.path).rstrip("/").rpartition("/")[2] or parts.netloc or "filespace"
