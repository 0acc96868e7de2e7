"""`lucid version`."""

from __future__ import annotations

import platform

import click

import lucid
from lucid.cli.terminal import examples, show_json

__all__ = ["command"]


@click.command("version", epilog=examples("lucid version", "lucid version --json"))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """Show the version."""
    if as_json:
        show_json({"lucid": lucid.__version__, "python": platform.python_version()})
    else:
        click.echo(f"lucid {lucid.__version__}")
