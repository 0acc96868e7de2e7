"""Where a passphrase comes from: a file, the environment, or a question on the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from lucid.errors import UsageError

__all__ = ["ENVIRONMENT", "file_option", "new_passphrase", "passphrase", "warn_if_short"]

ENVIRONMENT = "LUCID_PASSPHRASE"
FILE_MAX = 64 * 1024
TRIES = 3
GOOD_LENGTH = 12
"""Characters. Whoever has a copy of the store can try short passphrases one after the other."""

file_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the passphrase from the first line of FILE.",
)


def passphrase(file: Path | None, *, question: str = "Passphrase") -> str:
    """The passphrase, or recovery code, of a filespace that exists.

    Raises UsageError when there is no file, no LUCID_PASSPHRASE and nobody to ask.
    """
    given = _given(file, ENVIRONMENT)
    if given is not None:
        return given
    _need_terminal("--passphrase-file", ENVIRONMENT)
    return str(click.prompt(question, hide_input=True, err=True))


def new_passphrase(
    file: Path | None,
    *,
    question: str = "New passphrase",
    option: str = "--passphrase-file",
    variable: str = ENVIRONMENT,
) -> str:
    """A passphrase to be set: as `passphrase`, and asked for twice."""
    given = _given(file, variable)
    if given is not None:
        return given
    _need_terminal(option, variable)
    for _ in range(TRIES):
        first = str(click.prompt(question, hide_input=True, err=True))
        if first == str(click.prompt("The same again", hide_input=True, err=True)):
            return first
        click.echo("They differ. Once more.", err=True)
    raise UsageError("The two passphrases differ.")


def warn_if_short(text: str, store: str) -> None:
    """In one line, when a new passphrase of the filespace in `store` is easy to guess."""
    if len(text) < GOOD_LENGTH:
        click.echo(
            f"lucid: warning: The passphrase is shorter than {GOOD_LENGTH} characters, and easy to "
            f"guess for whoever can read the store. To take a longer one: lucid passphrase {store}",
            err=True,
        )


def _given(file: Path | None, variable: str) -> str | None:
    if file is not None:
        try:
            with file.open("rb") as lines:
                first = lines.readline(FILE_MAX).rstrip(b"\r\n")
            return _usable(first.decode(), str(file))
        except OSError as error:
            raise UsageError(
                f"The passphrase file {file} cannot be read: {error.strerror}."
            ) from None
        except UnicodeDecodeError:
            raise UsageError(
                f"The first line of the passphrase file {file} is not UTF-8 text."
            ) from None
    if (value := os.environ.get(variable)) is not None:
        return _usable(value, variable)
    return None


def _usable(text: str, source: str) -> str:
    if not text:
        raise UsageError(f"{source} holds no passphrase.")
    return text


def _need_terminal(option: str, variable: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            f"There is no terminal to ask for the passphrase. Set {variable}, or give {option}."
        )
