"""`lucid help`: the help of lucid, or of one command."""

from __future__ import annotations

import click

from lucid.cli.terminal import examples

__all__ = ["command"]


@click.command("help", epilog=examples("lucid help", "lucid help mount"))
@click.argument("name", metavar="[COMMAND]", required=False)
@click.pass_context
def command(ctx: click.Context, name: str | None) -> None:
    """Show what lucid does, or what COMMAND does; as `lucid COMMAND --help`."""
    whole = ctx.parent
    assert whole is not None and isinstance(whole.command, click.Group)
    if name is None:
        click.echo(whole.get_help())
        return
    wanted = whole.command.get_command(whole, name)
    if wanted is None:
        raise click.UsageError(f"No such command '{name}'.", whole)
    with click.Context(wanted, info_name=name, parent=whole) as asked:
        click.echo(wanted.get_help(asked))
