"""`lucid`: finds the command, runs it, turns what it raises into one sentence and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from lucid.cli.hints import hint_for
from lucid.cli.terminal import examples
from lucid.errors import InternalError, LucidError, UsageError
from lucid.mount.wire import sentence

__all__ = ["cli", "main"]

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""

COMMANDS = {
    "init": "Make a new filespace in a bucket or a directory.",
    "mount": "Mount a filespace as a local drive.",
    "umount": "Unmount a drive when all its changes are in the store.",
    "status": "Show the mounted drives, what is not uploaded, and problems.",
    "sync": "Wait until a file or a drive is in the store.",
    "wait": "Wait until a drive shows what another machine has synced.",
    "watch": "Tell who changes what, as it happens.",
    "lock": "Show who has locked what.",
    "hub": "Run a server through which changes are heard of at once.",
    "versions": "Show older versions of a file, and what was removed.",
    "restore": "Bring back an older version, or what was removed.",
    "fsck": "Check everything that a store holds of a filespace.",
    "gc": "Free what a store holds that nobody needs any more.",
    "cache": "Show or empty the local cache of a drive.",
    "bench": "Measure store, disk and mount, and say which is the limit.",
    "passphrase": "Change the passphrase of a filespace.",
    "version": "Show the version.",
    "help": "Show this, or what a command does.",
}
"""Command -> what it does. The module of that name in lucid.cli holds a click command `command`."""


MANY_OBJECTS = 20_000
"""Objects that are made before the collector looks. Modules make many that stay, and by default it
looks through them again and again while they are loaded: a sixth of the time that takes. In a
daemon an entry that is folded makes many at once."""

gc.set_threshold(MANY_OBJECTS, 20, 100)

# Before numpy is loaded: its BLAS would start threads then. A daemon that forks must have none, and
# they would take SIGTERM away from the thread that waits for it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class Commands(click.Group):
    """Imports a command's module when it is run or its own help is wanted, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"lucid.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    epilog=examples(
        "lucid init s3://bucket/team",
        "lucid mount s3://bucket/team ~/team",
        "lucid mount --help",
    ),
)
@click.version_option(package_name="lucidfs", message="lucid %(version)s")
@click.option("--debug", is_flag=True, envvar="LUCID_DEBUG", help="Log more, and show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """An encrypted team drive on nothing but a bucket."""
    ctx.obj = {"debug": debug}
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code."""
    try:
        status = cli.main(arguments, prog_name="lucid", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        return _usage(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("lucid: interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        return _complain(error.format_message(), "", UsageError.exit_code)
    except LucidError as error:
        _show_traceback(arguments)
        return _complain(sentence(error), hint_for(error), error.exit_code)
    except BrokenPipeError:
        # `lucid status | head -1`: whoever read has had enough. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _our_bug(error, arguments)


def _complain(text: str, hint: str, status: int) -> int:
    click.echo(f"lucid: {text}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
    return status


def _usage(error: click.UsageError) -> int:
    path = error.ctx.command_path if error.ctx is not None else "lucid"
    return _complain(error.format_message(), f"See: {path} --help", UsageError.exit_code)


def _our_bug(error: Exception, arguments: Sequence[str] | None) -> int:
    _show_traceback(arguments)
    text = f"This is a bug in lucid: {type(error).__name__}: {error}"
    return _complain(
        text, "Please report it with the output of: lucid --debug ...", InternalError.exit_code
    )


def _show_traceback(arguments: Sequence[str] | None) -> None:
    """Of the error that is being handled, where --debug or LUCID_DEBUG asks for it."""
    given = sys.argv[1:] if arguments is None else arguments
    if "--debug" in given or os.environ.get("LUCID_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
